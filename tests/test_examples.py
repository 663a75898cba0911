import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "prockd"
SHOWING = sorted(path for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", SHOWING, ids=lambda path: path.relative_to(PACKAGE).with_suffix("").as_posix())
def test_the_examples_of_docstrings_print_what_they_say(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PROCKD_CACHE", str(tmp_path))
    module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0
