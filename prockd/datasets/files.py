"""What the formats that lie in files share: reading one sample, and telling everything that is wrong with it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int64

from prockd._types import UNLABELLED, Sample
from prockd.cache import digest
from prockd.datasets._common import WHAT_TO_DO, DatasetError, Problem, named, refuse
from prockd.datasets.read import read_image


class FileDataset:
    """Images in files as a data set; a format adds what it knows in ``_known``.

    No image is decoded before it is asked for. A sample that cannot be used raises when it is asked for; ``read`` tells
    all its problems instead.

    Attributes:
        root: the folder that ids are relative to.
        paths: M image files.
        ids: M unique names: the paths below ``root``, with ``/``.
        labels: (M,) class indices, or ``UNLABELLED``.
        groups: M names, equal for images that are near copies of each other (frames of a video); None if not known.
        flaws: entries that are no sample at all, and are left out (``on_bad="skip"``).
        fingerprint: changes with the names, sizes and times of change of all files, and with the arguments.
    """

    task: ClassVar[str] = "classification"

    def __init__(
        self,
        root: Path,
        paths: Sequence[Path],
        classes: Sequence[str],
        *,
        labels: Sequence[int] | None = None,
        groups: Sequence[str] | None = None,
        group: str | None = None,
        annotations: Sequence[Path] = (),
        key: object = None,
        flaws: Sequence[Problem] = (),
        on_bad: str = "refuse",
    ) -> None:
        refuse(flaws, str(root), on_bad)
        self.root, self.paths, self.flaws, self._classes = root, tuple(paths), tuple(flaws), tuple(classes)
        if not self.paths:
            raise DatasetError(f"{root} holds no images that can be used{_first(flaws)}")
        self.ids = tuple(_name(path, root) for path in self.paths)
        self.labels = np.array([UNLABELLED] * len(self.paths) if labels is None else labels, np.int64)
        known = None if groups is None else tuple(groups)
        self.groups = known if group is None else match_groups(self.ids, group)
        dates = [_date(path) for path in (*self.paths, *annotations)]
        self.fingerprint = digest([type(self).__name__, self._classes, self.labels.tolist(), self.ids, dates, key])

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self._classes

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        sample, problems = self.read(index)
        errors = [problem for problem in problems if not problem.note]
        if sample is None or errors:
            more = f" (and {len(errors) - 1} more problems of this image)" if len(errors) > 1 else ""
            raise DatasetError(f"{errors[0]}{more}. {WHAT_TO_DO}")
        return sample

    def read(self, index: int) -> tuple[Sample | None, list[Problem]]:
        """Return a sample, None when it cannot be made, and everything that is wrong with it."""
        path, image = self.paths[index], None
        problems = []
        try:
            image = read_image(path)
        except DatasetError as error:
            problems.append(Problem(str(path), "", str(error).removeprefix(f"{path} ")))
        known, more = self._known(index, None if image is None else image.shape[:2])
        problems += more
        if image is None or any(not problem.note for problem in problems):
            return None, problems
        return Sample(image, int(self.labels[index]), self.ids[index], **known), problems

    def _known(self, index: int, size: tuple[int, ...] | None) -> tuple[Mapping[str, Any], list[Problem]]:
        """The other fields of a sample whose image has height and width ``size``, and what is wrong with them."""
        return {}, []

    def _facts(self) -> str:
        """What the repr says beside the counts of images and classes."""
        return ""

    def __repr__(self) -> str:
        groups = f", {len(set(self.groups))} groups" if self.groups else ""
        left_out = (
            f", {len(self.flaws)} bad entr{'y' if len(self.flaws) == 1 else 'ies'} left out" if self.flaws else ""
        )
        counted = f"{len(self)} images, {named(self.classes)}{self._facts()}{groups}{left_out}"
        return f"{type(self).__name__}({str(self.root)!r}: {counted})"


def match_groups(ids: Sequence[str], pattern: str) -> tuple[str, ...]:
    """The group of each id: what the regular expression finds in it, or its first bracket where it has one.

    Raises:
        DatasetError: nothing is found in an id.
    """
    found = [re.search(pattern, id) for id in ids]
    for id, match in zip(ids, found, strict=True):
        if match is None:
            raise DatasetError(f"group={pattern!r} finds nothing in {id!r}: every image needs a group")
    return tuple(match[1] if match.re.groups else match[0] for match in found if match)


def numbers_of(names: Sequence[str], classes: Sequence[str]) -> Int64[np.ndarray, " M"]:
    """Label of each name; the empty name is unlabelled."""
    index = {name: label for label, name in enumerate(classes)}
    return np.array([index[name] if name else UNLABELLED for name in names], np.int64)


def pair_by_stem(
    images: Sequence[Path], images_root: Path, others: Sequence[Path], others_root: Path, what: str
) -> tuple[list[tuple[Path, Path]], list[Problem]]:
    """Each image with the file of the same path and stem below another folder, and what is left over.

    Stems may end in ``_mask``, ``_seg``, ``_label`` or ``_gt`` where the image's do not.
    """
    by_stem: dict[str, Path] = {}
    pairs, flaws = [], []
    for other in others:
        stem = re.sub(r"[_-](mask|seg|label|gt)$", "", _stem(other, others_root))
        if stem in by_stem:
            flaws.append(Problem(str(other), "", f"a second {what} of that name, beside {by_stem[stem].name}"))
        by_stem.setdefault(stem, other)
    free = dict(by_stem)
    for image in images:
        stem = _stem(image, images_root)
        key = stem if stem in by_stem else re.sub(r"[_-](img|image|rgb)$", "", stem)
        if key in by_stem:
            pairs.append((image, by_stem[key]))
            free.pop(key, None)
        else:
            flaws.append(Problem(str(image), "", f"no {what}: looked for {Path(others_root, stem)}.*"))
    flaws += [
        Problem(str(path), "", f"{what} without an image: looked for {Path(images_root, s)}.*")
        for s, path in free.items()
    ]
    return pairs, flaws


def _stem(path: Path, root: Path) -> str:
    return path.relative_to(root).with_suffix("").as_posix()


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _date(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def _first(flaws: Sequence[Problem]) -> str:
    return f": {flaws[0]}" if flaws else ""
