"""Joints in one COCO JSON file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from prockd.datasets.coco import Coco, is_coco, is_crowd
from prockd.datasets.files import FormatOptions, file_below
from prockd.datasets.keypoints import MAX_PX
from prockd.datasets.poses import Joint, Pose, PoseDataset
from prockd.datasets.problems import Problem, as_float


class CocoPoints(PoseDataset):
    """Pictures and the COCO JSON file that has their key points; each picture shows one animal that has some.

    The visibility is COCO's: 0 not annotated, 1 hidden, 2 visible. Crowds (``iscrowd = 1``) are left out, and so are
    pictures without key points.

    Args:
        path: the JSON file.
        images: folder that the file names of the JSON file are relative to; None looks for it as
            :class:`~prockd.datasets.CocoFile` does.
        classes: names of the joints in order; None for the ``keypoints`` of the categories.
        options: ``group`` and ``on_bad``, see :class:`~prockd.datasets.files.FormatOptions`.

    Raises:
        DatasetError: the file is missing or not a COCO file, or (with ``"refuse"``) an entry belongs to no image.
    """

    def __init__(
        self, path: Path | str, *, images: Path | str | None = None, classes: Sequence[str] | None = None,
        **options: Unpack[FormatOptions],
    ) -> None:  # fmt: skip
        path, coco = Path(path), Coco(Path(path), images)
        root, flaws, categories = coco.root, coco.flaws, coco.categories
        poses = {id: Pose(path, file_below(root, str(one["file_name"]))) for id, one in coco.pictures.items()}
        for where, entry in coco.entries():
            if not isinstance(entry, dict) or not entry.get("keypoints") or is_crowd(entry):
                continue
            if (id := str(entry.get("image_id"))) not in poses:
                coco.add_flaw(where, f"no image has the id {entry.get('image_id')}")
                continue
            pose, joints = poses[id], _joints(where, entry, categories)
            if isinstance(joints, str):
                pose.problems.append(Problem(str(path), where, joints))
            elif joints:
                pose.joints += joints
                if isinstance(bbox := entry.get("bbox"), list) and len(bbox) == 4 and all(map(_is_number, bbox)):
                    x, y, width, height = map(as_float, bbox)
                    pose.box = (x, y, x + width, y + height)
        lists = (category.get("keypoints") for category in categories.values())
        known = dict.fromkeys(str(name) for names in lists if isinstance(names, list) for name in names)
        super().__init__(root, list(poses.values()), list(classes or known), flaws=flaws, **options)


def is_coco_points(path: Path) -> bool:
    """Whether a JSON file has the words of COCO, and of its key points."""
    return is_coco(path) and b'"keypoints"' in path.read_bytes()


def _joints(where: str, entry: Mapping[str, Any], categories: Mapping[Any, Mapping[str, Any]]) -> list[Joint] | str:
    """The annotated joints of one animal, or what is wrong with them in words."""
    category, values = categories.get(str(entry.get("category_id"))), entry["keypoints"]
    if category is None:
        return f"no category has the id {entry.get('category_id')}"
    names = category.get("keypoints")
    if not isinstance(names, list) or not isinstance(values, list) or len(values) != 3 * len(names):
        count = len(values) if isinstance(values, list) else 0
        told = len(names) if isinstance(names, list) else 0
        return f"has {count} values of key points: x, y, visibility of the {told} of its category are {3 * told}"
    if odd := [value for value in values if not _is_number(value) or abs(value) > MAX_PX]:
        return f"key points hold {odd[0]!r}, not a number of pixels"
    triples = zip(names, values[::3], values[1::3], values[2::3], strict=True)
    return [Joint(where, str(name), float(x), float(y), seen == 2) for name, x, y, seen in triples if seen > 0]


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and value == value
