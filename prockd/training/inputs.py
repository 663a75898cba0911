"""What :func:`prockd.distill` is given, as packed images and the teacher's part; what does not fit is refused."""

from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np

from prockd._types import ImageDataset
from prockd.datasets import PackedImages, pack
from prockd.prototypes.bank import PrototypeBank
from prockd.prototypes.embedding import embed_features
from prockd.settings.method import DistillConfig
from prockd.students.student import Student
from prockd.teachers.embedded import EmbeddedFeatures
from prockd.teachers.features import PatchFeatures, extract
from prockd.teachers.teacher import Teacher
from prockd.training.distiller import OTHER_TERMS
from prockd.training.processes import Processes

StoredFeatures = PatchFeatures | EmbeddedFeatures
"""What is kept of a teacher: its own maps, or the patches in the space of a bank."""

TeacherInput = tuple[PackedImages, StoredFeatures | Teacher | None]
"""Images, and a teacher's features of them or the teacher itself; None to learn from labels alone."""


def reads_maps(config: DistillConfig, bank: PrototypeBank | None) -> bool:
    """Whether training needs the teacher's own maps: no frozen bank stands between, or a hint or rival reads them.

    Raises:
        ValueError: it does, and they are not to be kept.
    """
    reads = bank is None or embeds_each_step(config) or config.hint_weight > 0
    if reads and config.store == "embedded":
        raise ValueError(
            "store='embedded' keeps patches in the space of a frozen bank, and without prototypes, or with train_bank, "
            "hint_weight or rival, the teacher's own maps are read: set store to 'maps' or 'none'"
        )
    return reads


def embeds_each_step(config: DistillConfig) -> bool:
    """Whether a step reads the teacher's own patches, and not those that a bank has brought to its space before."""
    return config.train_bank or term_weights(config)["rival"] > 0


def open_inputs(
    dataset: ImageDataset | PackedImages,
    features: StoredFeatures | Teacher | None,
    unlabelled: StoredFeatures | ImageDataset | PackedImages | None,
    config: DistillConfig,
    student: Student,
    *,
    processes: Processes,
    progress: bool = True,
) -> tuple[TeacherInput, TeacherInput | None]:
    """The labelled images and the unlabelled ones, packed; with a store, a teacher itself becomes its features.

    Raises:
        ValueError: features where the teacher is needed, or images where features are.
    """
    if config.store == "none" and isinstance(features, StoredFeatures):
        raise ValueError("store='none' keeps no features: pass the teacher itself, features=Teacher(...)")
    if isinstance(features, StoredFeatures) and not isinstance(unlabelled, StoredFeatures | None):
        message = "features=Teacher(...), or unlabelled=extract(teacher, images)"
        raise ValueError(f"unlabelled images need a teacher: {message}")
    sized = features.images if isinstance(features, StoredFeatures) else features
    size, bank = student.image_px if sized is None else sized.image_px, student.bank
    views = ("plain", "mirrored") if config.flip else ("plain",)

    def with_teacher(given: ImageDataset | PackedImages) -> TeacherInput:
        with processes.main_first():
            images = given if isinstance(given, PackedImages) else pack(given, size, progress=progress)
        if not isinstance(features, Teacher) or config.store == "none":
            return images, features
        how: dict[str, Any] = {"views": views, "device": processes.device, "progress": progress}
        keep = extract if bank is None or reads_maps(config, bank) else partial(embed_features, bank)
        return images, processes.by_shares(lambda share: keep(features, images, share=share, **how))

    if unlabelled is None:
        return with_teacher(dataset), None
    if isinstance(unlabelled, StoredFeatures):
        return with_teacher(dataset), (unlabelled.images, features if config.store == "none" else unlabelled)
    return with_teacher(dataset), with_teacher(unlabelled)


def term_weights(config: DistillConfig) -> dict[str, float]:
    """The weight of each term of the loss by its name, which is that of its knob without ``_weight``."""
    names = [f.name for f in fields(config) if f.name.endswith("_weight")]
    weights = {"task": 1.0} | {name.removesuffix("_weight"): getattr(config, name) for name in names}
    return weights if config.rival != "none" else weights | {"rival": 0.0}


def check_inputs(
    student: Student, labelled: TeacherInput, more: TeacherInput | None, config: DistillConfig, num_processes: int = 1
) -> None:
    """Refuse combinations that would silently train something else than was asked.

    Raises:
        ValueError: says which argument does not fit and what to pass.
    """
    (images, teacher), bank = labelled, student.bank
    student.task.check(images)
    transfer = [f"{name}_weight" for name, weight in term_weights(config).items() if weight and name not in OTHER_TERMS]
    rival = term_weights(config)["rival"]
    need_bank = transfer + [n for n in ("teacher_branch_weight", "soft_weight") if getattr(config, n)]
    sizes = {name: getattr(config, name) for name in ("batch_size", "unlabelled_batch")}
    small = [f"{name}={size}" for name, size in sizes.items() if 0 < size < num_processes]
    other_images = isinstance(teacher, StoredFeatures) and not same_images(teacher.images, images)
    other_teacher = isinstance(teacher, Teacher) and bank is not None and bank.teacher not in ("", teacher.fingerprint)
    embedded = any(isinstance(given, EmbeddedFeatures) for given in (teacher, more and more[1]))
    problems = {
        f"{' and '.join(small)} for {num_processes} processes: each needs an image in every step": bool(small),
        "teacher features belong to other images than the labelled ones: extract() the same images in the same order":
            other_images,
        f"{', '.join(need_bank)} > 0 need prototypes: pass bank=pk.discover(features) to Student, or set them to 0":
            teacher is not None and bank is None and bool(need_bank),
        "unlabelled images and label_free_steps are for transfer: pass features= of the labelled images too":
            teacher is None and (config.label_free_steps > 0 or more is not None),
        "unlabelled images are given, but unlabelled_batch is 0: say how many to add to each step":
            more is not None and not config.unlabelled_batch,
        "label_free_steps learn from transfer alone: set assignment_weight or feature_weight (with prototypes), "
        "hint_weight or rival_weight above 0":
            config.label_free_steps > 0 and not config.hint_weight and not rival and not (bank and transfer),
        "standardise is of what a rival reads: set rival and rival_weight, or standardise='none'":
            config.standardise != "none" and not rival,
        "gradient_share measures at the patches, and the hint reads another map: set hint_weight to 0":
            bool(config.gradient_share and config.hint_weight),
        "embedded features are of use to their frozen bank only: pass the bank to Student, without train_bank, "
        "hint_weight or rival, or the teacher's own maps, features=pk.extract(teacher, images)":
            embedded and reads_maps(config, bank),
        "soft targets are read in the space of a frozen bank: set soft_weight to 0, or do without train_bank and rival":
            teacher is not None and bank is not None and config.soft_weight > 0 and embeds_each_step(config),
        f"the bank was learned from another teacher than {teacher!r}: pass that one": other_teacher,
    }  # fmt: skip
    for message, is_so in problems.items():
        if is_so:
            raise ValueError(message)
    for features in (teacher, more and more[1]):
        if isinstance(features, StoredFeatures):
            if config.flip and "mirrored" not in features.views:
                raise ValueError(
                    f"flip mirrors half of the images, but the teacher saw them {' and '.join(features.views)} only: "
                    "extract(..., views=('plain', 'mirrored')), or DistillConfig(flip=False)"
                )
            if bank is not None:
                bank.check(features)


def same_images(first: PackedImages, second: PackedImages) -> bool:
    """Whether two packs hold the same images in the same order; where their sizes allow it, some are compared."""
    if first.ids != second.ids or first.fingerprint == second.fingerprint or first.image_px != second.image_px:
        return first.ids == second.ids
    some = slice(None, None, max(1, len(first) // 8))
    return bool(np.array_equal(first.pixels[some], second.pixels[some]))
