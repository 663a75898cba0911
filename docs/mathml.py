"""Mathematics as MathML, which browsers draw without a script or a network; headings and docstrings as meant."""

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx


def inline(self: Any, node: nodes.math) -> None:
    """A formula in a line."""
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def block(self: Any, node: nodes.math_block) -> None:
    """A formula of its own."""
    self.body.append(f'<div class="math" style="overflow-x:auto">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def jupyter_slug(title: str) -> str:
    """The anchor of a heading, as JupyterLab makes it."""
    return title.replace(" ", "-")


def lengths(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """In docstrings ``|u|`` is a length, and no substitution."""
    lines[:] = [
        line if ">>>" in line else re.sub(r"(``.*?``)|\|", lambda found: found[1] or r"\|", line) for line in lines
    ]


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the renderer and the reading of docstrings."""
    app.connect("autodoc-process-docstring", lengths)
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
