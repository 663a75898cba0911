"""How Sphinx builds the pages that ``stage.py`` has put together; nothing here or in the pages needs a network."""

import os
import pydoc
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from docutils import nodes
from docutils.nodes import Element
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError

import prockd
from prockd.settings.knobs import Knobs

sys.path.insert(0, str(Path(__file__).parent))
from stage import knob_rst, public_names

project, author, copyright = "prockd", "the prockd authors", "the prockd authors, Apache-2.0; texts CC BY 4.0"
version = release = prockd.__version__
extensions = [
    "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"
]  # fmt: skip

html_theme, html_title = "furo", "prockd"
html_static_path, html_css_files = [str(Path(__file__).with_name("_static"))], ["prockd.css"]
html_show_sourcelink = html_copy_source = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}
html_math_renderer = "mathml"  # browsers draw it themselves: no script, no font, no network

nb_execution_mode = "off"  # notebooks are shown as they were saved
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]  # no kernel: its picture
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # a notebook may begin a part with a small heading
copybutton_exclude = ".linenos, .gp, .go"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "show-inheritance": True}
maximum_signature_line_length = 88
napoleon_use_ivar = True
toc_object_entries_show_parents = "hide"
nitpicky = True  # a name in a docstring that leads nowhere is an error, if it is one of ours
nitpick_ignore_regex = [("py:.*", r"(?!prockd\.).*")]


def mathml(formula: str, *, as_block: bool) -> str:
    """A formula of LaTeX as MathML; of what docutils does not know, what comes nearest."""
    formula = re.sub(r"\\[bB]igg?[lr]?(?![a-zA-Z])", "", formula.replace(r"\dots", r"\ldots"))
    formula = re.sub(r"\\(hat|bar|tilde) *(\w|\{[^{}]*\})", r"{\\\1 \2{}}", formula)  # else an index goes below
    return str(tex2mathml(formula, as_block=as_block))


def math_inline(self: Any, node: nodes.math) -> None:
    """Draw a formula within a line."""
    self.body.append(mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def math_block(self: Any, node: nodes.math_block) -> None:
    """Draw a formula of its own."""
    self.body.append(f'<div class="math">{mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def name_without_page(app: Sphinx, env: BuildEnvironment, node: Element, shown: Element) -> Element | None:
    """A name that is documented by a shorter one leads there; one that is not public is shown, if it exists."""
    target = str(node.get("reftarget", ""))
    if node.get("refdomain") != "py" or not target.startswith("prockd."):
        return None
    if (found := pydoc.locate(target)) is None:
        return None  # which nitpicky tells
    short = next((name for name, (_, value) in public_names().items() if value is found and name != target), None)
    if short is None:
        return shown
    builder, home = app.builder, str(node.get("refdoc", ""))
    return env.domains.python_domain.resolve_xref(env, home, builder, "obj", short, pending_xref(refdomain="py"), shown)


def shorter_signature(_: Sphinx, __: str, ___: str, obj: object, *____: Any) -> tuple[str, str] | None:
    """Knobs have a table: their signature would fill a screen."""
    return ("(**knobs)", "") if isinstance(obj, type) and issubclass(obj, Knobs) else None


def longer_docstring(_: Sphinx, __: str, ___: str, obj: object, ____: object, lines: list[str]) -> None:
    """Each knob with range, default and meaning, below the docstring of its class; and |x| is no substitution."""
    lines[:] = [re.sub(r"(?<![`\\])\|(?!`)", r"\\|", line) for line in lines]
    if isinstance(obj, type) and issubclass(obj, Knobs) and obj is not Knobs:
        lines += ["", *knob_rst(obj)]


def kept_from_napoleon(_: Sphinx, what: str, name: str, __: object, ___: object, lines: list[str]) -> None:
    """The docstring of a property is a sentence: napoleon takes what stands before a colon for a type."""
    if what == "property":
        lines[:] = SENTENCES.pop(name) if name in SENTENCES else SENTENCES.setdefault(name, list(lines))


SENTENCES: dict[str, list[str]] = {}


class Page(HTMLParser):
    """What a page links to, and the places in it that links may lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.ids = set[str](), set[str]()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep ids and addresses."""
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.ids.add(value or "")
            elif name in ("href", "src") and value:
                self.links.add(value)


def dead_links(folder: Path) -> Iterator[str]:
    """Every link of the built pages that leads to no file, or to no place in its page, or fetches from elsewhere."""
    pages = {path.resolve(): Page(path) for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts}
    for path, page in pages.items():
        for link in sorted(page.links):
            to = urlsplit(link)
            if to.scheme or to.netloc:
                continue
            target = (path.parent / unquote(to.path)).resolve() if to.path else path
            place = unquote(to.fragment)
            if not target.exists():
                yield f"{path.relative_to(folder.resolve())}: {link} is not there"
            elif place and target in pages and place not in pages[target].ids:
                yield f"{path.relative_to(folder.resolve())}: {link} leads to no place of that page"


def check_links(app: Sphinx, failure: Exception | None) -> None:
    """Refuse pages with dead links."""
    if failure is None and app.builder.format == "html" and (dead := list(dead_links(Path(app.outdir)))):
        raise ExtensionError("dead links:\n" + "\n".join(dead))


def setup(app: Sphinx) -> None:
    """Connect the above."""
    os.environ.setdefault("PROCKD_CACHE", str(Path(app.doctreedir) / "cache"))
    app.add_html_math_renderer("mathml", (math_inline, None), (math_block, None))
    app.connect("missing-reference", name_without_page)
    app.connect("autodoc-process-signature", shorter_signature)
    app.connect("autodoc-process-docstring", longer_docstring)
    app.connect("autodoc-process-docstring", kept_from_napoleon, priority=400)
    app.connect("autodoc-process-docstring", kept_from_napoleon, priority=600)
    app.connect("build-finished", check_links)
