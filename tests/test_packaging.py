import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TEXT = {"", ".cff", ".css", ".html", ".ipynb", ".js", ".json", ".md", ".py", ".toml", ".txt", ".yaml", ".yml"}


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def files_under(folder: str, prefix: str = "") -> set[str]:
    paths = [p for p in (ROOT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    return {prefix + p.relative_to(ROOT / folder).as_posix() for p in paths}


def built(version: str, folder: Path) -> zipfile.ZipFile:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=[version])
    return zipfile.ZipFile(wheel)


def test_importing_prockd_imports_neither_umap_nor_matplotlib():
    code = "import prockd, sys; print([m for m in ('umap', 'matplotlib') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_a_wheel_holds_the_code_the_widgets_and_the_data(tmp_path):
    wanted = files_under("prockd", "prockd/") | files_under("widgets/prockd_widgets", "prockd_widgets/")
    wanted |= files_under("data", "prockd/_data/")
    with built("standard", tmp_path) as wheel:
        held = set(wheel.namelist())
    assert {"prockd/py.typed", "prockd_widgets/py.typed", "prockd/_data/farmyard/species.toml"} <= wanted
    assert wanted <= held
    assert all(".dist-info/" in name for name in held - wanted)


def test_an_editable_install_points_at_the_checkout_and_copies_nothing(tmp_path):
    with built("editable", tmp_path) as wheel:
        (pointer,) = [name for name in wheel.namelist() if ".dist-info/" not in name]
        folders = wheel.read(pointer).decode().split()
    assert [Path(folder) for folder in folders] == [ROOT, ROOT / "widgets"]


def test_every_file_that_pyproject_names_exists():
    build = PYPROJECT["tool"]["hatch"]["build"]["targets"]
    script = PYPROJECT["project"]["scripts"]["prockd"].split(":")[0].replace(".", "/") + ".py"
    named = [PYPROJECT["project"]["readme"], *PYPROJECT["project"]["license-files"], script]
    named += [name.lstrip("/") for name in build["sdist"]["include"]] + build["wheel"]["only-include"]
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?<![\w.~])/(?:wo" + r"rk|ro" + r"ot|fa" + r"rm|ho" + r"me/\w+|Use" + r"rs/\w+)/[\w.]",
        "py" + r"pi\.org|pythonho" + r"sted|registry\.np" + r"mjs|deb\.deb" + "ian",
    ],
    ids=["machine", "registry"],
)
def test_no_file_names_a_machine_or_a_package_registry(pattern):
    naming = {}
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", errors="ignore") if path.suffix in TEXT else ""
        if found := re.search(pattern, text):
            naming[path.relative_to(ROOT).as_posix()] = found[0]
    assert naming == {}
