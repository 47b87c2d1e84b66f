"""Sources without the native extension step aside for an installed dgrt.

After `pip install .`, Python that starts inside the clone finds the folder `dgrt/` of the clone before the installed
package. That folder has no extension, so `dgrt/__init__.py` hands over to the installed package, all of it: Python
sources and an extension of two builds are never mixed. An editable install is not concerned: its extension is found.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
set_aside: Path | None = None  # these sources, once an installed package has taken their place


def step_aside() -> None:
    """Replaces the package that is being imported by an installed one, if only that has a native extension.

    Example:
        >>> step_aside()  # nothing to do: this package has one
        >>> set_aside is None
        True
    """
    global set_aside
    if importlib.util.find_spec("dgrt._native") is not None:
        return
    spec = _installed()
    if spec is None or spec.loader is None:
        return
    package = importlib.util.module_from_spec(spec)
    set_aside = SOURCES
    sys.modules["dgrt"] = package  # what `import dgrt` returns is what stands here when it ends
    spec.loader.exec_module(package)


def _installed() -> ModuleSpec | None:
    for entry in sys.path:
        spec = PathFinder.find_spec("dgrt", [entry])
        folders = list(spec.submodule_search_locations or ()) if spec is not None else []
        if spec is not None and spec.has_location and PathFinder.find_spec("dgrt._native", folders) is not None:
            return spec
    return None
