"""One source, two versions: the solved pages in notebooks/instructor and what a student gets of them."""

import ast
import builtins
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from nbformat import NotebookNode

from prockd import checks

FOLDER = Path(__file__).parents[1] / "notebooks"
sys.path.insert(0, str(FOLDER))
import make  # noqa: E402

SOLVED = sorted((FOLDER / "instructor").glob("[0-9][0-9]_*.ipynb"))
every = pytest.mark.parametrize("path", SOLVED, ids=lambda path: path.stem)


def source(path: Path) -> NotebookNode:
    return nbformat.read(path, 4)


def student(path: Path) -> NotebookNode:
    return nbformat.read(FOLDER / path.name, 4)


def graded(page: NotebookNode, kind: str) -> list[NotebookNode]:
    """Cells that hold an answer (``solution``) or a check (``grade``)."""
    return [cell for cell in page.cells if cell.metadata.get("nbgrader", {}).get(kind)]


def texts(page: NotebookNode, kind: str) -> list[str]:
    return [cell.source for cell in page.cells if cell.cell_type == kind]


def names(code: list[str]) -> tuple[set[str], set[str]]:
    """What the cells of a page read and what they make, nested or not."""
    reads, makes = set[str](), set(dir(builtins))
    for node in ast.walk(ast.parse("\n".join(code))):
        if isinstance(node, ast.Name):
            (reads if isinstance(node.ctx, ast.Load) else makes).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.alias):
            makes.add((getattr(node, "asname", None) or node.name).partition(".")[0])
        elif isinstance(node, ast.arg):
            makes.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            makes.add(node.name)
    return reads, makes


def test_every_page_but_the_story_has_a_source() -> None:
    assert [path.name[:2] for path in SOLVED] == [f"0{n}" for n in range(1, 10)]


@every
def test_the_student_s_page_is_what_is_made_of_the_source(path: Path) -> None:
    made, saved = make.for_students(source(path)), student(path)
    assert [(c.id, c.cell_type, c.source) for c in made.cells] == [
        (c.id, c.cell_type, c.source) for c in saved.cells
    ], f"{path.name}: run `make pages`"
    assert [c.metadata for c in made.cells] == [c.metadata for c in saved.cells]


@every
def test_a_source_keeps_no_outputs(path: Path) -> None:
    assert not any(cell.get("outputs") for cell in source(path).cells)


@every
def test_no_solution_no_hidden_test_and_no_teaching_note_is_in_the_student_s_page(path: Path) -> None:
    words, solved = "\n".join(cell.source for cell in student(path).cells), source(path)
    assert "SOLUTION" not in words
    assert "HIDDEN TESTS" not in words
    assert "Teaching notes" not in words
    assert any("instructor" in cell.metadata.get("tags", ()) for cell in solved.cells)
    for cell in graded(solved, "solution"):
        answer = cell.source.split("### BEGIN SOLUTION")[1].split("### END SOLUTION")[0].strip().splitlines()
        assert all(line not in words for line in map(str.strip, answer) if len(line) > 45), answer


@every
def test_an_exercise_has_stub_check_hints_and_what_is_expected(path: Path) -> None:
    solved, page = source(path), student(path)
    answers, tests = graded(page, "solution"), graded(page, "grade")
    assert 3 <= len(answers) == len(tests) <= 5
    for answer, check, full in zip(answers, tests, graded(solved, "grade"), strict=True):
        exercise = answer.metadata.nbgrader.grade_id
        assert re.search(r"TODO: .*APPROACH: .*EXAMPLE: ", answer.source, re.DOTALL)
        assert answer.source.rstrip().endswith("raise NotImplementedError()")
        assert f"checks.check_{exercise}(" in check.source
        assert "verdict.or_reference()" in check.source
        assert "assert verdict.passed" in full.source
        assert check.metadata.nbgrader.points == 1
    words = "\n".join(texts(page, "markdown"))
    assert words.count("Difficulty ●") == len(answers)
    assert words.count("<details><summary>Hint") == 2 * len(answers)
    minutes = [int(n) for n in re.findall(r"importance [●○]{3} · (\d+) minutes", words)]
    assert f"{sum(minutes)} to do" in page.cells[0].source


def test_every_check_is_of_one_exercise_and_every_exercise_has_one() -> None:
    asked = [cell.metadata.nbgrader.grade_id for path in SOLVED for cell in graded(source(path), "solution")]
    assert sorted(f"check_{name}" for name in asked) == sorted(n for n in checks.__all__ if n.startswith("check_"))


@every
def test_a_page_needs_no_variable_of_another_page(path: Path) -> None:
    reads, makes = names(texts(student(path), "code"))
    assert reads <= makes, sorted(reads - makes)


@every
def test_solutions_pass_and_stubs_do_not(path: Path) -> None:
    """Those that need no variable of the page; the others are tried when the page runs."""
    import numpy as np
    import torch.nn.functional as F

    tried = 0
    for page, passes in ((source(path), True), (student(path), False)):
        for cell in graded(page, "solution"):
            found: dict[str, Any] = {"np": np, "torch": torch, "F": F}
            before = set(found)
            exec(cell.source, found)
            (answer,) = (value for name, value in found.items() if name not in before and callable(value))
            exercise = cell.metadata.nbgrader.grade_id
            if exercise not in ("selection", "diary") or not passes:
                assert getattr(checks, f"check_{exercise}")(answer).passed is passes, exercise
                tried += 1
    assert tried >= 4


@every
def test_a_saved_page_shows_what_is_expected_and_no_verdict(path: Path) -> None:
    page = student(path)
    for cell in (*graded(page, "solution"), *graded(page, "grade")):
        assert not cell.outputs
    outputs = [str(output) for cell in page.cells for output in cell.get("outputs", ())]
    assert not any("not yet" in output or "From here on the page uses" in output for output in outputs)


def test_the_minutes_of_the_lecturer_s_page_are_those_of_the_exercises() -> None:
    rows = re.findall(r"^\| \[(0[1-9]) .*\| (\d+) \|$", (FOLDER / "README.md").read_text("utf-8"), re.MULTILINE)
    todo = {path.name[:2]: re.search(r"(\d+) to do", source(path).cells[0].source)[1] for path in SOLVED}  # type: ignore[index]
    assert dict(rows) == todo


def test_slides_have_notes_pictures_of_saved_outputs_and_minutes_that_add_up() -> None:
    spec = importlib.util.spec_from_file_location("slides", FOLDER / "instructor" / "slides" / "make.py")
    slides = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(slides)
    page = slides.notebook((FOLDER / "instructor" / "slides" / "slides.md").read_text("utf-8"))
    kinds = [cell.metadata.slideshow.slide_type for cell in page.cells]
    assert kinds == ["slide", "notes"] * (len(kinds) // 2)
    notes = [cell.source for cell in page.cells if cell.metadata.slideshow.slide_type == "notes"]
    assert sum(int(re.match(r"(\d+) minutes", note)[1]) for note in notes) == 45  # type: ignore[index]
    words = "\n".join(cell.source for cell in page.cells)
    assert words.count("data:image/") == words.count("<img alt=") >= 5
    assert "purity" in words
    assert "ipynb#" not in words
    assert not re.search(r'(src|href)="http', words)


@pytest.mark.parametrize("name", ["README", "glossary", "failures", "believed", "instructor/questions"])
def test_links_of_the_lecturer_s_pages_lead_somewhere(name: str) -> None:
    page = FOLDER / f"{name}.md"
    for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


def letters(formula: str) -> set[str]:
    """The letters of a formula, Latin and Greek, without what stands in an index and without words."""
    inner = r"\{(?:[^{}]|\{[^{}]*\})*\}"
    bare = re.sub(rf"\\(?:text|operatorname|mathbb){inner}|[_^](?:(?:\\text)?{inner}|\\?\w+)", " ", formula)
    greek = set(re.findall(r"\\(?:alpha|beta|gamma|lambda|sigma|tau)\b", bare))
    return greek | set(re.findall(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", " ", bare)))


def test_letters_of_a_formula_are_told_from_its_words_and_indices() -> None:
    formula = r"V_k = \sum_n a_{nk}(\hat u_n - c_k)^\top / w_{\text{soft}} + w_\text{soft}\tau"
    assert letters(formula) == {*"Vaucw", r"\tau"}


def test_every_symbol_of_the_pages_stands_in_the_glossary_once() -> None:
    rows = re.findall(r"^\| (\$.*?|`temperature`) +\|", (FOLDER / "glossary.md").read_text("utf-8"), re.MULTILINE)
    known = [symbol for row in rows for symbol in re.findall(r"\$([^$]+)\$(?! as a letter|, \$w\$ as)", row)]
    assert len(set(known)) == len(known), sorted(known)
    pages = ["\n".join(texts(source(path), "markdown")) for path in make.sources()]
    pages += [path.read_text("utf-8") for path in sorted((FOLDER.parent / "docs" / "explanation").glob("*.md"))]
    found = re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", "\n".join(pages), re.DOTALL)
    formulas = [block or line for block, line in found]
    indices, defined = set("klmn"), set[str]().union(*map(letters, re.findall(r"\$([^$]+)\$", "\n".join(rows))))
    assert len(formulas) > 100
    assert {f: strange for f in formulas if (strange := letters(f) - defined - indices)} == {}


def test_badges_come_with_an_address_and_not_without() -> None:
    from badges import badges

    assert badges({}, ["00.ipynb"]) == ""
    told = badges({"Repository": "https://github.com/someone/prockd"}, ["00.ipynb"])
    assert "colab.research.google.com/github/someone/prockd/blob/main/notebooks/00.ipynb" in told
    assert "mybinder.org/v2/gh/someone/prockd/main" in told


def test_containers_are_described_in_files_that_can_be_read() -> None:
    assert json.loads((FOLDER.parent / ".devcontainer" / "devcontainer.json").read_text())["name"] == "prockd"
    assert "[lab]" in (FOLDER.parent / ".binder" / "environment.yml").read_text()


def test_what_was_written_in_a_student_s_page_is_taken_back_into_its_source_and_answers_stay() -> None:
    path = SOLVED[2]
    solved, page = source(path), make.for_students(source(path))
    words = next(cell for cell in page.cells[1:] if cell.cell_type == "markdown")
    words.source = "Other words, see [the card](../data/farmyard/TEACHER.md)."
    page.cells.insert(3, nbformat.v4.new_code_cell("1 + 1", id="added"))
    back = make.take_back(page, solved)
    made = make.for_students(back)
    assert [(c.id, c.source) for c in made.cells] == [(c.id, c.source) for c in page.cells]
    assert "](../../data/farmyard/TEACHER.md)" in "".join(texts(back, "markdown"))
    assert len(graded(back, "solution")) == len(graded(source(path), "solution"))
    assert [c.source for c in graded(back, "solution")] == [c.source for c in graded(source(path), "solution")]
