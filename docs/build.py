"""Build the documentation without a network: `make docs`.

Pages lie where they are written (docs/, notebooks/, benchmarks/results/, ...) and are copied side by side as they
lie in the repository, so that a link that works there works here. The reference is generated: the API
from docstrings, the command line from typer, the configuration from the knobs, the formats from their table.
"""

import dataclasses
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = (
    "docs/**/*.md", "notebooks/0*.ipynb", "notebooks/glossary.md", "notebooks/failures.md", "notebooks/believed.md",
    "notebooks/images/*", "benchmarks/results/*.md", "benchmarks/results/*.png", "benchmarks/results/compare/**/*.md",
    "benchmarks/results/compare/**/*.png", "data/farmyard/*.md", "CONTRIBUTING.md", "CHANGELOG.md",
)  # fmt: skip
ROOMS = ("prototypes.bank", "prototypes.part_maps", "students", "tasks", "training.losses", "evaluation.parts",
         "evaluation.measures", "evaluation.intervals", "evaluation.probe", "datasets", "farmyard", "settings", "runs",
         "plots", "checks")  # fmt: skip


def plain_links(text: str, page: Path, there: set[Path]) -> str:
    """The text with links to what is not among the pages as words alone."""

    def link(match: "re.Match[str]") -> str:
        words, target = match.groups()
        path = target.split("#")[0]
        if not path or ":" in path or Path(os.path.normpath(page.parent / path)) in there:
            return match[0]
        return words

    return re.sub(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)", link, text)


def with_alt(cells: list[dict[str, Any]]) -> None:
    """Give pictures the words that lead to them, for those who do not see them."""
    words = ""
    for cell in cells:
        if cell["cell_type"] == "markdown":
            lines = [
                line for line in "".join(cell["source"]).splitlines() if line and not line.startswith(("#", "|", "$"))
            ]
            words = re.sub(r"[*`$\[\]<>]|\(\S+\)", "", lines[-1])[:200] if lines else words
        elif any(kind.startswith("image/") for o in cell["outputs"] for kind in o.get("data", {})):
            cell["metadata"]["mystnb"] = {"image": {"alt": words or "figure"}}


def copy_pages(stage: Path) -> None:
    """Put the pages side by side."""
    found = {path.relative_to(ROOT) for pattern in PAGES for path in ROOT.glob(pattern)}
    found.discard(Path("benchmarks/results/parts_notes.md"))  # a part of parts.md
    made = {Path("docs/reference") / name for name in ("api.md", "cli.md", "configuration.md", "formats.md")}
    for page in found:
        target = stage / page
        target.parent.mkdir(parents=True, exist_ok=True)
        if page.suffix == ".md":
            target.write_text(plain_links((ROOT / page).read_text("utf-8"), page, found | made), "utf-8")
        elif page.suffix == ".ipynb":
            notebook = json.loads((ROOT / page).read_text("utf-8"))
            for cell in notebook["cells"]:
                if cell["cell_type"] == "markdown":
                    cell["source"] = plain_links("".join(cell["source"]), page, found)
            with_alt(notebook["cells"])
            target.write_text(json.dumps(notebook), "utf-8")
        else:
            shutil.copy(ROOT / page, target)


def directive(name: str, thing: Any) -> str:
    """How autodoc is asked for one name."""
    if isinstance(thing, type):
        return f".. autoclass:: {name}\n   :members:\n"
    return f".. autofunction:: {name}\n" if callable(thing) else f".. py:data:: {name}\n"


def api() -> str:
    """Every public name, each once, room by room."""
    told, parts = set[int](), ["# API\n\nWhat `import prockd as pk` gives, then what each room has beyond it.\n"]
    for room in ("prockd", *(f"prockd.{name}" for name in ROOMS)):
        module = importlib.import_module(room)
        own = (n for n, t in vars(module).items() if getattr(t, "__module__", "").startswith("prockd"))
        things = {name: getattr(module, name) for name in getattr(module, "__all__", own) if name[0] != "_"}
        new = {n: t for n, t in things.items() if not isinstance(t, ModuleType) and id(t) not in told}
        told |= {id(thing) for thing in new.values()}
        lines = "\n".join(directive(f"{room}.{name}", thing) for name, thing in sorted(new.items()))
        first = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", (module.__doc__ or "").strip().splitlines()[0])
        parts.append(f"\n## {room}\n\n{first}\n\n```{{eval-rst}}\n{lines}\n```\n" if new else "")
    return "".join(parts)


def cli() -> str:
    """Every command, as typer tells it."""
    import typer
    from typer.cli import get_docs_for_click

    from prockd.cli import app

    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="prockd", title="Command line")
    return re.sub(r"^(#+)(?= `)", lambda m: "#" * max(2, len(m[1])), text, flags=re.MULTILINE)


def configuration() -> str:
    """Every knob with its default, range and meaning."""
    from prockd.settings.experiment import ExperimentConfig

    parts = [
        "# Configuration\n\nEach knob is set by `--set section.name=value`, in a TOML file, or in Python by the class "
        "of its section. `prockd distill --help` and `config.toml` of every run tell the same.\n"
    ]
    for section in dataclasses.fields(ExperimentConfig):
        knobs = section.type if isinstance(section.type, type) else None
        if knobs is None or not dataclasses.is_dataclass(knobs):
            continue
        doc = (knobs.__doc__ or "").strip().splitlines()[0]
        doc = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", doc)
        rows = [f"\n## {section.name}\n\n{doc}\n\n| knob | default | range | meaning |\n|---|---|---|---|"]
        for f in dataclasses.fields(knobs):
            meta = f.metadata
            scope = ", ".join(map(str, meta["options"])) if "options" in meta else (
                f"{meta['low']} to {meta['high']}" if meta.get("high") is not None else "")  # fmt: skip
            default = "" if f.default is dataclasses.MISSING else f"`{f.default!r}`"
            rows.append(f"| `{f.name}` | {default} | {scope} | {meta.get('help', '')} |".replace("<", "&lt;"))
        parts.append("\n".join(rows) + "\n")
    return "".join(parts)


def formats() -> str:
    """What prockd reads and writes."""
    from prockd.datasets.formats import FORMATS

    rows = "\n".join(f"| {f.name} | {f.task} | `{f.looks}` |" for f in FORMATS)
    return (ROOT / "docs" / "formats.txt").read_text("utf-8").replace("{formats}", rows)


def main(target: Path) -> None:
    """Put everything together and let Sphinx build it; a warning is an error."""
    stage = ROOT / "build" / "docs-source"
    shutil.rmtree(stage, ignore_errors=True)
    copy_pages(stage)
    reference = stage / "docs" / "reference"
    reference.mkdir(parents=True, exist_ok=True)
    for name, make in {"api": api, "cli": cli, "configuration": configuration, "formats": formats}.items():
        (reference / f"{name}.md").write_text(make(), "utf-8")
    words = ["-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-j", "2", "-c", str(ROOT / "docs")]
    paths = os.pathsep.join([str(ROOT / "docs"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, *words, str(stage), str(target)], env=os.environ | {"PYTHONPATH": paths})
    if done.returncode:
        sys.exit(done.returncode)
    (target / "index.html").write_text('<meta http-equiv="refresh" content="0; url=docs/index.html">\n', "utf-8")
    print(f"{target}/index.html")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
