"""Make the student's pages of the solved ones in ``instructor/``: `make notebooks`.

    python notebooks/make.py                 keeps the saved outputs of cells that did not change
    python notebooks/make.py --run [PAGE]    runs the solved pages first, and writes their minutes and memory into headers
    python notebooks/make.py --back          takes what was written in a student's page, but for answers, into its source

The student's page is what nbgrader makes of the solved one: without solutions, hidden tests and teaching notes. Outputs
are those of the solved page, so that a picture below an exercise is what is expected.
"""

import argparse
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert.preprocessors import TagRemovePreprocessor
from nbformat import NotebookNode
from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions

PAGES = Path(__file__).parent
SOLVED = PAGES / "instructor"
USED = """import resource
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(max(u.ru_maxrss for u in used), sum(u.ru_utime + u.ru_stime for u in used))"""


def sources() -> list[Path]:
    """The pages as they are written: 00 has no exercises and is its own source."""
    return [PAGES / "00_quickstart.ipynb", *sorted(SOLVED.glob("[0-9]*.ipynb"))]


def for_students(solved: NotebookNode) -> NotebookNode:
    """The page without solutions, hidden tests and teaching notes, as nbgrader makes it."""
    page = nbformat.from_dict(solved)
    for step in (TagRemovePreprocessor(remove_cell_tags={"instructor"}), ClearSolutions(), ClearHiddenTests()):
        page, _ = step.preprocess(page, {})
    for cell in page.cells:
        cell.source = cell.source.replace("../../", "../")  # one folder nearer to the root
        if "nbgrader" in cell.metadata and cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None  # a check's answer is the student's to see
    return page


def take_back(page: NotebookNode, solved: NotebookNode) -> NotebookNode:
    """The solved page with the words and cells of a student's page that somebody wrote there; answers stay as they are."""
    made, own = {c.id: c.source for c in for_students(solved).cells}, {c.id: c for c in solved.cells}
    before = solved.cells[0].id
    for cell in page.cells:
        if "nbgrader" not in cell.metadata and made.get(cell.id) != cell.source:
            new = nbformat.from_dict(cell)
            new.source = cell.source.replace('"../', '"../../').replace("](../", "](../../")
            if cell.id in own:
                own[cell.id].source = new.source
            else:
                solved.cells.insert(1 + [c.id for c in solved.cells].index(before), new)
        before = cell.id
    return solved


def with_outputs(page: NotebookNode, saved: NotebookNode) -> NotebookNode:
    """The page with what was saved of cells that are as they were."""
    kept = {cell.id: cell for cell in saved.cells if cell.cell_type == "code"}
    for cell in page.cells:
        before = kept.get(cell.id)
        if before is not None and before.source == cell.source:
            cell.outputs, cell.execution_count = before.outputs, before.execution_count
    return page


def run(page: NotebookNode, folder: Path) -> tuple[float, float]:
    """Run a page in place; its minutes and the largest memory of its process in GB.

    Minutes are of the clock or of the processor, whichever is less: beside other programs the clock tells of those.
    """
    page.cells.append(nbformat.v4.new_code_cell(USED, id="used"))
    start = time.monotonic()
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(page, timeout=3600, kernel_name="python3", resources=resources, store_widget_state=False).execute()
    seconds = time.monotonic() - start
    peak, busy = map(float, page.cells.pop().outputs[0].text.split())
    print(f"{seconds:.0f} s by the clock, {busy:.0f} s of processors", flush=True)
    page.metadata.language_info.pop("version", None)
    return min(seconds, busy) / 60, peak / (1e9 if sys.platform == "darwin" else 1e6)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="*", metavar="PAGE", help="run these pages, such as 01; all where none is named")
    parser.add_argument("--back", action="store_true", help="take changes of the student's pages into their sources")
    asked = parser.parse_args()
    names = asked.run
    for path in sources():
        solved, target = nbformat.read(path, 4), PAGES / path.name
        if asked.back and path != target:
            solved = take_back(nbformat.read(target, 4), solved)
        if names and path.name[:2] not in names:
            continue  # several of these commands may run side by side
        if names is not None:
            minutes, gb = run(solved, path.parent)
            told = f"about {max(1, round(minutes))} minute{'s' * (minutes >= 1.5)} and {max(gb, 0.1):.1f} GB to run"
            solved.cells[0].source = re.sub(r"about \d+ minutes?( and [\d.]+ GB)? to run", told, solved.cells[0].source)
            print(f"{path.stem}: {told}", flush=True)
            page = for_students(solved)
        else:
            page = with_outputs(for_students(solved), nbformat.read(target, 4))
        for cell in solved.cells if path != target else ():
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
                cell.metadata.pop("execution", None)
        for cell in page.cells:
            cell.metadata.pop("execution", None)
        if path != target:
            nbformat.write(solved, path)
        nbformat.write(page, target)


if __name__ == "__main__":
    main()
