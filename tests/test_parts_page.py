"""benchmarks/parts.py, as small as it goes."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SMALL = ("--image-px", "48", "--discover", "12", "--measured", "12", "--set", "num_prototypes=6", "--set", "steps=2")


@pytest.fixture(scope="module")
def parts_page():
    spec = importlib.util.spec_from_file_location("parts_page", Path(__file__).parents[1] / "benchmarks" / "parts.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(module, monkeypatch, *words: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "argv", ["parts.py", *SMALL, *words])
    module.main()


@pytest.mark.slow
def test_quick_ends_with_one_line_of_json_that_tells_place_beside_purity(parts_page, monkeypatch, capsys):
    run(parts_page, monkeypatch, "--quick")
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    asked = {"purity", "place", "crops_purity", "crops_place", "nmi_part", "nmi_place", "stability", "mirror", "probe"}
    assert asked | {"background_share", "parts"} <= set(told)
    assert set(told["parts"]) == {"torso", "head", "neck", "ear", "horn", "leg", "foot", "tail"}
    assert 0 < told["purity"] <= 1
    assert told["form"] == "framed"


@pytest.mark.slow
def test_lines_are_kept_and_not_measured_again(parts_page, monkeypatch, capsys, tmp_path):
    out, words = tmp_path / "parts.jsonl", ("--forms", "varied", "--seeds", "0")
    run(parts_page, monkeypatch, *words, "--out", str(out))
    page = capsys.readouterr().out
    out.write_text(out.read_text() + '{"key": "cut off')
    monkeypatch.setattr(parts_page.Bench, "line", lambda *_: pytest.fail("a line that was there is measured again"))
    run(parts_page, monkeypatch, *words, "--out", str(out))
    assert capsys.readouterr().out == page
    monkeypatch.undo()
    run(parts_page, monkeypatch, "--forms", "varied", "--seeds", "1", "--out", str(out))
    assert [line["seed"] for line in parts_page.read_lines(out)] == [0, 1], "a line that was cut off spoils none"
    for told in ("### The varied form", "random teacher", "worst seed", "Which public numbers are comparable"):
        assert told in page


def test_the_test_split_is_not_for_quick_looks_and_the_page_not_for_other_settings(parts_page, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(parts_page, monkeypatch, "--quick", "--split", "test")
    assert "--quick never reads the test split" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(parts_page, monkeypatch)
    assert "settings of your own need an --out of their own" in capsys.readouterr().err
