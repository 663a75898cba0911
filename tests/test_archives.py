import errno
import gzip
import io
import os
import stat
import sys
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import pytest

from prockd.datasets import DatasetError, unpack
from prockd.writing import WriteError, unfinished_name


def zip_of(path: Path, members: dict[str, bytes], **attributes: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = attributes.get("mode", 0o100644) << 16
            file.writestr(info, content)
    return path


def tar_of(path: Path, *members: tuple[str, bytes, int, str]) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name, content, kind, target in members:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(content), bytes([kind]), target
            file.addfile(info, io.BytesIO(content))
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


FILES = {"photos/a b.jpg": b"one", "photos/ü/c.jpg": b"two"}


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_files_and_folders_are_unpacked(tmp_path, kind):
    archive = tmp_path / f"x.{kind}"
    if kind == "zip":
        zip_of(archive, {**FILES, "empty/": b""})
    else:
        tar_of(archive, ("./", b"", 53, ""), *((n, c, 48, "") for n, c in FILES.items()), ("empty", b"", 53, ""))
    folder = unpack(archive, tmp_path / "new" / "folder", progress=False)
    assert content(folder) == FILES
    assert (folder / "empty").is_dir()
    assert [p.name for p in folder.parent.iterdir()] == ["folder"]


def test_names_made_on_windows_become_folders(tmp_path):
    archive = zip_of(tmp_path / "x.zip", {"photos\\a.jpg": b"one"})
    assert content(unpack(archive, tmp_path / "out", progress=False)) == {"photos/a.jpg": b"one"}


@pytest.mark.parametrize(
    "name", ["../evil.txt", "a/../../evil.txt", "/etc/evil.txt", "C:\\evil.txt", "..\\evil.txt", "a/..", "\\evil.txt"]
)
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_member_that_climbs_out_is_refused_by_name_and_nothing_is_kept(tmp_path, kind, name):
    archive = tmp_path / f"x.{kind}"
    if kind == "zip":
        zip_of(archive, {"good.txt": b"good", name: b"evil"})
    else:
        tar_of(archive, ("good.txt", b"good", 48, ""), (name, b"evil", 48, ""))
    with pytest.raises(DatasetError, match=r"member '.*' would be written outside of the folder"):
        unpack(archive, tmp_path / "box" / "out", progress=False)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["box", archive.name]


@pytest.mark.parametrize(("kind", "word"), [(50, "link"), (49, "link"), (51, "device"), (54, "device")])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind, word):
    archive = tar_of(tmp_path / "x.tar.gz", ("photos", b"", kind, "/etc"), ("photos/passwd", b"evil", 48, ""))
    with pytest.raises(DatasetError, match=f"member 'photos' is a {word}: only files and folders"):
        unpack(archive, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_link_in_a_zip_is_refused(tmp_path):
    archive = zip_of(tmp_path / "x.zip", {"photos": b"/etc"}, mode=stat.S_IFLNK | 0o777)
    with pytest.raises(DatasetError, match="member 'photos' is a link"):
        unpack(archive, tmp_path / "out", progress=False)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_bomb_is_refused_by_the_sizes_it_tells(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(sys.modules["prockd.datasets.archives"], "ALWAYS_ALLOWED", 1000)
    archive, zeros = tmp_path / f"x.{kind}", bytes(2_000_000)
    if kind == "zip":
        zip_of(archive, {"zeros.bin": zeros})
    else:
        tar_of(archive, ("zeros.bin", zeros, 48, ""))
    with pytest.raises(DatasetError, match=r"member 'zeros\.bin' takes it beyond 200 times the archive's size.*bomb"):
        unpack(archive, tmp_path / "out", progress=False)


def test_a_member_is_refused_where_it_would_overwrite_another(tmp_path):
    archive = tar_of(tmp_path / "x.tar.gz", ("a.txt", b"1", 48, ""), ("A.txt", b"2", 48, ""))
    with pytest.raises(DatasetError, match=r"member 'A\.txt' is there twice"):
        unpack(archive, tmp_path / "out", progress=False)


def test_what_is_no_archive_is_broken_or_has_no_place_is_named(tmp_path):
    archive = zip_of(tmp_path / "x.zip", {"a.bin": os.urandom(5000)})
    with pytest.raises(DatasetError, match=r"y\.zip does not exist"):
        unpack(tmp_path / "y.zip", tmp_path / "out")
    with pytest.raises(DatasetError, match="is not empty: unpack into a new folder"):
        unpack(archive, tmp_path)
    (tmp_path / "note.zip").write_text("hello")
    with pytest.raises(DatasetError, match=r"note\.zip is neither a ZIP nor a TAR"):
        unpack(tmp_path / "note.zip", tmp_path / "out", progress=False)
    spoilt = bytearray(archive.read_bytes())
    spoilt[2000] ^= 255
    (tmp_path / "spoilt.zip").write_bytes(spoilt)
    with pytest.raises(DatasetError, match=r"spoilt\.zip cannot be unpacked"):
        unpack(tmp_path / "spoilt.zip", tmp_path / "out", progress=False)
    cut = tar_of(tmp_path / "x.tar.gz", ("a.bin", os.urandom(50_000), 48, ""))
    cut.write_bytes(cut.read_bytes()[:20_000])
    with pytest.raises(DatasetError, match=r"x\.tar\.gz cannot be unpacked"):
        unpack(cut, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("first", [True, False])
def test_a_tar_header_that_claims_gigabytes_is_refused_before_it_is_read(tmp_path, kind, first):
    header = tarfile.TarInfo("header")
    header.type, header.size = kind, 2**31
    good = tarfile.TarInfo("good.txt").tobuf()
    with gzip.open(tmp_path / "x.tar.gz", "wb") as file:
        file.write((b"" if first else good) + header.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(DatasetError, match=r"x\.tar\.gz cannot be unpacked .a header of 2147483648 bytes.*bomb"):
        unpack(tmp_path / "x.tar.gz", tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_told_as_such_and_what_a_killed_process_left_goes(tmp_path, monkeypatch):
    dead = tmp_path / unfinished_name().replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")
    (dead / "content").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "a")

    def fill(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(zipfile.ZipFile, "extract", fill)
        with pytest.raises(WriteError, match=r"out cannot be written: no space left .* were free\)"):
            unpack(tmp_path / "a.zip", tmp_path / "out", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_long_names_in_a_tar_are_fine(tmp_path):
    name = "/".join(["folder" * 10] * 4) + "/ä.txt"
    assert content(unpack(tar_of(tmp_path / "x.tar.gz", (name, b"one", 48, "")), tmp_path / "out")) == {name: b"one"}


def test_a_zip_member_that_holds_more_than_it_claims_never_gets_to_the_disk(tmp_path):
    archive = zip_of(tmp_path / "x.zip", {"zeros.bin": bytes(100_000)})
    broken = bytearray(archive.read_bytes())
    place = broken.index(b"PK\x01\x02") + 24  # uncompressed size in the central directory
    broken[place : place + 4] = (10).to_bytes(4, "little")
    archive.write_bytes(broken)
    with pytest.raises(DatasetError, match=r"x\.zip cannot be unpacked \(Bad CRC-32"):
        unpack(archive, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_two_spellings_of_one_name_would_be_one_file_and_are_refused(tmp_path):
    spellings = [unicodedata.normalize(form, "ü.jpg") for form in ("NFC", "NFD")]
    with pytest.raises(DatasetError, match="is there twice"):
        unpack(zip_of(tmp_path / "x.zip", dict.fromkeys(spellings, b"")), tmp_path / "out", progress=False)


def test_what_macos_adds_to_an_archive_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("pets/cat/a.txt", "__MACOSX/pets/cat/._a.txt", "pets/.DS_Store"):
            archive.writestr(name, "x")
    there = unpack(tmp_path / "a.zip", tmp_path / "a", progress=False)
    assert [p.name for p in there.rglob("*") if p.is_file()] == ["a.txt"]
