"""The version, from the native extension; a checkout without a built extension asks the installed metadata.

`dgrt.h` is the one place that defines it. Knows nothing else of the package.
"""

try:
    from dgrt._native import __version__
except ImportError:
    from importlib.metadata import PackageNotFoundError, version

    try:
        __version__ = version("dgrt")
    except PackageNotFoundError:
        __version__ = "0+unbuilt"

__all__ = ["__version__"]
