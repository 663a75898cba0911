"""The installed wheel in a real JupyterLab: what it asks for, what drags and clicks change, what keys leave alone."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from chromium import browser as browser
from hatchling.builders.wheel import WheelBuilder
from jupyter_site import CELLS, IDLE, run_cell, serve

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
NOTEBOOKS = {
    "explorer": (
        """from widget_world import PART_NAMES, discovered, world
import prockd_widgets
from prockd_widgets import PrototypeExplorer

features = world()
explorer = PrototypeExplorer(discovered(features), features, part_names=PART_NAMES)
explorer""",
        "print('told:', len(explorer.selection), explorer.models[0].bank.names[0], prockd_widgets.__file__)",
    ),
    "lens": (
        """from widget_world import world
from prockd_widgets import PatchLens

lens = PatchLens(world())
lens""",
        "print('told:', lens.patch)",
    ),
    "panel": (
        """from panel_world import tiny_world
from prockd import discover
from prockd_widgets import DistillationPanel

world = tiny_world()
panel = DistillationPanel(world, discover(world.source, 4, progress=False), steps=50_000)
panel.knobs["num_prototypes"].value = 4
panel""",
        "print('told:', panel.running, len(panel.tries), [one.stopped for one in panel.tries])",
    ),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel of this project installs, and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    target = folder / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", target, wheel]
    subprocess.run(install, check=True, capture_output=True)
    return target


@pytest.fixture(scope="module")
def lab(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab with a notebook for each widget."""
    folder = tmp_path_factory.mktemp("lab")
    for module in ("widget_world.py", "panel_world.py"):
        shutil.copy(ROOT / "tests" / module, folder)
    with serve(folder, NOTEBOOKS, path=[site]) as address:
        yield address


@pytest.fixture
def open_notebook(browser: Any, lab: str) -> Iterator[Callable[[str, str], Any]]:
    """Opens a notebook and runs its first cell; at the end, holds that nothing but this machine was asked."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    def open_one(name: str, until: str) -> Any:
        page.goto(f"{lab}/lab/tree/{name}.ipynb?reset", timeout=60_000)
        page.wait_for_selector(CELLS, timeout=60_000)
        page.wait_for_function(IDLE, timeout=60_000)
        run_cell(page, 0)
        page.wait_for_selector(until, timeout=90_000)
        return page

    yield open_one
    page.close()
    hosts = {urlparse(url).hostname for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}, hosts


def told(page: Any) -> list[str]:
    """What the second cell prints, word by word."""
    run_cell(page, 1)
    printed = page.locator(".jp-OutputArea-output", has_text="told:")
    printed.wait_for(timeout=30_000)
    return str(printed.inner_text()).split()[1:]


def told_until(page: Any, right: Callable[[list[str]], bool]) -> list[str]:
    """The same, asked again for a while: a change may still be on its way to the kernel when the cell is run."""
    for _ in range(20):
        words = told(page)
        if right(words):
            break
        page.wait_for_timeout(500)
    return words


def press(page: Any, *keys: str) -> None:
    """Press keys that mean something to a notebook too; it must not hear them."""
    before = page.locator(CELLS).count()
    for key in keys:
        page.keyboard.press(key)
    assert page.locator(CELLS).count() == before == 2


def test_the_explorer_in_lab(open_notebook: Callable[[str, str], Any], site: Path) -> None:
    page = open_notebook("explorer", ".prk tbody tr")
    assert page.locator(".prk-mark", has_text="clearest").count(), "the columns that are told later reach the page too"
    target = page.locator(".prk-map canvas[role=application]")
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    path = [(0.05, 0.05), (0.95, 0.05), (0.95, 0.95), (0.05, 0.95)]
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in path]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=3)
    page.mouse.up()
    page.locator(".prk tbody tr[data-k='0']").click()
    page.locator("[aria-label='Name of the prototype']").fill("hoof")
    page.locator("[aria-label='Name of the prototype']").press("Enter")
    page.wait_for_function("document.querySelector('.prk tbody').textContent.includes('hoof')")
    mine = int(page.locator(".prk tbody tr[data-k='0'] td").nth(1).inner_text().split(" / ")[-1])
    words = told_until(page, lambda words: words[1] == "hoof")
    assert words[:2] == [str(mine), "hoof"]
    assert Path(words[2]).is_relative_to(site)
    page.locator(".prk tbody tr[data-k='0']").focus()
    press(page, "a", "d", "d", "b", "x")
    target.focus()
    press(page, "a", "d", "d", "ArrowDown", "b")
    assert not page.locator(".prk-notice").is_visible()
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    page.locator(".prk-notice", has_text="run the cell again").wait_for(timeout=60_000)


def test_the_lens_in_lab(open_notebook: Callable[[str, str], Any]) -> None:
    page = open_notebook("lens", ".prk-lens canvas")
    target = page.locator(".prk-query canvas[role=application]")
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    page.mouse.click(box["x"] + 0.6 * box["width"], box["y"] + 0.4 * box["height"])
    assert told(page) == ["6"]
    target.focus()
    press(page, "a", "d", "d", "b", "x")


def test_the_panel_in_lab(open_notebook: Callable[[str, str], Any]) -> None:
    page = open_notebook("panel", ".prockd-panel button")
    page.locator(".prockd-panel button", has_text="Run").click()
    status = page.locator(".prockd-panel [role=status]").first
    page.wait_for_function("document.querySelector('.prockd-panel [role=status]').textContent.includes(' s left')")
    assert told(page) == ["True", "0", "[]"], "the kernel answers while a student is trained"
    page.locator(".prockd-panel button", has_text="Stop").click()
    page.locator(".prockd-panel td", has_text="stopped").wait_for(timeout=20_000)
    assert "Try 1: z " in status.inner_text()
    page.locator(".prockd-panel button:enabled", has_text="Resume").wait_for(timeout=20_000)
    page.evaluate("document.querySelectorAll('.jp-OutputArea-output pre').forEach(node => node.remove())")
    assert told(page) == ["False", "1", "[True]"]
