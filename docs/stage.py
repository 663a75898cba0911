"""Puts together what Sphinx reads: the pages of this folder, notebooks and results as they lie, and what code says.

``python docs/stage.py FOLDER [--quick]`` lays everything out as in the repository, with ``docs/`` on top, so that a
link such as ``/notebooks/00_quickstart.ipynb`` leads to the same page here and where the repository is browsed. What
can be read from code is not written by hand: names and docstrings, knobs, commands, formats, teachers.
"""

import dataclasses
import importlib
import inspect
import json
import posixpath
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sphinx.pycode import ModuleAnalyzer

import prockd
from prockd.datasets.formats import FORMATS
from prockd.runs.arms import SHIPPED
from prockd.runs.recipes import task_settings
from prockd.settings import ExperimentConfig, Knobs
from prockd.settings.compare import CompareConfig
from prockd.settings.knobs import differences
from prockd.settings.method import ClusterConfig
from prockd.settings.toml import in_line
from prockd.tasks import TASKS
from prockd.teachers.presets import preset_rows

ROOT, DOCS = Path(__file__).parents[1], Path(__file__).parent
PAGES = (
    "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "data/farmyard/*.md",
    "benchmarks/results/**/*.md", "benchmarks/results/**/*.png",
    "notebooks/[0-9]*.ipynb", "notebooks/*.md", "notebooks/images/*",
)  # fmt: skip
"""What is shown as it lies in the repository."""

ROOMS = {
    "farmyard": "The built-in world", "datasets": "Images", "teachers": "Teachers", "prototypes": "Prototypes",
    "tasks": "Tasks", "students": "Students", "training": "Training", "evaluation": "Evaluation", "plots": "Figures",
    "runs": "Runs", "settings": "Settings", "cache": "Cache", "checks": "Exercises", "_types": "Words and samples",
}  # fmt: skip
"""Pages of the reference, in the order in which data flow."""

IMPORT = re.compile(r"^from (\S+) import (\w+) as \2$", re.MULTILINE)


def public_names() -> dict[str, tuple[str, object]]:
    """Every public name, such as ``prockd.Teacher`` or ``prockd.tasks.Boxes``: the room it is of, and what it is.

    They are those of ``prockd/__init__.pyi``, those that a room lists in its own ``__init__``, and the widgets. What
    has a short name is documented by that alone.
    """
    names: dict[str, tuple[str, object]] = {}
    for module, name in IMPORT.findall((ROOT / "prockd" / "__init__.pyi").read_text(encoding="utf-8")):
        if module != ".":
            names[f"prockd.{name}"] = (module.split(".")[1], getattr(prockd, name))
    known = [value for _, value in names.values() if not isinstance(value, int)]
    for room in ROOMS:
        file = next((p for p in (ROOT / "prockd" / room).glob("__init__.py*") if p.suffix == ".pyi"), None)
        file = file or ROOT / "prockd" / room / "__init__.py"
        for _, name in IMPORT.findall(file.read_text(encoding="utf-8")) if file.is_file() else ():
            value = getattr(importlib.import_module(f"prockd.{room}"), name)
            if not any(value is other for other in known):
                names[f"prockd.{room}.{name}"] = (room, value)
                known += [value] if isinstance(value, type) or callable(value) else []
    widgets = importlib.import_module("prockd_widgets")
    return names | {f"prockd_widgets.{name}": ("widgets", getattr(widgets, name)) for name in widgets.__all__}


def attribute_text(module: str, name: str) -> list[str]:
    """The docstring below a constant, where it is defined."""
    for file in (module, *(m for m in sys.modules if m.startswith(module.split(".")[0]))):
        try:
            lines = ModuleAnalyzer.for_module(file).find_attr_docs().get(("", name))
        except Exception:  # a module without source
            continue
        if lines:
            return list(lines)
    return []


def directive(name: str, value: object) -> str:
    """What documents a name."""
    if isinstance(value, type) or inspect.isroutine(value):
        kind = "function" if inspect.isroutine(value) else "class"
        if isinstance(value, type) and issubclass(value, BaseException):
            kind = "exception"
        return f".. auto{kind}:: {name}\n"
    module, short = name.rsplit(".", 1)
    text = "\n   ".join(attribute_text(module, short))
    shown = f"\n   :value: {value!r}" if isinstance(value, int | str | tuple) and len(repr(value)) < 80 else ""
    return f".. py:data:: {short}\n   :module: {module}{shown}\n\n   {text}\n"


def api_pages() -> Iterator[tuple[str, str]]:
    """One page a room, and one that lists them all."""
    names, index = public_names(), ["# Python", "", (DOCS / "reference" / "python.txt").read_text(encoding="utf-8")]
    for room, title in {**ROOMS, "widgets": "Widgets"}.items():
        module = "prockd_widgets" if room == "widgets" else f"prockd.{room}"
        own = {name: value for name, (of, value) in names.items() if of == room}
        summary = "\n".join(rst_table([[f":py:obj:`{name}`", first_line(value, name)] for name, value in own.items()]))
        head = f"{title}\n{'=' * len(title)}\n\n.. automodule:: {module}\n   :no-members:\n\n{summary}"
        if room == "cache":
            head = f"{title}\n{'=' * len(title)}\n\n.. automodule:: {module}\n"
        page = "\n".join([head, *(directive(name, value) for name, value in own.items())])
        yield f"reference/python/{room.strip('_')}.rst", page
        index.append(f"python/{room.strip('_')}")
    yield "reference/python.md", "\n".join([*index[:3], "```{toctree}", ":maxdepth: 1", *index[3:], "```", ""])


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows with the same keys as a Markdown table."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    cells = ([str(cell).replace("|", "\\|") for cell in row.values()] for row in rows)
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in cells)])


def knob_rows(knobs: type[Knobs]) -> list[dict[str, str]]:
    """One row a knob: name, usual value, what is allowed, meaning."""
    rows = []
    for field in dataclasses.fields(knobs):  # type: ignore[arg-type]
        meta, usual = field.metadata, field.default
        if field.default_factory is not dataclasses.MISSING:
            usual = field.default_factory()
        allowed = ", ".join(f"`{option}`" for option in meta.get("options", ()))
        if "high" in meta:
            allowed = f"{meta['low']} to {meta['high']:,} {meta['unit']}".rstrip().replace(",", " ")
        shown = "" if usual is dataclasses.MISSING else f"`{in_line(usual)}`"
        told = {"setting": f"`{field.name}`", "usual": shown, "allowed": allowed}
        rows.append(told | {"meaning": meta.get("help", "")})
    return rows


def knob_rst(knobs: type[Knobs]) -> list[str]:
    """The same as reStructuredText, for docstrings."""
    rows = knob_rows(knobs)
    cells = [[cell.replace("`", "``").replace("*", r"\*") for cell in row.values()] for row in rows]
    return rst_table([list(rows[0]), *cells], "   :header-rows: 1", "   :widths: 22 14 24 40") if rows else []


def rst_table(rows: Sequence[Sequence[str]], *options: str) -> list[str]:
    """Rows as a table of reStructuredText, or nothing of none."""
    cells = [f"   {' ' if i else '*'} - {cell}".rstrip() for row in rows for i, cell in enumerate(row)]
    return [".. list-table::", *options, "", *cells, ""] if rows else []


def configuration() -> str:
    """Every section of an experiment, the settings of contests and teachers, and what presets and tasks change."""
    usual = ExperimentConfig()
    titles = {name: (f"(config-{name})=\n## `{name}`", type(knobs)) for name, knobs in usual.sections().items()}
    titles["compare"] = "## Contests", CompareConfig
    titles["clusters"] = "## Teachers that learn (`train-teacher`, `adapt-teacher`)", ClusterConfig
    parts = [f"{title}\n\n{first_line(kind)}\n\n{table(knob_rows(kind))}" for title, kind in titles.values()]
    kinds = {"preset `paper`": task_settings(preset="paper")}
    kinds |= {f"task `{kind}`": task_settings(kind) for kind in TASKS}
    rows = [
        {"where": name, "setting": f"`{section}.{knob}`", "value": f"`{in_line(one)}`", "usual": f"`{in_line(other)}`"}
        for name, config in kinds.items()
        for section, knobs in config.sections().items()
        for knob, (one, other) in differences(knobs, getattr(usual, section)).items()
    ]
    return "\n\n".join([*parts, "## What presets and tasks change", table(rows)])


def first_line(thing: object, name: str = "") -> str:
    """The first line of the docstring of a class, a function or a constant of this name, without roles."""
    has_own = isinstance(thing, type) or inspect.isroutine(thing)
    line = (inspect.getdoc(thing) or "").splitlines()[0] if has_own else attribute_text(*name.rsplit(".", 1))[0]
    return re.sub(r" \(:\w+:[^)]*\)|:\w+:`~?\.?([^`]+)`", lambda match: match[1] or "", line).replace("|", r"\|")


def format_rows() -> str:
    """What prockd can open."""
    rows = [
        {"for": f.task, "name": f.name, "looks like": f.looks, "opened by": f"`{f.open.__name__}`"} for f in FORMATS
    ]
    return table(sorted(rows, key=lambda row: row["for"]))


def commands() -> str:
    """The command line as typer writes it down."""
    words = [sys.executable, "-m", "typer", "prockd.cli", "utils", "docs", "--name", "prockd"]
    done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", check=True, cwd=ROOT)
    text = done.stdout.split("\n", 1)[1]  # the page has a title of its own
    for name, told in re.findall(r"^## `prockd ([\w-]+)`\n\n(.+)$", text, re.MULTILINE):  # whole, where typer cuts it
        text = text.replace(next(re.finditer(rf"^\* `{name}`: .*$", text, re.MULTILINE))[0], f"* `{name}`: {told}", 1)
    return text


def arms() -> str:
    """The arms of contests."""
    return table([{"arm": f"`{a.name}`", "group": a.group, "what it is": a.told, "from": a.paper} for a in SHIPPED])


def told_contests() -> dict[str, dict[str, Any]]:
    """What contests told, by name."""
    files = (ROOT / "benchmarks" / "results" / "compare").glob("*/results.json")
    files = sorted(
        files, key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]
    )
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in files}


def contests() -> str:
    """One row a contest: the teacher's ceilings, labels alone and ours, bold where clear of these; with differences."""

    def marked(value: float, difference: str) -> str:
        low = re.search(r"\[([^,]+),", difference)
        return f"**{value:.3f}**" if low and float(low[1]) > 0 else f"{value:.3f}"

    rows = []
    for name, told in told_contests().items():
        arms = {row["arm"]: row for row in told["table"]}
        ceilings = [row["z"] for row in told["table"] if row["group"] == "ceiling"]
        ours, alone = arms["ours"], arms["labels alone"]
        cost, cost_alone = ({row["arm"]: row for row in told["costs"]}[name] for name in ("ours", "labels alone"))
        alike = cost["on"] == cost_alone["on"]  # or times are of two machines
        rows.append({
            "contest": f"`{name}`", "labels alone": f"{alone['z']:.3f}",
            "z": marked(ours["z"], ours["z − labels alone"]), "z⁺": marked(ours["z⁺"], ours["z⁺ − labels alone"]),
            "z − labels alone": ours["z − labels alone"], "z⁺ − z": ours["z⁺ − z"],
            "read of the teacher itself": ", ".join(f"{value:.3f}" for value in ceilings),
            "a step costs": f"× {cost['CPU ms a step'] / cost_alone['CPU ms a step']:.2f}" if alike else "–",
            "z⁺ costs an image": f"× {cost['ms an image, z⁺'] / cost['ms an image']:.2f}",
        })  # fmt: skip
    return table(rows)


def sentences() -> str:
    """What each contest says of its arms, in its own words."""
    lines = [f"  - `{name}`: {' '.join(told['sentences'][1:])}" for name, told in told_contests().items()]
    return "\n".join(lines)


def readings() -> str:
    """z⁺ minus each other reading of the same students, a column a contest."""
    told = {name: rows for name, each in told_contests().items() if (rows := each["readings"])}
    read = dict.fromkeys(row["read of the same students"] for rows in told.values() for row in rows[1:])
    by_name = {name: {row["read of the same students"]: row["z⁺ − it"] for row in rows} for name, rows in told.items()}
    return table([{"": what} | {f"`{name}`": of.get(what, "–") for name, of in by_name.items()} for what in read])


MADE: dict[str, Callable[[], str]] = {
    "configuration": configuration, "formats": format_rows, "commands": commands, "arms": arms,
    "contests": contests, "sentences": sentences, "readings": readings,
    "teachers": lambda: table(preset_rows()), "notebooks": lambda: notebook_rows(),
}  # fmt: skip
"""What a page gets in place of a line ``<!-- made: NAME -->``."""


def notebook_rows() -> str:
    """Title, aim and time of each notebook, as its header says them."""
    rows = []
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        header = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        told = dict(re.findall(r"^\|\s*\*\*(.+?)\*\*\s*\|\s*(.*?)\s*\|$", header, re.MULTILINE))
        aim = re.sub(r"\]\((?!http)([^)#]+\.ipynb)", r"](/notebooks/\1", told.get("You will be able to", ""))
        title = header.splitlines()[0].lstrip("# ")
        rows.append(
            {"page": f"[{title}](/notebooks/{path.name})", "you will be able to": aim, "time": told.get("Time", "")}
        )
    return table(rows)


def slug(heading: str) -> str:
    """The place of a heading within its page, as in links of web pages."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("-", " ")).replace(" ", "-")


def relinked(text: str, path: str, shown: set[str]) -> str:
    """A page's text in which links to files that are not shown are words, and those to headings lead there."""

    def link(match: re.Match[str]) -> str:
        words, target = match[1], match[2]
        if re.match(r"\w+:", target):
            return match[0]
        if target.startswith("#"):
            return f"[{words}](#{slug(target[1:].replace('-', ' '))})" if path.endswith(".ipynb") else match[0]
        place, _, anchor = target.partition("#")
        file = posixpath.normpath(posixpath.join(posixpath.dirname(path), place))
        file = f"{file}/README.md" if f"{file}/README.md" in shown else file
        if file not in shown:
            return words
        end = f"#{slug(anchor.replace('-', ' '))}" if anchor else ""
        return f"[{words}](/{file}{end})"

    return re.sub(r"(?<!!)\[([^\[\]]+)\]\(([^()\s]+)\)", link, text)


def pages(*, quick: bool = False) -> Iterator[tuple[str, bytes]]:
    """Name and content of all that Sphinx reads; with ``quick`` notebooks have their words alone."""
    found = [path for pattern in PAGES for path in sorted(ROOT.glob(pattern)) if path.is_file()]
    shown = {path.relative_to(ROOT).as_posix() for path in found}
    for path in sorted(DOCS.rglob("*.md")):
        if "_build" not in path.parts:
            text = path.read_text(encoding="utf-8")
            made = re.sub(r"<!-- made: (\w+) -->", lambda match: MADE[match[1]](), text)
            yield path.relative_to(DOCS).as_posix(), made.encode()
    for path in found:
        name = path.relative_to(ROOT).as_posix()
        if path.suffix == ".ipynb":
            page: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            page["cells"] = [cell for cell in page["cells"] if cell["cell_type"] == "markdown" or not quick]
            for cell in page["cells"]:
                if cell["cell_type"] == "markdown":
                    cell["source"] = relinked("".join(cell["source"]), name, shown)
                elif alt := cell["metadata"].get("alt"):
                    cell["metadata"]["mystnb"] = {"image": {"alt": alt}}
            yield name, json.dumps(page).encode()
        elif path.suffix == ".md":
            yield name, relinked(path.read_text(encoding="utf-8"), name, shown).encode()
        else:
            yield name, path.read_bytes()
    for name, text in api_pages():
        yield name, text.encode()


def stage(folder: Path, *, quick: bool = False) -> None:
    """Lay out all pages; one that did not change is left alone, so that Sphinx does not read it again."""
    wanted = dict(pages(quick=quick))
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        if path.relative_to(folder).as_posix() not in wanted:
            path.unlink()
    for name, content in wanted.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


if __name__ == "__main__":
    stage(Path(sys.argv[1]), quick="--quick" in sys.argv[2:])
