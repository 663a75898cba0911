"""Do prototypes found on one animal's video tell the parts of another animal, and does adapting the teacher help?

Key points of foot, leg, tail, head, neck and ear are measured across two videos, both ways, as they are and with the
tested video mirrored, which takes from place what it tells. Teachers: MobileNetV2 and EfficientNet-Lite2 of ImageNet.
PROCKD_REAL_DATA names a folder with the DAVIS animals, their BADJA points, unlabelled photos and the weights.

    PROCKD_REAL_DATA=... python benchmarks/real_parts.py    # what results/real_parts.jsonl lacks, then real_parts.md
    python benchmarks/real_parts.py --page                  # the page alone, from the lines that are there
    python benchmarks/real_parts.py --quick                 # frozen MobileNetV2, a fresh seed, one line of JSON

Half an hour on one core, most of it for adapting. No setting was chosen on these videos.
"""

import argparse
import functools
import io
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from PIL import Image

import prockd as pk
from prockd import plots
from prockd.cache import digest
from prockd.datasets import PackedImages, PointAnnotations, read_image, read_keypoints
from prockd.evaluation.clarity import lives_in_one
from prockd.evaluation.controls import NEAREST, PIXELS, PLACE, SHUFFLED
from prockd.evaluation.intervals import block_interval
from prockd.evaluation.points import (
    PointAgreement,
    PointPatches,
    nearest_agreement,
    point_agreement,
    point_agreement_with_controls,
    point_patches,
)
from prockd.evaluation.tables import format_table
from prockd.runs.arm_students import randomised

RESULTS = Path(__file__).parent / "results"
POINTED, OTHER = ("cows", "horsejump-high"), ("goat",)
PARTS = ("ear", "foot", "head", "leg", "neck", "tail")
TEACHERS: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "MobileNetV2": ("mobilenetv2_tf", "mobilenetv2_100_imagenet", {}),
    "EfficientNet-Lite2": (
        "tf_efficientnet_lite2", "tf_efficientnet_lite2_imagenet", {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    ),
}  # fmt: skip
IMAGE_PX, SEEDS, FEW_SEEDS = 256, range(10), range(3)
DISCOVER = pk.DiscoverConfig(steps=0, max_patches=8_000)
"""A second a run; the defaults, which refine the bank, take thirty and are measured with fewer seeds."""
ADAPT = pk.ClusterConfig(mixed_precision="bf16")
MARGIN = 0.15
"""Around the animal's box, on each side."""
BLOCK = 10
"""Consecutive frames that are drawn together in an interval."""
VIEWS = ("as is", "mirrored")
RANDOM, COMMONEST = "prototypes, random weights", "always the commonest part"
NN_FROZEN, NN_ADAPTED = "5 nearest in features, frozen", "5 nearest in features, adapted"
BALANCED, POOLED = "prototypes that it adapted with", "prototypes found on three videos, frozen"
DEFAULTS = "prototypes, refined"
SEEN = ", the tested video seen"
BLIND = (NEAREST, PLACE, PIXELS, COMMONEST)
"""Controls that no teacher knows."""
Interval = tuple[float, float, float]


# What is seen


@functools.cache
def animals(root: Path, mirrored: str = "") -> PackedImages:
    """Every frame, cut to a square around the animal's mask: animals of equal size.

    The squares of the ``mirrored`` video are turned left to right, and so are their frames, along which points move.
    """
    pixels, ids, frames = [], [], []
    for video in (*POINTED, *OTHER):
        turn = -1 if video == mirrored else 1
        for path in sorted((root / "animals" / video / "frames").iterdir()):
            mask = read_image(root / "animals" / video / "masks" / f"{path.stem}.png")[..., 0] > 127
            y, x = (np.flatnonzero(mask.any(axis))[[0, -1]] for axis in (1, 0))
            half = (0.5 + MARGIN) * (1 + max(np.ptp(y), np.ptp(x)))
            box = tuple(round(c + sign * half) for sign in (-1, 1) for c in (x.mean(), y.mean()))
            square = Image.fromarray(read_image(path)).crop(box).resize((IMAGE_PX,) * 2, Image.Resampling.BICUBIC)
            pixels.append(np.asarray(square).transpose(2, 0, 1)[..., ::turn])
            ids.append(f"{video}/{path.name}")
            frames.append((box[2], box[1], box[0], box[3]) if turn < 0 else box)
    videos = tuple(name.split("/")[0] for name in ids)
    return PackedImages(
        np.stack(pixels), np.array([(*POINTED, *OTHER).index(v) for v in videos]), tuple(ids), (*POINTED, *OTHER),
        digest(["animals", IMAGE_PX, MARGIN, mirrored]), frames=np.array(frames, np.float32), groups=videos,
    )  # fmt: skip


def unlabelled(root: Path, without: str) -> PackedImages:
    """The other videos and photos of other animals, each a group: what a teacher may adapt to before ``without``."""
    videos = animals(root)
    folders = ("ants_bees/train", "raccoon/images")
    photos = (pk.pack(pk.ImageFolder(root / folder), IMAGE_PX, progress=False) for folder in folders)
    parts = [videos.select([m for m, group in enumerate(videos.groups or ()) if group != without]), *photos]
    groups = (*(parts[0].groups or ()), *("ants and bees",) * len(parts[1]), *("raccoons",) * len(parts[2]))
    pixels = np.concatenate([np.asarray(part.pixels) for part in parts])
    ids = tuple(f"{group}/{m}" for m, group in enumerate(groups))
    return PackedImages(
        pixels, np.zeros(len(pixels), np.int64), ids, ("animal",), digest([part.fingerprint for part in parts]),
        groups=groups,
    )  # fmt: skip


def with_points(root: Path, mirrored: str = "") -> PackedImages:
    """The frames that have points."""
    images, known = animals(root, mirrored), annotations(root)
    return images.select([m for m, name in enumerate(images.ids) if name in known.images])


@functools.cache
def annotations(root: Path) -> PointAnnotations:
    """The points of both videos, by the ids of their images."""
    found = {}
    for video in POINTED:
        known = read_keypoints(root / "animals" / video / "parts.csv", parts=PARTS)
        found |= {f"{video}/{frame}": points for frame, points in known.images.items()}
    return PointAnnotations(PARTS, found)


@dataclass(frozen=True, eq=False)
class Seen:
    """What a teacher sees of the frames with points, and the points; the other video of a pair is mirrored or not."""

    features: pk.PatchFeatures
    points: PointPatches

    def train(self, video: str) -> Bool[np.ndarray, " M"]:
        """The frames that name."""
        return np.array([group == video for group in self.features.images.groups or ()])

    def told(self, bank: pk.PrototypeBank, video: str) -> PointAgreement:
        """Of the other video, by the prototypes that the points of this one name."""
        assigned = bank.assignments(self.features).argmax(-1).numpy()
        return point_agreement(assigned, self.points, self.train(video), bank.num_prototypes)

    def nearest(self, video: str) -> PointAgreement:
        """Of the other video, by the points of this one that are nearest in the teacher's features (cosine)."""
        fused = self.features.fused(np.arange(len(self.features))).flatten(2)
        values = F.normalize(fused[self.points.image, :, self.points.patch].float(), dim=1).numpy()
        return nearest_agreement(self.points, self.train(video), values)


@functools.cache
def teacher_of(root: Path, name: str, *, blind: bool = False) -> pk.Teacher:
    """A teacher with the weights of ImageNet, or the same network with random ones."""
    model, weights, more = TEACHERS[name]
    teacher = pk.Teacher(model, weights=root / "teachers" / f"{weights}.safetensors", image_px=IMAGE_PX, **more)
    return randomised(teacher) if blind else teacher


@functools.cache
def features_of(root: Path, teacher: pk.Teacher, mirrored: str = "") -> pk.PatchFeatures:
    """Of all frames, or where a video is mirrored of those with points; cached on the disk."""
    images = with_points(root, mirrored) if mirrored else animals(root)
    return pk.extract(teacher, images, views=("plain",), batch_size=16, progress=False)


@functools.cache
def seen_by(root: Path, teacher: pk.Teacher, mirrored: str = "") -> Seen:
    """What is measured."""
    features = features_of(root, teacher, mirrored)
    known = annotations(root)
    features = features.select([m for m, name in enumerate(features.images.ids) if name in known.images])
    return Seen(features, point_patches(known, features.images, features.grid))


def views_of(root: Path, teacher: pk.Teacher, video: str) -> dict[str, Seen]:
    """For names from ``video``: the other one as is, and mirrored."""
    return {"as is": seen_by(root, teacher), "mirrored": seen_by(root, teacher, other(video))}


def other(video: str) -> str:
    """The one that is tested."""
    return POINTED[1 - POINTED.index(video)]


def found_on(
    features: pk.PatchFeatures, video: str, seed: int, config: pk.DiscoverConfig = DISCOVER
) -> pk.PrototypeBank:
    """Prototypes of the frames of one video alone, or of all."""
    mine = [m for m, group in enumerate(features.images.groups or ()) if video in ("", group)]
    return pk.discover(features.select(mine), config=config.replace(seed=seed), progress=False)


# What is measured: one line of JSON a run


def packed(right: Bool[np.ndarray, " T"]) -> str:
    """Which points were told, as text."""
    return np.packbits(right).tobytes().hex()


def unpacked(text: str, count: int) -> Bool[np.ndarray, " T"]:
    """The same, as it was."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=count).astype(bool)


def points_line(root: Path, video: str, view: str) -> dict[str, Any]:
    """The tested points: their parts and frames, and which a guess of the commonest part tells."""
    marked = with_points(root, other(video) if view == "mirrored" else "")
    points = point_patches(annotations(root), marked, (32, 32))
    train = np.array([group == video for group in marked.groups or ()])
    tested, commonest = points.select(~train), np.bincount(points.select(train).part).argmax()
    frames = [int(Path(marked.ids[m]).stem) for m in tested.image]
    return {"part": tested.part.tolist(), "frame": frames, "right": {COMMONEST: [packed(tested.part == commonest)]}}


def discovery_line(root: Path, name: str, video: str, seed: int) -> dict[str, Any]:
    """Prototypes of one video, of one seed; the controls that no teacher knows are measured beside the first one."""
    teacher = teacher_of(root, name)
    right: dict[str, dict[str, list[str]]] = {view: {} for view in VIEWS}
    bank = found_on(features_of(root, teacher), video, seed)
    blind = teacher_of(root, name, blind=True) if seed in FEW_SEEDS else None
    blind_bank = found_on(features_of(root, blind), video, seed) if blind else None
    for view, seen in views_of(root, teacher, video).items():
        found = {"prototypes": seen.told(bank, video)}
        if name == next(iter(TEACHERS)):
            images, grid = seen.features.images, seen.features.grid
            found = point_agreement_with_controls(
                bank.assignments(seen.features), seen.points, images, grid, seen.train(video), seed=seed
            )
            if seed == 0 and view == "as is":
                draw(video, seen, bank.assignments(seen.features).argmax(-1).numpy(), found["prototypes"])
        if blind and blind_bank:
            found[RANDOM] = views_of(root, blind, video)[view].told(blind_bank, video)
        right[view] = {by: [packed(one.right)] for by, one in found.items()}
    return {"right": right, "K": bank.num_prototypes}


def pooled_line(root: Path, name: str, video: str) -> dict[str, Any]:
    """Prototypes found on all three videos at once, by the frozen teacher."""
    teacher = teacher_of(root, name)
    features = features_of(root, teacher)
    banks = [found_on(features, "", seed) for seed in FEW_SEEDS]
    views = views_of(root, teacher, video)
    right = {view: {POOLED: [packed(seen.told(bank, video).right) for bank in banks]} for view, seen in views.items()}
    return {"right": right, "in_one_video": [in_one_video(bank, features) for bank in banks]}


def refined_line(root: Path, name: str, video: str) -> dict[str, Any]:
    """Prototypes of one video by ``pk.discover`` as it is without a word."""
    teacher = teacher_of(root, name)
    banks = [found_on(features_of(root, teacher), video, seed, pk.DiscoverConfig()) for seed in FEW_SEEDS]
    views = views_of(root, teacher, video)
    right = {view: {DEFAULTS: [packed(seen.told(bank, video).right) for bank in banks]} for view, seen in views.items()}
    return {"right": right}


def in_one_video(bank: pk.PrototypeBank, features: pk.PatchFeatures) -> float:
    """Share of the prototypes more than 80 % of whose patches are of one video."""
    images = features.images
    assigned = bank.assignments(features).argmax(-1).numpy()
    return lives_in_one(assigned, images.groups or (), images.in_picture(features.grid))


def adapted_line(root: Path, name: str, held_out: str) -> dict[str, Any]:
    """A teacher that adapted without the tested video, or to all three, and its own prototypes."""
    teacher = teacher_of(root, name)
    images = unlabelled(root, held_out) if held_out else animals(root)
    began = time.process_time()
    adapted = pk.adapt(teacher, images, config=ADAPT, cpu=True, progress=False)
    line: dict[str, Any] = {"adapting_cpu_s": round(time.process_time() - began), "images": len(images)}
    right: dict[str, dict[str, dict[str, list[str]]]] = {}
    for video in [other(held_out)] if held_out else POINTED:
        frozen, after = views_of(root, teacher, video), views_of(root, adapted.teacher, video)
        right[video] = {
            view: {
                NN_FROZEN: [packed(frozen[view].nearest(video).right)],
                NN_ADAPTED: [packed(after[view].nearest(video).right)],
                BALANCED: [packed(after[view].told(adapted.bank, video).right)],
            }
            for view in VIEWS
        }
    if not held_out:
        features = features_of(root, adapted.teacher)
        line |= {"in_one_video": in_one_video(adapted.bank, features),
                 "found_again_in_one_video": in_one_video(found_on(features, "", 0), features)}  # fmt: skip
    return line | {"right": right, "groups": len(set(images.groups or ())), "steps": ADAPT.steps}


def runs(root: Path) -> Iterator[tuple[dict[str, Any], Any]]:
    """What each line is of, and how it is measured; the cheap ones first."""
    for video in POINTED:
        for view in VIEWS:
            what = {"kind": "points", "named_on": video, "view": view}
            yield what, functools.partial(points_line, root, video, view)
    for name in TEACHERS:
        for video in POINTED:
            for seed in SEEDS:
                what = {"kind": "discovery", "teacher": name, "named_on": video, "seed": seed}
                yield what, functools.partial(discovery_line, root, name, video, seed)
            what = {"kind": "pooled", "teacher": name, "named_on": video}
            yield what, functools.partial(pooled_line, root, name, video)
    for name, held_out in (*itertools.product(TEACHERS, POINTED), *itertools.product(TEACHERS, ("",))):
        what = {"kind": "adapted", "teacher": name, "held_out": held_out}
        yield what, functools.partial(adapted_line, root, name, held_out)
    for name, video in itertools.product(TEACHERS, POINTED):
        what = {"kind": "refined", "teacher": name, "named_on": video}
        yield what, functools.partial(refined_line, root, name, video)


def read_lines(path: Path) -> dict[str, dict[str, Any]]:
    """The lines that are there, by key; one that was cut off while it was written is left out."""
    lines = {}
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            print(f"{path}: a line that is not whole is left out", file=sys.stderr)
        else:
            lines[line["key"]] = line
    return lines


def measure(root: Path, path: Path) -> None:
    """Write each line that is missing as soon as it is done."""
    lines, settings = read_lines(path), [vars(DISCOVER), vars(ADAPT), IMAGE_PX, MARGIN]
    for what, line_of in runs(root):
        key = digest([what, settings])
        if key in lines:
            continue
        began = time.process_time()
        line = {"key": key, **what, **line_of(), "cpu_s": round(time.process_time() - began, 1)}
        with path.open("a+") as file:
            file.seek(0)
            cut_off = not f"\n{file.read()}".endswith("\n")
            file.write("\n" * cut_off + json.dumps(line) + "\n")
        print(what, line["cpu_s"], "CPU s", file=sys.stderr, flush=True)


def draw(video: str, seen: Seen, assigned: np.ndarray, agreement: PointAgreement) -> None:
    """Key points of frames of the other video, and which parts their prototypes tell; less than 200 kB."""
    frames = np.unique(seen.points.select(~seen.train(video)).image)
    chosen = frames[np.linspace(0, len(frames) - 1, 5).astype(int)]
    figure = plots.plot_points(seen.points, assigned, agreement, seen.features.images, chosen, seen.features.grid)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    small = Image.open(file).convert("RGB").quantize(96, Image.Quantize.MAXCOVERAGE)  # keeps rare colours
    small.save(RESULTS / f"real_parts_{video}.png", optimize=True)


# What is told


@dataclass(frozen=True, eq=False)
class Told:
    """The tested points of one video, as is or mirrored, and which of them were told by what."""

    parts: Int[np.ndarray, " T"]
    blocks: Int[np.ndarray, " T"]
    right: dict[tuple[str, str], Bool[np.ndarray, "S T"]]  # by teacher, "" where none, and by name; S seeds

    def share(self, by: tuple[str, str]) -> tuple[float, float]:
        """Points told, and the mean over parts; of all seeds."""
        right = self.right[by].mean(0)
        return float(right.mean()), float(np.mean([right[self.parts == part].mean() for part in np.unique(self.parts)]))

    def gains(self, by: tuple[str, str], rival: tuple[str, str]) -> tuple[Interval, Interval]:
        """What one tells more than the other, seed by seed where both have as many, with intervals by blocks."""
        mine, other = self.right[by].astype(float), self.right[rival].astype(float)
        differences = mine - (other if len(other) == len(mine) else other.mean(0))
        return block_interval(differences, self.blocks), block_interval(differences, self.blocks, self.parts)


def together(both: Sequence[Told]) -> Told:
    """Both directions as one: blocks of either video are drawn."""
    blocks = np.concatenate([told.blocks + 1000 * number for number, told in enumerate(both)])
    shared = [by for by in both[0].right if all(by in told.right for told in both)]
    right = {by: np.concatenate([told.right[by] for told in both], 1) for by in shared}
    return Told(np.concatenate([told.parts for told in both]), blocks, right)


def all_told(lines: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], Told]:
    """By the video that names and the view of the one that is tested."""
    found: dict[tuple[str, str], Told] = {}
    for line in (line for line in lines if line["kind"] == "points"):
        parts, blocks = np.array(line["part"]), np.array(line["frame"]) // BLOCK
        found[line["named_on"], line["view"]] = Told(parts, blocks, {})
        add(found[line["named_on"], line["view"]], "", line["right"])
    for line in (line for line in lines if line["kind"] != "points"):
        seen = "" if line.get("held_out", "one") else SEEN
        for video, views in line["right"].items() if line["kind"] == "adapted" else [(line["named_on"], line["right"])]:
            for view, right in views.items():
                add(found[video, view], line["teacher"], {name + seen: texts for name, texts in right.items()})
    return found


def add(told: Told, teacher: str, right: Mapping[str, Sequence[str]]) -> None:
    """Another line's points, below those of other seeds."""
    for name, texts in right.items():
        by = ("" if name in BLIND else teacher, name)
        rows = np.stack([unpacked(text, len(told.parts)) for text in texts])
        told.right[by] = np.concatenate([told.right[by], rows]) if by in told.right else rows


def in_points(interval: Interval) -> str:
    """A difference and its interval, in points of a hundred."""
    mean, low, high = (100 * value for value in interval)
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def percent(share: float | np.floating) -> str:
    """A share in words."""
    return f"{100 * share:.0f} %"


def verdict(interval: Interval) -> str:
    """Above, below, or not told apart: an interval says so."""
    return "above" if interval[1] > 0 else "below" if interval[2] < 0 else "not told apart from"


def view_name(video: str, view: str) -> str:
    """The tested video in words."""
    return other(video) + (", mirrored" if view == "mirrored" else "")


def prototype_rows(told: Mapping[tuple[str, str], Told]) -> list[dict[str, object]]:
    """Every control and every teacher's prototypes of one video, beside place."""
    rows = []
    for (video, view), one in told.items():
        names = [NEAREST, PLACE, "prototypes", DEFAULTS, RANDOM, PIXELS, SHUFFLED, COMMONEST, NN_FROZEN]
        for by in sorted((by for by in one.right if by[1] in names), key=lambda by: names.index(by[1])):
            accuracy, balanced = one.share(by)
            row: dict[str, object] = {"named on": video, "tested on": view_name(video, view), "teacher": by[0] or None}
            row |= {
                "by": by[1],
                "seeds": len(one.right[by]),
                "told": f"{accuracy:.1%}",
                "mean over parts": f"{balanced:.1%}",
            }
            if by != ("", NEAREST):
                gain, part_gain = one.gains(by, ("", NEAREST))
                row |= {"told − 5 nearest places": in_points(gain), "mean over parts − the same": in_points(part_gain)}
            rows.append(row)
    return rows


def part_rows(told: Mapping[tuple[str, str], Told]) -> list[dict[str, object]]:
    """Which parts carry over: the share of the points of each, the tested video held out."""
    rows = []
    for (video, view), one in told.items():
        names = [NEAREST, "prototypes", NN_FROZEN, NN_ADAPTED, BALANCED]
        for by in sorted((by for by in one.right if by[1] in names), key=lambda by: (by[0], names.index(by[1]))):
            row = {"named on": video, "tested on": view_name(video, view), "teacher": by[0] or None, "by": by[1]}
            right = one.right[by].mean(0)
            rows.append(row | {PARTS[part]: f"{right[one.parts == part].mean():.0%}" for part in np.unique(one.parts)})
    return rows


def place_lines(told: Mapping[tuple[str, str], Told]) -> list[str]:
    """Whether prototypes of one video are better than place: each direction, each view, each teacher."""
    lines = []
    for teacher in TEACHERS:
        for (video, view), one in told.items():
            by = (teacher, "prototypes")
            if by not in one.right:
                continue
            words = []
            for number, what in enumerate(("points told", "mean over parts")):
                against = [f"{verdict(one.gains(by, ('', place))[number])} {place}" for place in (NEAREST, PLACE)]
                words.append(f"{what} {percent(one.share(by)[number])}, {' and '.join(against)}")
            lines.append(f"{teacher}, named on {video}, tested on {view_name(video, view)}: {'; '.join(words)}.")
    return lines


def parts_sentence(told: Mapping[tuple[str, str], Told]) -> str:
    """Whether prototypes may be called parts on these photographs."""
    measured = [name for name in TEACHERS if any((name, "prototypes") in one.right for one in told.values())]
    better = []
    for teacher in measured:
        by = (teacher, "prototypes")
        gains = [one.gains(by, ("", place)) for one in told.values() for place in (NEAREST, PLACE)]
        if all(interval[1] > 0 for pair in gains for interval in pair):
            better.append(teacher)
    if better:
        return f"Prototypes found on one video tell parts better than place, as is and mirrored: {', '.join(better)}."
    return (
        "**Prototypes found on one video are not shown to be parts here**: no interval puts them above place\n"
        f"both ways, as is and mirrored, with {' or '.join(measured)} as teacher."
    )


def adapting_rows(told: Mapping[tuple[str, str], Told]) -> list[dict[str, object]]:
    """What adapting adds, each direction and both together."""
    rows = []
    for teacher, view, seen in itertools.product(TEACHERS, VIEWS, ("", SEEN)):
        ways = {video: told[video, view] for video in POINTED if (video, view) in told}
        asked = (teacher, NN_ADAPTED + seen)
        ways = {video: one for video, one in ways.items() if asked in one.right}
        named = {f"{video} → {other(video)}": one for video, one in ways.items()}
        if len(ways) == len(POINTED):
            named["both"] = together(list(ways.values()))
        for way, one in named.items():
            row: dict[str, object] = {
                "teacher": teacher, "named on → tested on": way, "view": view,
                "tested video": "seen, unlabelled" if seen else "held out",
                "5 nearest, frozen": f"{one.share((teacher, NN_FROZEN + seen))[0]:.1%}",
                "adapted": f"{one.share(asked)[0]:.1%}",
                "gain": in_points(one.gains(asked, (teacher, NN_FROZEN + seen))[0]),
                "its prototypes": f"{one.share((teacher, BALANCED + seen))[0]:.1%}",
            }  # fmt: skip
            for words, rival in (
                ("− found on one video", (teacher, "prototypes")),
                ("− 5 nearest places", ("", NEAREST)),
            ):
                if rival in one.right:
                    row[words] = in_points(one.gains((teacher, BALANCED + seen), rival)[0])
            rows.append(row)
    return rows


def adapting_line(teacher: str, told: Mapping[tuple[str, str], Told], lines: Sequence[Mapping[str, Any]]) -> str:
    """Does adapting help? What it costs, what it gains with the tested video held out, where prototypes live."""
    adapted = [line for line in lines if line["kind"] == "adapted" and line["teacher"] == teacher]
    cost = " to ".join(str(f([line["adapting_cpu_s"] for line in adapted])) for f in (min, max)) if adapted else ""
    if not {line["held_out"] for line in adapted} >= set(POINTED):
        return f"{teacher}: not measured with the tested video held out." + living(teacher, lines)
    both = {view: together([told[video, view] for video in POINTED]) for view in VIEWS}
    gains = {view: one.gains((teacher, NN_ADAPTED), (teacher, NN_FROZEN))[0] for view, one in both.items()}
    helps = "**helps**" if all(low > 0 for _, low, _ in gains.values()) else "**is not shown to help**"
    against = [
        f"{verdict(interval)} {words} ({view}, {what})"
        for words, rival in (("prototypes found on one video", (teacher, "prototypes")), (NEAREST, ("", NEAREST)))
        for view, one in both.items()
        for what, interval in zip(
            ("points told", "mean over parts"), one.gains((teacher, BALANCED), rival), strict=True
        )
    ]  # fmt: skip
    return (
        f"{teacher}: adapting {helps}, at {cost} CPU s. 5 nearest in features, tested video held out, both ways "
        + "together: "
        + ", ".join(f"{view} {in_points(gain)}" for view, gain in gains.items())
        + " points. The prototypes that it adapted with, both ways together, are "
        + f"{', '.join(against)}.{living(teacher, lines)}"
    )


def living(teacher: str, lines: Sequence[Mapping[str, Any]]) -> str:
    """Where the prototypes of one teacher live, before and after."""
    mine = [line for line in lines if line.get("teacher") == teacher]
    before = [share for line in mine if line["kind"] == "pooled" for share in line["in_one_video"]]
    after = [line for line in mine if "found_again_in_one_video" in line]
    if not before or not after:
        return ""
    return (
        f" Found on three videos at once, frozen, {percent(np.mean(before))} of prototypes have more than 80 % of "
        f"their patches in one; of those it adapted with on the three {percent(after[0]['in_one_video'])}; of those "
        f"found again on its features {percent(after[0]['found_again_in_one_video'])}."
    )


def page(lines: Sequence[Mapping[str, Any]]) -> str:
    """The whole page, from the lines alone."""
    told = all_told(lines)
    listed = "\n".join(f"- {line}" for line in place_lines(told))
    helped = "\n".join(f"- {adapting_line(teacher, told, lines)}" for teacher in TEACHERS)
    figures = "\n\n".join(f"![key points told by prototypes of {v}](real_parts_{v}.png)" for v in POINTED)
    counts = {
        video: (len(one.parts), len(np.unique(one.blocks))) for (video, view), one in told.items() if view == "as is"
    }
    tested = "; ".join(f"{other(v)} {count} points in {blocks} blocks" for v, (count, blocks) in counts.items())
    cost = sum(line["cpu_s"] for line in lines)
    asked = any(line["kind"] == "refined" for line in lines)
    refined = f"; *refined* are what `pk.discover` finds by default ({len(FEW_SEEDS)} seeds)" if asked else ""
    weights = "".join({f"; weights {line['weights']}" for line in lines if "weights" in line})
    return HEAD.format(
        listed=listed, parts=parts_sentence(told), helped=helped, figures=figures, tested=tested, minutes=cost / 60,
        prototypes=format_table(prototype_rows(told)), adapting=format_table(adapting_rows(told)),
        parts_table=format_table(part_rows(told)),
        seeds=len(SEEDS), few=len(FEW_SEEDS), K=DISCOVER.num_prototypes, px=IMAGE_PX, block=BLOCK, steps=ADAPT.steps,
        batch=ADAPT.batch_size, refined=refined, weights=weights,
    )  # fmt: skip


HEAD = """# Parts on real photographs

{parts}

Prototypes of a frozen teacher (ImageNet) are found on the frames of one animal's video without labels. Each is named
by the commonest part among the key points that fall on it in that video, and the names are tested on the video of
another animal; K = {K}, {px} px, {seeds} seeds of discovery, and no setting was chosen on these videos. Frames are cut
to a square around the animal, so place alone tells much, and less of it where the tested video is mirrored.
**Intervals** (95 %) are a bootstrap of blocks of {block} consecutive frames of the tested video, since frames of a
video are near copies of each other, and of seeds; differences are paired point by point. Tested: {tested}.
They tell of these two videos, not of animals: there is one pair, and an interval of five blocks is rough.

{listed}

An earlier form of this page put one of these numbers (63.9 %, three seeds; size, layers and K chosen) above every
control. That did not last: twelve seeds of the same setting gave 60.5 ± 3.5 against 59.8 for blocks of the frame, and
the finer control of place, *5 nearest places*, was missing.

```
{prototypes}
```

*5 nearest places* takes the part of the five training points that are nearest by x and y in the square, *place in the
image* names blocks of it, *raw pixels* is k-means on the pixels of patches with the same K, *shuffled* are the same
assignments in random order, *random weights* is discovery on the same network untrained ({few} seeds). Prototypes are
those of k-means, not refined{refined}.

## Does it help to adapt the teacher?

`pk.adapt`, {steps} steps of {batch} images, prototypes balanced over groups, one seed of adapting: intervals tell of
frames alone. *Held out*: adapted to the naming video, the goat, ants and bees and raccoons, each a group; the tested
video was never seen. *Seen, unlabelled*: adapted to the three videos, the tested one among them{weights}. *5 nearest*
needs no prototypes: the parts of the five training points whose patches are nearest in the teacher's features, by
cosine. *Its prototypes* are those that the teacher adapted with; the differences are theirs.

{helped}

```
{adapting}
```

## Which parts carry over

Share of the points of each part that is told.

```
{parts_table}
```

{figures}

Frames: DAVIS (BSD licence). Points: BADJA (MIT licence). Made by `python benchmarks/real_parts.py`, one line a run in
`real_parts.jsonl`, {minutes:.0f} CPU minutes in all.
"""


def quick(root: Path) -> dict[str, Any]:
    """Share of key points told both ways, as is and mirrored, by one discovery of a seed that nobody chose."""
    began, name, seed = time.perf_counter(), next(iter(TEACHERS)), len(SEEDS) + time.time_ns() % 10**6
    told: dict[str, Any] = {"seed": seed}
    for video in POINTED:
        teacher = teacher_of(root, name)
        bank = found_on(features_of(root, teacher), video, seed)
        for view, seen in views_of(root, teacher, video).items():
            nearest = seen.nearest(video).right
            told[f"{other(video)}, {view}"] = {
                "prototypes": round(float(seen.told(bank, video).right.mean()), 4),
                NN_FROZEN: round(float(nearest.mean()), 4),
                "points": len(nearest),
            }
    return told | {"seconds": round(time.perf_counter() - began)}


def main() -> None:
    """Measure what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="write the page from the lines that are there")
    parser.add_argument("--quick", action="store_true", help="one fresh discovery a video, nothing written")
    args, path = parser.parse_args(), RESULTS / "real_parts.jsonl"
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if not args.page:
        if "PROCKD_REAL_DATA" not in os.environ:
            parser.error("PROCKD_REAL_DATA is not set: it names the folder with animals/ and teachers/")
        if args.quick:
            print(json.dumps(quick(Path(os.environ["PROCKD_REAL_DATA"]))))
            return
        measure(Path(os.environ["PROCKD_REAL_DATA"]), path)
    text = page(list(read_lines(path).values()))
    print(text)
    (RESULTS / "real_parts.md").write_text(text)


if __name__ == "__main__":
    main()
