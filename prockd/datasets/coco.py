"""Boxes in one COCO JSON file."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prockd.datasets._common import DatasetError, Problem
from prockd.datasets.boxes import Annotation, Box, BoxDataset


class CocoFile(BoxDataset):
    """Pictures and the COCO JSON file that tells their boxes: detection.

    Ids of images and categories may skip numbers; labels follow the ids of the categories in order. Crowd boxes
    (``iscrowd = 1``) are left out. An image without annotations is an image without objects.

    Args:
        path: the JSON file.
        images: folder that the file names of the JSON file are relative to; None looks in the folder of the file, in
            ``images`` beside it and one folder up, and in a folder named like the end of the file name
            (``train2017`` for ``instances_train2017.json``).
        classes: class names in label order; None for the categories of the file.
        group: regular expression that finds the group of an image in its id.
        on_bad: ``"refuse"`` raises when an entry belongs to no image, ``"skip"`` leaves it out.

    Raises:
        DatasetError: the file is missing or not a COCO file, its images are not found, or (with ``"refuse"``) an entry
            cannot belong to any image.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        images: Path | str | None = None,
        classes: Sequence[str] | None = None,
        group: str | None = None,
        on_bad: str = "refuse",
    ) -> None:
        path = Path(path)
        content = _load(path)
        self.path, flaws = path, list[Problem]()

        def flaw(entry: str, text: str) -> None:
            flaws.append(Problem(str(path), entry, text))

        categories: dict[Any, str] = {}
        for number, category in enumerate(content["categories"], 1):
            if _lacks(category, ("id", "name")):
                flaw(f"category {number}", f"lacks {', '.join(_lacks(category, ('id', 'name')))}")
            elif category["id"] in categories:
                flaw(f"category {number}", f"id {category['id']} is taken by {categories[category['id']]!r}")
            else:
                categories[category["id"]] = str(category["name"])
        pictures: dict[Any, dict[str, Any]] = {}
        for number, picture in enumerate(content["images"], 1):
            if _lacks(picture, ("id", "file_name")):
                flaw(f"image {number}", f"lacks {', '.join(_lacks(picture, ('id', 'file_name')))}")
            elif picture["id"] in pictures:
                flaw(f"image {number}", f"id {picture['id']} is taken by {pictures[picture['id']]['file_name']}")
            else:
                pictures[picture["id"]] = picture
        names = Counter(str(picture["file_name"]) for picture in pictures.values())
        for name, count in names.items():
            if count > 1:
                flaw("", f"{name} is listed {count} times, so its boxes are divided")
        boxes: dict[Any, list[Box]] = {id: [] for id in pictures}
        problems: dict[Any, list[Problem]] = {id: [] for id in pictures}
        for number, found in enumerate(content["annotations"], 1):
            lacks = _lacks(found, ("image_id", "category_id", "bbox"))
            entry = f"annotation {found.get('id', number) if isinstance(found, dict) else number}"
            if "image_id" in lacks or found["image_id"] not in pictures:
                told = "lacks image_id" if "image_id" in lacks else f"no image has the id {found['image_id']}"
                flaw(entry, told)
                continue
            mine, name = problems[found["image_id"]], pictures[found["image_id"]]["file_name"]
            if found.get("iscrowd"):
                continue
            if lacks:
                mine.append(Problem(str(path), entry, f"lacks {', '.join(lacks)} ({name})"))
            elif found["category_id"] not in categories:
                mine.append(Problem(str(path), entry, f"no category has the id {found['category_id']} ({name})"))
            elif not _is_box(found["bbox"]):
                mine.append(Problem(str(path), entry, f"bbox {found['bbox']} is not x, y, width, height ({name})"))
            else:
                x, y, width, height = map(float, found["bbox"])
                corners = (x, y, x + width, y + height)
                told = f"bbox {', '.join(f'{v:g}' for v in found['bbox'])} (x, y, width, height)"
                boxes[found["image_id"]].append(Box(entry, categories[found["category_id"]], corners, told))
        root = Path(images) if images is not None else _image_folder(path, list(names))
        annotations = [
            Annotation(path, tuple(boxes[id]), _size(picture), tuple(problems[id])) for id, picture in pictures.items()
        ]
        files = [root / str(picture["file_name"]) for picture in pictures.values()]
        order = sorted(categories, key=lambda id: (not isinstance(id, int), id if isinstance(id, int) else 0, str(id)))
        known = dict.fromkeys(categories[id] for id in order)
        super().__init__(
            root,
            files,
            annotations,
            list(known) if classes is None else classes,
            group=group,
            flaws=flaws,
            on_bad=on_bad,
        )


def _load(path: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}, line {error.lineno}: is not JSON ({error.msg} at column {error.colno})") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(f"{path} is not JSON ({error})") from error
    keys = ("images", "annotations", "categories")
    bad = [key for key in keys if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if bad:
        raise DatasetError(f"{path} is no COCO file: it has no list {', '.join(bad)}")
    return {key: content[key] for key in keys}


def _lacks(entry: Any, keys: tuple[str, ...]) -> list[str]:
    """Keys that an entry does not have, or whose value cannot be one."""
    if not isinstance(entry, dict):
        return list(keys)
    return [key for key in keys if key not in entry or (key != "bbox" and not isinstance(entry[key], int | str))]


def _is_box(bbox: Any) -> bool:
    return isinstance(bbox, list) and len(bbox) == 4 and all(type(v) in (int, float) for v in bbox)


def _size(picture: dict[str, Any]) -> tuple[int, int] | None:
    H, W = picture.get("height"), picture.get("width")
    return (H, W) if isinstance(H, int) and isinstance(W, int) and H > 0 and W > 0 else None


def _image_folder(path: Path, names: list[str]) -> Path:
    """The first of the usual folders that holds most of the first images; the folder of the file if none does."""
    ending = path.stem.rpartition("_")[2]
    here, up = path.parent, path.parent.parent
    places = [here, here / "images", up / "images", up / ending, up / "images" / ending, here / ending]
    held = {place: sum((place / name).is_file() for name in names[:20]) for place in places}
    return max(places, key=lambda place: held[place])
