"""THE assembly: settings -> images, features, task, student; for command line, demo, notebooks, panel, benchmarks."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float

from prockd._data_path import data_path
from prockd._types import ImageDataset
from prockd.datasets import DatasetError, PackedImages, pack
from prockd.evaluation.probe import linear_probe
from prockd.prototypes.bank import PrototypeBank
from prockd.prototypes.embedding import embed_features
from prockd.runs.recipes import fallback, recipe_of, task_settings
from prockd.runs.sets import farmyard_sets, own_sets
from prockd.settings.experiment import FARMYARD, NO_TEACHER, ExperimentConfig, TaskConfig, TeacherConfig
from prockd.settings.knobs import ConfigError
from prockd.settings.method import DistillConfig
from prockd.tasks import TASKS, Task
from prockd.teachers.compact import extract_compact
from prockd.teachers.embedded import EmbeddedFeatures
from prockd.teachers.features import PatchFeatures, extract, extract_pooled
from prockd.teachers.presets import TEACHER_PRESETS
from prockd.teachers.stored import Share
from prockd.teachers.teacher import Teacher, is_file
from prockd.teachers.weights import check_name, read_metadata
from prockd.training.inputs import reads_maps
from prockd.training.processes import Processes
from prockd.training.readings import teacher_probe

T = TypeVar("T")

VIEWS: Mapping[str, tuple[str, ...]] = {
    "source": ("plain", "mirrored", "recoloured"), "train": ("plain", "mirrored"), "unlabelled": ("plain", "mirrored"),
    "val": ("plain",), "test": ("plain",),
}  # fmt: skip
"""What the teacher sees of each set: prototypes are found in all views, and training mirrors images."""

MISSING = {
    "val": "there are no images to tune on: give the data a folder val, or set data.val_part to 0.2",
    "test": "there are no images to score on: give the data a folder test",
}


class World:
    """Every image set of an experiment, its task, and what the teacher says of the images.

    Images are packed, and pass through the teacher, when they are first asked for, and what is asked for is kept in the
    cache: compact features of the source, embedded ones of what a student learns from or prototypes are judged on, and
    the teacher's own maps only of what :meth:`features` is asked for.

    Args:
        config: all settings.
        sets: "train" (labelled), and where they are there "val" (to tune on), "test" (for the last number only),
            "unlabelled" (more images of the task) and "source" (to find prototypes on; labels are not read). Where one
            of the last two is missing, the labelled images serve.
        teacher: None for labels alone.
        task: what the student learns; None for the task of the settings.
        cpu: stay on the CPU even where there is a GPU.
        progress: show progress bars.

    Attributes:
        share: of the teacher's passes that this process makes, a :class:`prockd.teachers.Share`; None for all.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        sets: Mapping[str, ImageDataset | PackedImages | PatchFeatures],
        *,
        teacher: Teacher | None = None,
        task: Task | None = None,
        cpu: bool = False,
        progress: bool = True,
    ) -> None:
        self.config, self.sets, self.teacher, self.cpu, self.progress = config, dict(sets), teacher, cpu, progress
        self.share: Share | None = None
        self.precision = config.teacher.precision
        self._task = task
        self._images: dict[str, PackedImages] = {}
        self._given = {name: s for name, s in sets.items() if isinstance(s, PatchFeatures)}
        self._features = dict(self._given)
        self._source: PatchFeatures | None = None
        self._embedded: dict[tuple[str, str], EmbeddedFeatures] = {}  # by set and space

    @cached_property
    def task(self) -> Task:
        """What the student learns."""
        return self._task or make_task(self.config.task, self.images("train"))

    @property
    def is_taught(self) -> bool:
        """Whether there are a teacher's features to learn from."""
        return self.teacher is not None or "train" in self._features

    @property
    def image_px(self) -> int:
        """Side at which images are packed: see :func:`packed_px`."""
        return packed_px(self.config, self.teacher)

    def images(self, name: str) -> PackedImages:
        """The images of a set, packed at ``image_px``; DatasetError where there is none, or one cannot be used."""
        if name not in self._images:
            self._images[name] = self._packed(name)
        return self._images[name]

    def _packed(self, name: str) -> PackedImages:
        data, given = self.config.data, self.sets.get(name)
        if isinstance(given, PatchFeatures):
            return given.images
        if given is None and name in MISSING:
            raise DatasetError(MISSING[name])
        images = self.images("train") if given is None else self.whole(name)
        if name == "train":
            return few(images, data.per_class, data.seed) if data.per_class and data.path != FARMYARD else images
        most = {"source": data.num_discover, "unlabelled": data.num_unlabelled, "val": data.num_val}
        return images.sample(most.get(name, data.num_test), seed=data.seed)

    def whole(self, name: str) -> PackedImages:
        """All images of a set that is there, also those that :meth:`images` leaves out."""
        given = self.sets[name]
        if isinstance(given, PatchFeatures):
            return given.images
        # images without masks or boxes become squares as the labelled ones of the task do
        fit = self.config.data.asked_fit or TASKS[self.config.task.kind].fit
        return pack(given, self.image_px, fit=fit, progress=self.progress)

    @property
    def unlabelled_note(self) -> str:
        """What the steps took as unlabelled images where there are none, in a sentence; else empty."""
        own, recipe = self.config.distill, recipe_of(self.config.task.kind).distill
        if "unlabelled" in self.sets or not self.is_taught:
            return ""
        if own.unlabelled_batch:
            again = f"the labelled ones were used again, {own.unlabelled_batch} a step"
            return f"No unlabelled images were found: {again}."
        instead = f"the recipe without them was used, {own.batch_size} labelled ones a step"
        return f"No unlabelled images were found: {instead}." if recipe.unlabelled_batch else ""

    def features(self, name: str) -> PatchFeatures:
        """The teacher's own maps of a set, in the views it is used in: large; ValueError where there is no teacher."""
        name = self._serving(name)
        if name not in self._features:
            self._features[name] = extract(*self._passing(name), views=VIEWS[name], **self._how)
        return self._features[name]

    def embedded(self, name: str, bank: PrototypeBank) -> EmbeddedFeatures:
        """A set in the space of a bank, in the views it is used in; ValueError without a teacher, or with another."""
        name = self._serving(name)
        if (key := (name, bank.space)) not in self._embedded:
            # never of maps that happen to be there: what a student reads may not depend on what was asked for before
            if (given := self._given.get(name)) is not None or name == self._serving("source"):
                self._embedded[key] = embed_features(bank, given or self.source)
            else:
                self._embedded[key] = embed_features(bank, *self._passing(name), views=VIEWS[name], **self._how)
        return self._embedded[key]

    def look(self, name: str, count: int = 6) -> PatchFeatures:
        """The teacher's own maps of a few images of a set, drawn at random, to be shown."""
        name = self._serving(name)
        total = len(self.images(name))
        some = np.sort(np.random.default_rng(0).permutation(total)[:count])  # in even steps classes may come by turns
        if name in self._given:
            return self._given[name].select(some)
        teacher, images = self._passing(name)
        return extract(teacher, images.select(some), views=("plain",), **self._how | {"share": None, "progress": False})

    def by_shares(self, processes: Processes, make: Callable[[], T]) -> T:
        """What processes that share the teacher's passes make of this world; each process calls it."""
        own = self.share

        def made(share: Share) -> T:
            self.share = own or share
            return make()

        try:
            return processes.by_shares(made)
        finally:  # what one of them asks for alone, it makes alone
            self.share = own

    def _passing(self, name: str) -> tuple[Teacher, PackedImages]:
        if self.teacher is None:
            raise ValueError(f"this world has no teacher, so there are no features of {name!r}: labels alone")
        return self.teacher, self.images(name)

    @property
    def _how(self) -> dict[str, Any]:
        device = "cpu" if self.cpu else None
        how = {"precision": self.precision, "share": self.share, "progress": self.progress}
        return {"device": device, **how}

    def teacher_input(self, name: str, config: DistillConfig, bank: PrototypeBank | None) -> Any:
        """What :func:`prockd.distill` reads of a set: features, or with no store the teacher and the images."""
        if config.store == "none" and self.teacher is not None:
            return self.teacher if name == "train" else self.images(self._serving(name))
        return self.features(name) if bank is None or reads_maps(config, bank) else self.embedded(name, bank)

    def _serving(self, name: str) -> str:
        """The set whose features serve for this one: the labelled images where there are no others."""
        others = name in self.sets or (name == "source" and len(self.images("train")) > self.config.data.num_discover)
        return name if others else "train"

    @property
    def source(self) -> PatchFeatures:
        """Features to find prototypes in, at a fifth of the size of the teacher's own maps."""
        if self._source is None:
            name = self._serving("source")
            given = self._given.get(name)
            self._source = given or extract_compact(*self._passing(name), views=VIEWS["source"], **self._how)
        return self._source

    def few(self, per_class: int) -> "World":
        """The same world with this many labelled images of each class, drawn by ``data.seed``; fewer are among more.

        Where images have no single label (tags, masks, boxes), that many for each class are drawn from all of them.
        """
        images = self.images("train")
        kept = few(images, per_class, self.config.data.seed)
        row_of = {name: m for m, name in enumerate(images.ids)}
        rows = [row_of[name] for name in kept.ids]
        sets = {name: self._given.get(name, self._images.get(name, s)) for name, s in self.sets.items()}
        sets["train"] = self._given["train"].select(rows) if "train" in self._given else kept
        config = replace(self.config, data=self.config.data.replace(per_class=0))
        fewer = World(config, sets, teacher=self.teacher, task=self.task, cpu=self.cpu, progress=self.progress)
        fewer.precision = self.precision
        for name, maps in self._features.items():
            fewer._features[name] = maps.select(rows) if name == "train" else maps
        if self._serving("source") == fewer._serving("source") == "source":
            fewer._source = self._source
            for (name, space), features in self._embedded.items():
                fewer._embedded[name, space] = features.select(rows) if name == "train" else features
        return fewer

    def with_teacher(self, teacher: Teacher) -> "World":
        """The same images and task with another teacher, which looks at them anew."""
        sets = {name: self.images(name) for name in self.sets}
        return World(self.config, sets, teacher=teacher, task=self.task, cpu=self.cpu, progress=self.progress)

    def probe(self, on: str = "test") -> float:
        """Accuracy of a linear probe on the teacher's pooled features, trained on the labelled images: the ceiling."""
        labels = [self.images(self._serving(name)).labels for name in ("train", on)]
        return linear_probe(self.pooled("train"), labels[0], self.pooled(on), labels[1])

    def part_probe(self, bank: PrototypeBank, on: str = "test") -> float:
        """The score of the teacher read by part maps, fitted to the labelled images: the higher ceiling."""
        train, unseen = (self.embedded(name, bank) for name in ("train", on))
        return teacher_probe(self.task, bank, train, unseen)

    def pooled(self, name: str) -> Float[np.ndarray, "M D"]:
        """What a linear probe reads of a set, from what is there or else from a pass that keeps no map."""
        name = self._serving(name)
        if name in self._given:
            return self._given[name].pooled()
        for (own, _), features in self._embedded.items():
            if own == name:
                return features.pooled()
        return extract_pooled(*self._passing(name), **self._how)

    def __repr__(self) -> str:
        teacher = "labels alone" if self.teacher is None else f"taught by {self.teacher.name!r}"
        return f"World({self.config.task.kind}, {teacher}; sets {', '.join(self.sets)})"


def few(images: PackedImages, per_class: int, seed: int) -> PackedImages:
    """This many images of each class; where they have no single label, as many in all."""
    if (images.labels >= 0).all():
        return images.per_class(per_class, seed=seed)
    return images.sample(per_class * max(1, len(images.classes)), seed=seed)


def open_world(
    config: ExperimentConfig | None = None,
    *,
    task: str = "classification",
    teacher: Teacher | None = None,
    cpu: bool = False,
    progress: bool = True,
    **data: Any,
) -> World:
    """Open the images of the settings, Farmyard's or one's own, beside the teacher.

    Args:
        config: all settings; None for what is best for ``task``.
        task: its kind, where there is no ``config``.
        teacher: one that is made already, in place of the settings' own.
        cpu: stay on the CPU even where there is a GPU.
        progress: show progress bars.
        data: knobs of :class:`prockd.settings.DataConfig` to change, such as ``per_class=30`` or ``path="photos"``.

    Raises:
        ConfigError: a knob that is not there, or a value out of range.
        DatasetError: images that cannot be used; the message says what and where.
        WeightsError: the teacher's weights cannot be found or do not fit.

    >>> open_world(per_class=2, num_test=20, progress=False)
    World(classification, taught by 'farmyard'; sets train, val, test, source, unlabelled)
    """
    config = config or task_settings(task)
    config = replace(config, data=config.data.replace(**data))
    recipe_of(config.task.kind)
    teacher = teacher or make_teacher(config.teacher)
    if config.data.path == FARMYARD:
        sets = farmyard_sets(config, packed_px(config, teacher))
    else:
        sets = own_sets(config, progress=progress)
        config = config if "unlabelled" in sets else fallback(config)
    return World(config, sets, teacher=teacher, cpu=cpu, progress=progress)


def packed_px(config: ExperimentConfig, teacher: Teacher | None) -> int:
    """Side at which images are packed: what the teacher reads, and where there is none what it would read if known.

    So students with a teacher and without one see the same pixels. Without a teacher its side is known where
    ``teacher.image_px`` tells it, and on Farmyard; else images have the student's side.
    """
    if teacher is not None:
        return teacher.image_px
    side = config.teacher.image_px
    if not side and config.data.path == FARMYARD:
        side = recipe_of(config.task.kind).teacher_px or farmyard_teacher_px()
    return side or config.student.image_px


@cache
def farmyard_teacher_px() -> int:
    """The side that Farmyard's teacher was trained at."""
    return int(read_metadata(data_path("farmyard", "teacher.safetensors"))["image_px"])


def make_teacher(settings: TeacherConfig) -> Teacher | None:
    """The teacher of the settings; None for labels alone. A random one is always the same.

    Raises:
        ConfigError: no weights are given, and nobody asked for random ones.
    """
    if settings.name == NO_TEACHER:
        return None
    known = settings.name == FARMYARD or is_file(settings.name) or settings.weights or settings.pretrained
    if not known and not settings.random:
        if settings.name not in TEACHER_PRESETS:
            check_name(settings.name)
        raise ConfigError(
            f"the teacher {settings.name} would know nothing, since no weights are given: pass --teacher-weights FILE, "
            "or --set teacher.pretrained=true where there is a network; random ones are taken with --random-teacher"
        )
    left = ("precision", "options", "random")
    own: dict[str, Any] = {k: v or None for k, v in vars(settings).items() if k not in left}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would move the generators of GPUs too
        teacher = Teacher(**own | {"pretrained": settings.pretrained}, **settings.options)
    if not known:
        warnings.warn(f"the teacher {settings.name} knows nothing, its weights are random", stacklevel=2)
    return teacher


def make_task(settings: TaskConfig, images: PackedImages) -> Task:
    """The task of the settings for the classes of these images; it gets the knobs that are its fields."""
    kind = TASKS[settings.kind]
    knobs = {name: value for name, value in vars(settings).items() if name in kind.knobs() - {"options"}}
    return kind.for_images(images, **knobs | dict(settings.options))
