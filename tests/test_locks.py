import json
import threading

import pytest

from prockd.locks import LockedError, claim, latest, locked, owner_of, release
from prockd.writing import is_running, this_process


def test_a_folder_is_locked_while_it_is_worked_in_and_may_be_locked_again_by_the_same_process(tmp_path):
    folder = tmp_path / "runs" / "run"
    with locked(folder):
        assert owner_of(folder / ".lock.0") == this_process()
        with locked(folder):
            pass
        assert (folder / ".lock.0").is_file()
    assert not folder.parent.exists(), "empty folders that the lock made go with it"


def test_a_folder_that_holds_something_stays(tmp_path):
    with locked(tmp_path / "run"):
        (tmp_path / "run" / "results.json").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["results.json"]


def test_a_lock_of_another_host_counts_and_is_told_with_what_to_remove(tmp_path):
    (tmp_path / ".lock.0").write_text(json.dumps({"host": "elsewhere", "pid": 7, "began": 1.0}))
    told = r"process 7 on elsewhere works there: .* if it is gone, remove .*\.lock\.0"
    with pytest.raises(LockedError, match=told), locked(tmp_path):
        pass
    (tmp_path / ".lock.0").write_text("{")
    with pytest.raises(LockedError, match="another process works there"), locked(tmp_path):
        pass


def test_the_lock_of_a_dead_process_is_told_and_taken(tmp_path):
    (tmp_path / ".lock.0").write_text(json.dumps(this_process() | {"began": 1.0}))
    with pytest.warns(UserWarning, match="which worked there, has died; its lock is taken"), locked(tmp_path):
        assert latest(tmp_path, ".lock") == tmp_path / ".lock.1"
    assert not list(tmp_path.iterdir())


def test_one_of_many_threads_gets_a_claim(tmp_path):
    got, barrier = [], threading.Barrier(8)

    def ask() -> None:
        barrier.wait(10)
        got.append(claim(tmp_path, "a run: 1"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 7 + [True]
    release(tmp_path, "a run: 1")
    assert claim(tmp_path, "a run: 1")


def test_a_process_is_told_from_a_later_one_of_the_same_number():
    assert is_running(this_process())
    assert not is_running(this_process() | {"began": this_process()["began"] - 60})
    assert not is_running(this_process() | {"pid": 2**22 + 1})
