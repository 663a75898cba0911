"""Do prototypes found on one animal's video tell the parts of another animal?

Key points of foot, leg, tail, head, neck and ear are measured across videos, with a MobileNetV2 of ImageNet as teacher.
PROCKD_REAL_DATA names a folder with the DAVIS animals, their BADJA points and the weights; a few minutes on one core.

    PROCKD_REAL_DATA=... python benchmarks/real_parts.py
"""

import io
import os
import sys
from collections.abc import Container
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

import prockd as pk
from prockd import plots
from prockd.cache import digest
from prockd.datasets import PackedImages, PointAnnotations, read_image, read_keypoints
from prockd.evaluation.points import (
    PointAgreement,
    PointPatches,
    point_agreement,
    point_agreement_with_controls,
    point_patches,
)
from prockd.evaluation.tables import format_table

RESULTS = Path(__file__).parent / "results"
POINTED, OTHER = ("cows", "horsejump-high"), ("goat",)
PARTS = ("ear", "foot", "head", "leg", "neck", "tail")
SIZES, LAYERS, COUNTS, SEEDS = (256, 384), ((2, 3, 4), (3, 4)), (24, 48, 96), (0, 1, 2)
MARGIN = 0.15
"""Around the animal's box, on each side."""


def animals(root: Path, image_px: int, only: Container[str] = (), mirrored: str = "") -> PackedImages:
    """Every frame (or ``only`` some ids), cut to a square around the animal's mask: animals of equal size.

    The squares of the ``mirrored`` video are turned left to right, and so are their frames, along which points move.
    """
    pixels, ids, frames, labels = [], [], [], []
    for label, video in enumerate((*POINTED, *OTHER)):
        for path in sorted((root / "animals" / video / "frames").iterdir()):
            if only and f"{video}/{path.name}" not in only:
                continue
            mask = read_image(root / "animals" / video / "masks" / f"{path.stem}.png")[..., 0] > 127
            y, x = (np.flatnonzero(mask.any(axis))[[0, -1]] for axis in (1, 0))
            half = (0.5 + MARGIN) * (1 + max(np.ptp(y), np.ptp(x)))
            box = tuple(round(c + sign * half) for sign in (-1, 1) for c in (x.mean(), y.mean()))
            square = Image.fromarray(read_image(path)).crop(box).resize((image_px, image_px), Image.Resampling.BICUBIC)
            turn = -1 if video == mirrored else 1
            pixels.append(np.asarray(square).transpose(2, 0, 1)[..., ::turn])
            ids.append(f"{video}/{path.name}")
            frames.append((box[2], box[1], box[0], box[3]) if video == mirrored else box)
            labels.append(label)
    key = ["animals", image_px, MARGIN, *(ids if only else ()), *([mirrored] if mirrored else ())]
    return PackedImages(
        np.stack(pixels), np.array(labels), tuple(ids), (*POINTED, *OTHER), digest(key),
        frames=np.array(frames, np.float32),
    )  # fmt: skip


def annotations(root: Path) -> PointAnnotations:
    """The points of both videos, by the ids of their images."""
    found = {}
    for video in POINTED:
        known = read_keypoints(root / "animals" / video / "parts.csv", parts=PARTS)
        found |= {f"{video}/{frame}": points for frame, points in known.images.items()}
    return PointAnnotations(PARTS, found)


def features_of(
    root: Path, image_px: int, layers: tuple[int, ...], only: Container[str] = (), mirrored: str = ""
) -> pk.PatchFeatures:
    """What the teacher sees in these frames; cached."""
    teacher = pk.Teacher(
        "mobilenetv2_100", weights=root / "teachers" / "mobilenetv2_100_imagenet.safetensors", layers=layers,
        image_px=image_px, pad_type="same", pretrained_cfg_overlay={"mean": (0.5,) * 3, "std": (0.5,) * 3},
    )  # fmt: skip
    return pk.extract(
        teacher, animals(root, image_px, only, mirrored), views=("plain",), batch_size=16, progress=sys.stderr.isatty()
    )


def prototypes(features: pk.PatchFeatures, video: str, count: int, seed: int = 0) -> pk.PrototypeBank:
    """Found on the frames of one video alone."""
    mine = np.flatnonzero(features.images.labels == POINTED.index(video))
    config = pk.DiscoverConfig(num_prototypes=count, steps=0, max_patches=8_000, seed=seed)
    return pk.discover(features.select(mine), config=config, progress=False)


def inner(assigned: np.ndarray, points: PointPatches, train: np.ndarray, count: int) -> PointAgreement:
    """Agreement within the training video: its first annotated frames name the prototypes, its last ones test them."""
    frames = np.unique(points.image[train[points.image]])
    first = np.isin(np.arange(len(train)), frames[: len(frames) // 2])
    return point_agreement(assigned, points.select(train), first, count)


def choose(
    root: Path, known: PointAnnotations, video: str
) -> tuple[int, tuple[int, ...], int, list[dict[str, object]]]:
    """Input size, layers and K with the best mean over parts within one video; the other video is not looked at."""
    rows, best = [], (-1.0, (0, (0,), 0))
    for image_px in SIZES:
        for layers in LAYERS:
            features = features_of(root, image_px, layers)
            marked = features.select([m for m, name in enumerate(features.images.ids) if name in known.images])
            train = marked.images.labels == POINTED.index(video)
            points = point_patches(known, marked.images, features.grid)
            for count in COUNTS:
                assigned = prototypes(features, video, count).assignments(marked).argmax(-1).numpy()
                found = inner(assigned, points, train, count)
                best = max(best, (found.balanced, (image_px, layers, count)))
                within = {"accuracy": f"{found.accuracy:.0%}", "mean over parts": f"{found.balanced:.0%}"}
                rows.append({"found on": video, "px": image_px, "layers": str(layers), "K": count} | within)
    return (*best[1], rows)


def measure(root: Path) -> tuple[list[dict[str, object]], list[dict[str, object]], list[str]]:
    """Rows of the table across videos, rows of the search, and a sentence for each test; writes the figures."""
    known, rows, searched, told = annotations(root), [], [], []
    for video, other in (POINTED, POINTED[::-1]):
        image_px, layers, count, tried = choose(root, known, video)
        searched += tried
        features = features_of(root, image_px, layers)
        banks = [prototypes(features, video, count, seed) for seed in SEEDS]
        for mirrored in ("", other):
            marked = features_of(root, image_px, layers, only=known.images, mirrored=mirrored)
            images, grid = marked.images, marked.grid
            points = point_patches(known, images, grid)
            train = images.labels == POINTED.index(video)
            found: dict[str, list[PointAgreement]] = {}
            for seed, bank in zip(SEEDS, banks, strict=True):
                a = bank.assignments(marked)
                ones = point_agreement_with_controls(a, points, images, grid, train, seed=seed)
                for name, one in ones.items():
                    found.setdefault(name, []).append(one)
                if seed == SEEDS[0] and not mirrored:
                    draw(video, a.argmax(-1).numpy(), points, ones["prototypes"], images, train, grid)
            which = {"named on": video, "tested on": f"{other}, mirrored" if mirrored else other}
            rows += [which | {"by": name} | mean_of(ones).row() for name, ones in found.items()]
            one = found["prototypes"][0]
            chance = {"accuracy": f"{one.chance:.1%}", "mean over parts": f"{1 / (one.counts > 0).sum():.1%}"}
            rows.append(which | {"by": "always the commonest part"} | chance)
            setting = f"{image_px} px, layers {layers}, K = {count}, {one.counts.sum()} points"
            told.append(f"Named on {video}, tested on {which['tested on']} ({setting}): {verdict(found)}")
    return rows, searched, told


def mean_of(ones: list[PointAgreement]) -> PointAgreement:
    """The mean over seeds."""
    return replace(
        ones[0], accuracy=float(np.mean([o.accuracy for o in ones])),
        balanced=float(np.mean([o.balanced for o in ones])), recall=np.mean([o.recall for o in ones], axis=0),
    )  # fmt: skip


def verdict(found: dict[str, list[PointAgreement]]) -> str:
    """What came out, whichever way it came out."""
    means = {name: mean_of(ones) for name, ones in found.items()}
    mine = means.pop("prototypes")
    rivals = {name: (one.accuracy, one.balanced) for name, one in means.items()}
    rivals["always the commonest part"] = (mine.chance, 1 / (mine.counts > 0).sum())
    told = []
    for i, (what, value) in enumerate({"accuracy": mine.accuracy, "mean over parts": mine.balanced}.items()):
        below = [name for name, numbers in rivals.items() if value <= numbers[i]]
        told.append(
            f"{what} {value:.1%}, " + (f"**not** above: {', '.join(below)}" if below else "above every control")
        )
    return "; ".join(told) + "."


def draw(
    video: str, assigned: np.ndarray, points: PointPatches, agreement: PointAgreement, images: PackedImages,
    train: np.ndarray, grid: tuple[int, int],
) -> None:  # fmt: skip
    """Key points of frames of the other video, and which parts their prototypes tell; less than 200 kB."""
    frames = np.unique(points.select(~train).image)
    chosen = frames[np.linspace(0, len(frames) - 1, 5).astype(int)]
    figure = plots.plot_points(points, assigned, agreement, images, chosen, grid)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    small = Image.open(file).convert("RGB").quantize(96, Image.Quantize.MAXCOVERAGE)  # keeps rare colours
    small.save(RESULTS / f"real_parts_{video}.png", optimize=True)


def page(rows: list[dict[str, object]], searched: list[dict[str, object]], told: list[str]) -> str:
    figures = "\n\n".join(f"![key points told by prototypes of {v}](real_parts_{v}.png)" for v in POINTED)
    return (
        "# Parts on real photographs\n\n"
        "Prototypes of a MobileNetV2 (ImageNet, frozen) are found on the frames of one animal's video without labels. "
        "Each is named by the commonest part among the key points that fall on it in that video, and the names are "
        "tested on the video of another animal. Frames are cut to a square around the animal. Means over "
        f"{len(SEEDS)} seeds of discovery. There are two videos with points: two directions, no interval; frames of a "
        "video are near copies of each other.\n\n"
        + "\n".join(f"- {line}" for line in told)
        + f"\n\n```\n{format_table(rows)}\n```\n\n"
        "*Shuffled* are the same assignments in random order, *raw pixels* is k-means on the pixels of patches with "
        "the same K, *place in the image* names cells of the square: both animals go the same way and fill their "
        "squares, so place alone tells much, and less of it where the other animal is mirrored. Made by "
        "`python benchmarks/real_parts.py`.\n\n"
        f"{figures}\n\nFrames: DAVIS (BSD licence). Points: BADJA (MIT licence).\n\n"
        "## How size, layers and K were chosen\n\nWithin the training video alone: its first annotated frames name the "
        "prototypes, its last ones test them; the best mean over parts is taken.\n\n"
        f"```\n{format_table(searched)}\n```\n"
    )


if __name__ == "__main__":
    if "PROCKD_REAL_DATA" not in os.environ:
        sys.exit("PROCKD_REAL_DATA is not set: it names the folder with animals/ and teachers/")
    text = page(*measure(Path(os.environ["PROCKD_REAL_DATA"])))
    print(text)
    (RESULTS / "real_parts.md").write_text(text)
