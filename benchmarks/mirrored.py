"""A mirrored copy of a folder of pictures with a table of key points: the same animals, walking the other way.

python benchmarks/mirrored.py FOLDER OUT     # then: prockd compare ... --set data.test=OUT
"""

import csv
import sys
from pathlib import Path

from PIL import Image, ImageOps


def mirror(folder: Path, out: Path) -> None:
    """Write the pictures that the table names, and the table, with left and right exchanged; no joint is renamed."""
    (out / "frames").mkdir(parents=True)
    with (folder / "parts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    widths = {}
    for name in sorted({row["frame"] for row in rows}):
        with Image.open(folder / "frames" / name) as image:
            widths[name] = image.width
            ImageOps.mirror(image).save(out / "frames" / name, quality=95)
    with (out / "parts.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        for row in rows:
            writer.writerow(row | {"x_px": widths[row["frame"]] - float(row["x_px"])})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(str(__doc__))
    mirror(Path(sys.argv[1]), Path(sys.argv[2]))
