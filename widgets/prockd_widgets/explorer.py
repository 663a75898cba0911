"""Look at prototypes from every side at once, name what you recognise, and switch off what you do not want."""

import csv
import importlib.util
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import traitlets
from IPython.display import Image

from prockd.datasets import PackedImages
from prockd.evaluation.best_prototypes import PartPrototypes, prototypes_on
from prockd.evaluation.clarity import strongest_patches
from prockd.evaluation.embed import embed_2d, principal
from prockd.evaluation.galleries import clearest_prototypes, part_names_of
from prockd.evaluation.patches import lies_on, patch_parts
from prockd.prototypes.bank import PrototypeBank
from prockd.students.student import Student
from prockd.untrusted import defused
from prockd_widgets.assets import script, style_sheet
from prockd_widgets.edits import BankEditor, state_of
from prockd_widgets.html import offline_page
from prockd_widgets.options import check_options
from prockd_widgets.patches import (
    Model,
    Sent,
    choose_images,
    describe_images,
    pack_codes,
    pack_top,
    pack_xy,
    read_patches,
)
from prockd_widgets.snapshot import ExplorerView, explorer_picture, static_bundle
from prockd_widgets.sprites import sprite_sheet
from prockd_widgets.table import match, part_columns, statistics

BYTES_A_PATCH = 37


def _pack(selection: Sequence[int], _: object = None) -> bytes:
    return np.asarray(selection, np.uint32).tobytes()


def _unpack(data: Any, _: object = None) -> tuple[int, ...]:
    return tuple(np.frombuffer(data, np.uint32).tolist())


class PrototypeExplorer(BankEditor):
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
        projection: of the map: ``"pca"`` at once, or ``"umap"``, which takes a minute or two the first time.
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
    image = traitlets.Int(0, help="The image that is shown.").tag(sync=True)
    patch = traitlets.Int(-1, help="The patch in the box, -1 for none.").tag(sync=True)
    colour_by = traitlets.Enum(("prototype", "part", "class", "agreement"), "prototype").tag(sync=True)
    show = traitlets.Enum(("prototype", "likeness"), "prototype", help="What the heat-map shows.").tag(sync=True)
    smooth = traitlets.Bool(False, help="Heat-map smoothed, else raw patches.").tag(sync=True)
    opacity = traitlets.Float(0.75, min=0, max=1, help="Of the heat-map.").tag(sync=True)
    status = traitlets.Unicode("", help="What the kernel has to say.").tag(sync=True)
    map_note = traitlets.Unicode("").tag(sync=True)
    meta = traitlets.Dict().tag(sync=True)
    stats: traitlets.List[Any] = traitlets.List().tag(sync=True)
    sheet = traitlets.Bytes().tag(sync=True)
    parts = traitlets.Bytes().tag(sync=True)
    xy: traitlets.List[Any] = traitlets.List().tag(sync=True)
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
        projection: str = "pca",
        seed: int = 0,
        max_patches: int = 200_000,
        **options: Any,
    ) -> None:
        check_options(type(self), options)
        if projection not in ("pca", "umap"):
            raise ValueError(f"projection={projection!r}: choose 'pca' or 'umap'")
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
        self._part_names = part_names_of(everything, part_names)
        self._umap = threading.Thread()
        self._steps: list[list[float]] = []
        super().__init__(**options)
        self._send_patches(len(everything))
        if projection == "umap":
            self._lay_out(progress=True)
        self.observe(lambda _: self._apply(), "banks")
        self.on_msg(lambda _, content, __: self._on_button(str(content.get("do"))))

    # What is sent

    def _send_patches(self, total: int) -> None:
        """Everything that does not change, then what follows from the banks."""
        sheet = sprite_sheet(self.images)
        K = max(m.bank.num_prototypes for m in self.models)
        self._count = min(4 if len(self.models) == 1 else 3, *(m.bank.num_prototypes for m in self.models))
        each = 4 + self._count * (2 if K <= 256 else 3)
        packed = [pack_codes(m.unit, max(4, (BYTES_A_PATCH - 1) // len(self.models) - each)) for m in self.models]
        self._shown, P = np.flatnonzero(self.models[0].shown), len(self.models[0].unit)
        self.sheet, self.codes = sheet.data, [data for data, _ in packed]
        maps = [principal(m.unit[self._shown].float().numpy(), 2) for m in self.models]
        self.xy = [pack_xy(xy, self._shown, P) for xy in maps]
        self.map_note = f"PCA of {len(self._shown):,} patches"
        has_parts = self.images.parts is not None and bool(self._part_names)
        if has_parts:
            masks, count = np.asarray(self.images.parts), len(self._part_names)
            self._parts, self._on = patch_parts(masks, self.grid, count), lies_on(masks, self.grid, count)
            self.parts = self._parts.astype(np.uint8).tobytes()
        self.banks = [state_of(b) for b in self._banks]
        self.meta = {
            **describe_images(self.images, self.grid, sheet, total, self.seed),
            "parts": self._part_names if has_parts else None,
            "grouped": self.images.groups is not None,
            "count": self._count,
            "models": [
                {"name": m.name, "bank": next(i for i, b in enumerate(self._banks) if b is m.bank), "steps": steps}
                for m, (_, steps) in zip(self.models, packed, strict=True)
            ],
        }
        self._follow()

    def _follow(self) -> None:
        """Assignments and the table's numbers for the switches as they are."""
        self._soft = [m.switched() for m in self.models]
        self._label = [m.label(a) for m, a in zip(self.models, self._soft, strict=True)]
        self.top = [pack_top(a, self._count) for a in self._soft]
        per_image = self.grid[0] * self.grid[1]
        groups = self.images.groups
        self.stats = [statistics(m, a, per_image, groups) for m, a in zip(self.models, self._soft, strict=True)]
        if self.parts:
            for rows, model in zip(self.stats, range(len(self.models)), strict=True):
                for row, more in zip(rows, part_columns(self.part_prototypes(model)), strict=True):
                    row |= more
        if len(self.models) == 2:
            K, L = (m.bank.num_prototypes for m in self.models)
            same = self.models[0].bank is self.models[1].bank
            matched = list(range(K)) if same else match(self._label[0], self._label[1], K, L)
            self.meta = {**self.meta, "match": matched}

    def label(self, model: int = 0) -> np.ndarray:
        """(P,) strongest prototype of each patch, -1 in the bars beside padded pictures."""
        return self._label[model]

    def soft(self, model: int = 0) -> torch.Tensor:
        """(P, K) soft assignment of each patch, switches as they are; 0 in the bars."""
        return self._soft[model]

    def part_prototypes(self, model: int = 0) -> PartPrototypes:
        """The clearest prototype of each part, switches as they are: those that galleries show.

        Raises:
            ValueError: the images have no part masks.
        """
        if not self.parts:
            raise ValueError("these images have no part masks, so no prototype shows a part")
        return prototypes_on(self._by_image(self._soft[model]), self._on, self._part_names)

    def _by_image(self, patches: torch.Tensor) -> torch.Tensor:
        return patches.reshape(len(self.images), -1, patches.shape[1])

    def _gallery(self, model: int) -> list[int]:
        """The prototypes that galleries show."""
        if self.parts:
            return self.part_prototypes(model).gallery
        soft = self._by_image(self._soft[model])
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
        rows = []
        for p in self.selection or self._shown.tolist():
            m = p // N
            row: dict[str, object] = {"patch": p, "image": self.images.ids[m], "row": p % N // w, "column": p % w}
            for i, model in enumerate(self.models):
                k = int(self._label[i][p])
                tail = "" if i == 0 else f"_{model.name}"
                row |= {f"prototype{tail}": k, f"name{tail}": model.bank.names[k]}
                row[f"assignment{tail}"] = round(float(self._soft[i][p, k]), 4)
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

    def to_csv(self, path: str | Path = "patches.csv") -> Path:
        """Write the rows as CSV; names that a spreadsheet would compute begin with an apostrophe."""
        rows = [{name: defused(value) for name, value in row.items()} for row in self.rows()]
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return Path(path)

    def to_json(self, path: str | Path = "patches.json") -> Path:
        """Write names, switches and rows as JSON, with the seed and the hash of the data."""
        record = {"seed": self.seed, "data": self.meta["data"], "banks": self.banks, "patches": self.rows()}
        Path(path).write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
        return Path(path)

    def to_png(self, path: str | Path = "explorer.png") -> Path:
        """Write the picture of :meth:`snapshot`."""
        Path(path).write_bytes(self._picture())
        return Path(path)

    def save_bank(self, path: str | Path = "prototypes.safetensors") -> Path:
        """Save the bank of the model in focus, with its names and switches."""
        return self.models[self.model].bank.save(path)

    def export_html(self, path: str | Path = "explorer.html") -> Path:
        """Write one page that holds everything: it opens without network and without a kernel."""
        Path(path).write_text(offline_page(self, "Prototype explorer"), encoding="utf-8")
        return Path(path)

    def snapshot(self) -> Image:
        """The state as an ordinary picture, for a saved notebook."""
        return Image(self._picture(), format="png")  # type: ignore[no-untyped-call]

    def _picture(self) -> bytes:
        model = self.models[self.model]
        return explorer_picture(
            ExplorerView(
                self.images, self.grid, model.bank.names, self.label(self.model), self.soft(self.model),
                self.stats[self.model], self._gallery(self.model),
                np.frombuffer(self.xy[self.model], np.uint16).reshape(-1, 2), self.selection,
                self.prototype, self.image, self.smooth, f"{self.map_note}, {len(self.selection):,} selected",
                f"Prototype explorer, seed {self.seed}, data {self.meta['data'][:12]}",
            )
        )  # fmt: skip

    # Asked by the browser

    def _on_button(self, name: str) -> None:
        """A button that needs the kernel was pressed; ``status`` says what was done or what went wrong."""
        try:
            if name == "umap":
                self.lay_out()
            elif name == "bank":
                self.status = f"Saved {self.save_bank()} beside the notebook."
            elif name == "html":
                self.status = f"Saved {self.export_html()} beside the notebook: send it to anyone."
        except Exception as failure:
            self.status = f"{type(failure).__name__}: {failure}"

    def lay_out(self) -> threading.Thread:
        """Compute the UMAP in the background; ``map_note`` tells how long it has been running."""
        if not self._umap.is_alive():
            self._umap = threading.Thread(target=self._lay_out, daemon=True)
            self._umap.start()
        return self._umap

    def _lay_out(self, *, progress: bool = False) -> None:
        P, before, done = self.meta["patches"], self.map_note, threading.Event()

        def show_seconds() -> None:
            began = time.perf_counter()
            while not done.wait(1):
                passed = time.perf_counter() - began
                self.map_note = f"{before}; UMAP of {min(len(self._shown), 20_000):,} since {passed:.0f} s"

        ticker = threading.Thread(target=show_seconds, daemon=True)
        ticker.start()
        try:
            units = [m.unit[self._shown].float().numpy() for m in self.models]
            maps = [embed_2d(unit, seed=self.seed, progress=progress) for unit in units]
            self.xy = [pack_xy(e.xy, self._shown[e.indices], P) for e in maps]
            note, message = maps[0].note, "The map is a UMAP now: near means alike, the axes have no unit."
        except Exception as failure:
            note, message = before, f"{type(failure).__name__}: {failure}"
        done.set()
        ticker.join()
        self.map_note, self.status = note, message

    def __repr__(self) -> str:
        size = f"{len(self._shown):,} patches of {len(self.images):,} images"
        models = " and ".join(f"{m.name} ({m.bank!r})" for m in self.models)
        return f"PrototypeExplorer({size}, {len(self.selection):,} selected): {models}"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget, and for pages without a kernel its picture and its words."""
        return static_bundle(self, super()._repr_mimebundle_(**kwargs))
