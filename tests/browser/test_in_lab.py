"""The installed wheel in a real JupyterLab: what it asks for, what a drag changes, what keys leave alone."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from chromium import browser as browser
from hatchling.builders.wheel import WheelBuilder

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
IDLE = "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
CELLS = [
    """from widget_world import PART_NAMES, found, world
import prockd_widgets
from prockd_widgets import PrototypeExplorer

features = world()
explorer = PrototypeExplorer(found(features), features, part_names=PART_NAMES)
explorer""",
    "print('told:', len(explorer.selection), explorer.models[0].bank.names[0], prockd_widgets.__file__)",
]


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
    """The address of a JupyterLab that runs a notebook with the explorer."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(ROOT / "tests" / "widget_world.py", folder)
    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
        for i, source in enumerate(CELLS)
    ]
    kernel = {"name": "python3", "display_name": "Python 3"}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells}
    (folder / "test.ipynb").write_text(json.dumps(notebook))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: str(folder / name) for name in
           ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "PROCKD_CACHE")}  # fmt: skip
    flags = [f"--port={port}", "--no-browser", "--allow-root", "--ServerApp.token=", "--ServerApp.password=",
             "--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly"]  # fmt: skip
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyter", "lab", *flags],
            cwd=folder, env={**os.environ, **own, "PYTHONPATH": str(site)}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api", timeout=2).close()
                break
            except OSError:
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.25)
        yield address
    finally:
        server.terminate()
        server.wait(20)


def run_cell(page: Any, number: int) -> None:
    page.evaluate(
        """async number => { const app = window.jupyterapp;
        app.shell.currentWidget.content.activeCellIndex = number;
        await app.commands.execute('notebook:run-cell'); }""",
        number,
    )


def test_the_explorer_in_lab(browser: Any, lab: str, site: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{lab}/lab/tree/test.ipynb", timeout=60_000)
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    page.wait_for_function(IDLE, timeout=60_000)
    run_cell(page, 0)
    page.wait_for_selector(".prk tbody tr", timeout=90_000)
    if shots := os.environ.get("PROCKD_SHOTS"):
        take_pictures(page, Path(shots))

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
    page.locator(".prk-edit input").fill("hoof")
    page.locator(".prk-edit input").press("Enter")
    page.wait_for_function("document.querySelector('.prk tbody').textContent.includes('hoof')")
    mine = int(page.locator(".prk tbody tr[data-k='0'] td").nth(1).inner_text())
    run_cell(page, 1)
    told = page.locator(".jp-OutputArea-output", has_text="told:")
    told.wait_for(timeout=30_000)
    words = told.inner_text().split()
    assert words[1:3] == [str(mine), "hoof"]
    assert Path(words[3]).is_relative_to(site)

    before = page.locator(".jp-Notebook .jp-Cell").count()
    page.locator(".prk tbody tr[data-k='0']").focus()
    for key in ("a", "d", "d", "b", "x"):
        page.keyboard.press(key)
    target.focus()
    for key in ("a", "d", "d", "ArrowDown", "b"):
        page.keyboard.press(key)
    assert page.locator(".jp-Notebook .jp-Cell").count() == before == 2
    page.close()
    hosts = {urlparse(url).hostname for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}, hosts


def take_pictures(page: Any, folder: Path) -> None:
    """Light and dark, for people to look at: set PROCKD_SHOTS to a folder."""
    page.locator(".prk tbody tr").nth(1).click()
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", theme)
        page.wait_for_timeout(1500)
        page.screenshot(path=folder / f"{theme}.png")
