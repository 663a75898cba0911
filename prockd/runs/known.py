"""The images of a run, kept in its folder, so that it goes on with them and is scored on them, or says why not."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from prockd.datasets import PackedImages, join
from prockd.datasets.problems import listed
from prockd.runs.folder import RunFolderError
from prockd.runs.world import World
from prockd.settings.experiment import FARMYARD, NO_TEACHER, ExperimentConfig
from prockd.untrusted import TABLE, Rule, fields, list_of, read_json, reading, text, whole
from prockd.writing import write_json

_FOLDERS = ("path", "test", "unlabelled")
_FILE = "images.json"
FILE_FIELDS = {
    "folders": TABLE, "image_px": whole(8, 4096), "classes": list_of(text(), 65_536),
    "sets": Rule("a table with train and test", lambda v: isinstance(v, dict) and {"train", "test"} <= v.keys()),
}  # fmt: skip
"""What the file may say."""


@dataclass(frozen=True)
class KnownImages:
    """Which images a run learns from and is scored on.

    Attributes:
        folders: by the knob of ``[data]`` that names one: as it was given, and where that was.
        image_px: side at which they were packed.
        classes: in label order.
        sets: by "train", "test", and where there are some "unlabelled" and "source": the hash of each image by its id.
    """

    folders: Mapping[str, tuple[str, str]]
    image_px: int
    classes: tuple[str, ...]
    sets: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, world: World) -> "KnownImages":
        """Those of a world; they are packed where they are not yet."""
        data = world.config.data
        given = {name: str(getattr(data, name)) for name in _FOLDERS}
        folders = {n: (path, str(Path(path).resolve())) for n, path in given.items() if path not in ("", FARMYARD)}
        names = ["train", "test"]
        if world.is_taught:
            used = {"unlabelled": world.config.distill.unlabelled_batch, "source": True}
            names += [name for name, is_used in used.items() if is_used and name in world.sets]
        images = {name: world.images(name) for name in names}
        sets = {name: dict(zip(one.ids, one.hashes, strict=True)) for name, one in images.items()}
        return cls(folders, world.image_px, tuple(images["train"].classes), sets)

    def write(self, folder: Path) -> None:
        """Keep them in a run's folder."""
        write_json(folder / _FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "KnownImages":
        """Those of a run's folder; RunFolderError where it keeps none, or in a damaged file."""
        path = folder / _FILE
        with reading(path, "a list of the images that a run knows", RunFolderError, "begin a new run"):
            told = fields(read_json(path), FILE_FIELDS)
            folders = {name: (str(given), str(place)) for name, (given, place) in told["folders"].items()}
            sets = {n: {id: str(h) for id, h in one.items()} for n, one in told["sets"].items()}
            return cls(folders, told["image_px"], tuple(told["classes"]), sets)

    def placed(self, config: ExperimentConfig) -> ExperimentConfig:
        """The settings with folders where they were when the run began, from wherever it is used."""
        there = {
            name: place for name, (given, place) in self.folders.items()
            if getattr(config.data, name) == given and Path(place).exists() and Path(place) != Path(given).resolve()
        }  # fmt: skip
        for name, place in there.items():
            warnings.warn(f"data.{name} is {place}, where the run found it", stacklevel=2)
        return replace(config, data=config.data.replace(**there))

    def untaught(self, config: ExperimentConfig) -> ExperimentConfig:
        """The settings to score with: images are packed as they were, and no teacher's file is asked for."""
        placed = self.placed(config)
        return replace(placed, teacher=placed.teacher.replace(name=NO_TEACHER, image_px=self.image_px))

    def check(self, now: "KnownImages", folder: Path) -> None:
        """RunFolderError where a run would go on with other images; it names what changed."""
        if changed := self.changes(now):
            where = " and ".join(place for _, place in now.folders.values()) or FARMYARD
            raise RunFolderError(
                f"{where} holds other images than when {folder} was begun ({'; '.join(changed)}): put back what was "
                "there, or begin a new run in another --run-dir"
            )

    def changes(self, now: "KnownImages") -> list[str]:
        """What differs, in words."""
        told = []
        if self.classes != now.classes:
            told.append(f"classes were {', '.join(self.classes)}, are {', '.join(now.classes)}")
        if self.image_px != now.image_px:
            told.append(f"images were packed at {self.image_px} px, are at {now.image_px} px")
        for name in dict.fromkeys([*self.sets, *now.sets]):
            before, after = self.sets.get(name, {}), now.sets.get(name, {})
            own = {
                "new": [id for id in after if id not in before],
                "gone": [id for id in before if id not in after],
                "changed": [id for id in after if before.get(id, after[id]) != after[id]],
            }
            if parts := [f"{len(ids)} {what} ({listed(ids, 3)})" for what, ids in own.items() if ids]:
                told.append(f"{name}: {', '.join(parts)}")
        return told

    def to_score(self, world: World) -> PackedImages:
        """The test images of the run, by id; RunFolderError where one of them, or the classes, are others now."""
        wanted, images = self.sets["test"], world.images("test")
        if images.classes == self.classes and dict(zip(images.ids, images.hashes, strict=True)) == wanted:
            return images
        where = world.config.data.path
        if images.classes != self.classes:
            both = f"{listed(images.classes, 3)}, were {listed(self.classes, 3)}"
            raise RunFolderError(f"{where} has other classes than when the run began: {both}")
        parts = [of_ids(world.whole(name), wanted) for name in world.sets]
        found = join([part for part in parts if part is not None] or [images.select([])])
        now = dict(zip(found.ids, found.hashes, strict=True))
        if lost := [id for id in wanted if now.get(id) != wanted[id]]:
            told = f"{len(lost)} of the run's {len(wanted)} test images are gone or have changed ({listed(lost, 3)})"
            raise RunFolderError(f"{where}: {told}: put them back, or score on what is there now with --data")
        told = f"holds other images than when the run began: scored on the run's own {len(wanted)} test images"
        warnings.warn(f"{where} {told}", stacklevel=2)
        row_of = {id: row for row, id in enumerate(found.ids)}
        return found.select([row_of[id] for id in wanted])

    def warn_of_learned(self, images: PackedImages, where: str) -> None:
        """Warn where some of the images to score on are those that the student learned from."""
        learned = set(self.sets["train"].values())
        if known := [id for id, hash in zip(images.ids, images.hashes, strict=True) if hash in learned]:
            told = f"{len(known)} of these {len(images)} images ({listed(known, 3)}), which flatters its score"
            warnings.warn(f"{where}: the student learned from {told}", stacklevel=2)


def of_ids(images: PackedImages, ids: Iterable[str]) -> PackedImages | None:
    """Those of the images that have one of these ids; None where none has."""
    wanted = set(ids)
    rows = [row for row, id in enumerate(images.ids) if id in wanted]
    return images.select(rows) if rows else None
