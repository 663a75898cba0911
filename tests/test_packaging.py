import ast
import doctest
import importlib
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import grimp
import pytest
from hatchling.builders.wheel import WheelBuilder

import prockd

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


def run(code: str) -> list[str]:
    """The lines that a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


SLOW = ("IPython", "matplotlib", "numpy", "scipy", "sklearn", "timm", "torch", "torchvision", "umap")


@pytest.mark.parametrize("code", ["import prockd", "import prockd.settings", "import prockd_widgets"])
def test_importing_a_package_imports_nothing_slow(code):
    (loaded,) = run(f"import sys; {code}; print([m for m in {SLOW} if m in sys.modules])")
    assert loaded == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["distill", "--help"]], ids=" ".join)
def test_help_and_version_come_at_once(arguments):
    code = f"""
import resource, sys
from prockd.cli import app
app({arguments}, prog_name="prockd", standalone_mode=False)
used = resource.getrusage(resource.RUSAGE_SELF)
print([m for m in {SLOW} if m in sys.modules])
print(used.ru_utime + used.ru_stime)
"""
    *_, loaded, seconds = run(code)
    assert loaded == "[]"
    assert float(seconds) < 1.5


def test_every_name_of_the_stub_is_there_and_the_same_as_where_it_is_defined():
    tree = ast.parse((ROOT / "prockd" / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    names = {alias.name: node.module for node in imports for alias in node.names}
    assert set(names) == set(prockd.__all__)
    for name, room in names.items():
        where = f"prockd.{room}" if room else f"prockd.{name}"
        module = importlib.import_module(where)
        assert getattr(prockd, name) is (getattr(module, name) if room else module)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        prockd.nothing_of_the_kind  # noqa: B018


NAMES = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "umap": "umap-learn"}
"""What is imported by another name than that which pip knows."""


def imported_by(folder: str) -> set[str]:
    """The packages of others that the code of a folder imports; its examples run where prockd is not."""
    modules: set[str] = set()
    for path in (ROOT / folder).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8")) if "examples" not in path.parts else ast.Module([], [])
        for node in ast.walk(tree):
            modules |= {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            modules |= {node.module or ""} if isinstance(node, ast.ImportFrom) and not node.level else set()
    packages = {module.partition(".")[0] for module in modules} - set(sys.stdlib_module_names)
    return {NAMES.get(p, p.replace("_", "-")) for p in packages if not p.startswith("prockd")}


def test_every_package_that_is_imported_is_asked_for_and_no_other():
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    core, lab, detection, export, heic = (
        {re.match(r"[\w-]+", each)[0] for each in asked}
        for asked in (project["dependencies"], *(extras[name] for name in ("lab", "detection", "export", "heic")))
    )
    assert imported_by("prockd") == core | detection | export | heic | {"umap-learn", "numba"}  # which UMAP brings
    made_of = {"IPython", "traitlets"}  # ipywidgets is
    assert imported_by("widgets/prockd_widgets") - core == (lab - {"jupyterlab", "umap-learn"}) | made_of


def test_no_file_imports_itself_by_way_of_others():
    graph = grimp.build_graph("prockd", "prockd_widgets")
    circles = {}
    for name in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(name)):
            if chain := graph.find_shortest_chain(importer=imported, imported=name):
                circles.setdefault(frozenset(chain), " -> ".join([name, *chain]))
    assert list(circles.values()) == []


def test_every_example_of_a_docstring_is_run():
    finder = doctest.DocTestFinder(exclude_empty=True)
    written, collected = {}, {}
    for path in sorted((ROOT / "prockd").rglob("*.py")):
        count = len(re.findall(r"^ *>>> ", path.read_text(encoding="utf-8"), re.MULTILINE))
        if count:
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            written[name] = count
            collected[name] = sum(len(test.examples) for test in finder.find(importlib.import_module(name)))
    assert written
    assert collected == written


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
    script = PYPROJECT["project"]["scripts"]["prockd"].split(":")[0].replace(".", "/") + "/__init__.py"
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


def test_no_public_function_has_the_name_of_a_module_or_room() -> None:
    files = [file for file in (ROOT / "prockd").rglob("*.py") if "examples" not in file.parts]
    rooms = {file.parent.name for file in files}
    functions = {
        f"{file.relative_to(ROOT)}: {node.name}"
        for file in files
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name in rooms | {file.stem}
    }
    assert functions == set()
