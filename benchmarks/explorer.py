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
  const selected = [], view = document.getElementById('prockd').prockd, c = view.maps[0];
  const all = {}, timed = (name, act) => {
    const began = performance.now();
    act();
    (all[name] ||= []).push(performance.now() - began);
  }, time = (name, act) => { for (let i = 0; i < 9; i++) timed(name, () => act(i)); };
  const pointer = (type, x, y, target = c.over) => {
    const r = target.getBoundingClientRect();
    const where = { clientX: r.left + x, clientY: r.top + y, button: 0, pointerId: 1, bubbles: true };
    target.dispatchEvent(new PointerEvent(type, where));
  };
  for (const canvas of document.querySelectorAll('canvas')) canvas.setPointerCapture = () => {};
  const W = c.width, H = c.height;
  time('redraw the map', () => view.drawMap(0));
  time('hover: nearest point and ring', i => pointer('pointermove', W * (.3 + .04 * i), H / 2));
  time('card with thumbnail', i => view.showCard(1000 + i));
  for (let i = 0; i < 9; i++) {
    pointer('pointerdown', W * .8, H / 2);
    for (let t = 1; t < 120; t++) timed('lasso: one move of the pointer', () =>
      pointer('pointermove', W * (.5 + (.3 - i / 100) * Math.cos(t / 19)), H * (.5 + .3 * Math.sin(t / 19))));
    timed('lasso of 120 corners let go, all panes drawn', () => { pointer('pointerup', W * .8, H / 2); view.draw(); });
    selected.push(view.selected.length);
  }
  time('click in the map, all panes drawn', i => {
    for (const type of ['pointerdown', 'pointerup']) pointer(type, W * .4 + 7 * i, H / 2);
    view.draw();
  });
  time('choose a prototype, all panes drawn', i => { view.choose(i); view.draw(); });
  time('switch a prototype off, all panes drawn', i => { view.toggle(i); view.draw(); });
  view.set({ show: 'likeness' });
  view.draw();
  time('click a patch: likeness to all, all panes drawn', i => { view.pick(5000 + 700 * i); view.draw(); });
  return { all, selected };
}"""
ABOUT = """# The explorer at 100,000 and 1,000,000 patches

Made by `python benchmarks/explorer.py --write`: random images and features in headless Chromium without a GPU,
{cores} cores with a load of {load:.1f} when it began (other programs were running where it is above 0.5). An act ends
when everything that it changes is drawn; the bars are 100 ms an act at 100,000 patches, 250 ms at 1,000,000, and 40
bytes a patch. "Worst" is the worst of nine acts (of 1,071 moves of the pointer), the first of them before the browser
has compiled the script.

```
{table}
```

{told}
"""


def world(num_patches: int) -> PatchFeatures:
    """Random images and features of 48 kinds of patches; the times do not depend on what they show."""
    M, N = -(-num_patches // GRID**2), GRID**2
    rng = np.random.default_rng(0)
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


def measure(browser: Any, num_patches: int) -> tuple[dict[str, np.ndarray], str]:
    """Milliseconds of each act at a number of patches, and a sentence on what was sent."""
    features = world(num_patches)
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
        found = page.evaluate(ACTS)
        page.close()
    told = (
        f"{explorer.meta['patches']:,} patches of {len(explorer.images):,} images: {sent.a_patch:.1f} bytes a patch, a "
        f"sprite sheet of {sent.sheet / 1e6:.1f} MB, a script of {len(explorer._esm.encode()) / 1e3:.1f} kB; the "
        f"explorer was made in {seconds:.0f} s and holds {held / 1e6:,.0f} MB beside its features. A lasso took "
        f"{min(found['selected']):,} to {max(found['selected']):,} patches."
    )
    return {name: np.array(values) for name, values in found["all"].items()}, told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--quick", action="store_true", help="100,000 patches alone, a last line of JSON")
    parser.add_argument("--write", action="store_true", help="keep the numbers in results/explorer.md")
    asked, load = parser.parse_args(), os.getloadavg()[0]
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    sizes = asked.patches[:1] if asked.quick else asked.patches
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        measured = [measure(browser, size) for size in sizes]
        browser.close()
    rows = [
        {"act": name}
        | {
            f"{size:,}: {word}": f"{how(times[name]):.1f}"
            for size, (times, _) in zip(sizes, measured, strict=True)
            for word, how in (("median ms", np.median), ("worst", np.max))
        }
        for name in measured[0][0]
    ]
    told = "\n\n".join(words for _, words in measured)
    text = ABOUT.format(cores=os.cpu_count(), load=load, table=format_table(rows), told=told)
    print(text)
    if asked.quick:
        print(json.dumps({name: round(float(np.median(times)), 1) for name, times in measured[0][0].items()}))
    elif asked.write:
        (Path(__file__).parent / "results" / "explorer.md").write_text(text)


if __name__ == "__main__":
    main()
