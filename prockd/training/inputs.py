"""What :func:`prockd.distill` is given, as images and what a teacher says of them; what does not fit is refused."""

from dataclasses import dataclass

import numpy as np
import torch

from prockd._types import ImageDataset
from prockd.datasets import PackedImages, pack
from prockd.settings.method import DistillConfig
from prockd.students.student import Student
from prockd.teachers.features import PatchFeatures, extract
from prockd.teachers.teacher import Teacher
from prockd.training.distiller import term_names, term_of


@dataclass(frozen=True, eq=False)
class Inputs:
    """Images and the teacher's part, or the teacher itself, for the labelled and for more images.

    Attributes:
        images: labelled.
        teacher: of the labelled images; None to learn from labels alone.
        more_images: for transfer only; None without.
        more_teacher: of those.
    """

    images: PackedImages
    teacher: PatchFeatures | Teacher | None = None
    more_images: PackedImages | None = None
    more_teacher: PatchFeatures | Teacher | None = None


def open_inputs(
    dataset: ImageDataset | PackedImages,
    features: PatchFeatures | Teacher | None,
    unlabelled: PatchFeatures | ImageDataset | PackedImages | None,
    config: DistillConfig,
    image_px: int,
    *,
    device: torch.device,
    progress: bool = True,
) -> Inputs:
    """Pack images and, with ``config.store == "maps"``, pass them through a teacher that is given itself.

    Raises:
        ValueError: features where the teacher is needed, or images where features are.
    """
    size = image_px
    if features is not None:
        size = features.image_px if isinstance(features, Teacher) else features.images.image_px

    def packed(images: ImageDataset | PackedImages) -> PackedImages:
        return images if isinstance(images, PackedImages) else pack(images, size, progress=progress)

    def seen(images: PackedImages | None) -> PatchFeatures | Teacher | None:
        if images is None or not isinstance(features, Teacher) or config.store == "none":
            return features if images is not None else None
        views = ("plain", "mirrored") if config.flip else ("plain",)
        return extract(features, images, views=views, device=device, progress=progress)

    if config.store == "none" and isinstance(features, PatchFeatures):
        raise ValueError("store='none' keeps no features: pass the teacher itself, features=Teacher(...)")
    images = packed(dataset)
    if isinstance(unlabelled, PatchFeatures):
        more = unlabelled.images
        return Inputs(images, seen(images), more, seen(more) if config.store == "none" else unlabelled)
    if unlabelled is not None and isinstance(features, PatchFeatures):
        raise ValueError(
            "unlabelled images need a teacher: features=Teacher(...), or unlabelled=extract(teacher, images)"
        )
    more = None if unlabelled is None else packed(unlabelled)
    return Inputs(images, seen(images), more, seen(more))


def check_inputs(student: Student, inputs: Inputs, config: DistillConfig, num_processes: int = 1) -> None:
    """Refuse combinations that would silently train something else than was asked.

    Raises:
        ValueError: says which argument does not fit and what to pass.
    """
    student.task.check(inputs.images)
    for name, size in (("batch_size", config.batch_size), ("unlabelled_batch", config.unlabelled_batch)):
        if 0 < size < num_processes:
            raise ValueError(f"{name}={size} for {num_processes} processes: each needs an image in every step")
    teacher, bank = inputs.teacher, student.bank
    if isinstance(teacher, PatchFeatures) and not same_images(teacher.images, inputs.images):
        raise ValueError(
            "teacher features belong to other images than the labelled ones: "
            "extract() the same images in the same order"
        )
    transfers = [f"{name}_weight" for name in term_names(config) if "u" in term_of(name)[0]]
    wants_bank = [name for name in (*transfers, "teacher_branch_weight") if getattr(config, name)]
    if teacher is not None and bank is None and wants_bank:
        raise ValueError(
            f"{', '.join(wants_bank)} > 0 need prototypes: pass bank=pk.discover(features) to Student, or set them to 0"
        )
    if teacher is None and (config.label_free_steps or inputs.more_images is not None):
        raise ValueError(
            "unlabelled images and label_free_steps are for transfer: pass features= of the labelled images too"
        )
    if inputs.more_images is not None and not config.unlabelled_batch:
        raise ValueError("unlabelled images are given, but unlabelled_batch is 0: say how many to add to each step")
    if config.label_free_steps and not config.hint_weight and not (bank and any(getattr(config, w) for w in transfers)):
        raise ValueError(
            "label_free_steps learn from transfer alone: "
            "set assignment_weight or feature_weight (with prototypes) or hint_weight above 0"
        )
    for features in (teacher, inputs.more_teacher):
        if isinstance(features, PatchFeatures) and config.flip and "mirrored" not in features.views:
            raise ValueError(
                f"flip mirrors half of the images, but the teacher saw them {' and '.join(features.views)} only: "
                "extract(..., views=('plain', 'mirrored')), or DistillConfig(flip=False)"
            )
        if isinstance(features, PatchFeatures) and bank is not None:
            bank.check(features)
    if isinstance(teacher, Teacher) and bank is not None and bank.teacher not in ("", teacher.fingerprint):
        raise ValueError(f"the bank was learned from teacher {bank.teacher[:8]}, not from {teacher!r}: pass that one")


def same_images(first: PackedImages, second: PackedImages) -> bool:
    """Whether two packs hold the same images in the same order; where their sizes allow it, some are compared."""
    if first.ids != second.ids:
        return False
    if first.fingerprint == second.fingerprint or first.image_px != second.image_px:
        return True
    some = slice(None, None, max(1, len(first) // 8))
    return bool(np.array_equal(first.pixels[some], second.pixels[some]))
