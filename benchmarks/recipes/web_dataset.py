"""WebDataset: tar shards as a source of images; two workers decode, and nothing is unpacked.

    pip install 'prockd[scale]'
    python benchmarks/recipes/web_dataset.py 'photos-{00..15}.tar' --classes cow,pig --out bank.safetensors

A sample is `KEY.jpg` (or .png, .webp) and, where it has a label, `KEY.cls`, the number of its class. `TarShards` is a
data set as any other: `pk.extract` and `pk.distill` take it, and pack it once, in the order of the shards.
"""

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import webdataset as wds
from PIL import Image, ImageOps

import prockd as pk
from prockd.cache import digest

PICTURES = ("jpg", "jpeg", "png", "webp")


class TarShards:
    """Tar shards as a data set, which is read in its order: `pk.pack` does, and all else reads what that wrote."""

    def __init__(self, shards: str, classes: Sequence[str] = (), *, workers: int = 2) -> None:
        self.classes, self.shards, self.workers = tuple(classes), wds.shardlists.expand_urls(shards), workers
        self._count, dates = 0, []
        for shard in self.shards:
            with tarfile.open(shard) as opened:
                self._count += sum(member.name.lower().endswith(PICTURES) for member in opened)
            dates.append([Path(shard).stat().st_size, Path(shard).stat().st_mtime_ns])
        self.fingerprint = digest(["tar shards", self.shards, dates, self.classes])
        self._samples, self._last = self._read(), (-1, pk.Sample(np.zeros((8, 8, 3), np.uint8), pk.UNLABELLED, ""))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> pk.Sample:
        if index == 0 and self._last[0] > 0:  # from the beginning
            self._samples, self._last = self._read(), (-1, self._last[1])
        if index == self._last[0] + 1:
            self._last = index, next(self._samples)
        if index != self._last[0]:
            raise IndexError(f"image {index} is asked for after image {self._last[0]}: pk.pack(images, image_px) first")
        return self._last[1]

    def _read(self) -> Iterator[pk.Sample]:
        """All samples: workers take the shards by turns, and give their samples by turns, always alike."""
        stream = wds.WebDataset(self.shards, shardshuffle=False, nodesplitter=None, empty_check=False).map(as_sample)
        yield from wds.WebLoader(stream, batch_size=None, num_workers=min(self.workers, len(self.shards)))


def as_sample(raw: dict[str, Any]) -> pk.Sample:
    """What WebDataset read of one sample, in prockd's words."""
    picture = Image.open(io.BytesIO(next(raw[suffix] for suffix in PICTURES if suffix in raw)))
    label = int(raw["cls"]) if "cls" in raw else pk.UNLABELLED
    return pk.Sample(np.array(ImageOps.exif_transpose(picture).convert("RGB")), label, raw["__key__"])


def main(
    shards: Annotated[str, typer.Argument(help="Files, such as 'photos-{00..15}.tar'.")],
    out: Annotated[Path, typer.Option(help="File of the prototypes.")] = Path("runs/bank.safetensors"),
    classes: Annotated[str, typer.Option(help="Names in label order, commas between them.")] = "",
    teacher: Annotated[str, typer.Option(help="As of prockd extract.")] = "farmyard",
    teacher_weights: Annotated[Path | None, typer.Option(help="Local weights of the teacher.")] = None,
    num_prototypes: Annotated[int, typer.Option(help="How many.")] = 96,
) -> None:
    """Find prototypes in the images of tar shards."""
    images = TarShards(shards, [name for name in classes.split(",") if name])
    features = pk.extract_compact(pk.Teacher(teacher, weights=teacher_weights), images)
    bank = pk.discover(features, num_prototypes)
    bank.save(out)
    print(f"{features!r}\n{bank!r}\nwrote {out}")


if __name__ == "__main__":
    typer.run(main)
