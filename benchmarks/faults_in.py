"""Files to be damaged for faults.py: how a good one of each kind is made, how it is read, and what must then hold."""

import gzip
import io
import json
import random
import shutil
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from prockd_widgets.settings import Settings, method_of, start_config
from prockd_widgets.tries import read_try

import prockd as pk
from prockd.cache import cached_arrays
from prockd.datasets import open_splits, unpack
from prockd.datasets.problems import sample_problems
from prockd.runs.compare import begin
from prockd.runs.folder import begun_precision, versions
from prockd.runs.known import KnownImages
from prockd.runs.plan import read_plan
from prockd.settings.experiment import ExperimentConfig
from prockd.settings.toml import read_config, write_config
from prockd.students.student import Student
from prockd.teachers.teacher import Teacher
from prockd.teachers.weights import create_backbone
from prockd.training.adaptation import write_teacher
from prockd.training.checkpoint import load_checkpoint, save_checkpoint
from prockd.writing import write_json

TINY: dict[str, Any] = {"channels": (8, 16, 24, 32), "stem_width": 8}
ENTRY = {"faults": 1}


class SilentError(Exception):
    """A broken rule was believed."""


@dataclass(frozen=True)
class Reader:
    """A kind of file: how a good one is made, and how it is read."""

    make: Callable[[Path], Path]  # the file to be damaged
    read: Callable[[Path], object]
    whole: bool = False  # the folder is read, not the file


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (24, 32), **how: Any) -> None:
    """A small picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path, **how)


def photographs(root: Path) -> None:
    for m in range(3):
        picture(root / f"{m}.png", m)


def make_pictures(root: Path, suffix: str) -> Path:
    for m in range(4):
        picture(root / "ab"[m % 2] / f"{m}{suffix}", m)
    return root / "a" / f"0{suffix}"


def make_masks(root: Path, colours: bool = False) -> Path:
    for m in range(3):
        picture(root / "images" / f"{m}.png", m)
        mask = Image.fromarray(np.random.default_rng(m).integers(0, 3, (24, 32)).astype(np.uint8))
        if colours:
            mask.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
        (root / "masks").mkdir(exist_ok=True)
        mask.save(root / "masks" / f"{m}.png")
    (root / "classes.txt").write_text("ground\nanimal\nsky\n")
    return root / "masks" / "0.png"


def make_coco(root: Path, points: bool = False) -> Path:
    photographs(root)
    images = [{"id": m, "file_name": f"{m}.png", "width": 32, "height": 24} for m in range(3)]
    more = {"keypoints": [3, 4, 2, 9, 8, 1], "num_keypoints": 2} if points else {}
    box = {"category_id": 1, "bbox": [2, 3, 10, 12], "area": 120, "iscrowd": 0}
    boxes = [{"id": m, "image_id": m, **box, **more} for m in range(3)]
    cow = {"id": 1, "name": "cow"} | ({"keypoints": ["eye", "tail"]} if points else {})
    path = root / ("person_keypoints.json" if points else "instances.json")
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": [cow]}))
    return path


def make_voc(root: Path) -> Path:
    (root / "annotations").mkdir()
    for m in range(3):
        picture(root / "images" / f"{m}.png", m)
        (root / "annotations" / f"{m}.xml").write_text(
            f"<annotation><filename>{m}.png</filename><size><width>32</width><height>24</height><depth>3</depth></size>"
            "<object><name>cow</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>12</xmax><ymax>15</ymax></bndbox>"
            "</object></annotation>"
        )
    return root / "annotations" / "0.xml"


def make_texts(root: Path, name: str) -> Path:
    for m in range(3):
        picture(root / "images" / f"{m}.png", m)
        (root / "labels").mkdir(exist_ok=True)
        (root / "labels" / f"{m}.txt").write_text("1 0.5 0.5 0.25 0.5\n0 0.1 0.1 0.5 0.1 0.5 0.9\n")
    (root / "data.yaml").write_text("names: [cow, hen]\nnc: 2\n")
    return root / name


def make_cvat(root: Path) -> Path:
    photographs(root / "images")
    shape = (
        '<box label="cow" xtl="1" ytl="2" xbr="9" ybr="11"></box><polygon label="cow" points="1,2;9,2;9,11"></polygon>'
    )
    images = "".join(f'<image id="{m}" name="{m}.png" width="32" height="24">{shape}</image>' for m in range(3))
    label = "<meta><task><labels><label><name>cow</name></label></labels></task></meta>"
    (root / "annotations.xml").write_text(f"<annotations>{label}{images}</annotations>")
    return root / "annotations.xml"


def make_coloured(root: Path, name: str) -> Path:
    colours = np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0]], np.uint8)
    for m in range(3):
        picture(root / "images" / f"{m}.png", m)
        (root / "masks").mkdir(exist_ok=True)
        values = np.random.default_rng(m).integers(0, 3, (24, 32))
        Image.fromarray(colours[values]).save(root / "masks" / f"{m}.png")
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nground:0,0,0::\ncow:200,0,0::\nsky:0,200,0::\n"
    )
    return root / name


def make_table(root: Path, name: str, text: str) -> Path:
    photographs(root)
    (root / name).write_text(text)
    return root / name


def make_npz(root: Path) -> Path:
    np.savez(root / "data.npz", images=np.zeros((4, 24, 32, 3), np.uint8), labels=[0, 1, 0, 1], class_names=["a", "b"])
    return root / "data.npz"


def make_archive(root: Path, form: str) -> Path:
    make_pictures(root / "photos", ".png")
    path = shutil.make_archive(str(root / "photos"), form, root / "photos")
    shutil.rmtree(root / "photos")
    return Path(path)


def tiny_bank() -> pk.PrototypeBank:
    torch.manual_seed(0)
    return pk.PrototypeBank(4, 56, 8)


def tiny_student(kind: str = "classification") -> Student:
    task = {"classification": pk.tasks.Classification(2, ("a", "b")), "keypoints": pk.tasks.KeyPoints(2, width=8),
            "segmentation": pk.tasks.Segmentation(2, width=8)}[kind]  # fmt: skip
    plus = pk.FeatureAugmentationConfig(content="attention")
    return Student("resnet10t", task, tiny_bank(), feature_augmentation=plus, image_px=32, **TINY)


def make_teacher(root: Path) -> Path:
    card = {"architecture": "resnet10t", "timm_kwargs": TINY, "layers": [2, 3], "image_px": 32, "mean": [0.5] * 3,
            "std": [0.5] * 3}  # fmt: skip
    path = root / "teacher.safetensors"
    write_teacher(path, create_backbone("resnet10t", **TINY), tiny_bank(), card, overwrite=True)
    return path


def make_weights(root: Path) -> Path:
    torch.save(create_backbone("resnet10t", **TINY).state_dict(), root / "weights.pth")
    return root / "weights.pth"


def make_try(root: Path) -> Path:
    settings = asdict(Settings("best", *method_of(start_config("best")), labels_per_class=10))
    told = {"number": 1, "settings": settings, "plain": 0.5, "augmented": None, "seconds": 3.0, "scored_on": "abc",
            "resumed": 0, "step": 5, "stopped": False, "rows": [{"step": 0.0, "loss": 2.0}]}  # fmt: skip
    (root / "try.json").write_text(json.dumps(told))
    return root / "try.json"


def make_known(root: Path) -> Path:
    sets = {"train": {"a/0.png": "0f" * 8}, "test": {"b/1.png": "1f" * 8}}
    KnownImages({"path": ("photos", "/data/photos")}, 32, ("a", "b"), sets).write(root)
    return root / "images.json"


def make_versions(root: Path) -> Path:
    return write_json(root / "versions.json", {"seed": 0, "precision": "fp32", **versions()})


CONTEST = '[compare]\narms = ["labels alone"]\nseeds = 1\nrates = [1e-3]\n[teacher]\nname = "none"\n'


def make_contest(root: Path) -> Path:
    (root / "contest.toml").write_text(CONTEST)
    begin(read_plan(root / "contest.toml"), root)
    return root / "settings.json"


def make_checkpoint(root: Path) -> Path:
    save_checkpoint(root, {"model": torch.nn.Linear(4, 3)}, {"steps": 9}, [{"step": 0.0, "loss": 1.0}], 1)
    return root / "checkpoint.pt"


def build_entry(writer: Any) -> dict[str, object]:
    writer.create("pixels", (50, 3, 8, 8), np.uint8)[:] = np.arange(192).reshape(3, 8, 8) % 251
    return {"made": "by faults"}


def make_entry(root: Path, name: str) -> Path:
    cached_arrays("images", ENTRY, build_entry, root=root)
    return next(root.glob(f"*/*/{name}"))


def read_entry(path: Path) -> None:
    arrays, meta = cached_arrays("images", ENTRY, build_entry, root=path.parent.parent.parent)
    if meta != {"made": "by faults"} or not (arrays["pixels"] == np.arange(192).reshape(3, 8, 8) % 251).all():
        raise SilentError("a damaged cache entry is believed")


def read_data(path: Path, task: str | None = None) -> None:
    """Open as a person would, read every sample, and see that each keeps the rules."""
    for dataset in open_splits(path, task=task).values():
        for m in range(len(dataset)):
            sample = dataset[m]
            if problem := next(sample_problems(sample, len(dataset.classes), sample.id), None):
                raise SilentError(str(problem))


def finite(module: torch.nn.Module) -> None:
    if not all(value.isfinite().all() for value in module.state_dict().values() if value.is_floating_point()):
        raise SilentError("values that are not finite are believed")


def read_student(path: Path) -> None:
    student = Student.load(path)
    finite(student)
    with torch.no_grad():
        student(torch.rand(1, 3, student.image_px, student.image_px))


def read_teacher(path: Path, **how: Any) -> None:
    teacher = Teacher("resnet10t", weights=path, **how) if how else Teacher(str(path))
    finite(teacher)
    if len(teacher(torch.rand(1, 3, teacher.image_px, teacher.image_px))) != len(teacher.layers):
        raise SilentError("a teacher gives other maps than it says")


def read_bank(path: Path) -> None:
    bank = pk.PrototypeBank.load(path)
    finite(bank)
    if not bank.enabled.any() or not ((bank.merged >= 0) & (bank.merged < bank.num_prototypes)).all():
        raise SilentError("prototypes all disabled, or merged into none")
    if not bank.assign(torch.rand(1, 3, bank.embed_dim)).sum().isclose(torch.tensor(3.0)):
        raise SilentError("assignments do not sum to 1")


def read_checkpoint(path: Path) -> None:
    model = torch.nn.Linear(4, 3)
    _, step = load_checkpoint(path.parent, {"model": model}, {"steps": 9})
    finite(model)
    if not 0 <= step <= 9:
        raise SilentError(f"step {step} of 9 is believed")


def read_trial(path: Path) -> None:
    if not read_try(path).row()["steps"]:
        raise SilentError("a try without steps")


def read_known(path: Path) -> None:
    known = KnownImages.read(path.parent)
    if known.image_px < 8 or not {"train", "test"} <= set(known.sets):
        raise SilentError(f"images of {known.image_px} px are believed")


def read_archive(path: Path) -> None:
    folder = unpack(path, path.parent / "out", progress=False)
    for inside in folder.rglob("*"):
        if not inside.resolve().is_relative_to(folder.resolve()):
            raise SilentError(f"{inside} is outside of the folder")


def data_reader(make: Callable[[Path], Path], task: str | None = None, *, whole: bool = True) -> Reader:
    return Reader(make, lambda path: read_data(path, task), whole)


def table_reader(name: str, text: str, task: str | None = None) -> Reader:
    return data_reader(lambda root: make_table(root, name, text), task, whole=False)


def student_reader(kind: str) -> Reader:
    return Reader(lambda root: tiny_student(kind).save(root / "student.safetensors"), read_student)


LABELS = "path,label,group\n0.png,a,x\n1.png,b,y\n2.png,a,x\n"
TAGS = "path,labels\n0.png,a|b\n1.png,\n2.png,a\n"
POINTS = "frame,joint_id,part,x_px,y_px,visible\n0.png,1,eye,3,4,1\n1.png,1,eye,5,6,0\n2.png,1,eye,7,8,1\n"
LABCUT = "scorer,a,a\nbodyparts,eye,eye\ncoords,x,y\n0.png,3,4\n1.png,5,6\n2.png,7,8\n"
READERS = {
    "picture png": data_reader(lambda root: make_pictures(root, ".png")),
    "picture jpg": data_reader(lambda root: make_pictures(root, ".jpg")),
    "picture webp": data_reader(lambda root: make_pictures(root, ".webp")),
    "picture tif": data_reader(lambda root: make_pictures(root, ".tif")),
    "picture bmp": data_reader(lambda root: make_pictures(root, ".bmp")),
    "picture gif": data_reader(lambda root: make_pictures(root, ".gif")),
    "mask": data_reader(make_masks, "segmentation"),
    "mask in colours": data_reader(lambda root: make_masks(root, colours=True), "segmentation"),
    "COCO": data_reader(make_coco, "detection", whole=False),
    "COCO key points": data_reader(lambda root: make_coco(root, points=True), "keypoints", whole=False),
    "VOC": data_reader(make_voc, "detection"),
    "CVAT": data_reader(make_cvat, "detection", whole=False),
    "YOLO label": data_reader(lambda root: make_texts(root, "labels/0.txt"), "detection"),
    "YOLO data.yaml": data_reader(lambda root: make_texts(root, "data.yaml"), "detection"),
    "labelmap.txt": data_reader(lambda root: make_coloured(root, "labelmap.txt"), "segmentation"),
    "mask of labelmap": data_reader(lambda root: make_coloured(root, "masks/0.png"), "segmentation"),
    "image list": table_reader("labels.csv", LABELS),
    "tags": table_reader("labels.csv", TAGS),
    "key points": table_reader("parts.csv", POINTS, "keypoints"),
    "DeepLabCut": table_reader("CollectedData_a.csv", LABCUT, "keypoints"),
    "NPZ": data_reader(make_npz, whole=False),
    "ZIP": Reader(lambda root: make_archive(root, "zip"), read_archive),
    "TAR": Reader(lambda root: make_archive(root, "gztar"), read_archive),
    "settings": Reader(lambda root: (write_config(ExperimentConfig(), root / "config.toml"), root / "config.toml")[1],
                       read_config),
    "contest": Reader(lambda root: make_contest(root).with_name("contest.toml"), read_plan),
    "contest: settings.json": Reader(
        make_contest, lambda path: begin(read_plan(path.with_name("contest.toml")), path.parent)
    ),
    "run: images.json": Reader(make_known, read_known),
    "run: versions.json": Reader(make_versions, lambda path: begun_precision(path.parent)),
    "student": student_reader("classification"),
    "student of masks": student_reader("segmentation"),
    "student of key points": student_reader("keypoints"),
    "bank": Reader(lambda root: (tiny_bank().save(root / "bank.safetensors"), root / "bank.safetensors")[1], read_bank),
    "teacher": Reader(make_teacher, read_teacher),
    "weights of a teacher": Reader(make_weights, lambda path: read_teacher(path, image_px=32, **TINY)),
    "try.json": Reader(make_try, read_trial),
    "checkpoint": Reader(make_checkpoint, read_checkpoint),
    "cache: array": Reader(lambda root: make_entry(root, "pixels.npy"), read_entry),
    "cache: meta.json": Reader(lambda root: make_entry(root, "meta.json"), read_entry),
}  # fmt: skip


# Damages: each takes the bytes, a place and a size

NUMBERS = ("-1", "0", "1e309", "NaN", "99999999999999999999", "1099511627776", "null", "[]", '""', "true", "2.5")
WORDS = ("../../up", "/etc/passwd", "hf-hub:a/b", "https://a.b/c.pth", "", "\0", "x" * 300, "nan", "a\nb", "=1+1", "é")
DEEP = (b"[" * 3000, b"{" * 3000, b'"', b"\xff", b",", b"../../", b"\r\n", b"<a>" * 2000)


def runs_of(data: bytes, inside: Callable[[int], bool]) -> list[tuple[int, int]]:
    """Where bytes of a kind stand together, in the first thousands, which also headers lie in."""
    found, begin = [], None
    for m in range(min(len(data), 6000) + 1):
        if m < min(len(data), 6000) and inside(data[m]):
            begin = m if begin is None else begin
        elif begin is not None:
            found.append((begin, m))
            begin = None
    return found


def other_token(data: bytes, rng: random.Random, inside: Callable[[int], bool], others: tuple[str, ...]) -> bytes:
    if not (found := runs_of(data, inside)):
        return data[: rng.randrange(len(data) + 1)]
    begin, end = rng.choice(found)
    return data[:begin] + rng.choice(others).encode() + data[end:]


def inner(data: bytes, rng: random.Random) -> bytes:
    """Damage what lies inside of a packed file, and make its lengths and checksums fit again."""
    with suppress(zipfile.BadZipFile, OSError, struct.error, EOFError, zlib.error, ValueError):
        if data[:2] == b"PK":
            whole, made = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
            hurt = rng.choice(whole.namelist())
            with zipfile.ZipFile(made, "w") as new:
                for name in whole.namelist():
                    new.writestr(name, simple(whole.read(name), rng) if name == hurt else whole.read(name))
            return made.getvalue()
        if data[:2] == b"\x1f\x8b":
            return gzip.compress(simple(gzip.decompress(data), rng), 1)
        if data[:4] == b"\x89PNG":
            place, chunks = 8, []
            while place < len(data):
                size = struct.unpack(">I", data[place : place + 4])[0]
                chunks.append(data[place + 4 : place + 8 + size])
                place += 12 + size
            hurt_at = rng.randrange(len(chunks))
            kind, body = chunks[hurt_at][:4], chunks[hurt_at][4:]
            with suppress(zlib.error):
                body = zlib.compress(simple(zlib.decompress(body), rng)) if kind == b"IDAT" else simple(body, rng)
            chunks[hurt_at] = kind + body
            sealed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
            return data[:8] + b"".join(sealed)
        if data[8:9] == b"{" and (size := struct.unpack("<Q", data[:8])[0]) < len(data):  # safetensors
            header = rng.choice((other_number, other_word))(data[8 : 8 + size], rng)
            return struct.pack("<Q", len(header)) + header + data[8 + size :]
    return other_word(data, rng)


def other_number(data: bytes, rng: random.Random) -> bytes:
    return other_token(data, rng, lambda byte: 48 <= byte <= 57, NUMBERS)


def other_word(data: bytes, rng: random.Random) -> bytes:
    return other_token(data, rng, lambda byte: 65 <= byte <= 90 or 97 <= byte <= 122 or byte == 95, WORDS)


def spliced(data: bytes, rng: random.Random, size: int, new: Callable[[int], bytes], gone: int) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + new(size) + data[place + gone * size :]


def flipped(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return b"\x01"
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def repeated(data: bytes, rng: random.Random) -> bytes:
    begin, size = rng.randrange(len(data) + 1), rng.choice((4, 64, 1024))
    return spliced(data, rng, size, lambda size: data[begin : begin + size], 0)


SIZES = (1, 4, 64, 1024)
DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bit": flipped,
    "bytes": lambda data, rng: spliced(data, rng, rng.choice(SIZES), rng.randbytes, 1),
    "zeros": lambda data, rng: spliced(data, rng, rng.choice(SIZES), bytes, 1),
    "cut": lambda data, rng: data[: rng.randrange(len(data) + 1)],
    "gap": lambda data, rng: spliced(data, rng, rng.choice(SIZES), lambda size: b"", 1),
    "twice": repeated,
    "odd text": lambda data, rng: spliced(data, rng, 0, lambda size: rng.choice(DEEP), 0),
    "number": other_number,
    "word": other_word,
    "inside": inner,
}


def simple(data: bytes, rng: random.Random) -> bytes:
    return DAMAGES[rng.choice(list(DAMAGES)[:-1])](data, rng)


def damage_of(number: int) -> str:
    return list(DAMAGES)[number % len(DAMAGES)]


def damaged(data: bytes, number: int, rng: random.Random) -> bytes:
    """A damage of the kind that belongs to a number, and in a third of the files a second one of any kind."""
    data = DAMAGES[damage_of(number)](data, rng)
    return simple(data, rng) if rng.random() < 1 / 3 else data


def is_fault(error: BaseException) -> bool:
    """Whether the command line would show a traceback."""
    if isinstance(error, RuntimeError | FloatingPointError) and type(error).__module__[:7] != "prockd.":
        return True
    return not isinstance(error, ImportError | OSError | ValueError | RuntimeError | FloatingPointError)


def read_damaged(kind: str, number: int, seed: int, good: Path, path: Path) -> tuple[str, str]:
    """Damage a file, read it, and put it back: what came of it, and the error."""
    reader, root, data = READERS[kind], good.parent / "data", good.read_bytes()
    path.write_bytes(damaged(data, number, random.Random(f"{kind} {number} {seed}")))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(root if reader.whole else path)
        return "read", ""
    except SilentError as error:
        return "silent", str(error)
    except Exception as error:
        import traceback

        told = f"{type(error).__name__}: {error}"[:600]
        if is_fault(error):
            return "traceback", told + "".join(traceback.format_tb(error.__traceback__)[-3:])
        named = path.name in str(error) or path.stem in str(error) or path.parent.name in str(error)
        return "refused" if named else "nameless", told
    finally:
        shutil.rmtree(path.parent / "out", ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
