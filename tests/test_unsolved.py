"""What a student's page does before anything is written in it, and what nbgrader gives for it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
PAGES = sorted((FOLDER / "instructor").glob("[0-9][0-9]_*.ipynb"))

pytestmark = pytest.mark.slow


@pytest.fixture
def few_steps(tmp_path: Path) -> dict[str, str]:
    """The environment of kernels that do few steps on few images."""
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("few_steps.py"), startup / "00_few_steps.py")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # nbgrader calls alembic by name
    return os.environ | {
        "PATH": path,
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_run_all_on_the_unsolved_page_reaches_the_end_and_says_where_it_used_the_reference(
    path: Path, few_steps: dict[str, str]
) -> None:
    page = nbformat.read(FOLDER / path.name, 4)
    for cell in page.cells:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell.outputs = []
    resources = {"metadata": {"path": str(FOLDER)}}
    client = NotebookClient(page, timeout=500, startup_timeout=300, kernel_name="python3", resources=resources)
    client.execute(env=few_steps)
    for cell in page.cells:
        grade = cell.metadata.get("nbgrader", {})
        if grade.get("grade"):
            told = "".join(output.get("text", "") for output in cell.outputs)
            name = grade["grade_id"].removeprefix("check_")
            assert "nothing is written yet" in told
            assert f"uses the reference of '{name}'" in told
    assert page.cells[-1].source or page.cells[-1].execution_count


GRADE = """
import json, shutil, sys
from pathlib import Path
from nbgrader.apps import NbGraderAPI
from traitlets.config import PyFileConfigLoader
config = PyFileConfigLoader("nbgrader_config.py", path=".").load_config()
config.CourseDirectory.root = "."
api = NbGraderAPI(config=config)
made = api.generate_assignment("prockd")
assert made["success"], made["error"]
release, source = Path("release/prockd"), Path("source/prockd")
assert len(list(release.glob("*.ipynb"))) == 9
name = sys.argv[1] + ".ipynb"
for student in ("stub", "solved"):
    folder = Path("submitted", student, "prockd")
    folder.mkdir(parents=True)
    page, solved = (json.loads((where / name).read_text("utf-8")) for where in (release, source))
    answers = {c["id"]: c["source"] for c in solved["cells"] if c["metadata"].get("nbgrader", {}).get("solution")}
    for cell in page["cells"] if student == "solved" else ():
        cell["source"] = answers.get(cell["id"], cell["source"])
    (folder / name).write_text(json.dumps(page), "utf-8")
    graded = api.autograde("prockd", student)
    assert graded["success"], (graded["error"] or "") + graded["log"]
with api.gradebook as book:
    found = {s: book.find_submission_notebook(sys.argv[1], "prockd", s) for s in ("stub", "solved")}
    print(json.dumps({s: [n.score, n.max_score] for s, n in found.items()}))
"""


def test_nbgrader_takes_the_folder_as_an_assignment_and_gives_all_points_to_the_solved_page_alone(
    tmp_path: Path, few_steps: dict[str, str]
) -> None:
    course = tmp_path / "course"
    shutil.copytree(FOLDER / "instructor", course / "source" / "prockd", ignore=shutil.ignore_patterns("nbgrader*"))
    shutil.copy(FOLDER / "instructor" / "nbgrader_config.py", course)
    done = subprocess.run(
        [sys.executable, "-c", GRADE, "01_teacher_features"], cwd=course, env=few_steps, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    scores = json.loads(done.stdout.splitlines()[-1])
    assert scores == {"stub": [0, 4], "solved": [4, 4]}
    for page in (course / "release" / "prockd").glob("*.ipynb"):
        words = page.read_text("utf-8")
        assert "SOLUTION" not in words
        assert "Teaching notes" not in words
