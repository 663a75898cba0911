"""How fast the prototype explorer answers at 100,000 patches in headless Chromium, and what it sends.

    python benchmarks/explorer.py [--patches 100000]

Needs Chromium and the Python package playwright. The bar is 100 ms for each act and 40 bytes a patch.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright
from prockd_widgets import PrototypeExplorer

from prockd import PackedImages, PatchFeatures, discover
from prockd.config import DiscoverConfig
from prockd.report import format_table

GRID, SIZE = 12, 96
ACTS = """() => {
  const view = document.getElementById('prockd').prockd, c = view.maps[0], results = {};
  const time = (name, act, times = 9) => {
    const all = [];
    for (let i = 0; i < times; i++) { const began = performance.now(); act(i); all.push(performance.now() - began); }
    all.sort((a, b) => a - b);
    results[name] = [all[Math.floor(times / 2)], all.at(-1)];
  };
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
  time('lasso of 120 corners, all panes drawn', i => {
    pointer('pointerdown', W * .8, H / 2);
    for (let t = 1; t < 120; t++)
      pointer('pointermove', W * (.5 + (.3 - i / 100) * Math.cos(t / 19)), H * (.5 + .3 * Math.sin(t / 19)));
    const began = performance.now();
    pointer('pointerup', W * .8, H / 2);
    view.draw();
    results['of which after the button is up'] = [performance.now() - began, performance.now() - began];
  });
  time('click in the map, all panes drawn', i => {
    for (const type of ['pointerdown', 'pointerup']) pointer(type, W * .4 + 7 * i, H / 2);
    view.draw();
  });
  time('choose a prototype, all panes drawn', i => { view.choose(i); view.draw(); });
  time('switch a prototype off, all panes drawn', i => { view.toggle(i); view.draw(); });
  view.set({ show: 'likeness' });
  view.draw();
  time('click a patch: likeness to all, all panes drawn', i => { view.pick(5000 + 700 * i); view.draw(); });
  return results;
}"""


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
    asked = parser.parse_args()
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
    print(
        format_table(
            [{"act": name, "median ms": round(a, 1), "worst ms": round(b, 1)} for name, (a, b) in found.items()]
        )
    )
    shown = f"{explorer.meta['patches']:,} patches of {len(explorer.images):,} images"
    print(f"\n{shown}: {sent.a_patch:.1f} bytes a patch, sprite sheet {sent.sheet / 1e6:.1f} MB")
    print(f"script: {len(explorer._esm.encode()) / 1e3:.1f} kB")


if __name__ == "__main__":
    main()
