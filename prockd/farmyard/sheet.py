"""Pictures for people: the sheet of all species, and a sample with its parts in colour."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from prockd._types import Sample
from prockd.farmyard.animal import Pose, build
from prockd.farmyard.paint import over, random_paints
from prockd.farmyard.scene import Placed, moved, paint_animal, place, uniform_of
from prockd.farmyard.species import Species, load_species

part_palette: tuple[tuple[int, int, int], ...] = (
    (255, 255, 255), (0, 114, 178), (230, 159, 0), (86, 180, 233), (204, 121, 167),
    (240, 228, 66), (0, 158, 115), (213, 94, 0), (40, 40, 40),
)  # fmt: skip
"""RGB of each part, told apart by colour-blind people too (after Okabe and Ito)."""


def species_sheet(
    image_px: int = 160, seed: int = 0, columns: int = 7, species: dict[str, Species] | None = None
) -> Image.Image:
    """Draw every species in a standing pose with its name below.

    Args:
        image_px: width and height of each picture.
        seed: draws coats.
        columns: pictures in a row.
        species: what to draw; None for all that ship with the package.
    """
    animals = list((load_species() if species is None else species).values())
    line = max(14, image_px // 9)
    sheet = Image.new("RGB", (columns * image_px, -(-len(animals) // columns) * (image_px + line)), (246, 244, 238))
    font = ImageFont.load_default(size=0.75 * line)
    for i, animal in enumerate(animals):
        u = uniform_of(np.random.default_rng([seed, i]))
        pose = Pose()
        body, width, height = place(build(animal, pose), pose, 0.9 * image_px)
        centred = moved(body, 0.5 * (image_px - width), 0.96 * image_px - height)
        placed = Placed(centred, random_paints(u), animal.pattern, 0.9 * image_px)
        colour, covered, _ = paint_animal(placed, image_px, u, (0.3, 0.9))
        paper = np.full((image_px, image_px, 3), (246, 244, 238), dtype=np.uint16)
        corner = (i % columns * image_px, i // columns * (image_px + line))
        sheet.paste(Image.fromarray(over(paper, colour, covered).astype(np.uint8)), corner)
        below = (corner[0] + image_px // 2, corner[1] + image_px)
        ImageDraw.Draw(sheet).text(below, animal.name, (40, 40, 40), font, "ma")
    return sheet


def overlay_parts(sample: Sample) -> UInt8[np.ndarray, "H W 3"]:
    """Return the image of a sample, greyed, under the colours of its parts.

    Raises:
        ValueError: the sample has no part mask.
    """
    if sample.parts is None:
        raise ValueError(f"{sample.id} has no part mask")
    grey = sample.image.astype(np.uint16).sum(axis=2, dtype=np.uint16)[:, :, None] // 3
    tint = np.array(part_palette, dtype=np.uint16)[sample.parts]
    shown: np.ndarray = np.where(sample.parts[:, :, None] > 0, (2 * grey + 3 * tint) // 5, grey)
    return shown.astype(np.uint8)
