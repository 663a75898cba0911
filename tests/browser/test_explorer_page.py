"""The explorer's and the lens's script on a stand-in for the kernel, in a real browser."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chromium import browser as browser
from prockd_widgets import PatchLens, PrototypeExplorer
from prockd_widgets.html import page_of
from prockd_widgets.kept import kept_frame
from prockd_widgets.patches import pack_xy
from widget_world import PART_NAMES, discovered, world

from prockd import PrototypeBank

pytestmark = pytest.mark.browser

EVIL = '<img src=x onerror="window.hurt = 1"></script><b>\'&'
SELECTED = "Array.from(document.getElementById('prockd').prockd.selected)"
UNNAMED = """() => [...document.querySelectorAll('.prk :is(button, input, select, canvas[tabindex])')].filter(node =>
  !(node.getAttribute('aria-label') || node.labels?.length || node.textContent.trim() || node.title))
  .map(node => node.outerHTML)"""
FOCUSED = "document.activeElement.closest('section')?.className ?? document.activeElement.tagName"
STICKING_OUT = """() => [...document.querySelectorAll('.prk :is(button, select, canvas, figcaption)')].filter(node => {
  const r = node.getBoundingClientRect();
  return !node.closest('.prk-scroll') && r.width && (r.right > innerWidth || r.left < 0);
}).map(node => node.className || node.textContent)"""
ENCLOSED = """path => {
  const view = document.getElementById('prockd').prockd, c = view.maps[0], { X, Y } = view.points(0), found = [];
  const { left, top, width, height } = c.over.getBoundingClientRect(), shape = new Path2D();
  for (const [x, y] of path) shape.lineTo(Math.round(left + x * width) - left, Math.round(top + y * height) - top);
  shape.closePath();
  const ctx = new OffscreenCanvas(1, 1).getContext('2d');
  for (let p = 0; p < view.P; p++) if (ctx.isPointInPath(shape, X[p], Y[p])) found.push(p);
  return found;
}"""
TIMES = """() => {
  const view = document.getElementById('prockd').prockd;
  const run = f => { const began = performance.now(); f(); return performance.now() - began; };
  const acts = [() => view.draw(), () => view.like(0), () => { view.choose(2); view.draw(); }];
  return acts.map(f => Math.min(...[1, 2, 3, 4, 5].map(() => run(f))));
}"""
NAME = "[aria-label='Name of the prototype']"
Open = Callable[..., Any]
START = {"prototype": -1, "image": 0, "colour_by": "prototype", "projection": "pca"}


@pytest.fixture(scope="module")
def explorer() -> PrototypeExplorer:
    features = world(20)
    explorer = PrototypeExplorer(discovered(features), features, part_names=PART_NAMES, **START)
    explorer.rename(1, EVIL)
    return explorer


@pytest.fixture(scope="module")
def first() -> PrototypeExplorer:
    """As it opens, with nothing set."""
    return PrototypeExplorer(discovered(world(20)), world(20), part_names=PART_NAMES)


@pytest.fixture(scope="module")
def pages(
    explorer: PrototypeExplorer, first: PrototypeExplorer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    features = world(20)
    noisy = discovered(world(20, seed=5), 6)
    two = PrototypeExplorer(explorer.models[0].bank, features, other=(noisy, features), part_names=PART_NAMES, **START)
    plain = world(20, parts=False)
    made = {
        "first": first.export_html(folder / "first.html"),
        "one": explorer.export_html(folder / "one.html"),
        "two": two.export_html(folder / "two.html"),
        "no parts": PrototypeExplorer(discovered(plain), plain, **START).export_html(folder / "plain.html"),
        "lens": PatchLens(features).export_html(folder / "lens.html"),
    }
    long, twins = discovered(features), features.select(range(20))
    with torch.no_grad():
        long.prototypes[1] = long.prototypes[0] + 0.02
        long.assigner.bias[2] = -99.0
    long.rename(0, "a very long name of a prototype that nobody would type")
    long.disable(3)
    folders = replace(twins.images, ids=tuple(f"farm/{'ab'[i % 2]}/{i // 2}.png" for i in range(20)))
    marked = PrototypeExplorer(long, replace(twins, images=folders), part_names=PART_NAMES, max_patches=160, **START)
    half = np.arange(0, 160, 2)
    marked.xy = [pack_xy(np.random.default_rng(0).normal(size=(80, 2)), half, 160)]
    made["marked"] = marked.export_html(folder / "marked.html")
    one = features.select([2])
    least = PrototypeExplorer(discovered(features, 1), one, part_names=PART_NAMES, **START)
    made["least"] = least.export_html(folder / "least.html")
    odd = PrototypeBank(300, 12, 12)
    for k, name in enumerate(("n" * 300, "ذيل الحصان", "🐄🦵🏽 leg")):
        odd.rename(k, name)
    made["odd"] = PrototypeExplorer(odd, replace(features, teacher="")).export_html(folder / "odd.html")
    big = world(400, grid=8)
    made["big"] = PrototypeExplorer(discovered(big), big, **START).export_html(folder / "big.html")
    return made


@pytest.fixture
def open_page(browser: Any, pages: dict[str, Path]) -> Iterator[Open]:
    """Opens a page and, at the end, holds that nothing failed in it and that nothing was asked for."""
    opened, wrong = [], []

    def open_one(name: str = "one", **options: Any) -> Any:
        page = browser.new_page(**{"viewport": {"width": 1200, "height": 1000}} | options)
        opened.append(page)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on(
            "request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(("file:", "blob:")) else None
        )
        page.goto(pages[name].as_uri())
        page.wait_for_selector(".prk canvas")
        settle(page)
        return page

    yield open_one
    for page in opened:
        page.close()
    assert wrong == []


def settle(page: Any) -> None:
    """Two frames later everything is drawn."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def state(page: Any, name: str) -> Any:
    return page.evaluate("name => prockdModel.get(name)", name)


def selected(page: Any) -> list[int]:
    settle(page)
    return page.evaluate(SELECTED)


def live(page: Any) -> str:
    settle(page)
    return page.locator("[aria-live]").first.inner_text()


def caption(page: Any) -> str:
    return page.locator(".prk-image figcaption").first.inner_text()


def canvas(page: Any, pane: str) -> Any:
    panes = page.locator(f".prk-{pane} canvas[role=application]")
    return panes.last if pane == "patches" else panes.first


def drag(page: Any, pane: str, path: list[tuple[float, float]]) -> None:
    """Draw over a pane; places are shares of its width and height."""
    box = canvas(page, pane).bounding_box()
    points = [(round(box["x"] + x * box["width"]), round(box["y"] + y * box["height"])) for x, y in path]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=3)
    page.mouse.up()


# Selecting


def test_a_row_of_the_table_selects_its_patches_in_all_panes(open_page, explorer):
    page = open_page()
    page.locator("tbody tr").nth(0).click()
    k = state(page, "prototype")
    mine = np.flatnonzero(explorer.label() == k).tolist()
    assert selected(page) == mine
    assert live(page).startswith(f"{len(mine)} of 320 patches selected")
    assert f"{len(mine)} selected patches" in page.locator(".prk-patches h3").inner_text()
    assert page.locator("tbody tr[aria-selected=true]").count() == 1
    assert state(page, "image") == explorer.stats[0][k]["near"][0][0] // 16


def test_a_click_in_the_image_boxes_the_patch_under_it(open_page, explorer):
    page = open_page()
    box = canvas(page, "image").bounding_box()
    page.mouse.click(box["x"] + 0.62 * box["width"], box["y"] + 0.3 * box["height"])
    assert state(page, "patch") == 1 * 4 + 2
    assert selected(page) == [6]
    assert state(page, "prototype") == explorer.label()[6]
    assert (
        explorer.models[0].bank.names[state(page, "prototype")]
        in page.locator(".prk-image figcaption").nth(0).inner_text()
    )


def test_a_box_in_the_image_selects_the_patches_whose_centre_is_inside(open_page):
    page = open_page()
    page.get_by_role("button", name="Box").click()
    drag(page, "image", [(0.02, 0.02), (0.48, 0.7)])
    assert selected(page) == [0, 1, 4, 5, 8, 9]
    page.keyboard.down("Shift")
    drag(page, "image", [(0.55, 0.8), (0.98, 0.98)])
    page.keyboard.up("Shift")
    assert selected(page) == [0, 1, 4, 5, 8, 9, 14, 15]


def test_a_lasso_on_the_map_selects_exactly_what_it_encloses(open_page):
    page = open_page()
    path = [(0.1, 0.05), (0.55, 0.1), (0.5, 0.9), (0.12, 0.95)]
    drag(page, "map", path)
    inside = page.evaluate(ENCLOSED, path)
    assert 20 < len(inside) < 320
    assert selected(page) == inside


def test_patches_are_selected_in_the_grid_too(open_page):
    page = open_page()
    page.locator("tbody tr").nth(0).click()
    settle(page)
    first = page.evaluate("document.getElementById('prockd').prockd.cells.slice(0, 3).map(cell => cell.patch)")
    box = canvas(page, "patches").bounding_box()
    drag(page, "patches", [(0.01, 0.01), (170 / box["width"], 0.01), (170 / box["width"], 0.14), (0.01, 0.14)])
    assert selected(page) == sorted(first)


def test_the_first_picture_is_the_clearest_prototype_on_its_best_image_with_names_on_the_map(open_page, first):
    page = open_page("first")
    assert state(page, "prototype") == first.prototype >= 0
    assert state(page, "image") == first.stats[0][first.prototype]["near"][0][0] // 16
    assert page.locator("tbody tr[aria-selected=true]").get_attribute("data-k") == str(first.prototype)
    assert page.locator(".prk-bar select").first.input_value() == "part"
    assert "leg" in page.locator(".prk-legend").inner_text()
    pixels = "document.querySelector('.prk-map canvas').toDataURL()"
    named = page.evaluate(pixels)
    page.get_by_label("Labels").uncheck()
    settle(page)
    assert page.evaluate(pixels) != named


def test_the_wheel_zooms_where_the_pointer_is_and_moving_keeps_it_there(open_page):
    page = open_page()
    box = canvas(page, "map").bounding_box()
    at = (box["x"] + 0.7 * box["width"], box["y"] + 0.3 * box["height"])
    under = "([x, y]) => { const { left, top, side } = document.getElementById('prockd').prockd.points(0);"
    under += " return [(x - left) / side, (y - top) / side]; }"
    place = [0.7 * box["width"], 0.3 * box["height"]]
    before = page.evaluate(under, place)
    page.mouse.move(*at)
    page.mouse.wheel(0, -240)
    settle(page)
    assert page.evaluate("document.getElementById('prockd').prockd.zoom") > 1.2
    assert page.evaluate(under, place) == pytest.approx(before, abs=2e-3)
    page.get_by_role("button", name="Move").click()
    drag(page, "map", [(0.7, 0.3), (0.6, 0.4)])
    settle(page)
    moved = [place[0] - 0.1 * box["width"], place[1] + 0.1 * box["height"]]
    assert page.evaluate(under, moved) == pytest.approx(before, abs=1e-2)
    assert selected(page) == []


def test_a_merge_counts_once_in_headline_table_and_at_a_second_click(open_page):
    page = open_page()
    page.locator("tbody tr[data-k='0']").click()
    page.locator(".prk-edit select").select_option("2")
    number = len(selected(page))
    assert number > 60
    for _ in range(2):
        assert live(page).startswith(f"{number} of 320 patches selected")
        assert page.locator("tbody tr[data-k='0'] td").nth(1).inner_text() == f"{number} / {number}"
        page.locator("tbody tr[data-k='0']").click()
        assert len(selected(page)) == number
    page.keyboard.press("Control+z")
    assert len(selected(page)) < number
    page.keyboard.press("Control+Shift+z")
    assert len(selected(page)) == number


def test_table_and_legend_count_within_the_selection(open_page, first):
    page = open_page("first")
    page.evaluate("document.getElementById('prockd').prockd.select([0, 1, 2, 3, 4, 5, 6, 7])")
    settle(page)
    sizes = np.bincount(first.label(), minlength=5)
    inside = np.bincount(first.label()[:8], minlength=5)
    for k in range(5):
        assert page.locator(f"tbody tr[data-k='{k}'] td").nth(1).inner_text() == f"{inside[k]} / {sizes[k]}"
    legs = first._parts.ravel() == 1
    text = page.locator(".prk-legend").inner_text()
    assert f"{legs[:8].sum()} / {legs.sum()}" in text or not legs[:8].any()


def test_filters_leave_a_class_an_image_or_what_is_no_background(open_page):
    page = open_page()
    page.get_by_label("Show", exact=False).first.select_option("class:1")
    assert "112 of 320 patches of 7 images" in live(page)
    drag(page, "map", [(0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99)])
    assert {p // 16 % 3 for p in selected(page)} == {1}
    page.get_by_label("No background").check()
    assert all(p % 16 >= 8 or p % 16 == 0 for p in selected(page))
    page.get_by_label("Show", exact=False).first.select_option("this")
    assert selected(page) == []


def test_a_brush_over_the_histogram_selects_by_assignment(open_page, explorer):
    page = open_page()
    page.locator("tbody tr").nth(0).click()
    k = state(page, "prototype")
    bars = page.locator(".prk-patches canvas[role=application]").first.bounding_box()
    page.mouse.move(bars["x"] + 0.5 * bars["width"], bars["y"] + 20)
    page.mouse.down()
    page.mouse.move(bars["x"] + bars["width"] - 1, bars["y"] + 20, steps=4)
    page.mouse.up()
    chosen, soft = selected(page), explorer.soft()[:, k].numpy()
    most = soft.max()  # where the histogram ends
    assert set(np.flatnonzero(soft > 0.52 * most)) <= set(chosen) <= set(np.flatnonzero(soft > 0.48 * most))


def test_strips_show_others_than_the_strongest(open_page):
    page = open_page()
    page.locator("tbody tr").nth(0).click()
    page.keyboard.press("Escape")
    cells = "document.getElementById('prockd').prockd.cells.map(cell => cell.patch)"
    seen = {}
    for name in ("Top", "Middle", "Random", "One an image"):
        page.get_by_role("button", name=name, exact=True).click()
        settle(page)
        seen[name] = tuple(page.evaluate(cells))
    assert len(set(seen.values())) == 4
    images = [p // 16 for p in seen["One an image"]]
    assert len(images) == len(set(images))


def test_prototypes_are_found_by_name_and_part(open_page):
    page = open_page("first")
    page.get_by_label("Search").fill("leg")
    settle(page)
    rows = page.locator("tbody tr").all_inner_texts()
    assert 0 < len(rows) < 5
    assert all("leg" in row for row in rows)
    page.get_by_label("Search").fill("no such thing")
    settle(page)
    assert page.locator("tbody tr").count() == 0


def test_two_prototypes_stand_side_by_side_and_all_of_them_in_colours(open_page):
    page = open_page()
    page.locator("tbody tr[data-k='0']").click()
    page.get_by_role("button", name="Pin").click()
    page.locator("tbody tr[data-k='3']").click()
    settle(page)
    assert page.locator(".prk-image figure:visible").count() == 2
    assert page.locator(".prk-image .prk-whose").all_inner_texts() == ["p03", "p00"]
    page.get_by_role("button", name="Unpin p00").click()
    settle(page)
    assert page.locator(".prk-image figure:visible").count() == 1
    pixels = "document.querySelector('.prk-image canvas').toDataURL()"
    before = page.evaluate(pixels)
    page.get_by_role("button", name="All", exact=True).click()
    settle(page)
    assert page.evaluate(pixels) != before


def test_a_broken_picture_or_one_without_a_kernel_is_told(open_page):
    page = open_page()
    look = "document.getElementById('prockd').prockd.lookAt(new File(['nothing'], 'x.png'))"
    page.evaluate(look)
    assert "needs the notebook" in page.locator(".prk-status").inner_text()
    page.evaluate("document.getElementById('prockd').prockd.meta.kernel = true")
    page.evaluate(look)
    assert "x.png is no picture" in page.locator(".prk-status").inner_text()


def test_a_kernel_that_ended_is_told_and_the_page_can_be_saved_with_its_edits(browser, first, tmp_path):
    path = tmp_path / "live.html"
    page = first.page
    text = page_of(first, "Live", {"page": page, "_css": first._css, "_esm": first._esm})
    path.write_text(text, encoding="utf-8")
    tab = browser.new_page(viewport={"width": 1200, "height": 1000})
    tab.goto(path.as_uri())
    tab.wait_for_selector(".prk canvas")
    notice = tab.get_by_role("alert")
    assert not notice.is_visible()
    tab.evaluate("prockdModel.emit('comm_live_update')")
    notice.wait_for()
    assert "run the cell again" in notice.inner_text()
    tab.locator(".prk tbody tr").first.click()
    tab.locator("[aria-label='Name of the prototype']").fill("my name")
    tab.locator("[aria-label='Name of the prototype']").press("Enter")
    with tab.expect_download() as saved:
        notice.get_by_role("button", name="Save this page").click()
    again = browser.new_page(viewport={"width": 1200, "height": 1000})
    copy = tmp_path / "saved.html"
    saved.value.save_as(copy)
    again.goto(copy.as_uri())
    again.wait_for_selector(".prk canvas")
    assert "my name" in again.locator(".prk tbody").inner_text()
    assert selected(again) == selected(tab)
    for each in (tab, again):
        each.close()


def test_odd_names_stay_in_their_columns_and_300_prototypes_can_be_looked_at(open_page):
    page = open_page("odd")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1200
    rows = page.locator(".prk tbody tr")
    assert rows.count() == 300
    assert page.locator(".prk tbody bdi", has_text="ذيل").count() == 1
    name = page.locator("tr[data-k='0'] bdi").bounding_box()
    assert name["width"] < 215
    page.locator(".prk tbody tr[data-k='299']").scroll_into_view_if_needed()
    page.locator(".prk tbody tr[data-k='299']").click()
    settle(page)
    assert state(page, "prototype") == 299


def test_what_a_notebook_keeps_is_alive_in_its_frame(browser, first, tmp_path):
    path = tmp_path / "notebook.html"
    path.write_text(f"<!doctype html><title>t</title>{kept_frame(first, max_images=6)}", encoding="utf-8")
    page, wrong = browser.new_page(viewport={"width": 1100, "height": 1100}), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(path.as_uri())
    frame = page.frame_locator("iframe")
    frame.locator("tbody tr").nth(1).click(timeout=20_000)
    assert "of 96 patches selected" in frame.locator("[aria-live]").first.inner_text()
    assert wrong == []
    page.close()


# By key


def test_the_table_works_by_key(open_page):
    page = open_page()
    page.locator("tbody tr").nth(0).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    settle(page)
    chosen = state(page, "prototype")
    assert page.locator("tbody tr").nth(1).get_attribute("data-k") == str(chosen)
    page.keyboard.press("d")
    assert state(page, "banks")[0]["enabled"][chosen] is False
    page.keyboard.press("Control+z")
    assert state(page, "banks")[0]["enabled"][chosen] is True


def test_the_image_and_the_map_work_by_key(open_page):
    page = open_page()
    canvas(page, "image").focus()
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    assert state(page, "patch") == 5
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert selected(page) == [5, 6]
    page.keyboard.press("PageDown")
    assert state(page, "image") == 1
    page.keyboard.press("Escape")
    assert selected(page) == []
    canvas(page, "map").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert len(selected(page)) == 1


def test_everything_can_be_reached_by_tab_and_has_a_name(open_page):
    page = open_page()
    unnamed = page.evaluate(UNNAMED)
    assert unnamed == []
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate("document.activeElement.closest('section')?.className ?? document.activeElement.tagName")
        )
    assert {"prk-map", "prk-image", "prk-patches", "prk-table", "BUTTON", "SELECT"} <= seen


# Names and switches


def test_a_name_that_is_html_is_shown_as_text(open_page):
    page = open_page()
    settle(page)
    assert page.locator("tbody tr[data-k='1'] td").first.get_attribute("title").startswith(EVIL)
    assert page.locator(".prk img, .prk b").count() == 0
    page.locator("tbody tr[data-k='1']").click()
    settle(page)
    assert page.locator(NAME).input_value() == EVIL
    assert page.evaluate("window.hurt") is None


def test_renaming_merging_and_undo(open_page, explorer):
    page = open_page()
    page.locator("tbody tr[data-k='0']").click()
    field = page.locator(NAME)
    field.fill("hoof")
    field.press("Enter")
    settle(page)
    assert "hoof" in page.locator("tbody tr[data-k='0']").inner_text()
    page.locator(".prk-edit select").select_option("2")
    sizes = np.bincount(explorer.label(), minlength=5)
    assert len(selected(page)) == sizes[0] + sizes[2]
    assert state(page, "banks")[0]["merged"] == [0, 1, 0, 3, 4]
    assert "in hoof" in page.locator("tbody tr[data-k='2']").inner_text()
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Undo").click()
    settle(page)
    assert state(page, "banks") == explorer.banks
    assert page.get_by_role("button", name="Undo").is_enabled()  # the page was saved with one edit


def test_every_other_prototype_can_be_merged_into_whichever_is_in_focus(open_page):
    page = open_page()
    for k in (0, 3):
        page.locator(f"tbody tr[data-k='{k}']").click()
        settle(page)
        options = page.locator(".prk-edit select option").all()
        offered = [o.get_attribute("value") for o in options if not o.evaluate("option => option.hidden")]
        assert offered == ["", *(str(other) for other in range(5) if other != k)]


def test_the_last_prototype_cannot_be_switched_off(open_page):
    page = open_page()
    for k in range(5):
        page.locator(f"tbody tr[data-k='{k}']").click()
        page.get_by_role("button", name="Disable").click()
        settle(page)
    assert state(page, "banks")[0]["enabled"] == [False] * 4 + [True]
    assert "One prototype must stay enabled." in page.locator(".prk-status").inner_text()
    assert page.evaluate("new Set(document.getElementById('prockd').prockd.soft[0].label).size") <= 2


# What is shown


def test_likeness_to_a_patch_covers_all_images(open_page, explorer):
    page = open_page()
    page.get_by_role("button", name="Like this patch").click()
    box = canvas(page, "image").bounding_box()
    page.mouse.click(box["x"] + 0.1 * box["width"], box["y"] + 0.9 * box["height"])
    settle(page)
    found = page.evaluate("Array.from(document.getElementById('prockd').prockd.like(0))")
    unit = explorer.models[0].unit.float()
    cosine = (unit @ unit[12]).numpy()
    assert np.corrcoef(found, cosine)[0, 1] > 0.98
    assert "All images, most alike first" in page.locator(".prk-patches h3").inner_text()
    best = page.evaluate("document.getElementById('prockd').prockd.cells[0].patch")
    assert best == 12


def test_raw_and_smoothed_maps_are_told_apart(open_page):
    page = open_page()
    page.locator("tbody tr").nth(0).click()
    settle(page)
    pixels = "document.querySelector('.prk-image canvas').toDataURL()"
    raw, caption = page.evaluate(pixels), page.locator(".prk-image figcaption").nth(0)
    assert "raw, 4 × 4 patches" in caption.inner_text()
    page.get_by_role("button", name="Smoothed").click()
    settle(page)
    assert "smoothed" in caption.inner_text()
    assert page.evaluate(pixels) != raw


def test_the_slider_sets_how_much_of_the_image_the_heat_covers_on_one_scale_of_all_images(open_page, explorer):
    page = open_page()
    page.locator("tbody tr").nth(0).click()
    most = float(explorer.soft()[:, state(page, "prototype")].max())
    settle(page)
    pixels, slider = "document.querySelector('.prk-image canvas').toDataURL()", page.get_by_label("Opacity")
    before = page.evaluate(pixels)
    slider.focus()
    page.keyboard.press("Home")
    settle(page)
    assert state(page, "opacity") == 0
    assert page.evaluate(pixels) != before
    name, low, high = page.locator(".prk-colours").inner_text().split()
    assert (name, low) == ("assignment", "0")
    assert float(high) == pytest.approx(most, abs=0.01)
    page.get_by_role("button", name="Like this patch").click()
    settle(page)
    assert page.locator(".prk-colours").inner_text().split() == ["cosine", "0", "1"]


def test_dead_twin_and_switched_off_prototypes_are_marked_beside_any_name(open_page):
    page = open_page("marked")
    long = "a very long name of a prototype that nobody would type"
    marks = [[m.inner_text() for m in page.locator(f"tr[data-k='{k}'] .prk-mark").all()] for k in range(5)]
    other = [[mark for mark in row if not mark.startswith("clearest") and mark != "a place"] for row in marks]
    assert other == [["twin of p01"], [f"twin of {long}"], ["dead"], ["off"], []]
    clearest = [mark for row in marks for mark in row if mark.startswith("clearest")]
    assert clearest
    assert len(clearest) == len(set(clearest))
    scroll = page.locator(".prk-scroll").bounding_box()
    next_column = page.locator("td.prk-number").first.bounding_box()["x"]
    for mark in page.locator(".prk-mark").all():
        box = mark.bounding_box()
        assert scroll["x"] < box["x"] < box["x"] + box["width"] < next_column
    assert page.evaluate("(s => s.scrollWidth - s.clientWidth)(document.querySelector('.prk-scroll'))") <= 0


def test_a_part_of_the_images_is_told_on_the_page(open_page):
    page = open_page("marked")
    assert "10 of 20 images are shown, drawn with seed 0" in page.locator(".prk-status strong").inner_text()


def test_one_prototype_and_one_image_are_enough(open_page):
    page = open_page("least")
    page.locator("tbody tr").click()
    assert selected(page) == list(range(16))
    page.get_by_role("button", name="Disable").click()
    assert "One prototype must stay enabled." in page.locator(".prk-status").inner_text()
    page.get_by_role("button", name="Like this patch").click()
    page.get_by_role("button", name="Next image").click()
    assert state(page, "image") == 0
    page.get_by_label("More columns").check()
    settle(page)
    assert page.locator("tbody td").last.inner_text() == "–"


def test_zooming_goes_to_the_selection_also_where_its_box_is_not_on_the_map(open_page):
    page = open_page("marked")
    page.evaluate("(v => { v.set({ patch: 1 }); v.select([1, 4, 6]); })(document.getElementById('prockd').prockd)")
    for _ in range(3):
        page.get_by_role("button", name="Zoom in").click()
        settle(page)
    middle = page.evaluate(
        "(v => { const { X, Y } = v.points(0), c = v.maps[0];"
        " return [(X[4] + X[6]) / c.width, (Y[4] + Y[6]) / c.height]; })(document.getElementById('prockd').prockd)"
    )
    assert middle == pytest.approx([1, 1], abs=1e-3)


def test_matched_prototypes_share_a_colour(open_page):
    page = open_page("two")
    settle(page)
    match = state(page, "meta")["match"]
    numbers = page.evaluate(
        "(v => [0, 1].map(i => { const { of } = v.colouring(i); return [...Array(v.P).keys()].map(of); }))"
        "(document.getElementById('prockd').prockd)"
    )
    labels = page.evaluate("document.getElementById('prockd').prockd.soft.map(s => Array.from(s.label))")
    assert numbers == [labels[0], [match[k] for k in labels[1]]]
    assert "matched prototypes share a colour" in page.locator(".prk-map figcaption").last.inner_text()


def test_the_card_comes_a_moment_after_the_ring(open_page):
    page = open_page()
    box = canvas(page, "image").bounding_box()
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.1 * box["height"])
    assert page.evaluate("document.getElementById('prockd').prockd.hover") == 1
    card = page.locator(".prk-card")
    card.wait_for(state="visible", timeout=3000)
    assert "row 0, column 1" in card.inner_text()
    assert "true part: background" in card.inner_text()
    page.mouse.move(2, 2)
    card.wait_for(state="hidden", timeout=3000)


def test_the_table_sorts_and_says_how(open_page):
    page = open_page()
    page.locator("thead button", has_text="patches").click()
    settle(page)
    sizes = [int(row.replace(",", "")) for row in page.locator("tbody td:nth-child(2)").all_inner_texts()]
    assert sizes == sorted(sizes)
    assert page.locator("thead th").nth(1).get_attribute("aria-sort") == "ascending"


def test_what_is_not_known_about_parts_is_hidden(open_page):
    page = open_page("no parts")
    columns = ["prototype", "patches", "clarity", "place", "best"]
    assert page.locator("thead th").all_inner_texts() == columns
    page.get_by_label("More columns").check()
    settle(page)
    more = ["entropy", "redundancy", "one image", "nearest"]
    assert page.locator("thead th").all_inner_texts() == columns + more
    assert page.locator(".prk-bar select").first.locator("option").all_inner_texts() == [
        "prototype",
        "group of prototypes",
        "class",
    ]


def test_two_models_count_the_patches_on_which_they_agree(open_page, pages):
    page = open_page("two")
    text = pages["two"].read_text()
    banks = json.loads(text.split('id="prockd-state">')[1].split("</script>")[0])["meta"]
    labels = page.evaluate("document.getElementById('prockd').prockd.soft.map(s => Array.from(s.label))")
    same = sum(banks["match"][b] == a for a, b in zip(*labels, strict=True))
    assert f"teacher and student agree on {same}" in live(page)
    page.locator(".prk-bar select").first.select_option("agreement")
    settle(page)
    assert "same prototype" in page.locator(".prk-legend").inner_text()
    assert page.locator(".prk-map canvas[role=application]").count() == 2


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_light_and_dark_pages(open_page, scheme, is_dark):
    page = open_page(color_scheme=scheme)
    settle(page)
    colour = page.evaluate("getComputedStyle(document.querySelector('.prk')).backgroundColor")
    assert (sum(map(int, colour[4:-1].split(","))) < 384) == is_dark
    assert page.evaluate("document.querySelector('.prk').classList.contains('prk-dark')") == is_dark


@pytest.mark.parametrize("width", [1280, 900, 520])
def test_nothing_sticks_out_at_any_width(open_page, width):
    page = open_page("two", viewport={"width": width, "height": 900})
    settle(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    out = page.evaluate(STICKING_OUT)
    assert out == []


def test_a_tab_that_was_hidden_is_drawn_when_it_is_shown(open_page):
    page = open_page()
    page.evaluate("document.getElementById('prockd').style.display = 'none'")
    page.set_viewport_size({"width": 1000, "height": 900})
    page.evaluate("document.getElementById('prockd').style.display = ''")
    settle(page)
    settle(page)
    sizes = page.evaluate("(c => [c.clientWidth, c.width])(document.querySelector('.prk-map canvas'))")
    assert sizes[0] == sizes[1] > 100


def test_two_views_of_one_explorer_share_the_selection_and_nothing_of_the_moment(open_page):
    page = open_page()
    page.evaluate(
        "(v => { const host = document.createElement('div'); host.id = 'second'; document.body.append(host);"
        " host.prockd = new v.constructor(v.model, host, v.sheet); })(document.getElementById('prockd').prockd)"
    )
    page.locator("#prockd tbody tr").nth(0).click()
    page.locator("#prockd").get_by_role("button", name="Zoom in").click()
    first, second = (f"document.getElementById('{name}').prockd" for name in ("prockd", "second"))
    assert len(selected(page)) > 20
    assert page.evaluate(f"Array.from({second}.selected)") == selected(page)
    assert page.evaluate(f"[{first}.zoom, {second}.zoom]") == [1.5, 1]
    page.locator("#second .prk-map canvas[role=application]").hover()
    assert page.evaluate(f"{first}.hover") == -1
    page.evaluate(f"{second}.destroy()")
    page.keyboard.press("Escape")
    page.locator("#prockd tbody tr").nth(1).click()
    assert len(selected(page)) > 20


def test_tables_and_pictures_are_saved_without_a_kernel(open_page, explorer):
    page = open_page()
    page.locator("tbody tr").nth(0).click()
    with page.expect_download() as saved:
        page.get_by_role("button", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(saved.value.path()).read_text(encoding="utf-8"))))
    assert [int(row["patch"]) for row in rows] == selected(page)
    k = state(page, "prototype")
    assert {row["name"] for row in rows} == {explorer.models[0].bank.names[k]}
    assert {(row["seed"], row["data"]) for row in rows} == {("0", "world-20-0")}
    with page.expect_download() as saved:
        page.get_by_role("button", name="PNG").click()
    assert Path(saved.value.path()).read_bytes().startswith(b"\x89PNG")
    assert page.get_by_role("button", name="UMAP").count() == 0


def test_saved_rows_name_images_in_full(open_page):
    page = open_page("marked")
    with page.expect_download() as saved:
        page.get_by_role("button", name="JSON").click()
    told = json.loads(Path(saved.value.path()).read_text(encoding="utf-8"))
    assert all(re.fullmatch(r"farm/[ab]/\d\.png", row["image"]) for row in told["patches"])
    assert (told["seed"], told["data"]) == (0, state(page, "meta")["data"])


def test_25_thousand_patches_are_drawn_in_less_than_a_tenth_of_a_second(open_page):
    page = open_page("big")
    times = page.evaluate(TIMES)
    assert max(times) < 100, times


# The lens


def test_the_lens_takes_a_patch_of_any_image(open_page):
    page = open_page("lens")
    tiles = page.locator(".prk-lens figure:not(.prk-query) canvas[role=application]")
    box = tiles.bounding_box()
    page.mouse.click(box["x"] + 109 + 10, box["y"] + 10)  # top left patch of the second tile
    settle(page)
    assert state(page, "patch") % 16 == 0
    assert "row 0, column 0" in page.locator("figcaption").inner_text()
    assert "cosine above 0.5, of 320" in live(page)
    page.locator(".prk-query canvas[role=application]").focus()
    for key in ("ArrowRight", "PageDown"):
        before = state(page, "patch")
        page.keyboard.press(key)
        assert state(page, "patch") - before in (1, 16, 16 - 320)
