"""From settings to images, features, prototypes and a student: the same calls as in a notebook."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from prockd._types import ImageDataset
from prockd.datasets import (
    DatasetError,
    MaskDataset,
    PackedImages,
    checked,
    groups_of,
    open_subsets,
    pack,
    split,
)
from prockd.datasets import subset as take
from prockd.evaluation.scores import Scores, evaluate
from prockd.farmyard import Farmyard
from prockd.prototypes.bank import PrototypeBank
from prockd.prototypes.discovery import discover
from prockd.runs.folder import run_config, student_file
from prockd.runs.world import RECIPES
from prockd.settings.experiment import FARMYARD, NO_TEACHER, DataConfig, ExperimentConfig, class_names
from prockd.students.student import Student
from prockd.tasks import Classification, Detection, Segmentation, Task
from prockd.teachers.features import PatchFeatures, extract
from prockd.teachers.teacher import Teacher
from prockd.training.loop import History

FARMYARD_IMAGES = {"classification": 30, "segmentation": 5, "detection": 10}
"""Labelled images of each target species, when the settings do not say."""

FARMYARD_UNLABELLED = 1000
"""Unlabelled images of the target species, where the settings use any."""


@dataclass(frozen=True, eq=False)
class Images:
    """The image sets of a run, by what they are for.

    Attributes:
        train: labelled.
        test: to score on.
        source: to find prototypes on; labels are not read.
        unlabelled: more images of the task, for transfer; None for none.
    """

    train: PackedImages
    test: PackedImages
    source: PackedImages
    unlabelled: PackedImages | None


@dataclass(frozen=True, eq=False)
class Run:
    """What a run has made so far.

    Attributes:
        config: its settings.
        images: every image set.
        task: the label space and head.
        teacher: None when the student learns from labels alone.
        source: features to find prototypes on.
        train: features of the labelled images.
        unlabelled: features of more images.
        bank: prototypes.
        student: trained.
        history: of the training; its scores are of the test images.
    """

    config: ExperimentConfig
    images: Images
    task: Task
    teacher: Teacher | None = None
    source: PatchFeatures | None = None
    train: PatchFeatures | None = None
    unlabelled: PatchFeatures | None = None
    bank: PrototypeBank | None = None
    student: Student | None = None
    history: History | None = None

    @property
    def scores(self) -> Scores | None:
        """On the test images, after the last step."""
        return None if self.history is None else self.history.scores


def task_preset(preset: str, task: str, teacher: str = FARMYARD) -> ExperimentConfig:
    """The settings of a preset for a task: ``"best"`` trains as measured best for this task on Farmyard.

    Args:
        preset: its name.
        task: a kind of task.
        teacher: its name; what is best from labels alone may be something else, and Farmyard's has a size a task.

    Raises:
        ConfigError: there is no such preset.
    """
    config = ExperimentConfig.preset(preset)
    if preset != "best" or task not in RECIPES:
        return config
    recipe = RECIPES[task]
    options = dict(recipe.options)
    known = {name: options.pop(name) for name in ("layers", "grid", "image_px") if name in options}
    student = config.student.replace(backbone=recipe.backbone, options=options, **known)
    return replace(
        config,
        teacher=config.teacher.replace(image_px=recipe.teacher_px or 0) if teacher == FARMYARD else config.teacher,
        task=config.task.replace(kind=task),
        student=student,
        distill=recipe.alone if teacher == NO_TEACHER else recipe.distill,
    )


def make_teacher(config: ExperimentConfig) -> Teacher | None:
    """The teacher of the settings; None for labels alone. One without weights is random, and always the same."""
    t = config.teacher
    if t.name == NO_TEACHER:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        teacher = Teacher(
            t.name, weights=t.weights or None, pretrained=t.pretrained, layers=t.layers or None,
            image_px=t.image_px or None, mean=t.mean or None, std=t.std or None, **t.options,
        )  # fmt: skip
    if t.name != FARMYARD and not t.weights and not t.pretrained:
        told = "--teacher-weights FILE, or --set teacher.pretrained=true where there is a network"
        warnings.warn(f"the teacher {t.name} knows nothing, its weights are random: pass {told}", stacklevel=2)
    return teacher


def make_task(config: ExperimentConfig, train: PackedImages) -> Task:
    """The task of the settings, for the classes of these images; images with tags are classified with many labels."""
    t, classes = config.task, tuple(train.classes)
    if t.kind == "segmentation":
        return Segmentation(len(classes), classes, width=t.width, dice_weight=t.dice_weight)
    if t.kind == "detection":
        return Detection(len(classes), classes, detector=t.detector, width=t.width, dropout=t.dropout)
    task = Classification(len(classes), classes, multi_label=train.tags is not None)
    return task.balanced(train) if t.balanced else task


def make_student(config: ExperimentConfig, task: Task, bank: PrototypeBank | None) -> Student:
    """A new student of the settings."""
    s = config.student
    return Student(
        s.backbone, task, bank, feature_augmentation=config.feature_augmentation if bank is not None else None,
        layers=s.layers or None, grid=s.grid or None, image_px=s.image_px, weights=s.weights or None,
        seed=config.distill.seed, **s.options,
    )  # fmt: skip


def open_images(config: ExperimentConfig, image_px: int, *, progress: bool = True) -> Images:
    """Every image set of the settings, packed at one size.

    Raises:
        DatasetError: nothing is there, or it cannot be used; the message says what and where.
    """
    data, kind = config.data, config.task.kind
    sets = farmyard_sets(config) if data.path == FARMYARD else own_sets(config, progress=progress)
    fit = None if data.fit == "auto" else data.fit

    def packed(name: str) -> PackedImages:
        return pack(sets[name], image_px, fit=fit, progress=progress)

    train, test = packed("train"), at_most(packed("test"), data.num_test, data.seed)
    if data.per_class and data.path != FARMYARD:
        if kind == "classification" and train.tags is None:
            train = train.few(data.per_class, seed=data.seed)
        else:
            train = at_most(train, data.per_class * len(train.classes), data.seed)
    source = packed("source") if "source" in sets else train
    unlabelled = packed("unlabelled") if "unlabelled" in sets else None
    return Images(train, test, at_most(source, data.num_discover, data.seed), unlabelled)


def farmyard_sets(config: ExperimentConfig) -> dict[str, ImageDataset]:
    """Farmyard's target species for the task, and its source species to find prototypes on."""
    data, task = config.data, config.task.kind
    size = (data.per_class or FARMYARD_IMAGES[task]) * len(Farmyard("target", "train", 1).classes)
    kind = "scene" if task == "detection" else "single"
    how: dict[str, Any] = {"kind": kind, "labels": "parts" if task == "segmentation" else "species"}
    sets: dict[str, ImageDataset] = {
        "train": Farmyard("target", "train", size, seed=data.seed, **how),
        "test": Farmyard("target", "test", data.num_test, **how),
        "source": Farmyard("source", "unlabelled", data.num_discover, kind=kind),
    }
    if config.distill.unlabelled_batch or config.distill.label_free_steps:
        sets["unlabelled"] = Farmyard("target", "unlabelled", FARMYARD_UNLABELLED, **how)
    return sets


def own_sets(config: ExperimentConfig, *, progress: bool = True) -> dict[str, ImageDataset]:
    """The images of a folder or file, checked, and divided as they lie there, or else at random by group."""
    data, kind = config.data, config.task.kind
    how: dict[str, Any] = {"on_bad": data.on_bad, "progress": progress}
    subsets = opened(data, data.path, kind)
    labelled = {"train": subsets.get("train", next(iter(subsets.values())))}
    if data.test:
        labelled["test"] = to_score_on(opened(data, data.test, kind, classes=classes_of(labelled["train"])))
    else:
        labelled |= {name: subsets[name] for name in ("test", "val") if name in subsets and len(labelled) < 2}
    sets = checked(labelled, task=kind, once=len(labelled) < 2, **how)
    if "val" in sets:
        sets["test"] = sets.pop("val")
    if "test" not in sets:
        sets["test"], sets["train"] = split(sets["train"], data.test_part, data.seed, groups_of(sets["train"]))
    if data.unlabelled:
        more = next(iter(opened(data, data.unlabelled, None).values()))
        sets["source"] = sets["unlabelled"] = checked({"unlabelled": more}, **how)["unlabelled"]
    return sets


def opened(
    data: DataConfig, path: str, task: str | None, *, classes: Sequence[str] | Mapping[int, str] | None = None
) -> Mapping[str, ImageDataset]:
    """The subsets of a folder; ``classes`` are those of a training set, where it is another folder."""
    given = class_names(data.classes) if task is not None else []
    return open_subsets(
        path, task=task, classes=classes or given or None, from_train=classes is not None, group=data.group or None,
        on_bad=data.on_bad,
    )  # fmt: skip


def to_score_on(subsets: Mapping[str, ImageDataset]) -> ImageDataset:
    """The test part, else the validation part, else what there is."""
    return subsets.get("test", subsets.get("val", next(iter(subsets.values()))))


def classes_of(dataset: ImageDataset) -> Sequence[str] | Mapping[int, str]:
    """Class names as another folder is opened with them: of masks with the values that stand for them."""
    return dataset.names if isinstance(dataset, MaskDataset) else tuple(dataset.classes)


def at_most(images: PackedImages, count: int, seed: int) -> PackedImages:
    """This many of the images, drawn at random; all where there are no more."""
    if len(images) <= count:
        return images
    chosen = np.random.default_rng(seed).permutation(len(images))[:count]
    found = take(images, np.sort(chosen))
    assert isinstance(found, PackedImages)
    return found


def extracted(config: ExperimentConfig, *, cpu: bool = False, progress: bool = True) -> Run:
    """Open the images and pass them through the teacher; both are cached. Of several processes the first goes ahead."""
    with PartialState(cpu=cpu).main_process_first():
        teacher = make_teacher(config)
        images = open_images(
            config, config.student.image_px if teacher is None else teacher.image_px, progress=progress
        )
        if teacher is None:
            return Run(config, images, make_task(config, images.train))
        how: dict[str, Any] = {"device": "cpu" if cpu else None, "progress": progress}
        source = extract(teacher, images.source, views=3, **how)
        train = source if images.source is images.train else extract(teacher, images.train, **how)
        more = None if images.unlabelled is None else extract(teacher, images.unlabelled, **how)
        if more is None and config.distill.unlabelled_batch:
            more = train  # transfer asks for no label, so the labelled images serve as well
    return Run(config, images, make_task(config, images.train), teacher, source, train, more)


def discovered(run: Run, bank: str | Path | None = None, *, progress: bool = True) -> Run:
    """The run with prototypes: found now, or read from a file; none without a teacher, or when no term wants them."""
    if run.source is None:
        return run
    if bank is not None:
        return replace(run, bank=PrototypeBank.load(bank))
    return replace(run, bank=discover(run.source, config=run.config.discover, progress=progress))


def scored(
    run_dir: str | Path, data: str | None = None, *, cpu: bool = False, progress: bool = True
) -> tuple[Student, Scores]:
    """The student of a finished run, and its scores on the run's test images, or on all images of another folder.

    Raises:
        RunFolderError: there is no run in the folder, or it has no student yet.
        DatasetError: images that cannot be used, or of other classes.
    """
    folder = Path(run_dir)
    config = run_config(folder)
    student = Student.load(student_file(folder))
    student.to(PartialState(cpu=cpu).device)
    teacher = make_teacher(config)
    size = student.image_px if teacher is None else teacher.image_px
    if data is None:
        images = open_images(config, size, progress=progress).test
    else:
        images = pack_other(config, student.task, data, size, progress=progress)
    return student, evaluate(student, images)


def pack_other(config: ExperimentConfig, task: Task, path: str, image_px: int, *, progress: bool) -> PackedImages:
    """The images of another folder, checked, with the classes of a task that was learned elsewhere."""
    data, kind = config.data, config.task.kind
    classes: Sequence[str] | Mapping[int, str] = tuple(task.classes)
    if kind == "segmentation" and data.path != FARMYARD:  # which values its masks have is known where it was learned
        own = opened(data, data.path, kind)
        classes = classes_of(own.get("train", next(iter(own.values()))))
    found = to_score_on(opened(data, path, kind, classes=classes))
    if tuple(found.classes) != tuple(task.classes):
        told = f"{', '.join(found.classes)}, and the student knows {', '.join(task.classes)}"
        raise DatasetError(f"{path} has the classes {told}: it can be scored on the same ones only")
    good = checked({"test": found}, task=kind, on_bad=data.on_bad, progress=progress)["test"]
    return pack(good, image_px, fit=None if data.fit == "auto" else data.fit, progress=progress)
