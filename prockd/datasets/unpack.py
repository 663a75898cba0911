"""Unpacking an archive that somebody else made, without trusting it."""

import lzma
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tqdm.auto import tqdm

from prockd.datasets._common import DatasetError

MAX_RATIO = 200
"""Bytes that may come out of one byte of an archive; photographs and masks stay far below."""

MAX_MEMBERS = 2_000_000

_SMALL = 64 * 2**20  # an archive may always grow to this
_CHUNK = 2**20
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError,
           NotImplementedError)  # fmt: skip


@dataclass(frozen=True)
class _Member:
    """One entry of an archive; ``odd`` says what it is when it is neither file nor folder."""

    name: str
    size: int
    is_folder: bool
    odd: str
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path | str, folder: Path | str, *, progress: bool = True) -> Path:
    """Unpack a ZIP or TAR archive into a new folder; all of it, or nothing.

    Refused by name, before it is written: a member with an absolute path or one that climbs out with ``..``, a link, a
    device, a name twice, and more than 200 bytes out of each byte of the archive (above 64 MiB), 2,000,000 members or
    the room on the disk.

    Args:
        archive: .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz.
        folder: where its content goes; it must not exist, or be empty.
        progress: show a progress bar.

    Returns:
        The folder.

    Raises:
        DatasetError: the archive is missing, broken or refused, or the folder is not empty.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(f"{folder} is not empty: unpack into a new folder")
    if not archive.is_file():
        raise DatasetError(f"{archive} does not exist")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as made:
        inside = Path(made, "content")
        inside.mkdir()
        try:
            _write_all(archive, inside, progress)
        except DatasetError:
            raise
        except _BROKEN as error:
            raise DatasetError(f"{archive} cannot be unpacked ({error}): get it again") from error
        if folder.exists():
            folder.rmdir()
        inside.replace(folder)
    return folder


def _write_all(archive: Path, inside: Path, progress: bool) -> None:
    allowed = max(_SMALL, MAX_RATIO * archive.stat().st_size)
    room = shutil.disk_usage(inside).free
    written, seen = 0, set[str]()
    for member in tqdm(_members(archive), desc=f"unpacking {archive.name}", unit="file", disable=not progress):
        told = f"{archive}: member {member.name!r}"
        if member.odd:
            raise DatasetError(f"{told} is a {member.odd}: only files and folders are unpacked")
        if member.is_folder and not _parts(member.name) and not member.name.startswith("/"):
            continue  # "./", the folder itself
        if not _stays_inside(member.name):
            raise DatasetError(f"{told} would be written outside of the folder: do not trust this archive")
        target = inside.joinpath(*_parts(member.name))
        key = os.path.normcase(target).casefold()
        if key in seen and not member.is_folder:
            raise DatasetError(f"{told} is there twice")
        seen.add(key)
        if len(seen) > MAX_MEMBERS:
            raise DatasetError(f"{archive} has more than {MAX_MEMBERS} members")
        written += member.size
        if written > allowed:
            raise DatasetError(
                f"{told} takes it beyond {MAX_RATIO} times the size of the archive: it looks like a bomb"
            )
        if written > room:
            raise DatasetError(f"{told} takes it beyond the {room} bytes that are free in {inside.parent.parent}")
        if member.is_folder:
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(member, target, told)


def _write(member: _Member, target: Path, told: str) -> None:
    source = member.open()
    if source is None:
        raise DatasetError(f"{told} holds nothing that can be read")
    left = member.size
    with source, target.open("xb") as file:
        while chunk := source.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise DatasetError(f"{told} holds more than the {member.size} bytes it claims: it looks like a bomb")
            file.write(chunk)


def _members(archive: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                yield _of_zip(packed, info)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as packed_tar:
            for member in packed_tar:
                yield _of_tar(packed_tar, member)
    else:
        raise DatasetError(f"{archive} is neither a ZIP nor a TAR archive")


def _of_zip(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = (info.external_attr >> 16) & 0o170000
    odd = {0o120000: "link", 0o020000: "device", 0o060000: "device", 0o010000: "pipe", 0o140000: "socket"}.get(kind, "")
    if info.flag_bits & 1:
        odd = "file with a password"
    return _Member(info.orig_filename, info.file_size, info.is_dir(), odd, lambda: packed.open(info))


def _of_tar(packed: tarfile.TarFile, member: tarfile.TarInfo) -> _Member:
    odd = ""
    if not (member.isfile() or member.isdir()):
        odd = "link" if member.issym() or member.islnk() else "device"
    return _Member(member.name, member.size, member.isdir(), odd, lambda: packed.extractfile(member))


def _stays_inside(name: str) -> bool:
    """No absolute path, no drive, no ``..``, in the manner of any system."""
    parts = _parts(name)
    return bool(parts) and name[0] not in "/\\" and ":" not in parts[0] and ".." not in parts and "\0" not in name


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
