import ast
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import prockd as pk
from prockd.cli import app
from prockd.cli import kit as module

asked: list[list[str]] = []


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kit whose wheels were asked for and not fetched, and whose cache is one small file."""
    asked.clear()

    def run(words: list[object], check: bool, env: dict[str, str] | None = None) -> None:
        asked.append([str(word) for word in words])
        if "wheel" in asked[-1]:
            (tmp_path / "kit" / "wheels").mkdir(parents=True)
            (tmp_path / "kit" / "wheels" / "prockd.whl").write_bytes(b"wheel")
        if env is not None:
            Path(env["PROCKD_CACHE"]).mkdir()
            (Path(env["PROCKD_CACHE"]) / "entry").write_bytes(b"features")

    monkeypatch.setattr(module.subprocess, "run", run)
    words = ["class-kit", str(tmp_path / "kit"), "--platform", "windows", "--platform", "linux", "--python", "3.12"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return tmp_path / "kit"


def test_a_kit_has_pages_cache_launchers_and_a_readme_and_no_solutions(kit: Path) -> None:
    names = {path.name for path in kit.iterdir()}
    assert names == {"wheels", "notebooks", "benchmarks", "data", "cache", "install.sh", "start.sh", "install.bat",
                     "start.bat", "README.txt", "SHA256SUMS", "LICENSE", "LICENSE-docs"}  # fmt: skip
    assert len(list((kit / "notebooks").glob("0*.ipynb"))) == 10
    assert not (kit / "notebooks" / "instructor").exists()
    assert "Python 3.12" in (kit / "README.txt").read_text()
    assert b"\r\n" in (kit / "start.bat").read_bytes()
    assert b"\r" not in (kit / "start.sh").read_bytes()


def test_links_of_the_kit_s_pages_lead_to_files_of_the_kit(kit: Path) -> None:
    pages, dead = sorted((kit / "notebooks").glob("*.[im][pd]*")), []
    for page in pages:
        links = re.findall(r"\]\(([^)#: ]+?)(?:#[^)]*)?\)", page.read_text("utf-8"))
        dead += [(page.name, link) for link in links if not (page.parent / link).exists()]
    assert len(pages) >= 13
    assert dead == []


def test_wheels_are_asked_for_each_platform_as_wheels_alone(kit: Path) -> None:
    made, *downloads = [words for words in asked if "pip" in words]
    assert "--no-deps" in made
    assert [("win_amd64" in words, "manylinux_2_28_x86_64" in words) for words in downloads] == [
        (True, False),
        (False, True),
    ]
    for words in downloads:
        assert words[words.index("--python-version") + 1] == "3.12"
        assert "--only-binary=:all:" in words


def test_checksums_are_of_every_file_and_tell_a_damaged_one(kit: Path) -> None:
    lines = dict(line.split("  ")[::-1] for line in (kit / "SHA256SUMS").read_text().splitlines())
    files = {p.relative_to(kit).as_posix() for p in kit.rglob("*") if p.is_file()} - {"SHA256SUMS"}
    assert set(lines) == files
    assert lines["wheels/prockd.whl"] == hashlib.sha256(b"wheel").hexdigest()


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
@pytest.mark.parametrize("name", ["install.sh", "start.sh"])
def test_launchers_are_scripts_that_a_shell_reads(kit: Path, name: str) -> None:
    assert subprocess.Popen(["sh", "-n", kit / name]).wait() == 0
    text = (kit / name).read_text()
    assert "{" not in text
    assert "--no-index" in text or "PROCKD_CACHE" in text


def test_what_fills_the_cache_calls_names_that_prockd_has() -> None:
    called = {
        n.attr
        for n in ast.walk(ast.parse(module.FILL))
        if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "pk"
    }
    assert called
    assert {name for name in called if not hasattr(pk, name)} == set()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--platform", "amiga"], "choose of linux, windows, macos"),
        ([], "is not empty"),
        (["--overwrite"], "is not empty"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_sentence(tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    done = CliRunner().invoke(app, ["class-kit", str(tmp_path), *words])
    assert done.exit_code != 0
    assert message in done.output + str(done.exception)
    assert (tmp_path / "mine.txt").read_text() == "kept"
