"""Unpacking an archive that somebody else made, without trusting it."""

import re
import shutil
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
from functools import partial
from pathlib import Path

from tqdm.auto import tqdm

from prockd.datasets.problems import DatasetError
from prockd.untrusted import ALWAYS_ALLOWED, MAX_RATIO
from prockd.writing import FULL, refusal, sweep, unfinished_name

_MAX_MEMBERS = 2_000_000
_MAX_HEADER_BYTES = 2**20  # of the long names and attributes of one member of a TAR
_ZIP_KINDS = {stat.S_IFLNK: "link", stat.S_IFCHR: "device", stat.S_IFBLK: "device", stat.S_IFIFO: "pipe",
              stat.S_IFSOCK: "socket"}  # fmt: skip
_LONG_HEADERS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE,
                 tarfile.SOLARIS_XHDTYPE)  # fmt: skip


def unpack(archive: Path | str, folder: Path | str, *, progress: bool = True) -> Path:
    """Unpack a ZIP or TAR archive into a new folder; all of it, or nothing.

    Refused by name, before it is written: a member with an absolute path or one that climbs out with ``..``, a link, a
    device, a name twice, and more than 200 bytes out of each byte of the archive (above 64 MiB), 2,000,000 members, a
    megabyte of header or the room on the disk.

    Example:
        >>> import tempfile, zipfile
        >>> with tempfile.TemporaryDirectory() as home:
        ...     with zipfile.ZipFile(f"{home}/photos.zip", "w") as archive:
        ...         archive.writestr("cats/a.txt", "a cat")
        ...     (unpack(f"{home}/photos.zip", f"{home}/photos", progress=False) / "cats" / "a.txt").read_text()
        'a cat'

    Args:
        archive: .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz.
        folder: where its content goes; it must not exist, or be empty. It is returned.
        progress: show a progress bar.

    Raises:
        DatasetError: the archive is missing, broken or refused, or the folder is not empty.
        WriteError: the disk is full; nothing is left.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(f"{folder} is not empty: unpack into a new folder")
    if not archive.is_file():
        raise DatasetError(f"{archive} does not exist")
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder.parent)  # what a killed process left
    with tempfile.TemporaryDirectory(prefix=f"{unfinished_name()}-", dir=folder.parent) as beside:
        content = Path(beside, "content")
        content.mkdir()
        room = shutil.disk_usage(content).free
        try:
            _extract_all(archive, content, progress)
        except DatasetError:
            raise
        except Exception as error:  # damaged headers lead to errors of any kind
            if isinstance(error, OSError) and error.errno in FULL:
                raise refusal(folder, error, room=room) from error
            raise DatasetError(f"{archive} cannot be unpacked ({error}): get it again") from error
        if folder.exists():
            folder.rmdir()
        content.replace(folder)
    return folder


def _extract_all(archive: Path, content: Path, progress: bool) -> None:
    members = _Members(archive, content)
    bar = partial(tqdm, desc=f"unpacking {archive.name}", unit="file", disable=not progress)
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in bar(packed.infolist()):
                kind = _ZIP_KINDS.get(stat.S_IFMT(info.external_attr >> 16), "")
                kind = "file with a password" if info.flag_bits & 1 else kind
                if name := members.name_inside(info.orig_filename, info.file_size, info.is_dir(), kind):
                    info.filename = name + "/" * info.is_dir()  # with folders as Windows writes them, too
                    packed.extract(info, content)
        return

    def checked(info: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
        kind = "" if info.isfile() or info.isdir() else "link" if info.issym() or info.islnk() else "device"
        name = members.name_inside(info.name, info.size, info.isdir(), kind)
        return tarfile.data_filter(info.replace(name=name), folder) if name else None

    try:
        with tarfile.open(archive, tarinfo=_BoundedHeader) as packed_tar:
            packed_tar.extractall(str(content), bar(packed_tar), filter=checked)
    except tarfile.ReadError as error:
        if members.names:
            raise
        raise DatasetError(f"{archive} is neither a ZIP nor a TAR archive") from error


class _Members:
    """The members of an archive so far; each is refused, or gets a name in the folder."""

    def __init__(self, archive: Path, content: Path) -> None:
        self.archive, self.names, self.size = archive, set[str](), 0
        self.allowed = max(ALWAYS_ALLOWED, MAX_RATIO * archive.stat().st_size)
        self.room = shutil.disk_usage(content).free

    def name_inside(self, name: str, size: int, is_folder: bool, refused_kind: str) -> str:
        """The path of a member below the folder, with ``/``, empty for the folder itself; or a DatasetError."""
        label = f"{self.archive}: member {name!r}"
        if refused_kind:
            raise DatasetError(f"{label} is a {refused_kind}: only files and folders are unpacked")
        parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
        if "__MACOSX" in parts[:1] or parts[-1:] == [".DS_Store"]:
            return ""  # what macOS adds of its own
        absolute = name[:1] in ("/", "\\") or (parts and ":" in parts[0])  # in the manner of any system
        if absolute or ".." in parts or "\0" in name or not (parts or is_folder):
            raise DatasetError(f"{label} would be written outside of the folder: do not trust this archive")
        # Some file systems take A.jpg and a.jpg, or two spellings of ü, for one file, which the second would replace.
        key = unicodedata.normalize("NFC", "/".join(parts)).casefold()
        if key in self.names and not is_folder:
            raise DatasetError(f"{label} is there twice")
        self.names.add(key)
        self.size += size
        if len(self.names) > _MAX_MEMBERS:
            raise DatasetError(f"{self.archive} has more than {_MAX_MEMBERS} members")
        if self.size > self.allowed:
            raise DatasetError(f"{label} takes it beyond {MAX_RATIO} times the archive's size: it looks like a bomb")
        if self.size > self.room:
            raise DatasetError(f"{label}: disk full, {self.room} bytes are free and {self.size} are needed already")
        return "/".join(parts)


class _BoundedHeader(tarfile.TarInfo):
    """A header of a TAR: tarfile reads long ones into memory whole, so that one that claims gigabytes must not pass."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_BoundedHeader":
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0:  # tarfile would seek back, and read the same member again for ever
            raise tarfile.TarError(f"a member of {header.size} bytes")
        if header.type in _LONG_HEADERS and header.size > _MAX_HEADER_BYTES:
            raise tarfile.TarError(f"a header of {header.size} bytes: it looks like a bomb")
        return header
