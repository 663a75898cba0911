import errno
import gc  # noqa: F401 - of code in another process
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import safetensors.torch
import torch
from matplotlib.figure import Figure

from prockd import writing
from prockd.writing import WriteError, append_line, read_lines, refuse_existing, write_file, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def draw(path: Path) -> None:
    Figure().savefig(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "ears"),
        ("a.bin", b"ears"),
        ("a.safetensors", lambda path: safetensors.torch.save_file({"x": torch.ones(3)}, path)),
        ("a.pt", lambda path: torch.save({"x": torch.ones(3)}, path)),
        ("a.npz", lambda path: np.savez(path, x=np.ones(3))),
        ("a.png", draw),
    ],
)
def test_whatever_writes_leaves_one_file_with_the_usual_permissions_of_this_process(tmp_path, name, content):
    before = os.umask(0o027)
    try:
        path = write_file(tmp_path / "new" / name, content)
    finally:
        os.umask(before)
    assert names(tmp_path / "new") == [name]
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.stat().st_size


def test_a_file_that_is_replaced_keeps_its_permissions_and_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_text("old")
    (tmp_path / "real" / "a").chmod(0o604)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a")
    write_file(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a").read_text() == "new"
    assert (tmp_path / "real" / "a").stat().st_mode & 0o777 == 0o604


def test_what_is_there_is_refused_unless_it_may_go(tmp_path):
    path = write_file(tmp_path / "a", "mine", overwrite=False)
    with pytest.raises(FileExistsError, match=r"a is there already: choose another name"):
        write_file(path, "yours", overwrite=False)
    with pytest.raises(FileExistsError, match="is there already"):
        refuse_existing(path)
    assert path.read_text() == "mine"
    assert names(tmp_path) == ["a"]


def test_of_two_that_write_one_new_file_at_once_one_wins_and_the_other_is_told(tmp_path):
    barrier, refused = threading.Barrier(8), []

    def write(number: int) -> None:
        def slowly(path: Path) -> None:
            barrier.wait(10)  # all have seen that nothing is there
            path.write_text(str(number))

        try:
            write_file(tmp_path / "a", slowly, overwrite=False)
        except FileExistsError:
            refused.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7
    assert {*range(8)} - {*refused} == {int((tmp_path / "a").read_text())}
    assert names(tmp_path) == ["a"]


def test_an_error_of_the_one_who_writes_is_passed_on_and_the_old_file_stays(tmp_path):
    write_file(tmp_path / "a", "old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise ValueError("no such figure")

    with pytest.raises(ValueError, match="no such figure"):
        write_file(tmp_path / "a", fail)
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_full_disk_is_told_with_path_need_and_room_before_anything_is_written(tmp_path, monkeypatch):
    write_file(tmp_path / "a", "old")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 1500))
    with pytest.raises(WriteError, match=r"a cannot be written: no space left .*\(4 MB needed, 1\.5 kB were free\)"):
        write_file(tmp_path / "a", bytes(4_000_000))
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def save_pt(path: Path) -> None:
    torch.save(torch.ones(1_000_000), path)


def save_safetensors(path: Path) -> None:
    safetensors.torch.save_file({"x": torch.ones(1_000_000)}, path)


def save_npz(path: Path) -> None:
    np.savez(path, x=np.ones(1_000_000))


def still_open() -> list[str]:
    """Files of this process that are gone and whose room is still taken, where the system tells."""
    opened = (str(path.readlink()) for path in Path("/proc/self/fd").glob("*") if path.is_symlink())
    return [name for name in opened if name.endswith("(deleted)")]


def limited(folder: Path, code: str) -> str:
    """What a process prints that may write no file above 2 MB, as where the disk is full."""
    begin = (
        f"import resource, signal, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))\n"
        "from test_writing import *\n"
        f"folder = Path({str(folder)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", begin + code], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("save", ["save_pt", "save_safetensors", "save_npz", "bytes(4_000_000)"])
def test_a_disk_that_fills_up_while_a_library_writes_is_one_sentence_and_the_old_file_whole(tmp_path, save):
    suffix = save.removeprefix("save_") if save.startswith("save") else "bin"
    path = write_file(tmp_path / f"a.{suffix}", "old")
    code = f"gc.disable()\ntry: write_file(folder / {path.name!r}, {save})\nexcept WriteError as error: print(error)"
    told, _, held = limited(tmp_path, f"{code}\nprint(still_open())").strip().rpartition("\n")
    assert held == "[]", "nothing keeps the room of what was not finished until garbage is collected"
    assert told.startswith(f"{path} cannot be written: ")
    assert "needed" in told
    assert "were free" in told
    assert path.read_text() == "old"
    assert names(tmp_path) == [path.name]


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match="folder cannot be written: it is a folder"):
        write_file(tmp_path / "folder", "x")
    with pytest.raises(WriteError, match="null cannot be written: it is a device"):
        write_file("/dev/null", "x")
    write_file(tmp_path / "file", "x")
    with pytest.raises(WriteError, match="cannot be written: "):
        write_file(tmp_path / "file" / "below", "x")
    assert names(tmp_path) == ["file", "folder"]


KILLED = """
import sys, time
from pathlib import Path
from prockd.writing import write_file
def slowly(path):
    path.write_text("half")
    print(path.name, flush=True)
    time.sleep(60)
write_file(Path(sys.argv[1]), slowly)
"""


@pytest.mark.slow
def test_what_a_killed_process_left_goes_with_the_next_write_and_what_a_living_one_writes_stays(tmp_path, monkeypatch):
    write_file(tmp_path / "a", "old")
    writers = [
        subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / name)], stdout=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    left, living = (writer.stdout.readline().strip() for writer in writers)
    writers[0].send_signal(signal.SIGKILL)
    writers[0].communicate()
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == sorted([left, living, "a"])
    monkeypatch.setattr(writing, "_swept", {})
    write_file(tmp_path / "c", "new")
    assert names(tmp_path) == sorted([living, "a", "c"])
    writers[1].terminate()
    writers[1].communicate()


def test_what_another_host_left_goes_after_a_day(tmp_path, monkeypatch):
    other = tmp_path / ".prockd-00000000-1-1-00000000.pt"
    other.write_text("half")
    (tmp_path / ".prockd-notes").write_text("of a person")
    write_file(tmp_path / "a", "x")
    assert other.exists()
    os.utime(other, (0, time.time() - 90_000))
    monkeypatch.setattr(writing, "_swept", {})
    write_file(tmp_path / "a", "x")
    assert names(tmp_path) == [".prockd-notes", "a"]


def test_text_that_is_no_text_is_written_as_json_reads_it(tmp_path):
    name = b"f\xe9.png".decode("utf-8", "surrogateescape")
    assert json.loads(write_json(tmp_path / "a.json", {"name": name, "é": 1}).read_text()) == {"name": name, "é": 1}
    append_line(tmp_path / "a.jsonl", {"name": name})
    assert read_lines(tmp_path / "a.jsonl") == [{"name": name}]


def test_lines_are_appended_whole_and_half_a_line_is_ended_and_passed_over(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    append_line(path, {"a": 1})
    with path.open("a") as file:
        file.write('{"a": 2, "b"')
    assert read_lines(path) == [{"a": 1}]
    append_line(path, {"a": 3})
    assert read_lines(path) == [{"a": 1}, {"a": 3}]
    assert read_lines(tmp_path / "none") == []


@pytest.mark.slow
def test_a_line_that_finds_no_room_is_told_and_the_lines_before_are_read(tmp_path):
    code = (
        "try:\n    for n in range(3): append_line(folder / 'rows.jsonl', {'n': n, 'x': 'y' * 900_000})\n"
        "except WriteError as error: print(error)"
    )
    assert "rows.jsonl cannot be written: " in limited(tmp_path, code)
    assert [row["n"] for row in read_lines(tmp_path / "rows.jsonl")] == [0, 1]


def test_a_file_system_without_hard_links_writes_too(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert write_file(tmp_path / "a", "x", overwrite=False).read_text() == "x"
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "a", "y", overwrite=False)
