"""Are prototypes parts? Every measure of ``prockd.evaluation`` beside every control, on species the teacher never saw.

    python benchmarks/parts.py                # what results/parts.jsonl lacks, then results/parts.md: half an hour
    python benchmarks/parts.py --split test   # the same on the test split: once, when all is chosen
    python benchmarks/parts.py --quick        # fresh images of the framed form, one seed, one line of JSON: 5 minutes

Prototypes are found on the teacher's own species without any label. Of another teacher (``--weights``), another size or
other settings (``--set num_prototypes=128``) the lines go to ``--out``, and no page is written.
"""

import argparse
import ast
import functools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import prockd as pk
from prockd.cache import digest
from prockd.evaluation.landmarks import points_of
from prockd.evaluation.measures import Measured, part_report
from prockd.evaluation.part_table import MEASURES, PartReport
from prockd.evaluation.probe import linear_probe
from prockd.evaluation.tables import format_table
from prockd.farmyard import PARTS, Farmyard
from prockd.farmyard.body import KEYPOINTS
from prockd.runs.arm_students import randomised
from prockd.settings.method import DiscoverConfig
from prockd.teachers.features import extract_pooled

RESULTS = Path(__file__).parent / "results"
BAR = sys.stderr.isatty()
FORMS, SEEDS, PER_CLASS = ("framed", "varied"), (0, 1, 2), 30
FRESH = 2026
"""Seed of the images that ``--quick`` draws: no other run has seen them."""

RANDOM = "random teacher"
RARE, COMMON = 0.7, 0.8  # asked of ear, horn and tail, and of the other parts
GOALS = (
    ("part purity", 0.75, lambda n: n["purity"]),
    ("part purity above place", 0.27, lambda n: n["purity"] - n["place"]),
    ("part purity on random crops", 0.75, lambda n: n["crops_purity"]),
    ("the same above place", 0.32, lambda n: n["crops_purity"] - n["crops_place"]),
    ("NMI with parts", 0.40, lambda n: n["nmi_part"]),
    ("NMI with parts above NMI with place", 0.15, lambda n: n["nmi_part"] - n["nmi_place"]),
    ("patches that keep their prototype: shift by three", 0.85, lambda n: n["stability"]),
    ("patches that keep their prototype: mirror", 0.85, lambda n: n["mirror"]),
    ("share of prototypes that are not background", 2 / 3, lambda n: 1 - n["background_share"]),
    ("linear probe, 30 images a class", 0.98, lambda n: n["probe"]),
    *((f"{part}: of 50 strongest patches", RARE if part in ("ear", "horn", "tail") else COMMON,
       lambda n, part=part: n["parts"][part] or 0.0) for part in PARTS[1:]),
)  # fmt: skip
"""What the issue asks for: words, the least, and where it stands among the numbers of a seed."""


class Bench:
    """A teacher, beside it the same network with random weights, and what both see of one form of the world."""

    def __init__(self, args: argparse.Namespace, form: str, image_seed: int) -> None:
        self.args, self.form, self.image_seed = args, form, image_seed
        self.teachers = {"prototypes": teacher_of(args.weights, args.image_px)}
        if not args.quick:
            self.teachers[RANDOM] = randomised(self.teachers["prototypes"])
        self.banks: dict[tuple[str, int], pk.PrototypeBank] = {}
        self.config = DiscoverConfig().replace(**dict(args.set))

    def images(self, species: str, split: str, size: int) -> Farmyard:
        """Images of this form at the teacher's size."""
        px = self.teachers["prototypes"].image_px
        return Farmyard(species, split, size, image_px=px, seed=self.image_seed, form=self.form)

    @functools.cached_property
    def sources(self) -> dict[str, pk.PatchFeatures]:
        """What prototypes are found on: images of the teacher's own species, labels unseen."""
        images = self.images("source", "unlabelled", self.args.discover)
        return {name: pk.extract_compact(t, images, progress=BAR) for name, t in self.teachers.items()}

    @functools.cached_property
    def measured(self) -> dict[str, pk.PatchFeatures]:
        """What they are measured on: other species."""
        images = self.images("target", self.args.split, self.args.measured)
        return {name: pk.extract(t, images, views=("plain",), progress=BAR) for name, t in self.teachers.items()}

    @functools.cached_property
    def points(self) -> pk.datasets.PointAnnotations:
        """Key points of the measured images."""
        return points_of(self.images("target", self.args.split, self.args.measured), KEYPOINTS)

    @functools.cached_property
    def probes(self) -> dict[str, float]:
        """Accuracy of a linear probe on each teacher, trained on 30 images a class."""
        px = self.teachers["prototypes"].image_px
        images = pk.pack(self.images("target", "train", 10 * PER_CLASS), px, progress=BAR)
        found: dict[str, float] = {}
        for name, teacher in self.teachers.items():
            tested = self.measured[name]
            train = extract_pooled(teacher, images, progress=BAR)
            found[name] = linear_probe(train, images.labels, tested.pooled(), tested.images.labels)
        return found

    def bank(self, name: str, seed: int) -> pk.PrototypeBank:
        """The prototypes of one seed of discovery."""
        if (name, seed) not in self.banks:
            config = self.config.replace(seed=seed)
            self.banks[name, seed] = pk.discover(self.sources[name], config=config, progress=BAR)
        return self.banks[name, seed]

    def report(self, seed: int) -> PartReport:
        """Every measure of one seed, beside the same discovery with the next seed."""
        each = {name: Measured(self.bank(name, seed), self.measured[name], t) for name, t in self.teachers.items()}
        mine = each.pop("prototypes")
        again = [] if self.args.quick else [self.bank("prototypes", (seed + 1) % len(SEEDS))]
        return part_report(
            mine.bank, mine.features, PARTS, teacher=mine.teacher, others=each, again=again, points=self.points
        )

    def line(self, seed: int) -> dict[str, Any]:
        """The numbers of one seed, and all that they depend on."""
        began, report = time.perf_counter(), self.report(seed)
        print(format_table(report.rows), format_table(report.part_rows), *report.notes, sep="\n\n", file=sys.stderr)
        numbers = report.numbers() | {"probe": self.probes["prototypes"]}
        return {
            "key": self.key(seed), "split": self.args.split, "form": self.form, "seed": seed,
            "K": self.config.num_prototypes, "px": self.teachers["prototypes"].image_px,
            "images": self.args.measured,
            "seconds": round(time.perf_counter() - began), "numbers": numbers,
            "values": {key: {group: number(v) for group, v in row.items()} for key, row in report.values.items()},
            "parts": {group: found.by_part() for group, found in report.parts.items()},
            "probe": self.probes,
        }  # fmt: skip

    def key(self, seed: int) -> str:
        """Digest of what the numbers of a seed depend on."""
        sets = (("target", self.args.split, self.args.measured), ("source", "unlabelled", self.args.discover))
        images = [self.images(*each).fingerprint for each in sets]
        return digest([self.teachers["prototypes"].fingerprint, *images, vars(self.config.replace(seed=seed))])


def number(value: float) -> float | None:
    """A number as JSON holds it: none where nothing was measured."""
    return None if np.isnan(value) else float(value)


def teacher_of(weights: str | None, image_px: int | None) -> pk.Teacher:
    """The teacher that ships, or another one's weights."""
    return pk.Teacher("farmyard", image_px=image_px, weights=weights)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines that are there; one that was cut off while it was written is left out."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            print(f"{path}: a line that is not whole is left out", file=sys.stderr)
    return lines


def measure(args: argparse.Namespace, path: Path) -> list[dict[str, Any]]:
    """All lines of the settings: those that are there, and each that is missing as soon as it is done."""
    lines, kept = {line["key"]: line for line in read_lines(path)}, []
    for form in args.forms:
        bench = Bench(args, form, 0)
        for seed in args.seeds:
            if (key := bench.key(seed)) not in lines:
                lines[key] = bench.line(seed)
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a+") as file:
                    file.seek(0)
                    cut_off = not f"\n{file.read()}".endswith("\n")
                    file.write("\n" * cut_off + json.dumps(lines[key]) + "\n")
            kept.append(lines[key])
    return kept


def spread(values: list[float | None]) -> str | None:
    """The mean over seeds, and the least and the greatest of them."""
    known = [v for v in values if v is not None]
    if not known:
        return None
    low, high = f"{min(known):.3f}", f"{max(known):.3f}"
    return f"{np.mean(known):.3f}" + ("" if low == high else f" ({low}–{high})")


def goal_rows(lines: list[dict[str, Any]]) -> list[dict[str, object]]:
    """What was asked for, and what the seeds reach: the worst seed decides."""
    forms = list(dict.fromkeys(line["form"] for line in lines))
    rows = []
    for words, least, value in GOALS:
        row: dict[str, object] = {"asked for": words, "at least": f"{least:.2f}"}
        for form in forms:
            values = [value(line["numbers"]) for line in lines if line["form"] == form]
            short = least - min(values)
            row[form] = spread(values)
            row[f"{form}: worst seed"] = "reached" if short <= 0 else f"{short:.3f} short"
        rows.append(row)
    return rows


def measure_rows(lines: list[dict[str, Any]]) -> list[dict[str, object]]:
    """A row a measure, a column a group: means over seeds."""
    rows = []
    for key, words in MEASURES.items():
        groups = list(dict.fromkeys(group for line in lines for group in line["values"].get(key, {})))
        if groups:
            columns = {g: spread([line["values"][key].get(g) for line in lines]) for g in ordered(groups)}
            rows.append({"measure": words, **columns})
    rows.append({"measure": "linear probe, 30 images a class", **{
        name: spread([line["probe"].get(name) for line in lines]) for name in lines[0]["probe"]}})  # fmt: skip
    return rows


def ordered(groups: list[str]) -> list[str]:
    """The prototypes first, the random teacher beside them."""
    return sorted(groups, key=lambda group: (group != "prototypes", group != RANDOM))


def part_rows(lines: list[dict[str, Any]]) -> list[dict[str, object]]:
    """A row a part: the best share in each seed, and the means of the controls."""
    rows = []
    for part in PARTS[1:]:
        seeds = {f"seed {line['seed']}": line["parts"]["prototypes"][part] for line in lines}
        controls = {
            group: spread([line["parts"][group][part] for line in lines])
            for group in lines[0]["parts"] if group != "prototypes"
        }  # fmt: skip
        rows.append({"part": part, **seeds, **controls})
    return rows


def page(lines: list[dict[str, Any]]) -> str:
    """The page of one or both splits."""
    text = [HEAD]
    for split, title in (
        ("val", "Validation images, on which everything was chosen"),
        ("test", "Test images, told once"),
    ):
        mine = [line for line in lines if line["split"] == split]
        if not mine:
            continue
        one = mine[0]
        seeds = ", ".join(str(seed) for seed in sorted({line["seed"] for line in mine}))
        facts = f"K = {one['K']}, {one['px']} px, {one['images']} images, seeds of discovery {seeds}"
        text += [f"## {title}", f"{facts}: mean, least and greatest.",
                 f"```\n{format_table(goal_rows(mine))}\n```"]  # fmt: skip
        for form in dict.fromkeys(line["form"] for line in mine):
            of_form = [line for line in mine if line["form"] == form]
            text += [f"### The {form} form", f"```\n{format_table(measure_rows(of_form))}\n```",
                     f"```\n{format_table(part_rows(of_form))}\n```"]  # fmt: skip
    return "\n\n".join([*text, (RESULTS / "parts_notes.md").read_text()])


HEAD = """# Are prototypes parts?

Made by `python benchmarks/parts.py`, one line a run in `parts.jsonl`. Prototypes are found on the teacher's own species
without labels, and measured on Farmyard's target species, which it never saw; part labels measure and nothing else. The
*random teacher* is the same network with random weights. *Place in the image* names blocks of the frame, about as many
as prototypes, *5 nearest places* the part that is commonest at a patch's place in the other half of the
images, *raw pixels* are k-means on the pixels of patches, *shuffled* are the same prototypes in another order (for
patches that keep their prototype: chance). Each measure is defined where it is computed, in `prockd/evaluation/`."""


def quick(args: argparse.Namespace) -> None:
    """One seed on fresh images; the last line is JSON."""
    began, bench = time.perf_counter(), Bench(args, args.forms[0], FRESH)
    line = bench.line(args.seeds[0])
    facts = {"form": line["form"], "K": line["K"], "px": line["px"], "images": line["images"], "image_seed": FRESH}
    told = line["numbers"] | facts | {"seed": line["seed"], "seconds": round(time.perf_counter() - began)}
    print(json.dumps({key: round(v, 4) if isinstance(v, float) else v for key, v in told.items()}))


def setting(text: str) -> tuple[str, Any]:
    """A knob of discovery and its value."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value.capitalize() if value in ("true", "false") else value)
    except (ValueError, SyntaxError):
        return name, value


def main() -> None:
    """Measure what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fresh images, one seed, no random teacher")
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--weights", help="another teacher's safetensors file")
    parser.add_argument("--image-px", type=int, help="side at which the teacher sees the images")
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="KNOB=VALUE", help="of discovery")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=None)
    parser.add_argument("--seeds", nargs="+", type=int, default=None, help="of discovery")
    parser.add_argument("--discover", type=int, default=1500, help="images that prototypes are found on")
    parser.add_argument("--measured", type=int, default=300, help="images that they are measured on")
    parser.add_argument("--out", type=Path, default=RESULTS / "parts.jsonl")
    args = parser.parse_args()
    if args.quick and args.split == "test":
        parser.error("--quick never reads the test split")
    args.forms = args.forms or (FORMS[:1] if args.quick else FORMS)
    args.seeds = args.seeds or (SEEDS[:1] if args.quick else SEEDS)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", min(2, os.cpu_count() or 1))))
    if args.quick:
        quick(args)
        return
    other = args.weights or args.image_px or args.set or (args.discover, args.measured) != (1500, 300)
    if other and args.out == RESULTS / "parts.jsonl":
        parser.error("settings of your own need an --out of their own: results/parts.jsonl is of what ships")
    lines = measure(args, args.out)
    shipped = [line for line in read_lines(args.out) if line["split"] != args.split] + lines
    text = page(shipped)
    print(text)
    if not other:
        (RESULTS / "parts.md").write_text(text)


if __name__ == "__main__":
    main()
