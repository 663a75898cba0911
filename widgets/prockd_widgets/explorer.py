"""Look at prototypes from every side at once, name what you recognise, and switch off what you do not want."""

import csv
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import traitlets
from IPython.display import HTML, Image, display

from prockd.datasets import PackedImages
from prockd.evaluation.best_prototypes import PartPrototypes, prototypes_on
from prockd.evaluation.clarity import strongest_patches
from prockd.evaluation.effects import PrototypeEffects
from prockd.evaluation.galleries import clearest_prototypes, part_names_of
from prockd.evaluation.patches import lies_on, patch_parts
from prockd.prototypes.bank import PrototypeBank
from prockd.students.student import Student
from prockd.teachers.teacher import Teacher
from prockd.untrusted import defused
from prockd.writing import free_path, write_file, write_json
from prockd_widgets.assets import script, style_sheet
from prockd_widgets.edits import state_of
from prockd_widgets.html import PAGE, offline_page, own_traits
from prockd_widgets.kept import MAX_BYTES, MAX_IMAGES, kept_frame
from prockd_widgets.maps import is_quick
from prockd_widgets.options import check_options
from prockd_widgets.own import OwnPictures
from prockd_widgets.patches import (
    Model,
    Sent,
    choose_images,
    describe_images,
    numbered,
    pack_codes,
    pack_top,
    read_patches,
)
from prockd_widgets.quality import answers, effect_column, in_front, quality_columns
from prockd_widgets.snapshot import picture_of, static_bundle
from prockd_widgets.sprites import sprite_sheet
from prockd_widgets.table import match, part_columns, statistics

BYTES_A_PATCH = 38
CLEAR = 0.9
"""Share of a prototype's strongest patches on one part, from which on it is as clear as any other."""


def _pack(selection: Sequence[int], _: object = None) -> bytes:
    return np.asarray(selection, np.uint32).tobytes()


def _unpack(data: Any, _: object = None) -> tuple[int, ...]:
    return tuple(np.frombuffer(data, np.uint32).tolist())


class PrototypeExplorer(OwnPictures):
    """Map, patches, image and table of one bank, linked; a second model beside the first.

    All that is clicked, lassoed or hovered is answered in the browser, also while the kernel trains. Patches are
    numbered image by image, row by row, over the images that are shown (``images`` has them, in that order).

    Args:
        bank: the prototypes; names and switches set here are set in it.
        features: a teacher's features, or a student, which then looks at ``images``.
        other: a second model on the same images: a student, or a bank with its features.
        names: of the one or two models.
        images: needed where ``features`` is a student.
        part_names: by part index; Farmyard's need not be given. Without part masks the widget says nothing of parts.
        projection: of the map: ``"auto"`` is UMAP where it is cached, else PCA until the open page has its UMAP;
            ``"umap"`` waits for it, half a minute the first time; ``"pca"`` stays PCA until its button is pressed.
        effects: what the student loses without each prototype, of :func:`prockd.prototype_effects`; a column.
        teacher: who looks at a picture of your own, see :meth:`look_at`.
        seed: of the images drawn where all would be too many, and of UMAP.
        max_patches: more than this are not sent; the widget says so.
        options: what every ipywidget takes, such as ``layout=``, and the widget's own traits, such as ``opacity=``.

    Raises:
        TypeError: an option that no widget has.
        ValueError: bank and features do not belong together, features are not finite, an image cannot be read any
            more, or there is nothing to show; the message says which.
    """

    _esm = script("explorer")
    _css = style_sheet("explorer")
    selection = traitlets.Tuple(help="Numbers of the selected patches.").tag(
        sync=True, to_json=_pack, from_json=_unpack
    )
    prototype = traitlets.Int(-1, help="The prototype in focus, -1 for none.").tag(sync=True)
    model = traitlets.Int(0, help="The model whose prototypes the table shows: 0 or 1.").tag(sync=True)
    colour_by = traitlets.Enum(
        ("prototype", "group", "part", "class", "agreement"),
        "group",
        help="What colours mean; part where parts are known.",
    ).tag(sync=True)
    smooth = traitlets.Bool(False, help="Heat-map smoothed, else raw patches.").tag(sync=True)
    opacity = traitlets.Float(0.75, min=0, max=1, help="Of the heat-map.").tag(sync=True)
    meta = traitlets.Dict().tag(sync=True)
    stats: traitlets.List[Any] = traitlets.List().tag(sync=True)
    sheet = traitlets.Bytes().tag(sync=True)
    page = traitlets.Dict(help="How the page saves itself where no kernel is left.").tag(sync=True)
    parts = traitlets.Bytes().tag(sync=True)
    top: traitlets.List[Any] = traitlets.List().tag(sync=True)
    codes: traitlets.List[Any] = traitlets.List().tag(sync=True)

    def __init__(
        self,
        bank: PrototypeBank,
        features: Model,
        *,
        other: Student | tuple[PrototypeBank, Model] | None = None,
        names: Sequence[str] = ("teacher", "student"),
        images: PackedImages | None = None,
        part_names: Sequence[str] | None = None,
        projection: str = "auto",
        effects: PrototypeEffects | None = None,
        teacher: Teacher | None = None,
        seed: int = 0,
        max_patches: int = 200_000,
        **options: Any,
    ) -> None:
        check_options(type(self), options)
        if projection not in ("auto", "pca", "umap"):
            raise ValueError(f"projection={projection!r}: choose 'auto', 'pca' or 'umap'")
        everything = images if isinstance(features, Student) else features.images
        if everything is None:
            raise ValueError("a student alone has no pictures: pass images=")
        if len(everything) == 0 or bank.num_prototypes == 0:
            raise ValueError(f"nothing to show: {len(everything)} images, {bank.num_prototypes} prototypes")
        models: list[tuple[PrototypeBank, Model]] = [(bank, features)]
        if other is not None:
            models.append((other.bank or bank, other) if isinstance(other, Student) else other)
        if len(names) < len(models):
            raise ValueError(f"{len(names)} names for {len(models)} models")
        self.grid, self.seed = features.grid, seed
        per_image = self.grid[0] * self.grid[1]
        indices = choose_images(len(everything), per_image, seed, max_patches)
        self.images = everything.select(indices)
        self.models = [
            read_patches(names[i], b, source, everything, indices, self.grid) for i, (b, source) in enumerate(models)
        ]
        self._remember()
        self._sources, self._effects, self.teacher = [source for _, source in models], effects, teacher
        self._own = []
        self._part_names = part_names_of(everything, part_names)
        self._auto = projection == "auto"
        parts = self.images.parts is not None and bool(self._part_names)
        super().__init__(**{"colour_by": "part" if parts else "group"} | options)
        self._send_patches(len(everything))
        self.page = {"template": PAGE, "names": own_traits(self)}
        self._open_on(options)
        if projection == "umap" or (self._auto and all(is_quick(unit, seed) for unit in self._units())):
            self._lay_out(progress=projection == "umap")
        self.observe(lambda _: self._apply(), "banks")
        self.on_msg(lambda _, content, buffers: self._on_button(str(content.get("do")), content, buffers))

    # What is sent

    def _send_patches(self, total: int) -> None:
        """Everything that does not change, then what follows from the banks."""
        sheet = sprite_sheet(self.images)
        K = max(m.bank.num_prototypes for m in self.models)
        self._count = min(4 if len(self.models) == 1 else 3, *(m.bank.num_prototypes for m in self.models))
        each = 8 + self._count * (2 if K <= 256 else 3)
        self._code_bytes = max(4, (BYTES_A_PATCH - 1) // len(self.models) - each)
        packed = [pack_codes(m.unit, self._code_bytes) for m in self.models]
        self.sheet, self.codes = sheet.data, [data for data, _ in packed]
        self._send_pca()
        has_parts = self.images.parts is not None and bool(self._part_names)
        if has_parts:
            masks, count = np.asarray(self.images.parts), len(self._part_names)
            self._parts, self._on = patch_parts(masks, self.grid, count), lies_on(masks, self.grid, count)
            self.parts = self._parts.astype(np.uint8).tobytes()
        self.banks = [state_of(b) for b in self._banks]
        self.meta = {
            **describe_images(self.images, self.grid, sheet, total, self.seed),
            "parts": self._part_names if has_parts else None,
            "groups": numbered(self.images.groups),
            "answers": answers(self._sources[-1], self.images),
            "count": self._count,
            "models": [
                {"name": m.name, "bank": next(i for i, b in enumerate(self._banks) if b is m.bank), "steps": steps}
                for m, (_, steps) in zip(self.models, packed, strict=True)
            ],
        }
        self._follow()

    def follow_banks(self) -> bool:
        """Show names, switches and prototypes as they are in the banks now; True where they were edited elsewhere."""
        changed = super().follow_banks()
        if changed:
            self.status = "The bank was edited elsewhere: what is shown follows it now."
        return changed

    def _open_on(self, options: dict[str, Any]) -> None:
        """Begin with the clearest prototype and its best picture, unless told otherwise."""
        k = options.get("prototype", self._clearest())
        near = self.stats[self.model][k]["near"] if k >= 0 else []
        if near and not {"image", "patch"} & options.keys():
            self.patch = near[0][0]
            self.image = self.patch // (self.grid[0] * self.grid[1])
        self.prototype = k

    def _clearest(self) -> int:
        if self.parts:
            found, seen = self.part_prototypes(self.model), np.asarray(self._on).mean((0, 1))

            def teaches(k: int) -> tuple[float, float]:  # among the clear ones a tail does, more than a torso
                part = int(found.shares[k, 1:].argmax()) + 1
                return min(float(found.shares[k, part]), CLEAR), -float(seen[part])

            return max(found.gallery, key=teaches, default=-1)
        return next(iter(self._gallery(self.model)), -1)

    def _follow(self) -> None:
        """Assignments and the table's numbers for the switches as they are."""
        every = [m.switched() for m in self.models]
        self._label = [m.label(a) for m, a in zip(self.models, every, strict=True)]
        self.top = [pack_top(a, self._count) for a in every]
        per_image = self.grid[0] * self.grid[1]
        groups = self.images.groups
        stats = [statistics(m, a, per_image, groups) for m, a in zip(self.models, every, strict=True)]
        for i, rows in enumerate(stats):
            for name, column in self._columns(i, every[i]).items():
                for row, value in zip(rows, column, strict=True):
                    row[name] = value
            if self.parts:
                for row, more in zip(rows, part_columns(self.part_prototypes(i)), strict=True):
                    row |= more
        self.stats = stats  # once, when it is whole: what is changed in place never reaches the page
        if self._own:
            self._send_own()
        if len(self.models) == 2:
            K, L = (m.bank.num_prototypes for m in self.models)
            same = self.models[0].bank is self.models[1].bank
            matched = list(range(K)) if same else match(self._label[0], self._label[1], K, L)
            self.meta = {**self.meta, "match": matched}

    def _columns(self, i: int, soft: torch.Tensor) -> dict[str, list[Any]]:
        """What the table says of the prototypes of a model."""
        model, M, K = self.models[i], len(self.images), self.models[i].bank.num_prototypes
        label = self._label[i].reshape(M, -1)
        soft, unit = self._by_image(soft), self._by_image(model.unit)
        columns: dict[str, list[Any]] = dict(quality_columns(unit, soft, label, self.images.groups))
        columns["front"] = in_front(label, self.images.pictured, self.grid, K).tolist()
        if self._effects is not None:
            columns["effect"] = effect_column(self._effects, K)
        return columns

    def label(self, model: int = 0) -> np.ndarray:
        """(P,) strongest prototype of each patch, -1 in the bars beside padded pictures."""
        return self._label[model]

    def soft(self, model: int = 0) -> torch.Tensor:
        """(P, K) soft assignment of each patch, switches as they are; 0 in the bars."""
        return self.models[model].switched()

    def part_prototypes(self, model: int = 0) -> PartPrototypes:
        """The clearest prototype of each part, switches as they are: those that galleries show.

        Raises:
            ValueError: the images have no part masks.
        """
        if not self.parts:
            raise ValueError("these images have no part masks, so no prototype shows a part")
        return prototypes_on(self._by_image(self.soft(model)), self._on, self._part_names)

    def _by_image(self, patches: torch.Tensor) -> torch.Tensor:
        return patches.reshape(len(self.images), -1, patches.shape[1])

    def _gallery(self, model: int) -> list[int]:
        """The prototypes that galleries show."""
        if self.parts:
            return self.part_prototypes(model).gallery
        soft = self._by_image(self.soft(model))
        _, image, patch = strongest_patches(soft)
        vectors = self._by_image(self.models[model].unit)[image, patch].float().numpy()
        return clearest_prototypes(vectors, soft, self.images, self.grid)

    @property
    def bytes_sent(self) -> Sent:
        """How much the browser was given, and how much of it a patch without the sprite sheet."""
        return Sent.count(self, ("xy", "top", "codes", "parts"), ("meta", "stats", "banks"))

    # Selecting and taking along

    @traitlets.validate("selection")
    def _check_selection(self, proposal: Any) -> tuple[int, ...]:
        selected = sorted({int(p) for p in proposal["value"]})
        P = len(self.models[0].unit)
        if selected and not 0 <= selected[0] <= selected[-1] < P:
            raise traitlets.TraitError(
                f"patches are numbered 0..{P - 1}, and {selected[0]}..{selected[-1]} were selected"
            )
        return tuple(p for p in selected if self._label[0][p] >= 0)

    def rows(self) -> list[dict[str, object]]:
        """One row a selected patch, all patches of the pictures where none is selected."""
        N, w = self.grid[0] * self.grid[1], self.grid[1]
        soft = [m.switched() for m in self.models]
        rows = []
        for p in self.selection or self._shown.tolist():
            m = p // N
            row: dict[str, object] = {"patch": p, "image": self.images.ids[m], "row": p % N // w, "column": p % w}
            for i, model in enumerate(self.models):
                k = int(self._label[i][p])
                tail = "" if i == 0 else f"_{model.name}"
                row |= {f"prototype{tail}": k, f"name{tail}": model.bank.names[k]}
                row[f"assignment{tail}"] = round(float(soft[i][p, k]), 4)
            label = int(self.images.labels[m])
            if self.parts:
                row["part"] = self._part_names[int(self._parts[m, p % N])]
            row["class"] = self.images.classes[label] if label >= 0 else None
            rows.append(row | {"seed": self.seed, "data": self.meta["data"]})
        return rows

    def to_frame(self) -> Any:
        """The rows as a pandas DataFrame where pandas is installed, else as they are."""
        if importlib.util.find_spec("pandas") is None:
            return self.rows()
        return importlib.import_module("pandas").DataFrame(self.rows())

    # What is written replaces no file unless ``overwrite`` says so; without a path it gets a name that is free.

    def to_csv(self, path: str | Path | None = None, *, overwrite: bool = False) -> Path:
        """Write the rows as CSV; ``patches.csv`` if not given, or the next name that is free.

        Names that a spreadsheet would compute begin with an apostrophe.
        """
        rows = [{name: defused(value) for name, value in row.items()} for row in self.rows()]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        return write_file(path or free_path("patches.csv"), text.getvalue(), overwrite=overwrite)

    def to_json(self, path: str | Path | None = None, *, overwrite: bool = False) -> Path:
        """Write names, switches and rows as JSON (``patches.json``), with the seed and the hash of the data."""
        record = {"seed": self.seed, "data": self.meta["data"], "banks": self.banks, "patches": self.rows()}
        return write_json(path or free_path("patches.json"), record, overwrite=overwrite)

    def to_png(self, path: str | Path | None = None, *, overwrite: bool = False) -> Path:
        """Write the picture of :meth:`snapshot` (``explorer.png``)."""
        return write_file(path or free_path("explorer.png"), self._picture(), overwrite=overwrite)

    def save_bank(self, path: str | Path | None = None, *, overwrite: bool = False) -> Path:
        """Save the bank of the model in focus (``prototypes.safetensors``), with its names and switches."""
        return self.models[self.model].bank.save(path or free_path("prototypes.safetensors"), overwrite=overwrite)

    def export_html(self, path: str | Path | None = None, *, overwrite: bool = False) -> Path:
        """Write one page (``explorer.html``) that holds everything: it opens without network and without a kernel."""
        page = offline_page(self, "Prototype explorer")
        return write_file(path or free_path("explorer.html"), page, overwrite=overwrite)

    def snapshot(self) -> Image:
        """The state as an ordinary picture, for a saved notebook."""
        return Image(self._picture(), format="png")  # type: ignore[no-untyped-call]

    def keep(self, *, max_images: int = MAX_IMAGES, max_bytes: int = MAX_BYTES) -> None:
        """Leave two outputs in the notebook: the picture of :meth:`snapshot`, and the explorer itself on some images.

        The second is a page within the page: it stays alive where no kernel runs, in HTML that nbconvert made and in a
        trusted notebook. What shows no such pages, as an untrusted JupyterLab, shows the picture.

        Raises:
            ValueError: ``max_bytes`` are too few for one image.
        """
        page = kept_frame(self, max_images=max_images, max_bytes=max_bytes)
        display(self.snapshot())  # type: ignore[no-untyped-call]
        display(HTML(page))  # type: ignore[no-untyped-call]

    def _picture(self) -> bytes:
        return picture_of(self)

    # Asked by the browser

    def _on_button(self, name: str, content: dict[str, Any] | None = None, buffers: Sequence[Any] = ()) -> None:
        """A button that needs the kernel was pressed; ``status`` says what was done or what went wrong."""
        try:
            if name == "ready":
                self.follow_banks()
            if name == "umap" or (name == "ready" and self._auto and len(self.maps) == 1):
                self.lay_out()
            elif name == "look":
                self.look_at(bytes(buffers[0]), name=str((content or {}).get("name", ""))[:80])
            elif name == "bank":
                self.status = f"Saved {self.save_bank()} beside the notebook."
            elif name == "html":
                self.status = f"Saved {self.export_html()} beside the notebook: send it to anyone."
        except Exception as failure:
            self.status = f"{type(failure).__name__}: {failure}"

    def __repr__(self) -> str:
        size = f"{len(self._shown):,} patches of {len(self.images):,} images"
        models = " and ".join(f"{m.name} ({m.bank!r})" for m in self.models)
        return f"PrototypeExplorer({size}, {len(self.selection):,} selected): {models}"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget, and for pages without a kernel its picture and its words."""
        return static_bundle(self, super()._repr_mimebundle_(**kwargs))
