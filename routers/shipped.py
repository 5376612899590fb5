"""The bundles that come with routelearn, in models/, by their names."""

from __future__ import annotations

from pathlib import Path

MODELS = Path(__file__).resolve().parent.parent / "models"
#: The file that makes a folder a bundle.
_MANIFEST = "router.json"


def shipped_names() -> list[str]:
    """The names of the bundles that come with routelearn."""
    return sorted(path.parent.name for path in MODELS.glob(f"*/{_MANIFEST}"))


def shipped_or_path(path: str | Path) -> str | Path:
    """The folder of a bundle that comes with routelearn, where the path is its name and no such folder is here.

    Args:
        path: a bundle folder, or a name.
    """
    name = str(path)
    if Path(name).name == name and (MODELS / name / _MANIFEST).is_file() and not (Path(name) / _MANIFEST).is_file():
        return MODELS / name
    return path
