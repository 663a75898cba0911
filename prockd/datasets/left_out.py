"""Files in a folder that no data set reads: said, and counted, so that nobody misses them."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from prockd.datasets.problems import Problem, counted
from prockd.datasets.read import HEIC_SUFFIXES, IMAGE_SUFFIXES, is_hidden

_OTHER_SUFFIXES = {*HEIC_SUFFIXES, ".gif", ".avif", ".jp2", ".jxl", ".svg", ".psd", ".raw", ".dng", ".cr2", ".nef",
                   ".arw", ".ppm", ".pgm", ".tga", ".exr", ".hdr", ".ico", ".dcm", ".jfif"}  # fmt: skip
_INSTEAD = dict.fromkeys(HEIC_SUFFIXES, "pip install pillow-heif reads it") | {".jfif": "rename it to .jpg"}


def passed_pictures(root: Path, used: Collection[str]) -> Iterator[Problem]:
    """Pictures below a folder that are not among the paths ``used``, a note a kind: the first, and how many more.

    Files of a kind that is not read (.heic without pillow-heif) are a kind each.
    """
    kinds: dict[str, list[Path]] = {}
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not is_hidden(name))
        for name in sorted(files):
            path = Path(folder, name)
            suffix, is_used = path.suffix.lower(), os.path.normpath(path) in used
            if suffix in IMAGE_SUFFIXES | _OTHER_SUFFIXES and not is_used and not is_hidden(name) and path.exists():
                kinds.setdefault("" if suffix in IMAGE_SUFFIXES else suffix, []).append(path)
    for suffix, paths in sorted(kinds.items()):
        text = "is left out: it has no place in this layout, and no list names it"
        if suffix:
            text = f"is left out: {suffix} is not one of {' '.join(sorted(IMAGE_SUFFIXES))}"
            text += f" ({_INSTEAD[suffix]})" if suffix in _INSTEAD else ""
        more = f", and so are {counted(len(paths) - 1, 'more file')}" if len(paths) > 1 else ""
        yield Problem(str(paths[0]), "", text + more, note=True)


_EXPORTS = {
    '"imagePath"': "LabelMe's file of a picture: export them all as COCO", '"regions"': "VIA's: export it as COCO",
    '"annotations"': "no COCO file that can be read", "xmin": "boxes in a table: export them as COCO, VOC or YOLO",
}  # fmt: skip


def unread_list(file: Path) -> str:
    """What a file of labels is, and what to export instead, that lies beside pictures without any; empty for others."""
    suffix = file.suffix.lower()
    if suffix in (".tfrecord", ".parquet", ".h5", ".hdf5", ".mat", ".xlsx", ".lmdb"):
        return f"export what a {suffix} file holds as one of the layouts that prockd check-data lists"
    if suffix not in (".csv", ".tsv", ".json"):
        return ""
    with file.open("rb") as opened:
        begins = opened.read(20_000).decode(errors="replace")
    table = "" if suffix == ".json" else "an image list is a .csv in UTF-8 whose first line has the columns path,label"
    return next((told for word, told in _EXPORTS.items() if word in begins), table)


def odd_links(root: Path) -> Iterator[Problem]:
    """Links below a folder that lead nowhere (an error), or back to it (a note)."""
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for path in (Path(folder, name) for name in sorted([*names, *files])):
            if path.is_symlink() and not path.exists():
                yield Problem(str(path), "", f"is a link to {path.readlink()}, which leads nowhere")
            elif path.is_symlink() and path.is_dir() and Path(folder).resolve().is_relative_to(path.resolve()):
                yield Problem(str(path), "", f"is a link that leads back to {path.readlink()}: left out", note=True)
