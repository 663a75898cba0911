"""Screenshots of every state of the widgets, light and dark and at three widths, for people to look at: `make shots`.

    python tests/browser/shots.py [FOLDER] [--in page lab notebook] [--only WORD] [--images 60]

``page`` takes pages without a kernel, ``lab`` and ``notebook`` a running JupyterLab and Notebook 7.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from chromium import ARGS, NAMES
from jupyter_site import CELLS, IDLE, run_cell, serve
from playwright.sync_api import sync_playwright
from prockd_widgets import PatchLens, PrototypeExplorer
from prockd_widgets.causes import Causes
from prockd_widgets.html import offline_page
from prockd_widgets.kept import kept_frame
from prockd_widgets.try_table import TryTable

import prockd as pk
from prockd.evaluation.effects import PrototypeEffects
from prockd.farmyard import Farmyard

WIDTHS = (1366, 1000, 420)
TRIES = [
    {"try": n, "preset": start, "changed": changed, "labels": 30, "steps": 300, "seed": n % 2, "z": z, "z⁺": plus,
     "seconds": 40 + n, "stopped": n == 3, "resumed": 0}
    for n, (start, changed, z, plus) in enumerate([
        ("best", "nothing", 0.8125, 0.85), ("plain", "lr=0.008", 0.61, None), ("MSE", "rival_weight=30.0", 0.7, None),
        ("random vectors", "num_prototypes=24, feature_weight=30.0, soft_weight=1.0, temperature=0.05", 0.77, 0.79),
    ], 1)
]  # fmt: skip
COMPARED = {
    "rows": [
        {"prediction": "z", "try 2": "61.0%", "try 1": "81.3%", "points more": "+20.3", "95 % interval": "+14.0..+26.5",
         "so": "higher"}
    ],
    "note": "Points of accuracy, try 1 less try 2, paired over 200 validation images.",
}  # fmt: skip


def factories(count: int) -> dict[str, Callable[[], Any]]:
    """What makes each widget anew: most on Farmyard, effects and tries with numbers of nobody's."""
    teacher = pk.Teacher("farmyard")
    images = pk.pack(Farmyard("target", "test", count, image_px=teacher.image_px), teacher.image_px, progress=False)
    compact = pk.extract_compact(teacher, images, views=("plain",), progress=False)
    config = pk.DiscoverConfig(num_prototypes=48, steps=20, max_patches=10_000)

    def embedded(bank: pk.PrototypeBank, of: pk.PackedImages = images) -> pk.EmbeddedFeatures:
        return pk.embed_features(bank, teacher, of, views=("plain",), progress=False)

    bank, other, one, many = (
        pk.discover(compact, config=each, progress=False)
        for each in (config, config.replace(seed=1), config.replace(num_prototypes=1, steps=0),
                     config.replace(num_prototypes=300, steps=0))
    )  # fmt: skip
    first, second = embedded(bank), embedded(other)
    side = teacher.image_px
    wide, high = np.zeros_like(images.pixels[:12]), side // 4
    wide[:, :, high:-high] = images.pixels[:12, :, high:-high]
    frames = np.tile(np.array([0, -side / 4, side, 3 * side / 4], np.float32), (12, 1))
    padded = replace(images.select(range(12)), pixels=wide, frames=frames)
    change = np.resize([-0.06, 0.01, -0.02, 0.03, 0.0], (48, 1)) + np.zeros((48, 1 + len(images.classes)))
    effects = PrototypeEffects(
        "accuracy", ("all classes", *images.classes), tuple(bank.names), tuple((k,) for k in range(48)),
        np.full(1 + len(images.classes), 0.8), change, change - 0.02, change + 0.02, count,
    )  # fmt: skip
    student = pk.Student("resnet10t", pk.tasks.Classification(len(images.classes)), bank)
    clean = tuple(bank.names)

    def explorer(**options: Any) -> PrototypeExplorer:
        bank.names = list(clean)
        return PrototypeExplorer(bank, first, **{"projection": "pca", "teacher": teacher} | options)

    def own() -> PrototypeExplorer:
        shown = explorer()
        shown.look_at(images.pixels[3].transpose(1, 2, 0), name="your picture")
        return shown

    def odd() -> PrototypeExplorer:
        shown = explorer()
        for k, name in enumerate(("n" * 300, "ذيل الحصان", "🐄🦵🏽 leg", "<b>bold</b>")):
            shown.rename(k, name)
        return shown

    def causes() -> Causes:
        made = Causes({})
        made.show(student.eval(), images)
        made.measured(effects)
        made.ticked = [made.rows[1]["k"]]
        return made

    def tries() -> TryTable:
        made = TryTable({})
        made.rows, made.ticked, made.comparison = TRIES, [2, 1], COMPARED
        return made

    return {
        "explorer": explorer,
        "effects": lambda: explorer(effects=effects),
        "own picture": own,
        "two models": lambda: explorer(other=(other, second), names=("one", "another")),
        "odd names": odd,
        "padded": lambda: PrototypeExplorer(bank, embedded(bank, padded), projection="pca"),
        "one of each": lambda: PrototypeExplorer(one, embedded(one, images.select([0])), projection="pca"),
        "300 prototypes": lambda: PrototypeExplorer(many, embedded(many), projection="pca"),
        "lens": lambda: PatchLens(pk.extract(teacher, images.select(range(24)), views=("plain",), progress=False)),
        "kept": lambda: kept_frame(explorer()),
        "kept own picture": lambda: kept_frame(own()),
        "causes": causes,
        "tries": tries,
    }


def choose_row(page: Any) -> None:
    page.locator(".prk tbody tr").nth(2).click()


def press(name: str) -> Callable[[Any], None]:
    return lambda page: page.get_by_role("button", name=name, exact=True).first.click()


def card(page: Any) -> None:
    page.locator(".prk-map canvas[role=application]").first.hover()
    page.wait_for_timeout(300)


def pinned(page: Any) -> None:
    press("Pin")(page)
    choose_row(page)


def lasso(page: Any) -> None:
    box = page.locator(".prk-map canvas[role=application]").first.bounding_box()
    points = [(0.5, 0.3), (0.8, 0.3), (0.8, 0.7), (0.5, 0.7)]
    for n, (x, y) in enumerate(points):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if n == 0:
            page.mouse.down()
    page.mouse.up()


def zoomed(page: Any) -> None:
    for _ in range(4):
        press("Zoom in (+)")(page)


def animals_only(page: Any) -> None:
    page.get_by_label("No background").check()
    page.get_by_label("Colour").first.select_option("group")


def searched(page: Any) -> None:
    page.get_by_label("Search prototypes by name, part or mark").fill("clearest")
    page.get_by_label("More columns").check()


def oddly_named(page: Any) -> None:
    page.get_by_role("button", name="prototype", exact=True).click()
    choose_row(page)


def ended(page: Any) -> None:
    page.evaluate("prockdModel.emit('comm_live_update')")


def restarted(page: Any) -> None:
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    page.wait_for_timeout(4000)


def training(page: Any) -> None:
    page.locator(".prockd-panel button", has_text="Run").first.click()
    page.wait_for_timeout(3000)


def nothing(_: Any) -> None:
    pass


Act = Callable[[Any], None]
AS_MADE = ("own picture", "two models", "one of each", "lens", "kept", "kept own picture", "tries", "causes")
STATES: dict[str, tuple[str, Act]] = {
    "first": ("explorer", nothing), "row": ("explorer", choose_row), "all prototypes": ("explorer", press("All")),
    "like this patch": ("explorer", press("Like this patch")), "smoothed": ("explorer", press("Smoothed")),
    "card": ("explorer", card), "two prototypes": ("explorer", pinned), "lasso": ("explorer", lasso),
    "zoomed": ("explorer", zoomed), "animals only": ("explorer", animals_only), "searched": ("effects", searched),
    "effects": ("effects", press("effect")), "odd names": ("odd names", oddly_named), "padded": ("padded", choose_row),
    "300 prototypes": ("300 prototypes", choose_row), **{name: (name, nothing) for name in AS_MADE},
}  # fmt: skip
IN_PAGES: dict[str, tuple[str, Act]] = {"kernel ended": ("explorer", ended)}
IN_JUPYTER: dict[str, tuple[str, Act]] = {
    "panel": ("panel", nothing), "panel, training": ("panel", training),
    "kernel restarted": ("explorer", restarted),  # the last: nothing is made after it
}  # fmt: skip


def save(page: Any, folder: Path, name: str, *, whole: bool) -> None:
    page.wait_for_timeout(400)
    page.screenshot(path=folder / f"{name}.png", full_page=whole)


def shoot_pages(browser: Any, folder: Path, states: dict[str, tuple[str, Act]], count: int) -> None:
    """States on pages that have no kernel."""
    made = factories(count)
    with tempfile.TemporaryDirectory() as pages:
        for name in {of for of, _ in states.values()}:
            widget, path = made[name](), Path(pages) / f"{name}.html"
            frame = f"<!doctype html><meta charset=utf-8><body>{widget}"
            path.write_text(frame if isinstance(widget, str) else offline_page(widget, name), encoding="utf-8")
        for scheme in ("light", "dark"):
            for width in WIDTHS:
                page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                for state, (name, act) in states.items():
                    page.goto((Path(pages) / f"{name}.html").as_uri())
                    page.wait_for_timeout(500)
                    act(page)
                    save(page, folder, f"{state}, {scheme}, {width}", whole=True)
                page.close()


def shoot_jupyter(browser: Any, folder: Path, states: dict[str, tuple[str, Act]], count: int, app: str) -> None:
    """States in a running JupyterLab (``lab``) or Notebook 7 (``notebook``): widgets with a kernel."""
    prepare = f"import shots\nmade = shots.factories({count})\nmade['panel'] = shots.panel\nprint('ready')"
    sources = [prepare, "make"]
    with tempfile.TemporaryDirectory() as home, serve(Path(home), {"shots": sources}, path=TESTS) as address:
        page = browser.new_page(viewport={"width": WIDTHS[0], "height": 1500})
        where = {"lab": "lab/tree/shots.ipynb?reset", "notebook": "notebooks/shots.ipynb"}[app]
        page.goto(f"{address}/{where}", timeout=120_000)
        page.wait_for_selector(CELLS, timeout=120_000)
        page.wait_for_function(IDLE, timeout=120_000)
        if app == "lab":
            page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
        run_cell(page, 0)
        page.locator(".jp-OutputArea-output", has_text="ready").wait_for(timeout=600_000)
        for state, (name, act) in states.items():
            show = f"from IPython.display import HTML\nit = made[{name!r}]()\nHTML(it) if isinstance(it, str) else it"
            page.set_viewport_size({"width": WIDTHS[0], "height": 1500})
            page.evaluate("source => window.jupyterapp.shell.currentWidget.content.widgets[1].model.sharedModel"
                          ".setSource(source)", show)  # fmt: skip
            run_cell(page, 1)
            shown = page.locator(".jp-OutputArea-output :is(.prk, .prockd-panel, iframe):visible")
            shown.first.wait_for(timeout=120_000)
            page.wait_for_timeout(1500)
            act(page)
            for theme in ("light", "dark"):
                page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })",
                              f"JupyterLab {theme.title()}")  # fmt: skip
                for width in WIDTHS:
                    page.set_viewport_size({"width": width, "height": 1500})
                    page.wait_for_timeout(700)
                    save(page, folder, f"{app}, {state}, {theme}, {width}", whole=False)
        page.close()


TESTS = [Path(__file__).parent, Path(__file__).parents[1]]


def panel() -> Any:
    """A panel on a world so small that nothing in it is to be learned."""
    from panel_world import tiny_world
    from prockd_widgets import DistillationPanel

    world = tiny_world()
    return DistillationPanel(world, pk.discover(world.source, 4, progress=False), steps=5_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/shots"))
    parser.add_argument("--in", nargs="+", dest="apps", default=["page", "lab", "notebook"])
    parser.add_argument("--only", default="", help="States with this word in their names.")
    parser.add_argument("--images", type=int, default=60)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    path = next(filter(None, map(shutil.which, NAMES)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGS)
        for app in asked.apps:
            every = {**STATES, **(IN_PAGES if app == "page" else IN_JUPYTER)}
            states = {state: every[state] for state in every if asked.only in state}
            if app == "page":
                shoot_pages(browser, asked.folder, states, asked.images)
            else:
                shoot_jupyter(browser, asked.folder, states, asked.images, app)
        browser.close()
    print(f"{len(list(asked.folder.glob('*.png')))} pictures in {asked.folder}")  # noqa: T201


if __name__ == "__main__":
    main()
