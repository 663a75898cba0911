"""Pictures with boxes in YOLO's text files, one beside each image."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from prockd.datasets.boxes import Annotation, Box, BoxDataset
from prockd.datasets.files import WHOLE, FormatOptions, by_split, refuse_outside, sub_folders
from prockd.datasets.problems import DatasetError, Problem, number_or_nan
from prockd.datasets.read import pictures
from prockd.untrusted import RefusedError, reading

_LISTS = ("data.yaml", "data.yml", "dataset.yaml", "obj.names", "classes.txt")
_BESIDE = (".", "obj_train_data")  # where labelImg and Darknet have both kinds of file in one folder


class YoloFolder(BoxDataset):
    """Pictures and a text file of the same name each: detection. A picture without one shows no object.

    A line is the number of a class and, in shares of the picture, centre and size of a box, or a polygon, whose box is
    taken. ``data.yaml``, ``obj.names`` or ``classes.txt``, in the folder or above it, names the classes.

    Args:
        root: the folder that holds ``images`` and ``labels``.
        classes: class names in label order; None for those of that file, or else the numbers.
        options: see :class:`~prockd.datasets.files.FormatOptions`.

    Raises:
        DatasetError: there are no pictures, the list of classes is none, or (with ``"refuse"``) a file has no picture.
    """

    def __init__(
        self, root: Path | str, *, images: str = "images", labels: str = "labels",
        classes: Sequence[str] | None = None, **options: Unpack[FormatOptions],
    ) -> None:  # fmt: skip
        root = Path(root)
        paths, listed = pictures(root / images), _class_list(root, root / labels)
        files = [(root / labels / path.relative_to(root / images)).with_suffix(".txt") for path in paths]
        there = _texts(root / labels)
        refuse_outside(root, sorted(there))
        named, has_points = _listed_classes(listed) if listed else (None, False)
        names = list(classes or ()) if named is None else named
        annotations = [_read(file, names, has_points) if file in there else Annotation(file) for file in files]
        flaws = [Problem(str(file), "", "label file without an image") for file in sorted(there - set(files))]
        known = classes if classes is not None else named
        super().__init__(root, paths, annotations, known, flaws=flaws, key=[names, has_points], **options)


def yolo_splits(path: Path) -> dict[str, Any]:
    """What opens each split of a folder in YOLO's form: ``images/train`` and ``labels/train``, or undivided."""
    images, labels = ("images", "labels") if (path / "images").is_dir() else ("Images", "Labels")
    inside = by_split(sub_folders(path / images), whole_name=True) if (path / images).is_dir() else {}
    ways = {split: (f"{images}/{p.name}", f"{labels}/{p.name}") for split, p in inside.items()}
    there = {split: both for split, both in ways.items() if _has_labels(path / both[1])}
    if not there and (path / images).is_dir() and _has_labels(path / labels):
        there = {WHOLE: (images, labels)}
    for name in (name for name in _BESIDE if not there and _class_list(path, path / name)):
        there = {WHOLE: (name, name)} if _has_labels(path / name) and pictures(path / name, "*") else {}
    return {split: partial(YoloFolder, path, images=i, labels=t) for split, (i, t) in there.items()}


def _first_words(path: Path) -> list[str]:
    with path.open("rb") as file:
        return file.readline(4096).decode(errors="replace").split()


def _texts(folder: Path) -> set[Path]:
    """The texts that do not begin with a word, as README.roboflow.txt and train.txt do."""
    named = (p for p in folder.rglob("*.txt") if p.name not in (*_LISTS, "labelmap.txt"))
    return {p for p in named if not (words := _first_words(p)) or math.isfinite(number_or_nan(words[0]))}


def _has_labels(folder: Path) -> bool:
    """Whether one of the first texts of a folder has a line of at least five numbers."""
    lines = map(_first_words, sorted(folder.rglob("*.txt"))[:20] if folder.is_dir() else ())
    return any(len(w) >= 5 and w[0].isdecimal() and all(map(math.isfinite, map(number_or_nan, w))) for w in lines)


def _class_list(root: Path, labels: Path) -> Path | None:
    return next((p for f in (root, labels, root.parent) for name in _LISTS if (p := f / name).is_file()), None)


def _listed_classes(path: Path) -> tuple[list[str], bool]:
    """Class names in label order, and whether lines go on with key points after a box."""
    with reading(path, "a list of classes", DatasetError, "names: [cat, dog], or one name a line"):
        text = path.read_text("utf-8-sig")
        if path.suffix not in (".yaml", ".yml"):
            return [line.strip() for line in text.splitlines() if line.strip()], False
        import yaml  # type: ignore[import-untyped]

        told = yaml.safe_load(text)
        names = told.get("names") if isinstance(told, dict) else None
        if isinstance(names, dict):
            if sorted(names) != list(range(len(names))):
                raise RefusedError("the numbers of names are not 0, 1, 2, ...")
            names = [names[number] for number in range(len(names))]
        if not isinstance(names, list) or not names or not all(isinstance(name, str | int) for name in names):
            raise RefusedError("it has no list of names")
        return list(map(str, names)), "kpt_shape" in told


def _read(path: Path, names: Sequence[str], has_points: bool) -> Annotation:
    annotation = Annotation(path, is_relative=True)
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        annotation.add_problem("", f"cannot be read: {error}")
        return annotation
    for number, words in ((n, line.split()) for n, line in enumerate(lines, 1) if line.strip()):
        entry, values = f"line {number}", list(map(number_or_nan, words[1:]))
        is_box = len(values) in (4, 5) or has_points  # 5 with how sure a detector was
        if not words[0].isdecimal() or not all(map(math.isfinite, values)) or len(values) < 4:
            annotation.add_problem(entry, f"{' '.join(words)[:60]!r} is not a class number and four numbers or more")
        elif not is_box and (len(values) < 6 or len(values) % 2):
            annotation.add_problem(entry, f"has {len(values)} numbers: a box has 4, a polygon 6, 8, 10, ...")
        elif names and int(words[0][:9]) >= len(names):
            annotation.add_problem(entry, f"class {words[0][:9]} of {len(names)}, which have the numbers from 0")
        else:
            x, y, width, height = values[:4]
            corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2) if is_box else (
                min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
            )  # fmt: skip
            name = names[int(words[0])] if names else words[0]
            annotation.boxes.append(Box(entry, name, corners, f"box {' '.join(words[1:5])} (shares of the picture)"))
    return annotation
