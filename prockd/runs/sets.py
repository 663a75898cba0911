"""The image sets of a run: Farmyard's, or those of a folder or file of one's own."""

from collections.abc import Mapping, Sequence
from typing import Any

from prockd._types import ImageDataset
from prockd.datasets import checked, classes_of, open_splits, train_test_split
from prockd.datasets.files import UNLABELLED_SPLIT
from prockd.datasets.formats import open_unlabelled
from prockd.farmyard import Farmyard
from prockd.runs.recipes import recipe_of
from prockd.settings.experiment import DataConfig, ExperimentConfig, class_names
from prockd.tasks import TASKS


def farmyard_sets(config: ExperimentConfig, image_px: int) -> dict[str, ImageDataset]:
    """Farmyard's target species for the task, and its source species to find prototypes on, drawn at ``image_px``."""
    data, recipe = config.data, recipe_of(config.task.kind)
    size = (data.per_class or recipe.per_class) * len(Farmyard("target", "train", 1).species_names)
    how: dict[str, Any] = {"form": data.form, "image_px": min(image_px, 512), **recipe.farmyard}  # 512 px at most
    source = {name: value for name, value in how.items() if name != "labels"}  # its labels are never read
    return {
        "train": Farmyard("target", "train", size, seed=data.seed, **how),
        "val": Farmyard("target", "val", data.num_val, **how),
        "test": Farmyard("target", "test", data.num_test, background=data.background, **how),
        "source": Farmyard("source", "unlabelled", data.num_discover, **source),
        "unlabelled": Farmyard("target", "unlabelled", data.num_unlabelled, **how),
    }


def own_sets(config: ExperimentConfig, *, progress: bool = True) -> dict[str, ImageDataset]:
    """The images of a folder or file, checked, and divided as they lie there, or else at random by group.

    Unlabelled ones are those of ``data.unlabelled``, or of a folder ``unlabelled`` beside the others. Prototypes are
    found in them where they are at least as many as the labelled ones.
    """
    data, layout = config.data, TASKS[config.task.kind].data
    how: dict[str, Any] = {"on_bad": data.on_bad, "progress": progress}
    splits = opened(data, data.path, layout)
    sets = {"train": splits.get("train", next(iter(splits.values())))}
    if data.test:
        sets["test"] = to_score_on(opened(data, data.test, layout, classes=classes_of(sets["train"])))
    elif "test" in splits or "val" in splits:
        sets["test"] = to_score_on(splits)
    if "val" in splits and splits["val"] is not sets.get("test"):
        sets["val"] = splits["val"]
    if data.unlabelled:
        sets[UNLABELLED_SPLIT] = open_unlabelled(data.unlabelled, **file_options(data))
    elif UNLABELLED_SPLIT in splits:
        sets[UNLABELLED_SPLIT] = splits[UNLABELLED_SPLIT]
    sets = checked(sets, task=layout, once="test" not in sets, **how)
    more = len(sets.get(UNLABELLED_SPLIT, ()))
    if not more:  # copies of labelled images alone
        sets.pop(UNLABELLED_SPLIT, None)
    elif more >= len(sets["train"]):
        sets["source"] = sets[UNLABELLED_SPLIT]
    if "test" not in sets:
        sets["train"], sets["test"] = train_test_split(sets["train"], data.test_part, data.seed)
    if "val" not in sets and data.val_part:
        sets["train"], sets["val"] = train_test_split(sets["train"], data.val_part, data.seed)
    return sets


def opened(
    data: DataConfig, path: str, layout: str | None, *, classes: Sequence[str] | Mapping[int, str] | None = None
) -> Mapping[str, ImageDataset]:
    """The splits of a folder; ``classes`` are those of a training set, where it is another folder."""
    given = class_names(data.classes) if layout is not None else []
    return open_splits(
        path, task=layout, classes=classes or given or None, from_train=classes is not None, group=data.group or None,
        **file_options(data),
    )  # fmt: skip


def file_options(data: DataConfig) -> dict[str, Any]:
    """How the settings have files read: see :class:`~prockd.datasets.files.FormatOptions`."""
    return {"on_bad": data.on_bad, "white": data.white, "exif": data.exif}


def to_score_on(splits: Mapping[str, ImageDataset]) -> ImageDataset:
    """The test part, else the validation part, else what there is."""
    return splits.get("test", splits.get("val", next(iter(splits.values()))))
