"""Pictures with the joints of the one animal in each: what key points learn, here from tables in the house's form."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from prockd._types import UNLABELLED
from prockd.datasets.files import FileDataset, FormatOptions, sub_folders
from prockd.datasets.keypoints import is_keypoints, missing_picture, parse_keypoints, place_of
from prockd.datasets.problems import Problem, box_flaw, listed


@dataclass(frozen=True)
class Joint:
    """One joint as its file has it; nothing is checked yet."""

    entry: str  # where it is in the file
    name: str
    x: float  # in pixels of the picture
    y: float
    visible: bool = True


@dataclass
class Pose:
    """What a file has about one picture."""

    file: Path
    picture: Path
    joints: list[Joint] = field(default_factory=list)
    box: tuple[float, float, float, float] | None = None  # x0, y0, x1, y1 of the animal in pixels
    group: str = ""  # what the picture belongs to, such as a video
    problems: list[Problem] = field(default_factory=list)  # what could not be read


class PoseDataset(FileDataset):
    """Pictures with joints, whatever the file they come from; those without any are not among them.

    Joints that are not among ``classes`` are left out, so that a test set may have more of them than the training set.

    The joints in order are the classes; a DatasetError where there are no pictures or (with ``"refuse"``) are flaws.
    """

    task = "keypoints"

    def __init__(self, root: Path, poses: Sequence[Pose], joints: Sequence[str], **options: Any) -> None:
        known, self.poses = set(joints), tuple(pose for pose in poses if pose.joints or pose.problems)
        names = [joint.name for pose in self.poses for joint in pose.joints]
        beyond = sorted(set(names) - known)
        more = f", {listed(beyond)} left out" if beyond else ""
        self.facts = f", {sum(name in known for name in names)} joints{more}"
        groups = [pose.group for pose in self.poses]
        files = list(dict.fromkeys(pose.file for pose in self.poses))
        super().__init__(
            root, [pose.picture for pose in self.poses], joints, annotations=files,
            groups=groups if len(set(groups)) > 1 else None, **options,
        )  # fmt: skip

    def _annotation(self, index: int, size: tuple[int, ...] | None) -> tuple[Mapping[str, Any], list[Problem]]:
        pose, joints = self.poses[index], np.zeros((len(self.classes), 3), np.float32)
        file, problems, first = str(pose.file), list(pose.problems), dict[str, Joint]()
        for joint in pose.joints:
            if joint.name not in self.classes:
                continue
            if flaw := _joint_flaw(joint, first.setdefault(joint.name, joint), size):
                problems.append(Problem(file, joint.entry, f"{flaw} ({self.ids[index]})"))
            joints[self.classes.index(joint.name)] = joint.x, joint.y, joint.visible
        if pose.box is not None and (flaw := box_flaw(pose.box, size)):
            problems.append(Problem(file, "", f"{flaw} ({self.ids[index]})"))
        if problems or size is None:
            return {}, problems
        if not joints[:, 2].any():
            problems.append(Problem(str(self.paths[index]), "", "no joint is visible", note=True))
        fields: dict[str, Any] = {"joints": joints}
        if all(pose.box is not None for pose in self.poses):
            fields |= {"boxes": np.array([pose.box], np.float32), "box_labels": np.array([UNLABELLED])}
        return fields, problems


def _joint_flaw(joint: Joint, first: Joint, size: tuple[int, ...] | None) -> str:
    """What is wrong with a joint in words, or nothing."""
    if first is not joint:
        before = f", first in {first.entry}" if first.entry != joint.entry else ""
        return f"{joint.name} is there twice{before}: each joint needs a name of its own, and each animal a picture"
    if joint.visible and size is not None:
        H, W = size
        if not (0 <= joint.x <= W and 0 <= joint.y <= H):
            return f"{joint.name} at {joint.x:g}, {joint.y:g} is outside of its image of {W} x {H} px"
    return ""


class PointTable(PoseDataset):
    """Pictures and the CSV file that has their joints, as :func:`~prockd.datasets.read_keypoints` reads it.

    A joint is named by its part, and by its number where the file tells one ("leg 8"). A picture lies in the folder of
    the file, or in ``frames`` or ``images`` there. A picture without a line is not among the samples: it is unlabelled.

    Args:
        path: the CSV file, a folder with one, or a folder of such folders, each a group (a video each).
        classes: names of the joints in order; None for those of the files.
        options: ``group`` and ``on_bad``, see :class:`~prockd.datasets.files.FormatOptions`.

    Raises:
        DatasetError: a file cannot be read, or (with ``"refuse"``) a line has no number where one belongs, or a picture
            is missing.
    """

    def __init__(
        self, path: Path | str, *, classes: Sequence[str] | None = None, **options: Unpack[FormatOptions]
    ) -> None:
        path = Path(path)
        poses, flaws, names = list[Pose](), list[Problem](), set[tuple[int, str]]()
        for table in tables_in(path, is_keypoints):
            annotations, problems = parse_keypoints(table)
            flaws += problems
            for frame, points in annotations.images.items():
                entry = f"frame {frame}"
                if (picture := place_of(table, frame)) is None:
                    flaws.append(missing_picture(table, entry, frame))
                    continue
                pose = Pose(table, picture, group=table.parent.name)
                columns = (column.tolist() for column in (points.xy, points.part, points.joint, points.visible))
                for (x, y), part, joint, seen in zip(*columns, strict=True):
                    name = annotations.parts[part] + (f" {joint}" if joint >= 0 else "")
                    names.add((joint, name))
                    pose.joints.append(Joint(entry, name, x, y, seen))
                poses.append(pose)
        joints = [name for _, name in sorted(names)] if classes is None else list(classes)
        super().__init__(path if path.is_dir() else path.parent, poses, joints, flaws=flaws, **options)


def tables_in(path: Path, matches: Callable[[Path], bool]) -> list[Path]:
    """The CSV file itself, those in a folder, or else those in its sub-folders."""
    if path.is_file():
        return [path] if matches(path) else []
    places = [path], sub_folders(path) if path.is_dir() else []
    found = ([t for place in level for t in sorted(place.glob("*.csv")) if matches(t)] for level in places)
    return next((tables for tables in found if tables), [])


def has_point_tables(path: Path) -> bool:
    """Whether a folder, or each of some folders in it, has a table of key points."""
    return bool(tables_in(path, is_keypoints))
