"""The slides of the lecture as one page that needs no network: `make slides`.

slides.md is written by hand; pictures and tables are the saved outputs of the pages (``PAGE.ipynb#CELL``), so that no
number of a slide can grow old. nbconvert makes reveal.js slides of it; reveal.js 4 itself is fetched once by npm, or
read from the folder named by REVEAL.
"""

import base64
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter

HERE, PAGES = Path(__file__).parent, Path(__file__).parents[2]


def saved(where: str) -> dict[str, str]:
    """The outputs of a cell of a page, by their kind."""
    page, cell = where.split("#")
    outputs = next(c.outputs for c in nbformat.read(PAGES / page, 4).cells if c.id == cell)
    return {
        kind: value for o in outputs for kind, value in (o.get("data") or {"text/plain": o.get("text", "")}).items()
    }


def picture(match: "re.Match[str]") -> str:
    """An image of the slides with its pixels in it."""
    alt, where = match.groups()
    if "#" in where:
        found = saved(where)
        kind = "image/jpeg" if "image/jpeg" in found else "image/png"
        data = found[kind]
    else:
        kind, data = "image/png", base64.b64encode((PAGES / where).read_bytes()).decode()
    return f'<img alt="{alt}" src="data:{kind};base64,{data.strip()}">'


def notebook(text: str) -> nbformat.NotebookNode:
    """The slides as a notebook: a cell a slide, and one for its notes."""
    text = re.sub(r"!\[(.*?)\]\((.*?)\)", picture, text)
    text = re.sub(r"^#(\S+\.ipynb#\S+)$", lambda m: saved(m[1])["text/plain"].strip(), text, flags=re.MULTILINE)
    page = nbformat.v4.new_notebook()
    for slide in text.split("\n---\n"):
        shown, _, notes = slide.partition("\nNotes: ")
        for words, kind in ((shown, "slide"), (notes, "notes")):
            page.cells.append(
                nbformat.v4.new_markdown_cell(words.strip(), metadata={"slideshow": {"slide_type": kind}})
            )
    return page


def reveal(folder: Path) -> Path:
    """Where reveal.js lies: REVEAL, or fetched from npm's registry."""
    if "REVEAL" in os.environ:
        return Path(os.environ["REVEAL"])
    subprocess.run(["npm", "pack", "--silent", "reveal.js@4.6.1"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


STYLE = """.reveal img{max-height:60vh;margin:6px auto}.reveal pre{font-size:.95em;width:auto;box-shadow:none}
.reveal section{font-size:.8em}.reveal h1,.reveal h2{text-transform:none}.jp-InputPrompt,.anchor-link{display:none}"""


def offline(html: str, library: Path) -> str:
    """The page with reveal.js in it, and without what it would fetch."""
    html = re.sub(r"<script[^>]*\bsrc=[^>]*></script>", "", html)
    html = re.sub(r"<link[^>]*rel=.stylesheet.[^>]*>", "", html)
    html = re.sub(r"<script(?![^>]*application/json)[^>]*>.*?</script>", "", html, flags=re.DOTALL)
    theme = re.sub(r"@import url\([^)]*\);", "", (library / "dist/theme/white.css").read_text("utf-8"))
    style = (library / "dist/reset.css").read_text("utf-8") + (library / "dist/reveal.css").read_text("utf-8") + theme
    code = "".join((library / name).read_text("utf-8") for name in ("dist/reveal.js", "plugin/notes/notes.js"))
    code = code.replace("</script>", "<\\/script>")
    start = "Reveal.initialize({hash: true, slideNumber: 'c/t', plugins: [RevealNotes]});"
    html = html.replace("</head>", f"<style>{style}{STYLE}</style></head>")
    return html.replace("</body>", f"<script>{code}</script><script>{start}</script></body>")


def main(target: Path) -> None:
    """Write the page."""
    page = notebook((HERE / "slides.md").read_text("utf-8"))
    page.metadata.title = "prockd: prototypes that travel"
    html, _ = SlidesExporter().from_notebook_node(page)
    with tempfile.TemporaryDirectory() as folder:
        html = offline(html, reveal(Path(folder)))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(html, "utf-8")
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB; press S for the notes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
