"""Boxes in one COCO JSON file."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

from prockd.datasets.boxes import Annotation, Box, BoxDataset, size_of
from prockd.datasets.files import FormatOptions, file_below, pictures_root
from prockd.datasets.problems import DatasetError, Problem, as_float
from prockd.untrusted import RefusedError, read_json, reading

_LISTS = ("images", "annotations", "categories")


class CocoFile(BoxDataset):
    """Pictures and the COCO JSON file that has their boxes: detection.

    Ids of images and categories may skip numbers; labels follow the ids of the categories in order. Crowd boxes
    (``iscrowd = 1``) are left out. An image without annotations is an image without objects.

    Args:
        path: the JSON file.
        images: folder that the file names of the JSON file are relative to; None looks in the folder of the file, in
            ``images`` beside it and one folder up, and in a folder named like the end of the file name
            (``train2017`` for ``instances_train2017.json``).
        classes: class names in label order; None for the categories of the file.
        options: ``group`` and ``on_bad``, see :class:`~prockd.datasets.files.FormatOptions`.

    Raises:
        DatasetError: the file is missing or not a COCO file, its images are not found, or (with ``"refuse"``) an entry
            cannot belong to any image.
    """

    def __init__(
        self, path: Path | str, *, images: Path | str | None = None, classes: Sequence[str] | None = None,
        **options: Unpack[FormatOptions],
    ) -> None:  # fmt: skip
        self.path, coco = Path(path), Coco(Path(path), images)
        root, categories, pictures, add_flaw = coco.root, coco.categories, coco.pictures, coco.add_flaw
        names = [str(picture["file_name"]) for picture in pictures.values()]
        for name, count in ((name, count) for name, count in Counter(names).items() if count > 1):
            add_flaw("", f"{name} is listed {count} times, so its boxes are divided")
        of_image = {
            id: Annotation(self.path, size=size_of(one.get("height"), one.get("width"))) for id, one in pictures.items()
        }
        for where, entry in coco.entries():
            missing = _missing(entry, ("image_id", "category_id", "bbox"))
            if "image_id" in missing:
                add_flaw(where, "lacks image_id")
            elif (id := str(entry["image_id"])) not in pictures:
                add_flaw(where, f"no image has the id {entry['image_id']}")
            elif not is_crowd(entry):
                picture, annotation = pictures[id], of_image[id]
                if isinstance(box := _box(where, entry, missing, categories), Box):
                    annotation.boxes.append(box)
                else:
                    annotation.add_problem(where, f"{box} ({picture['file_name']})")
        order = sorted(categories, key=lambda id: (not isinstance(categories[id]["id"], int), _number(id), id))
        class_names = list(dict.fromkeys(str(categories[id]["name"]) for id in order))
        paths, class_names = [file_below(root, n) for n in names], class_names if classes is None else list(classes)
        super().__init__(root, paths, list(of_image.values()), class_names, flaws=coco.flaws, **options)


class Coco:
    """The lists of a COCO file by id, its flaws so far, and the folder of its pictures."""

    def __init__(self, path: Path, images: Path | str | None) -> None:
        self.path, self.flaws = path, list[Problem]()
        self.content = load_coco(path)
        self.categories = by_id("category", self.content["categories"], "name", self.add_flaw)
        self.pictures = by_id("image", self.content["images"], "file_name", self.add_flaw)
        names = [str(picture["file_name"]) for picture in self.pictures.values()]
        self.root = pictures_root(path, names) if images is None else Path(images)

    def add_flaw(self, entry: str, text: str) -> None:
        """Note an entry that belongs to no image."""
        self.flaws.append(Problem(str(self.path), entry, text))

    def entries(self) -> Iterator[tuple[str, Any]]:
        """The annotations, and what messages call each."""
        for number, entry in enumerate(self.content["annotations"], 1):
            yield f"annotation {entry.get('id', number) if isinstance(entry, dict) else number}", entry


def is_coco(path: Path) -> bool:
    """Whether a JSON file has the words of COCO; one that is broken shall be opened, and its error read."""
    content = path.read_bytes()
    return all(f'"{name}"'.encode() in content for name in _LISTS)


def load_coco(path: Path) -> dict[str, list[Any]]:
    """The lists of a COCO file by name; a DatasetError that says where it is none."""
    with reading(path, "a COCO file", DatasetError):
        content = read_json(path)
        if bad := [key for key in _LISTS if not isinstance(content, dict) or not isinstance(content.get(key), list)]:
            raise RefusedError(f"it has no list {', '.join(bad)}")
        return {key: content[key] for key in _LISTS}


def by_id(
    kind: str, entries: Iterable[Any], name_key: str, add_flaw: Callable[[str, str], None]
) -> dict[str, dict[str, Any]]:
    """Entries of a list by their id as text, for some programs write "7" here and 7 there; those without are flaws."""
    found: dict[str, dict[str, Any]] = {}
    for number, entry in enumerate(entries, 1):
        if missing := _missing(entry, ("id", name_key)):
            add_flaw(f"{kind} {number}", f"lacks {', '.join(missing)}")
        elif (id := str(entry["id"])) in found:
            add_flaw(f"{kind} {number}", f"id {id} is taken by {found[id][name_key]!r}")
        else:
            found[id] = entry
    return found


def _number(id: str) -> int:
    return int(id) if re.fullmatch(r"-?[0-9]{1,30}", id) else 0


def is_crowd(entry: dict[str, Any]) -> bool:
    """Whether an annotation is of a crowd; some programs write the number as text."""
    return str(entry.get("iscrowd") or 0).strip().lower() not in ("0", "false", "")


def _missing(entry: Any, keys: tuple[str, ...]) -> list[str]:
    """Keys that an entry does not have, or whose value cannot be one."""
    values = entry if isinstance(entry, dict) else {}
    return [key for key in keys if key not in values or (key != "bbox" and not isinstance(values[key], int | str))]


def _box(where: str, entry: dict[str, Any], missing: list[str], categories: dict[str, dict[str, Any]]) -> Box | str:
    bbox = entry.get("bbox") or _around(entry.get("segmentation"))
    if missing := [name for name in missing if name != "bbox" or not bbox]:
        return f"lacks {', '.join(missing)}"
    if str(entry["category_id"]) not in categories:
        return f"no category has the id {entry['category_id']}"
    if not (isinstance(bbox, list) and len(bbox) == 4 and all(type(v) in (int, float) for v in bbox)):
        return f"bbox {bbox} is not x, y, width, height"
    x, y, width, height = map(as_float, bbox)
    text = f"bbox {', '.join(f'{as_float(v):g}' for v in bbox)} (x, y, width, height)"
    return Box(where, str(categories[str(entry["category_id"])]["name"]), (x, y, x + width, y + height), text)


def _around(polygons: Any) -> list[int | float]:
    """x, y, width, height around polygons; empty where they are none."""
    lists = polygons if isinstance(polygons, list) else []
    values = [v for one in lists if isinstance(one, list) and len(one) % 2 == 0 for v in one]
    if len(values) < 6 or any(type(value) not in (int, float) for value in values):
        return []
    x, y = values[::2], values[1::2]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]
