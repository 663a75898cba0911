"""benchmarks/faults.py: what it damages is good before, and all of its counts are there."""

import random
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from faults_in import DAMAGES, READERS, damaged, read_damaged

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("kind", [kind for kind in READERS if kind != "picture gif"])  # which is refused as it is
def test_a_file_is_read_before_it_is_damaged_and_read_or_refused_by_name_afterwards(kind, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    reader = READERS[kind]
    path = reader.make(root)
    good = tmp_path / f"good{path.suffix}"
    good.write_bytes(path.read_bytes())
    reader.read(root if reader.whole else path)
    for number in (3, 7):  # cut, and another number
        outcome, told = read_damaged(kind, number, 1, good, path)
        assert outcome in ("read", "refused"), told


def test_a_damage_changes_bytes_and_the_same_number_is_the_same_damage():
    data = random.Random(0).randbytes(500) + b'{"a": 12}' * 20
    made = [damaged(data, number, random.Random(number)) for number in range(40)]
    assert made == [damaged(data, number, random.Random(number)) for number in range(40)]
    assert sum(one != data for one in made) > 36


def test_the_counts_are_those_that_were_asked_for(monkeypatch):
    for name in ("OMP_NUM_THREADS", "TQDM_DISABLE"):  # the script sets them for itself
        monkeypatch.setenv(name, "1")
    from faults import all_jobs

    jobs, quick = all_jobs(False, None, 1), all_jobs(True, None, 1)
    of = {(job.part, job.kind): 0 for job in jobs} | Counter((job.part, job.kind) for job in jobs)
    assert all(of["mutations", kind] // len(DAMAGES) == 50 for kind in READERS)
    assert sum(job.part == "mutations" for job in jobs) >= 10_000
    assert 0.05 < len(quick) / len(jobs) < 0.15
    assert len(set(jobs)) == len(jobs)
