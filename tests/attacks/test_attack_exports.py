"""What leaves prockd for other programs: no formula, no network, no place of its writer."""

import csv

import pytest
from prockd_widgets import PrototypeExplorer
from widget_world import discovered, world

from prockd.runs import folder


def test_a_table_has_no_cell_that_a_spreadsheet_computes(tmp_path):
    features = world(6)
    bank = discovered(features)
    names = ("=HYPERLINK(1)", "+1", "-2", "@x", "\t=1")
    for k, name in enumerate(names):
        bank.names[k] = name
    path = PrototypeExplorer(bank, features).to_csv(tmp_path / "patches.csv")
    with path.open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert any(cell == "'=HYPERLINK(1)" for cell in cells)
    assert not any(cell.startswith(("=", "+", "@", "\t", "\r")) for cell in cells)


def test_a_page_asks_nothing_of_the_network(tmp_path):
    features = world(6)
    page = PrototypeExplorer(discovered(features), features).export_html(tmp_path / "page.html").read_text("utf-8")
    assert "Content-Security-Policy\" content=\"default-src 'none'" in page


@pytest.mark.parametrize("argument", ["/srv/ann/photos", "--data=/srv/ann/photos", "data.path=/srv/ann/photos"])
def test_versions_hold_no_absolute_path(monkeypatch, argument):
    monkeypatch.setattr(folder.sys, "argv", ["/srv/ann/bin/prockd", "distill", argument])
    assert "/srv" not in repr(folder.versions()["command"])
    assert "photos" in repr(folder.versions()["command"])
