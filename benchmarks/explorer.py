"""How fast the prototype explorer answers at 100,000 and at 1,000,000 patches in headless Chromium, and what it sends.

    python benchmarks/explorer.py [--patches 100000 1000000] [--quick] [--write]

Needs Chromium and the Python package playwright. The bar is 100 ms for each act, 250 ms at a million, and 40 bytes a
patch. ``--write`` makes results/explorer.md.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from playwright.sync_api import sync_playwright
from prockd_widgets import PrototypeExplorer

from prockd import PackedImages, PatchFeatures, discover
from prockd.evaluation.tables import format_table
from prockd.settings.method import DiscoverConfig

GRID, SIZE = 12, 96
ACTS = """() => {
  const view = document.getElementById('prockd').prockd, c = view.maps[0], W = c.width, H = c.height;
  const pointer = (type, x, y, target = c.over) => {
    const r = target.getBoundingClientRect();
    const where = { clientX: r.left + x, clientY: r.top + y, button: 0, pointerId: 1, bubbles: true };
    target.dispatchEvent(new PointerEvent(type, where));
  };
  for (const canvas of document.querySelectorAll('canvas')) canvas.setPointerCapture = () => {};
  window.acts = {
    'redraw the map': () => view.drawMap(0),
    'hover: nearest point and ring': i => pointer('pointermove', W * (.3 + .04 * i), H / 2),
    'card with thumbnail': i => view.showCard(1000 + i),
    'lasso: 120 moves of the pointer': i => {
      pointer('pointerdown', W * .8, H / 2);
      for (let t = 0; t < 120; t++)
        pointer('pointermove', W * (.5 + (.3 - i / 100) * Math.cos(t / 19)), H * (.5 + .3 * Math.sin(t / 19)));
    },
    'lasso of 120 corners let go, all panes drawn': () => { pointer('pointerup', W * .8, H / 2); view.draw(); },
    'zoom in by the wheel': i => { view.zoomBy(i % 2 ? 1 / 3 : 3, 0, [W / 2, H / 2]); view.draw(); },
    'click in the map, all panes drawn': i => {
      for (const type of ['pointerdown', 'pointerup']) pointer(type, W * .4 + 7 * i, H / 2);
      view.draw();
    },
    'choose a prototype, all panes drawn': i => { view.choose(i); view.draw(); },
    'switch a prototype off, all panes drawn': i => { view.toggle(i); view.draw(); },
    'filter by class, all panes drawn': i => { view.sift({ pictures: `class:${i}` }); view.draw(); },
    'no filter': i => { view.sift({ pictures: 'all' }); view.set({ show: 'likeness' }); view.draw(); },
    'click a patch: likeness to all, all panes drawn': i => { view.pick(5000 + 700 * i); view.draw(); },
  };
  window.timed = (name, i) => {
    const began = performance.now();
    window.acts[name](i);
    return performance.now() - began;
  };
  return Object.keys(window.acts);
}"""
REPEATED = 9
ABOUT = """# The explorer at 100,000 and 1,000,000 patches

Made by `python benchmarks/explorer.py --write`: random images and features in headless Chromium without a GPU,
{cores} cores with a load of {load:.1f} when it began. An act ends when everything that it changes is drawn; the bars
are 100 ms an act at 100,000 patches, 250 ms at 1,000,000, and 40 bytes a patch. Median and worst of {repeated} acts,
the first before the browser has compiled the script; "CPU" is what the page's thread worked, median: the same as
the time that passed where no other program runs beside it.

```
{table}
```

{told}
"""


def world(num_patches: int, seed: int | None = 0) -> PatchFeatures:
    """Random images and features of 48 kinds of patches; the times do not depend on what they show."""
    M, N = -(-num_patches // GRID**2), GRID**2
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, (M, 3, 8, 8), np.uint8).repeat(SIZE // 8, 2).repeat(SIZE // 8, 3)
    parts = rng.integers(0, 9, (M, GRID, GRID), np.uint8).repeat(SIZE // GRID, 1).repeat(SIZE // GRID, 2)
    ids = tuple(f"farmyard/{i:06d}" for i in range(M))
    images = PackedImages(pixels, np.arange(M) % 10, ids, tuple("abcdefghij"), "benchmark", parts)
    kinds = rng.normal(size=(48, 96)).astype(np.float32)
    values = np.empty((M, 1, 96, GRID, GRID), np.float16)
    for m in range(M):  # a million patches at once would take gigabytes
        patches = kinds[rng.integers(0, 48, N)] + rng.standard_normal((N, 96), np.float32)
        values[m, 0] = patches.T.reshape(96, GRID, GRID)
    return PatchFeatures((values,), images, "t", (0,))


def measure(browser: Any, num_patches: int, seed: int | None) -> tuple[dict[str, np.ndarray], str]:
    """Milliseconds of each act at a number of patches, and a sentence on what was sent."""
    features = world(num_patches, seed)
    few = features.select(np.arange(100))
    bank = discover(few, config=DiscoverConfig(num_prototypes=48, steps=0), progress=False)
    before, began = psutil.Process().memory_info().rss, time.perf_counter()
    explorer = PrototypeExplorer(bank, features, projection="pca", max_patches=2 * num_patches)
    seconds, held = time.perf_counter() - began, psutil.Process().memory_info().rss - before
    sent = explorer.bytes_sent
    with tempfile.TemporaryDirectory() as folder:
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(explorer.export_html(Path(folder) / "explorer.html").as_uri(), timeout=300_000)
        page.wait_for_selector(".prk tbody tr", timeout=300_000)
        times, selected = act_on(page)
        page.close()
    told = (
        f"{explorer.meta['patches']:,} patches of {len(explorer.images):,} images: {sent.a_patch:.1f} bytes a patch, a "
        f"sprite sheet of {sent.sheet / 1e6:.1f} MB, a script of {len(explorer._esm.encode()) / 1e3:.1f} kB; the "
        f"explorer was made in {seconds:.0f} s and holds {held / 1e6:,.0f} MB beside its features. A lasso took "
        f"{min(selected):,} to {max(selected):,} patches."
    )
    return times, told


def act_on(page: Any) -> tuple[dict[str, np.ndarray], list[int]]:
    """(9, 2) milliseconds that passed and that the page's thread worked, of each act; how many patches lassos took."""
    work, times, selected = page.context.new_cdp_session(page), {}, []
    work.send("Performance.enable")

    def worked() -> float:
        metrics = work.send("Performance.getMetrics")["metrics"]
        return 1000 * next(float(one["value"]) for one in metrics if one["name"] == "ThreadTime")

    names = page.evaluate(ACTS)
    lasso = [name for name in names if name.startswith("lasso")]
    for turn in [lasso, *([name] for name in names if name not in lasso)]:
        for i in range(REPEATED):
            for name in turn:
                before = worked()
                passed = page.evaluate("([name, i]) => window.timed(name, i)", [name, i])
                times.setdefault(name, []).append((passed, worked() - before))
            if turn is lasso:
                selected.append(page.evaluate("document.getElementById('prockd').prockd.selected.length"))
    return {name: np.array(times[name]) for name in names}, selected


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--quick", action="store_true", help="100,000 new patches alone, a last line of JSON")
    parser.add_argument("--write", action="store_true", help="keep the numbers in results/explorer.md")
    asked, load = parser.parse_args(), os.getloadavg()[0]
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    sizes = asked.patches[:1] if asked.quick else asked.patches
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        measured = [measure(browser, size, None if asked.quick else 0) for size in sizes]
        browser.close()
    rows = [
        {"act": name}
        | {
            f"{size:,}: {word}": f"{how(times[name][:, column]):.1f}"
            for size, (times, _) in zip(sizes, measured, strict=True)
            for word, how, column in (("ms", np.median, 0), ("worst", np.max, 0), ("CPU", np.median, 1))
        }
        for name in measured[0][0]
    ]
    told = "\n\n".join(words for _, words in measured)
    text = ABOUT.format(cores=os.cpu_count(), load=load, repeated=REPEATED, table=format_table(rows), told=told)
    print(text)
    if asked.quick:
        print(json.dumps({name: round(float(np.median(both[:, 0])), 1) for name, both in measured[0][0].items()}))
    elif asked.write:
        (Path(__file__).parent / "results" / "explorer.md").write_text(text)


if __name__ == "__main__":
    main()
