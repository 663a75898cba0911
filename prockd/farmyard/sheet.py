"""Pictures for people: the sheet of all species, and a sample with its parts in colour."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from prockd._types import Sample
from prockd.farmyard.animal import build
from prockd.farmyard.body import Pose
from prockd.farmyard.paint import uniform_of
from prockd.farmyard.scene import paint_animal
from prockd.farmyard.species import Species, load_species

part_palette: tuple[tuple[int, int, int], ...] = (
    (255, 255, 255), (0, 114, 178), (230, 159, 0), (86, 180, 233), (204, 121, 167),
    (240, 228, 66), (0, 158, 115), (213, 94, 0), (40, 40, 40),
)  # fmt: skip
"""RGB of each part, told apart by colour-blind people too (after Okabe and Ito)."""

_PAPER, _INK = (246, 244, 238), (40, 40, 40)


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
    sheet = Image.new("RGB", (columns * image_px, -(-len(animals) // columns) * (image_px + line)), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=0.75 * line)
    for i, animal in enumerate(animals):
        body = build(animal, Pose()).posed(Pose(), 0.9 * image_px)
        width, height = body.size()
        body = body.moved(0.5 * (image_px - width), 0.96 * image_px - height)
        paper = np.full((image_px, image_px, 3), _PAPER, dtype=np.uint16)
        u = uniform_of(np.random.default_rng([seed, i]))
        picture, _ = paint_animal(paper, body, animal.pattern, 0.9 * image_px, u, light=(0.3, 0.9))
        left, top = i % columns * image_px, i // columns * (image_px + line)
        sheet.paste(Image.fromarray(picture.astype(np.uint8)), (left, top))
        draw.text((left + image_px // 2, top + image_px), animal.name, _INK, font, "ma")
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
    return np.asarray(np.where(sample.parts[:, :, None] > 0, (2 * grey + 3 * tint) // 5, grey), np.uint8)
