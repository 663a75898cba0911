"""What a trained student tells of pictures: files that others read, and a sheet to look at; no teacher is needed."""

import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torchvision.transforms.v2 import InterpolationMode
from tqdm.auto import tqdm

from prockd._types import UNLABELLED
from prockd.datasets import DatasetError, PackedImages, read_image
from prockd.datasets.packing import BARS, fit_square
from prockd.datasets.problems import counted, listed
from prockd.datasets.read import IMAGE_SUFFIXES, pictures
from prockd.devices import device_for, on_device
from prockd.evaluation.scores import outputs
from prockd.runs.folder import RunFolderError, run_config, student_file
from prockd.runs.known import KnownImages
from prockd.settings.experiment import DataConfig
from prockd.students.student import Student
from prockd.tasks import Answer, Marks

SHEET = 24  # pictures on a contact sheet, at most


@dataclass(frozen=True, eq=False)
class Predicted:
    """What :func:`predict_pictures` wrote.

    Attributes:
        folder: where it is.
        files: what is in it: the task's files, and last the contact sheet.
        count: pictures that were read.
        skipped: what is wrong with each of the others, which are left out.
    """

    folder: Path
    files: tuple[Path, ...]
    count: int
    skipped: tuple[str, ...]

    def __repr__(self) -> str:
        names = ", ".join(path.name + "/" * path.is_dir() for path in self.files)
        bad = f", {len(self.skipped)} skipped: {listed(self.skipped, between='; ')}" if self.skipped else ""
        return f"{counted(self.count, 'picture')} predicted: {names} in {self.folder}{bad}"


@dataclass(frozen=True, eq=False)
class Seer:
    """A student with all that it takes to show it a picture as it was trained."""

    student: Student
    image_px: int  # side of the square that a picture becomes before it gets the student's own side
    fit: str
    augmented: bool
    white: int = 0  # of pictures of 16 or 32 bits
    exif: bool = True


def predict_pictures(
    student: Student | str | Path,
    folder: str | Path,
    out: str | Path | None = None,
    *,
    augmented: bool | None = None,
    fit: str | None = None,
    sure: float | None = None,
    overwrite: bool = False,
    batch_size: int = 16,
    cpu: bool = False,
    progress: bool = True,
) -> Predicted:
    """Tell what pictures show, in files: see ``write`` of the task; and draw some of it on a contact sheet.

    Pictures are read one after the other and not kept, so there may be any number of them.

    Args:
        student: one, its file, or the folder of a run.
        folder: pictures, at any depth, or one picture.
        out: where the files go; None is ``predictions/NAME OF THE FOLDER`` beside the student's file.
        augmented: tell z+ (True) or z (False); None is z+ where the student has one.
        fit: how pictures become squares; None is as in the run, or as suits the task.
        sure: boxes and joints below this score, 0..1, are left out, or hidden; None is 0.3 of boxes and 0.1 of joints.
        overwrite: replace files of the same names.
        batch_size: pictures in a pass.
        cpu: stay on the CPU even where there is a GPU.
        progress: show a progress bar.

    Raises:
        RunFolderError: there is no student, or ``out`` holds files already.
        DatasetError: there are no pictures, or none can be read.
        ValueError: z+ is asked of a student that has none.
        WeightsError: the student's file cannot be read.

    >>> import prockd as pk, PIL.Image
    >>> PIL.Image.new("RGB", (64, 48)).save("cow.png")
    >>> student = pk.Student("test_convnext", pk.tasks.Classification(2, ("cat", "dog")), image_px=32)
    >>> predict_pictures(student, "cow.png", "told", progress=False)
    1 picture predicted: classes.csv, sheet.png in told
    """
    from prockd.plots.predictions import plot_answers  # matplotlib is slow to load
    from prockd.runs.html import save_png

    folder, seer = Path(folder), seer_of(student, augmented, fit)
    sure = seer.student.task.sure if sure is None else sure
    if not 0 <= sure <= 1:
        raise ValueError(f"sure={sure}: must lie between 0 and 1")
    out = Path(out) if out is not None else home_of(student) / "predictions" / (folder.resolve().stem or "pictures")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise RunFolderError(f"{out} holds files already: choose another --out, or --overwrite those of the same names")
    root, paths = listed_pictures(folder, out)
    out.mkdir(parents=True, exist_ok=True)
    shown: list[tuple[np.ndarray, Marks, str]] = []
    skipped: list[str] = []
    answers = told(seer, root, paths, shown, skipped, batch_size=batch_size, cpu=cpu, progress=progress)
    first = next(answers, None)
    if first is None:
        raise DatasetError(f"no picture of {folder} can be read: {listed(skipped, between='; ')}")
    files = seer.student.task.write(itertools.chain([first], answers), out, sure)
    squares, marks, names = zip(*shown, strict=True) if shown else ((), (), ())
    figure = plot_answers(squares, marks, names, seer.student.task, sure=sure)
    save_png(figure, sheet := out / "sheet.png", dpi=130)
    return Predicted(out, (*files, sheet), len(paths) - len(skipped), tuple(skipped))


def home_of(student: Student | str | Path) -> Path:
    """The folder that a student lies in."""
    if isinstance(student, Student):
        return Path()
    return path if (path := Path(student)).is_dir() else path.parent


def seer_of(student: Student | str | Path, augmented: bool | None, fit: str | None) -> Seer:
    """The student of a run, of a file, or itself, and how pictures are shown to it."""
    image_px, data = 0, DataConfig()
    if not isinstance(student, Student):
        path = Path(student)
        if not path.is_file():
            data, file = run_config(path).data, student_file(path)
            image_px, path = KnownImages.read(path).image_px, file
            fit = fit or data.asked_fit
        student = Student.load(path)
    has_plus = student.feature_augmentation is not None
    if augmented and not has_plus:
        raise ValueError(f"{student!r} has no z+: ask for z with --plain")
    plus = has_plus if augmented is None else augmented
    return Seer(student, image_px or student.image_px, fit or student.task.fit, plus, data.white, data.exif)


def listed_pictures(folder: Path, out: Path) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and its pictures but for those that an earlier call wrote to ``out``."""
    if folder.is_file():
        return folder.parent, [folder]
    if not folder.is_dir():
        raise DatasetError(f"{folder} does not exist")
    paths = [path for path in pictures(folder) if not path.resolve().is_relative_to(out.resolve())]
    if not paths:
        raise DatasetError(f"{folder} holds no pictures, at any depth: looked for {' '.join(sorted(IMAGE_SUFFIXES))}")
    return folder, paths


def told(
    seer: Seer, root: Path, paths: Sequence[Path], shown: list[tuple[np.ndarray, Marks, str]], skipped: list[str], *,
    batch_size: int, cpu: bool, progress: bool,
) -> Iterator[Answer]:  # fmt: skip
    """The answers, one a picture; the squares of some go to ``shown``, and what cannot be read to ``skipped``."""
    student, task = seer.student, seer.student.task
    on_sheet = set(np.linspace(0, len(paths) - 1, min(SHEET, len(paths))).astype(int).tolist())
    device = device_for(student, "cpu" if cpu else None)
    with on_device(device, student), tqdm(total=len(paths), unit="picture", disable=not progress) as bar:
        for start in range(0, len(paths), batch_size):
            numbers = range(start, min(start + batch_size, len(paths)))
            squares, sizes, images = squares_of(seer, root, [paths[n] for n in numbers], skipped)
            bar.update(len(numbers))
            if images is None:
                continue
            output = next(outputs(student, images, batch_size=batch_size, device=device))
            logits = output.augmented_logits if seer.augmented else output.logits
            assert images.frames is not None
            for row, answer in enumerate(task.answer(logits, seer.image_px)):
                if numbers[squares[row]] in on_sheet:
                    shown.append((images.pixels[row], task.marks(answer), images.ids[row]))
                yield Answer(images.ids[row], sizes[row], images.frames[row], seer.image_px, answer)


def squares_of(
    seer: Seer, root: Path, paths: Sequence[Path], skipped: list[str]
) -> tuple[list[int], list[tuple[int, int]], PackedImages | None]:
    """The pictures of a batch that can be read: their numbers in it, sizes and squares; None where none can."""
    rows, sizes, pixels, frames = [], [], [], []
    for row, path in enumerate(paths):
        try:
            picture = read_image(path, white=seer.white, exif=seer.exif)
            place = fit_square(picture.shape[0], picture.shape[1], seer.image_px, seer.fit)
            pixels.append(place.resize(picture.transpose(2, 0, 1), InterpolationMode.BICUBIC, BARS))
        except DatasetError as error:
            skipped.append(str(error))
            warnings.warn(f"skipped: {error}", stacklevel=2)
            continue
        rows.append(row)
        sizes.append(picture.shape[:2])
        frames.append(place.frame)
    if not rows:
        return rows, sizes, None
    ids, labels = tuple(paths[row].relative_to(root).as_posix() for row in rows), np.full(len(rows), UNLABELLED)
    classes = seer.student.task.names
    return rows, sizes, PackedImages(np.stack(pixels), labels, ids, classes, "", frames=np.stack(frames))
