"""Badges of Colab and Binder, and Colab's install cell, by the address in pyproject.toml: `python notebooks/badges.py`.

Where pyproject.toml has no [project.urls] Repository on GitHub, as today, there is no badge.
"""

import re
import tomllib
from pathlib import Path

PAGES = Path(__file__).parent
BETWEEN = re.compile(r"(?<=<!-- badges -->\n).*?(?=<!-- /badges -->)", re.DOTALL)


def badges(urls: dict[str, str], pages: list[str]) -> str:
    """A line a page with its badges, and the cell that Colab needs; nothing without an address on GitHub."""
    found = re.search(r"github\.com/([^/]+/[^/.]+)", urls.get("Repository", ""))
    if found is None:
        return ""
    colab, binder = "https://colab.research.google.com", "https://mybinder.org"
    lines = [
        f"- {page}: [![Open in Colab]({colab}/assets/colab-badge.svg)]({colab}/github/{found[1]}/blob/main/notebooks/{page}) "
        f"[![Binder]({binder}/badge_logo.svg)]({binder}/v2/gh/{found[1]}/main?labpath=notebooks/{page})\n"
        for page in pages
    ]
    return f"On Colab, first run `%pip install 'prockd[lab] @ git+https://github.com/{found[1]}'`.\n\n{''.join(lines)}"


def main() -> None:
    """Write them into README.md."""
    project = tomllib.loads((PAGES.parent / "pyproject.toml").read_text("utf-8"))["project"]
    text = badges(project.get("urls", {}), sorted(path.name for path in PAGES.glob("0*.ipynb")))
    readme = PAGES / "README.md"
    readme.write_text(BETWEEN.sub(lambda _: text, readme.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
