"""Screenshots of every state of the widgets, light and dark and at three widths, for people to look at: `make shots`.

    python tests/browser/shots.py [FOLDER] [--only WORD] [--images 60]

Pages without a kernel; what JupyterLab itself looks like is taken by test_in_lab.py where PROCKD_SHOTS names a folder.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chromium import ARGS, NAMES
from playwright.sync_api import sync_playwright
from prockd_widgets import PatchLens, PrototypeExplorer
from prockd_widgets.causes import Causes
from prockd_widgets.html import offline_page
from prockd_widgets.kept import kept_frame
from prockd_widgets.try_table import TryTable

import prockd as pk
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


def pages(folder: Path, count: int) -> dict[str, Path]:
    """Every widget as a page without a kernel."""
    teacher = pk.Teacher("farmyard")
    images = pk.pack(Farmyard("target", "test", count, image_px=teacher.image_px), teacher.image_px, progress=False)
    compact = pk.extract_compact(teacher, images, views=("plain",), progress=False)
    config = pk.DiscoverConfig(num_prototypes=24, steps=0, max_patches=6_000)
    bank, other = (pk.discover(compact, config=config.replace(seed=seed), progress=False) for seed in (0, 1))
    first, second = (pk.embed_features(one, teacher, images, views=("plain",), progress=False) for one in (bank, other))
    explorer = PrototypeExplorer(bank, first, projection="pca", teacher=teacher)
    made = {"explorer": explorer.export_html(folder / "explorer.html")}
    explorer.look_at(images.pixels[3].transpose(1, 2, 0), name="your picture")
    made["own picture"] = explorer.export_html(folder / "own.html")
    both = PrototypeExplorer(bank, first, other=(other, second), names=("one", "another"), projection="pca")
    made["two models"] = both.export_html(folder / "two.html")
    for k, name in enumerate(("n" * 300, "ذيل الحصان", "🐄🦵🏽 leg", "<b>bold</b>")):
        explorer.rename(k, name)
    made["odd names"] = explorer.export_html(folder / "odd.html")
    made["lens"] = PatchLens(
        pk.extract(teacher, images.select(range(8)), views=("plain",), progress=False)
    ).export_html(folder / "lens.html")
    kept = kept_frame(explorer)
    made["kept"] = folder / "kept.html"
    made["kept"].write_text(f"<!doctype html><meta charset=utf-8><body>{kept}", encoding="utf-8")
    student = pk.Student("resnet10t", pk.tasks.Classification(len(images.classes)), bank)
    causes, table = Causes({}), TryTable({})
    causes.show(student.eval(), images)
    spread = [((k * 7) % 11 - 5) / 2 for k in range(len(causes.rows))]
    causes.rows = [
        {**row, "change": [c - 1.5, c, c + 1.5], "classes": "pig -3.0"}
        for row, c in zip(causes.rows, spread, strict=True)
    ]
    causes.ticked = [causes.rows[1]["k"]]
    table.rows, table.ticked, table.comparison = TRIES, [2, 1], COMPARED
    for name, widget in (("causes", causes), ("tries", table)):
        made[name] = folder / f"{name}.html"
        made[name].write_text(offline_page(widget, name), encoding="utf-8")
    return made


def choose_row(page: Any) -> None:
    page.locator(".prk tbody tr").nth(2).click()


def all_prototypes(page: Any) -> None:
    page.get_by_role("button", name="All", exact=True).first.click()


def like_this(page: Any) -> None:
    page.get_by_role("button", name="Like this patch").first.click()


def card(page: Any) -> None:
    page.locator(".prk-map canvas[role=application]").first.hover()
    page.wait_for_timeout(300)


def ended(page: Any) -> None:
    page.evaluate(
        "() => { document.body.classList.add('jupyter-widgets-disconnected'); prockdModel.emit('comm_live_update') }"
    )


def nothing(_: Any) -> None:
    pass


STATES: dict[str, tuple[str, Callable[[Any], None]]] = {
    "first": ("explorer", nothing), "row": ("explorer", choose_row), "all prototypes": ("explorer", all_prototypes),
    "like this patch": ("explorer", like_this), "card": ("explorer", card), "kernel ended": ("explorer", ended),
    "own picture": ("own picture", nothing), "two models": ("two models", nothing), "odd names": ("odd names", nothing),
    "lens": ("lens", nothing), "kept": ("kept", nothing), "tries": ("tries", nothing), "causes": ("causes", nothing),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/shots"))
    parser.add_argument("--only", default="", help="States with this word in their names.")
    parser.add_argument("--images", type=int, default=60)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    path = next(filter(None, map(shutil.which, NAMES)))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        made = pages(Path(folder), asked.images)
        browser = playwright.chromium.launch(executable_path=path, args=ARGS)
        for scheme in ("light", "dark"):
            for width in WIDTHS:
                page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                for state, (name, act) in STATES.items():
                    if asked.only in state:
                        page.goto(made[name].as_uri())
                        page.wait_for_timeout(500)
                        act(page)
                        page.screenshot(path=asked.folder / f"{state}, {scheme}, {width}.png", full_page=True)
                page.close()
        browser.close()
    print(f"{len(list(asked.folder.glob('*.png')))} pictures in {asked.folder}")  # noqa: T201


if __name__ == "__main__":
    main()
