"""A fresh small measurement of the main figures: labels alone, student and teacher on images that nobody has seen.

    python benchmarks/classes.py --quick                 # 30 labels a class, a seed nobody chose; about five minutes
    python benchmarks/classes.py --quick --labels 5 --seed 7

The labelled images and the validation images are drawn anew by the seed; the test split is not touched. The last line
is one JSON object: alone (labels alone, its learning rate by the recipe), z and z_plus of the student, probe and
part_probe of the teacher (the ceilings), and seconds. The whole contest is `prockd compare`.
"""

import argparse
import json
import time

from prockd.farmyard import Farmyard
from prockd.runs import World, open_world, task_settings, train_student
from prockd.runs.recipes import recipe_of
from prockd.runs.students import find_prototypes


def fresh_world(labels: int, seed: int, num_val: int, form: str) -> World:
    """A world whose labelled and validation images are drawn by the seed."""
    world = open_world(task_settings(), per_class=labels, seed=seed, form=form, num_test=1, progress=False)
    assert world.teacher is not None
    val = Farmyard("target", "val", num_val, seed=seed, form=form, image_px=world.teacher.image_px)
    return World(world.config, world.sets | {"val": val}, teacher=world.teacher, progress=False)


def measure(labels: int, seed: int, num_val: int, form: str = "framed") -> dict[str, float | int | str]:
    """One student taught, one from labels alone, and the teacher's own readings, on fresh validation images."""
    began = time.perf_counter()
    world = fresh_world(labels, seed, num_val, form)
    bank = find_prototypes(world, progress=False)
    config = world.config.distill.replace(seed=seed, mixed_precision="bf16")
    alone = recipe_of("classification").alone.replace(seed=seed, mixed_precision="bf16")
    _, taught = train_student(world, bank, world.config.feature_augmentation, config, on="val")
    _, untaught = train_student(world, None, None, alone, teacher=False, on="val")
    assert taught.scores is not None
    assert taught.scores.augmented is not None
    assert untaught.scores is not None
    return {
        "labels": labels, "form": form, "seed": seed, "images": num_val, "alone": untaught.scores.plain,
        "z": taught.scores.plain, "z_plus": taught.scores.augmented, "probe": world.probe("val"),
        "part_probe": world.part_probe(bank, "val"), "seconds": round(time.perf_counter() - began, 1),
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="what this script does; the whole is prockd compare")
    parser.add_argument("--labels", type=int, default=30, help="labelled images a class")
    parser.add_argument("--seed", type=int, default=None, help="of the images; one that nobody chose if not given")
    parser.add_argument("--images", type=int, default=500, help="validation images")
    parser.add_argument("--form", choices=("framed", "varied"), default="framed")
    args = parser.parse_args()
    if not args.quick:
        parser.error(
            "the whole measurement is `prockd compare -c benchmarks/compare/farmyard-classes.toml`; or --quick"
        )
    seed = time.time_ns() // 10**6 % 10**6 if args.seed is None else args.seed
    print(json.dumps(measure(args.labels, seed, args.images, args.form)))
