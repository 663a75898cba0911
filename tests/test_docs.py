"""The documentation builds without a warning, says every public name, and its examples run."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import typer
from conftest import draw_stripes
from PIL import Image

import prockd as pk
from prockd.cli import app
from prockd.settings.method import DiscoverConfig, DistillConfig

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)]
BLOCK = re.compile(r"(?:<!-- (not run: .+?|sized) -->\n)? *```(python|sh|toml)\n(.*?) *```", re.DOTALL)


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """What is said before each example of a page, and the example."""
    return [(said, code) for said, kind, code in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


def with_examples(language: str) -> list[Any]:
    return [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES if blocks(p, language)]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with the pictures that the pages speak of, and figures that nobody sees."""
    for m, (pixels, label) in enumerate(zip(*draw_stripes(16, 64), strict=True)):
        path = tmp_path / "photos" / ("cow", "horse")[label] / f"animal{m // 4}_{m}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    monkeypatch.chdir(tmp_path)
    yield
    plt.close("all")


def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps where a page says nothing of steps."""
    for kind in (DistillConfig, DiscoverConfig):

        def usual(self: Any, _begin: Any = kind.__init__, **values: Any) -> None:
            _begin(self, **({"steps": 2} | values))

        monkeypatch.setattr(kind, "__init__", usual)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*knows nothing")
@pytest.mark.parametrize("page", with_examples("python"))
def test_the_examples_of_a_page_run_one_after_the_other(page, photos, monkeypatch, capsys):
    fewer(monkeypatch)
    space: dict[str, Any] = {"__name__": "page", "pk": pk}
    for said, code in blocks(page, "python"):
        if said.startswith("not run") or code.startswith("# prockd/"):
            continue
        code = (
            re.sub(r"(?<=, )(300|500|800|1000)\b", "24", code) if said == "sized" or page.name == "README.md" else code
        )
        exec(compile(code, str(page.relative_to(ROOT)), "exec", dont_inherit=True), space)
    assert "history" not in space or space["history"].step > 0


def refusal(line: str) -> str:
    """Why the command line does not know a line of a page; nothing where it does, or where it is no command of ours."""
    words = shlex.split(line, comments=True)
    if "prockd" not in words or words[words.index("prockd") - 1] in ("install", "download"):
        return ""
    words = words[words.index("prockd") + 1 :]
    command: Any = typer.main.get_command(app)
    with typer.Context(command, info_name="prockd") as context:
        while hasattr(command, "commands") and words:
            if words[0] not in command.commands:
                return f"no command {words[0]}"
            command = command.commands[words.pop(0)]
        try:
            if not hasattr(command, "commands"):
                command.make_context("prockd", words, parent=context)
        except Exception as error:
            return str(error) or type(error).__name__
    return ""


@pytest.mark.parametrize("page", with_examples("sh"))
def test_every_command_of_a_page_is_one_that_prockd_has(page):
    lines = [line for _, code in blocks(page, "sh") for line in code.replace("\\\n", " ").splitlines()]
    assert {line: why for line in lines if (why := refusal(line))} == {}


def test_a_command_or_an_option_that_is_not_there_is_found():
    assert refusal("prockd distil --data photos") == "no command distil"
    assert "--dat" in refusal("prockd distill --dat photos")


@pytest.mark.parametrize("page", with_examples("toml"))
def test_settings_of_a_page_are_settings(page, tmp_path):
    from prockd.runs.plan import read_plan
    from prockd.settings import read_config

    for number, (_, code) in enumerate(blocks(page, "toml")):
        path = tmp_path / f"{number}.toml"
        path.write_text(code)
        if "[compare]" in code:
            assert read_plan(path).arms
        elif "[arms." not in code:
            assert read_config(path)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, notebooks by their words alone."""
    for module in ("furo", "myst_nb", "sphinx", "sphinx_copybutton"):
        pytest.importorskip(module, reason=f"{module} is not installed: pip install -e '.[docs]'")
    source, pages = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("pages")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "widgets")])}
    for words in (
        [str(DOCS / "stage.py"), str(source / "docs"), "--quick"],
        ["-m", "sphinx", "-q", "-W", "--keep-going", "-c", str(DOCS), str(source / "docs"), str(pages)],
    ):
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
    return pages


@pytest.mark.slow
def test_pages_build_without_a_warning_and_every_link_in_them_leads_somewhere(built):
    assert {"index.html", "tutorials.html", "reference/command-line.html"} <= {
        path.relative_to(built).as_posix() for path in built.rglob("*.html")
    }


@pytest.mark.slow
def test_every_public_name_is_documented_with_what_it_says(built):
    sys.path.insert(0, str(DOCS))
    try:
        from stage import public_names
    finally:
        sys.path.remove(str(DOCS))
    pages = "".join(
        path.read_text(encoding="utf-8") for path in sorted((built / "reference" / "python").glob("*.html"))
    )
    stub = (ROOT / "prockd" / "__init__.pyi").read_text(encoding="utf-8")
    short = {f"prockd.{name}" for name in re.findall(r"^from \.\S+ import \w+ as (\w+)", stub, re.MULTILINE)}
    names = public_names()
    assert short <= names.keys()
    assert {name for name in names if f'id="{name}"' not in pages} == set()
    silent = [name for name, (_, value) in names.items() if isinstance(value, type) and not value.__doc__]
    assert silent == []


@pytest.mark.slow
def test_an_index_stands_beside_a_letter_with_a_hat_and_commands_are_told_whole(built):
    method = (built / "explanation" / "method.html").read_text(encoding="utf-8")
    assert "accent=" in method
    assert not re.search(r"<munderover>\s*<mi>u", method)
    commands = (built / "reference" / "command-line.html").read_text(encoding="utf-8")
    assert commands.count("discover and distill then read the cache") == 2


@pytest.mark.slow
def test_pages_fetch_nothing(built):
    fetching = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=\"(https?:[^\"]*)")
    pages = {path.name: fetching.findall(path.read_text(encoding="utf-8")) for path in built.rglob("*.html")}
    assert len(pages) > 10
    assert {name: found for name, found in pages.items() if found} == {}


def test_every_setting_and_command_is_in_the_reference():
    """They are made from the code; here only that the pages ask for them."""
    asked = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    for made in ("configuration", "arms", "commands", "formats", "teachers", "notebooks", "contests", "readings"):
        assert f"<!-- made: {made} -->" in asked, made
