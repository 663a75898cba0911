from types import SimpleNamespace

import numpy as np
import pytest

from prockd.evaluation.tables import format_table

ROWS = [{"arm": "plain", "labels": 5, "z": 0.16342}, {"arm": "prototypes", "z": 0.5, "z+": np.float32(0.25)}]


def test_the_terminal_table_is_aligned_and_shows_what_is_missing():
    assert format_table(ROWS).splitlines() == [
        "arm         labels      z     z+",
        "────────────────────────────────",
        "plain            5  0.163      –",
        "prototypes       –  0.500  0.250",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1.23e+03"), (678.21, "678.2"), (2e-5, "2e-05"), (0.0, "0.000"), (True, "True"), (None, "–")],
)
def test_numbers_keep_three_digits(value, text):
    assert format_table([{"x": value}]).splitlines()[-1].strip() == text


def test_a_table_is_as_wide_as_its_cells_whatever_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    header, rule, row = format_table([{f"column {i}": "x" * 30 for i in range(20)}]).splitlines()
    assert header.split("  ")[0] == "column 0"
    assert len(row) == len(rule) == 20 * 30 + 19 * 2
    assert row == "  ".join(["x" * 30] * 20)


def test_cells_are_text_and_never_markup_or_colour(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    text = format_table([{"[bold]name[/bold]": "[red]x[/red] :smile: 0x1F https://a.b", "n": 1}])
    assert text.splitlines()[0].startswith("[bold]name[/bold]")
    assert text.splitlines()[2].startswith("[red]x[/red] :smile: 0x1F https://a.b")
    assert "\x1b" not in text


def test_a_stream_that_knows_no_rules_gets_minus_signs(monkeypatch):
    for encoding, expected in (("cp1252", "a\n-\n-"), ("ascii", "a\n-\n-"), ("utf-8", "a\n─\n–"), (None, "a\n─\n–")):
        monkeypatch.setattr("sys.stdout", SimpleNamespace(encoding=encoding))
        assert format_table([{"a": None}]) == expected


def test_wide_letters_take_the_room_that_they_have_on_a_terminal():
    header, _, cow, dog = format_table([{"name": "牛", "n": 1}, {"name": "dog", "n": 2}]).splitlines()
    assert (header, cow, dog) == ("name  n", "牛    1", "dog   2")


def test_no_rows_make_no_text():
    assert format_table([]) == ""
