"""The table of tries and the list of prototypes of the panel in a real browser, on a stand-in for the kernel."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import browser as browser
from panel_world import tiny_world
from prockd_widgets.causes import Causes
from prockd_widgets.html import offline_page
from prockd_widgets.try_table import TryTable

from prockd import FeatureAugmentationConfig, Student, discover

pytestmark = pytest.mark.browser

EVIL = "<img src=x onerror=alert(1)>"
ROWS = [
    {"try": 1, "preset": "best", "changed": "lr=0.01", "seed": 0, "z": 0.5, "z⁺": 0.75, "stopped": False, "resumed": 0},
    {"try": 2, "preset": "plain", "changed": EVIL, "seed": 0, "z": 0.6, "z⁺": None, "stopped": True, "resumed": 0},
    {"try": 3, "preset": "MSE", "changed": "nothing", "seed": 1, "z": 0.7, "z⁺": 0.5, "stopped": False, "resumed": 2},
]


@pytest.fixture
def open_widget(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a widget's page; at the end, holds that nothing failed in it and that nothing was asked for."""
    opened, wrong = [], []

    def open_one(widget: Any, **options: Any) -> Any:
        path = tmp_path / "page.html"
        path.write_text(offline_page(widget, "A list"), encoding="utf-8")
        page = browser.new_page(**{"viewport": {"width": 1000, "height": 700}} | options)
        opened.append(page)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("request", lambda r: wrong.append(r.url) if not r.url.startswith(("file:", "blob:")) else None)
        page.goto(path.as_uri())
        page.evaluate("() => { globalThis.sent = []; prockdModel.send = message => sent.push(message.do); }")
        return page

    yield open_one
    for page in opened:
        page.close()
    assert wrong == []


def numbers(page: Any) -> list[str]:
    return page.locator(".prk-tries tbody input").evaluate_all("all => all.map(one => one.dataset.try)")


def ticked(page: Any) -> list[int]:
    return page.evaluate("prockdModel.get('ticked')")


def test_headings_sort_words_filter_and_ticks_reach_the_kernel(open_widget: Callable[..., Any]) -> None:
    table = TryTable({})
    table.rows = ROWS
    page = open_widget(table)
    assert numbers(page) == ["1", "2", "3"]
    page.get_by_role("button", name="z", exact=True).click()
    assert numbers(page) == ["3", "2", "1"], "the best first"
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    page.keyboard.press("Enter")
    assert numbers(page) == ["1", "2", "3"], "the heading keeps the focus"
    page.get_by_role("button", name="z⁺").click()
    assert numbers(page) == ["1", "3", "2"], "what is unknown last"
    assert page.get_by_text(EVIL).count() == 1, "text stays text"
    page.get_by_role("searchbox").fill("mse")
    assert numbers(page) == ["3"]
    assert "1 of 3 shown" in page.locator(".prk-bar").inner_text()
    page.get_by_role("checkbox", name="Choose try 3").check()
    page.get_by_role("searchbox").fill("")
    page.get_by_role("checkbox", name="Choose try 1").check()
    assert ticked(page) == [3, 1], "in the order of ticking"
    page.get_by_role("button", name="Compare").click()
    assert page.get_by_role("button", name="Take its settings").is_disabled()
    page.get_by_role("checkbox", name="Choose try 3").uncheck()
    assert page.get_by_role("button", name="Compare").is_disabled()
    page.get_by_role("button", name="Take its settings").click()
    page.get_by_role("button", name="Delete").click()
    assert page.evaluate("sent") == ["compare", "load", "delete"]
    assert page.get_by_role("button", name="Undo").is_disabled()
    page.evaluate("prockdModel.set('rows', []); prockdModel.set('deleted', 1)")
    page.get_by_role("button", name="Undo").click()
    assert page.evaluate("sent").pop() == "undo"
    assert page.get_by_text("press Run").is_visible()


def test_what_was_compared_is_read_out_and_empty_tables_say_what_to_do(open_widget: Callable[..., Any]) -> None:
    page = open_widget(TryTable({}))
    assert page.get_by_text("Every try will be a row here").is_visible()
    row = {"prediction": "z", "try 1": "50.0%", "try 2": "60.0%", "95 % interval": None, "so": "not told apart"}
    page.evaluate("told => prockdModel.set('comparison', told)", {"rows": [row], "note": "Points of accuracy."})
    told = page.get_by_role("status")
    assert told.get_by_role("cell").all_inner_texts() == ["z", "50.0%", "60.0%", "–", "not told apart"]
    assert "Points of accuracy." in told.inner_text()


def test_prototypes_are_listed_with_patches_found_by_name_and_ticked(open_widget: Callable[..., Any]) -> None:
    world = tiny_world()
    bank = discover(world.source, 4, progress=False)
    for k, name in enumerate(("x" * 300, "ذيل الحصان", "🐄🦵🏽", EVIL)):
        bank.rename(k, name)
    student = Student("resnet10t", world.task, bank, feature_augmentation=FeatureAugmentationConfig(), image_px=32,
                      channels=(8, 16, 24, 32), stem_width=8)  # fmt: skip
    causes = Causes({})
    causes.show(student.eval(), world.images("val"))
    causes.rows = [{**row, "change": [-5.0, -2.0, 1.0], "classes": "cow -3.0"} for row in causes.rows]
    page = open_widget(causes, viewport={"width": 1000, "height": 700})
    items = page.get_by_role("listitem")
    assert items.count() == 4
    assert all(item.bounding_box()["width"] <= 1000 for item in items.all()), "a long name is cut"
    assert page.evaluate("document.documentElement.scrollWidth") <= 1000
    assert page.get_by_text(EVIL).count() == 1
    assert page.locator(".prk-thumb").count() == 4 * 6
    assert page.get_by_text("−2.0 (−5.0 to +1.0)").count() == 4
    page.get_by_role("searchbox").fill("ذيل")
    assert items.count() == 1
    page.get_by_role("checkbox").check()
    assert ticked(page) == [1]
    page.get_by_role("searchbox").fill("")
    page.get_by_role("button", name="Switch off").click()
    page.get_by_role("button", name="Each alone").click()
    assert page.evaluate("sent") == ["off", "each"]
    page.evaluate("prockdModel.set('busy', true)")
    assert page.get_by_role("button", name="Each alone").is_disabled()
    assert page.get_by_text("measuring").is_visible()
