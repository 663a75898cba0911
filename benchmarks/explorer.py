"""How fast the prototype explorer answers at 100,000 patches in headless Chromium, and what it sends.

    python benchmarks/explorer.py [--patches 100000] [--write]

Needs Chromium and the Python package playwright. The bar is 100 ms for each act and 40 bytes a patch. ``--write`` makes
results/explorer.md.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
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
ABOUT = """# The explorer at 100,000 patches

Made by `python benchmarks/explorer.py --write`: random images and features of {shown} in headless
Chromium without a GPU, {cores} cores with a load of {load:.1f} when it began. An act ends when everything that it
changes is drawn; the bars are 100 ms an act and 40 bytes a patch. "Worst" is the worst of nine acts (of 1,071 moves of
the pointer), the first of them before the browser has compiled the script. A lasso took {fewest:,} to {most:,} patches.

```
{table}
```

{sent}
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
    values = kinds[rng.integers(0, 48, (M, N))] + rng.normal(size=(M, N, 96)).astype(np.float32)
    return PatchFeatures(
        (values.transpose(0, 2, 1).reshape(M, 1, 96, GRID, GRID).astype(np.float16),), images, "t", (0,)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=100_000)
    parser.add_argument("--write", action="store_true", help="keep the numbers in results/explorer.md")
    asked, load = parser.parse_args(), os.getloadavg()[0]
    features = world(asked.patches)
    few = features.select(np.arange(100))
    bank = discover(few, config=DiscoverConfig(num_prototypes=48, steps=0), progress=False)
    explorer = PrototypeExplorer(bank, features)
    sent = explorer.bytes_sent
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(explorer.export_html(Path(folder) / "explorer.html").as_uri())
        page.wait_for_selector(".prk tbody tr", timeout=120_000)
        found = page.evaluate(ACTS)
        browser.close()
    times = {name: np.array(values) for name, values in found["all"].items()}
    rows = [
        {"act": name, "median ms": f"{np.median(t):.1f}", "worst ms": f"{t.max():.1f}"} for name, t in times.items()
    ]
    text = ABOUT.format(
        shown=f"{explorer.meta['patches']:,} patches of {len(explorer.images):,} images",
        cores=os.cpu_count(),
        load=load,
        fewest=min(found["selected"]),
        most=max(found["selected"]),
        table=format_table(rows),
        sent=f"Sent: {sent.a_patch:.1f} bytes a patch, a sprite sheet of {sent.sheet / 1e6:.1f} MB, a script of "
        f"{len(explorer._esm.encode()) / 1e3:.1f} kB.",
    )
    print(text)
    if asked.write:
        (Path(__file__).parent / "results" / "explorer.md").write_text(text)


if __name__ == "__main__":
    main()
