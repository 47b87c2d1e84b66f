"""The one place that says how dgrt itself is installed. There is no package of that name in the registry."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

_PROJECT_FILE = "pyproject.toml"


def install_hint(extra: str = "") -> str:
    """Returns the pip command that installs dgrt: from these sources, or from where pip took the installed package.

    Args:
        extra: An extra to install with it, such as "export".

    Example:
        >>> install_hint("export").startswith("pip install ")
        True
    """
    wanted = f"[{extra}]" if extra else ""
    root = Path(__file__).resolve().parents[1]
    if (root / _PROJECT_FILE).is_file():
        return f"pip install -e '{root}{wanted}'"
    origin = _origin()
    return f"pip install '.{wanted}' in a clone of dgrt" if origin is None else f"pip install '{origin}{wanted}'"


def _origin() -> Path | None:
    """The folder or wheel that pip installed, as its record (direct_url.json) says, if it is still there."""
    try:
        record = json.loads(distribution("dgrt").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return None
    url = urlsplit(record.get("url", ""))
    path = Path(unquote(url.path))
    return path if url.scheme == "file" and (path.is_file() or (path / _PROJECT_FILE).is_file()) else None
