"""What docs/ names is there: pages, commands, options, names of the library; and `make docs` builds."""

import ast
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer

import prockd
from prockd.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
every = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@every
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    made = {"api.md", "cli.md", "configuration.md", "formats.md"}
    for target in re.findall(r"(?<!!)\]\(([^)#:\s]+)\)", page.read_text("utf-8")):
        path = page.parent / target
        assert path.exists() or (path.parent.name == "reference" and path.name in made), target


@every
def test_every_page_is_reached_from_a_table_of_contents(page: Path) -> None:
    listed = {(p.parent / line).resolve() for p in PAGES for line in p.read_text("utf-8").splitlines()}
    assert page.stem == "index" or page.with_suffix("").resolve() in listed


@every
def test_code_of_a_page_parses_and_names_what_prockd_has(page: Path) -> None:
    text = page.read_text("utf-8")
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        ast.parse(code)
    for dotted in re.findall(r"\bpk\.([A-Za-z_.]+)", text):
        thing = prockd
        for name in dotted.rstrip(".").split("."):
            thing = getattr(thing, name)


@every
def test_commands_of_a_page_exist_with_their_options(page: Path) -> None:
    command = typer.main.get_command(app)
    for line in re.findall(r"(?:^|`|\n   )prockd ([^`\n]+)", page.read_text("utf-8")):
        words = shlex.split(line, comments=True)
        here = command
        while words and hasattr(here, "commands") and words[0] in here.commands:
            here = here.commands[words.pop(0)]
        assert here is not command, line
        known = {option for parameter in here.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_links_to_what_is_not_among_the_pages_become_words() -> None:
    build = load(ROOT / "docs" / "build.py")
    text = "[a](there.md) [b](../prockd/x.py) [c](https://d.org) [e](#f)"
    told = build.plain_links(text, Path("docs/page.md"), {Path("docs/there.md")})
    assert told == "[a](there.md) b [c](https://d.org) [e](#f)"


def test_pictures_of_the_pages_get_words_for_those_who_do_not_see_them() -> None:
    build = load(ROOT / "docs" / "build.py")
    for path in (ROOT / "notebooks").glob("0*.ipynb"):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        build.with_alt(cells)
        pictured = [
            c for c in cells if any(k.startswith("image/") for o in c.get("outputs", ()) for k in o.get("data", {}))
        ]
        assert all(len(cell["metadata"]["mystnb"]["image"]["alt"]) > 8 for cell in pictured)


def test_the_reference_names_every_public_name_knob_and_command() -> None:
    build = load(ROOT / "docs" / "build.py")
    pages = build.api(), build.configuration(), build.cli()
    for name in prockd.__all__:
        assert f"prockd.{name}" in pages[0] or isinstance(getattr(prockd, name), ModuleType)
    assert "| `soft_weight` |" in pages[1]
    for name in typer.main.get_command(app).commands:
        assert f"`prockd {name}`" in pages[2]


def test_badges_come_with_an_address_and_not_without() -> None:
    badges = load(ROOT / "notebooks" / "badges.py").badges
    assert badges({}, ["00.ipynb"]) == ""
    told = badges({"Repository": "https://github.com/someone/prockd"}, ["00.ipynb"])
    assert "colab.research.google.com/github/someone/prockd/blob/main/notebooks/00.ipynb" in told
    assert "mybinder.org/v2/gh/someone/prockd/main" in told


def test_containers_are_described_in_files_that_can_be_read() -> None:
    assert json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())["name"] == "prockd"
    assert "[lab]" in (ROOT / ".binder" / "environment.yml").read_text()


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning_and_asks_no_network(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    pytest.importorskip("latex2mathml")
    words = [sys.executable, ROOT / "docs" / "build.py", tmp_path / "html"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = [path.read_text("utf-8") for path in (tmp_path / "html").rglob("*.html")]
    assert len(pages) > 30
    asked = re.compile(r"<(?:script|img|iframe)[^>]+src=\"https?:|<link[^>]+stylesheet[^>]+href=\"https?:")
    assert not any(asked.search(page) for page in pages)
