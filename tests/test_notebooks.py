"""What must hold of every notebook without running it; `pytest --nbmake` runs them."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
EXPECTED = {"00_quickstart", "01_teacher_features", "02_discover_prototypes", "03_inspect_prototypes",
            "04_feature_augmentation", "05_train_student", "06_tune_it", "07_other_tasks", "08_your_own_images",
            "09_what_a_prototype_does"}  # fmt: skip
MAX_BYTES = 2_500_000

every = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == kind]


def code(path: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in cells(path, "code")]


def text(path: Path) -> str:
    return "\n\n".join("".join(cell["source"]) for cell in cells(path, "markdown"))


def outputs(path: Path) -> list[dict[str, Any]]:
    return [output for cell in cells(path, "code") for output in cell["outputs"]]


def test_the_set_is_complete() -> None:
    assert {path.stem for path in NOTEBOOKS} >= EXPECTED


@every
def test_a_notebook_is_small_enough_to_commit(path: Path) -> None:
    assert path.stat().st_size <= MAX_BYTES


@every
def test_no_widget_state_is_saved(path: Path) -> None:
    assert "widgets" not in read(path)["metadata"]


@every
def test_the_kernel_is_python3(path: Path) -> None:
    assert read(path)["metadata"]["kernelspec"]["name"] == "python3"


@every
def test_cells_are_few_and_short(path: Path) -> None:
    sources = code(path)
    assert len(sources) <= 36
    for source in sources:
        assert len(source.splitlines()) <= 16, source


@every
def test_code_parses_and_fetches_nothing(path: Path) -> None:
    for source in code(path):
        ast.parse(source)
        assert not re.search(r"https?://|^\s*[!%]|urllib|requests\.|pretrained=True", source, re.MULTILINE), source


@every
def test_no_output_holds_a_path_of_this_machine(path: Path) -> None:
    for output in outputs(path):
        data = output.get("data", {}) | {"text": output.get("text", "")}
        words = "".join("".join(value) for mime, value in data.items() if not mime.startswith("image/"))
        assert not re.search(r"(?<![\w.])(/home/|/root/|/work/|/tmp/|/Users/|[A-Z]:\\)", words), words


@every
def test_no_output_is_an_error_or_a_warning(path: Path) -> None:
    for output in outputs(path):
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr", "".join(output["text"])


@every
def test_a_widget_output_has_a_picture_and_words_for_pages_without_a_kernel(path: Path) -> None:
    for output in outputs(path):
        if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
            assert {"image/png", "text/plain"} <= output["data"].keys()


@every
def test_every_picture_has_an_alternative_in_words(path: Path) -> None:
    for cell in cells(path, "code"):
        if any(mime.startswith("image/") for output in cell["outputs"] for mime in output.get("data", ())):
            assert len(cell["metadata"].get("alt", "")) >= 30, "".join(cell["source"])


@every
def test_the_header_tells_what_for_how_long_and_where_to_skip_to(path: Path) -> None:
    header = "".join(read(path)["cells"][0]["source"])
    assert header.startswith("# ")
    for row in ("**You will be able to**", "**Time**", "**Needs**", "**Skip to**"):
        assert row in header, row
    assert re.search(r"\d+ to read", header)
    memory = re.search(r"about \d+ minutes? and ([\d.]+) GB to run", header)
    assert memory, header
    assert float(memory[1]) <= 2.5, "a student's laptop has 8 GB, and a browser beside it"


@every
def test_every_notebook_says_what_would_falsify_it_and_asks_questions(path: Path) -> None:
    words = text(path)
    assert "> **What would falsify this picture?**" in words
    assert 2 <= words.count("<details><summary>Answer</summary>") <= 6
    assert words.count("<details>") == words.count("</details>")


@every
def test_links_to_other_notebooks_and_headings_lead_somewhere(path: Path) -> None:
    words = text(path)
    for target in re.findall(r"\]\(([^)#]+\.ipynb)", words):
        assert (FOLDER / target).is_file(), target
    headings = {line.lstrip("#").strip().replace(" ", "-") for line in words.splitlines() if line.startswith("#")}
    for anchor in re.findall(r"\]\(#([^)\s]+)\)", words):
        assert anchor in headings, f"{anchor} is none of {sorted(headings)}"


@every
def test_cell_ids_are_unique(path: Path) -> None:
    ids = [cell["id"] for cell in read(path)["cells"]]
    assert len(set(ids)) == len(ids)
