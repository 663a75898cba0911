"""Prints one ``package==version`` a line: the lower bound of everything that pyproject.toml asks for (make floors)."""

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def floors(extras: tuple[str, ...] = ("lab", "detection", "export", "test")) -> list[str]:
    """The lower bounds of the core and of some extras, as constraints for pip."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(one for name in extras for one in project["optional-dependencies"][name])]
    bounds = []
    for requirement in asked:
        name = re.match(r"[\w-]+", requirement)
        floor = re.search(r">=([\w.]+)", requirement)
        if name and name[0] != project["name"]:
            if floor is None:
                raise SystemExit(f"{requirement} has no lower bound")
            bounds.append(f"{name[0]}=={floor[1]}")
    return bounds


if __name__ == "__main__":
    sys.stdout.write("\n".join(floors()) + "\n")
