"""The Python packages that some sources and `[geo]` need, and that only some hosts have."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

NEEDS: Final = ("docker", "redis")  # types of sources that need the package of their name, and the extra


def missing(package: str, extra: str = "") -> str:
    """Return what to do about a package that is not installed, with the extra that has it; "" where it is."""
    if find_spec(package) is not None:
        return ""
    return f"needs the Python package {package}, which is not installed: pip install mailward[{extra or package}]"
