"""Click a patch in any image and see where all the others look alike, teacher beside student."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch.nn.functional as F
import traitlets
from IPython.display import Image
from matplotlib.figure import Figure

from prockd.datasets import PackedImages
from prockd.plots._draw import draw_box, overlay, plain
from prockd.students.student import Student
from prockd.writing import free_path, write_file
from prockd_widgets.assets import script, style_sheet
from prockd_widgets.html import offline_page
from prockd_widgets.options import check_options
from prockd_widgets.patches import Model, Sent, choose_images, describe_images, pack_codes, read_units
from prockd_widgets.snapshot import save_figure, static_bundle
from prockd_widgets.sprites import sprite_sheet

_BYTES_A_PATCH = 36


class PatchLens(anywidget.AnyWidget):
    """Likeness (cosine) to one patch over all images, computed in the browser: it works while the kernel trains.

    Args:
        features: a teacher's features, or a student that looks at ``images``.
        student: a second model, which looks at the same images.
        names: of the one or two models.
        images: needed where ``features`` is a student.
        seed: of the images drawn where all would be too many.
        max_patches: more than this are not sent; the widget says so.
        options: what every ipywidget takes, such as ``layout=``, and the widget's own traits, such as ``smooth=``.

    Raises:
        TypeError: an option that no widget has.
        ValueError: features are not finite, or there is nothing to show; the message says which.
    """

    _esm = script("lens")
    _css = style_sheet("lens")
    patch = traitlets.Int(0, help="The patch that all are compared with, numbered image by image, row by row.").tag(
        sync=True
    )
    order = traitlets.Enum(("alike", "given"), "alike", help="Which images come first.").tag(sync=True)
    smooth = traitlets.Bool(False, help="Heat-map smoothed, else raw patches.").tag(sync=True)
    opacity = traitlets.Float(0.75, min=0, max=1, help="Of the heat-map.").tag(sync=True)
    meta = traitlets.Dict().tag(sync=True)
    sheet = traitlets.Bytes().tag(sync=True)
    codes: traitlets.List[Any] = traitlets.List().tag(sync=True)

    def __init__(
        self,
        features: Model,
        student: Student | None = None,
        *,
        names: Sequence[str] = ("teacher", "student"),
        images: PackedImages | None = None,
        seed: int = 0,
        max_patches: int = 200_000,
        **options: Any,
    ) -> None:
        check_options(type(self), options)
        everything = images if isinstance(features, Student) else features.images
        if everything is None:
            raise ValueError("a student alone has no pictures: pass images=")
        if len(everything) == 0:
            raise ValueError("nothing to show: there are no images")
        self.grid, self.seed = features.grid, seed
        per_image = self.grid[0] * self.grid[1]
        indices = choose_images(len(everything), per_image, seed, max_patches)
        self.images = everything.select(indices)
        sources: list[Model] = [features] if student is None else [features, student]
        if len(names) < len(sources):
            raise ValueError(f"{len(names)} names for {len(sources)} models")
        self.units = [read_units(names[i], s, everything, indices, self.grid) for i, s in enumerate(sources)]
        self._shown = np.flatnonzero(self.units[0].any(1).numpy())
        middle = self.grid[0] // 2 * self.grid[1] + self.grid[1] // 2  # of the first image: its corner is no animal
        super().__init__(**{"patch": middle if middle in self._shown else int(self._shown[0])} | options)
        packed = [pack_codes(u, _BYTES_A_PATCH // len(sources)) for u in self.units]
        picture = sprite_sheet(self.images)
        self.sheet, self.codes = picture.data, [data for data, _ in packed]
        self.meta = {
            **describe_images(self.images, self.grid, picture, len(everything), seed),
            "models": [{"name": names[i], "steps": steps} for i, (_, steps) in enumerate(packed)],
        }

    @traitlets.validate("patch")
    def _check_patch(self, proposal: Any) -> int:
        P = len(self.units[0])
        if not 0 <= proposal["value"] < P:
            raise traitlets.TraitError(f"patch {proposal['value']} is not there: {P} are numbered from 0")
        if not self.units[0][proposal["value"]].any():
            raise traitlets.TraitError(f"patch {proposal['value']} shows the bar beside a padded picture: take another")
        return int(proposal["value"])

    @property
    def bytes_sent(self) -> Sent:
        """How much the browser was given, and how much of it a patch without the sprite sheet."""
        return Sent.count(self, ("codes",), ("meta",))

    def likeness(self, model: int = 0) -> np.ndarray:
        """(images, rows, columns) cosine of every patch to ``patch``, exact; 0 in the bars beside padded pictures."""
        unit = F.normalize(self.units[model].float(), dim=-1)
        cosine: np.ndarray = (unit @ unit[self.patch]).reshape(-1, *self.grid).numpy()
        return cosine

    def export_html(self, path: str | Path | None = None, *, overwrite: bool = False) -> Path:
        """Write one page that holds everything, ``lens.html`` or the next free name if not given.

        It opens without network and without a kernel. FileExistsError where a file is, unless it may be overwritten.
        """
        return write_file(path or free_path("lens.html"), offline_page(self, "Patch lens"), overwrite=overwrite)

    def snapshot(self) -> Image:
        """The state as an ordinary picture: the patch, and the images that are most alike, one row a model."""
        return Image(self._picture(), format="png")  # type: ignore[no-untyped-call]

    def _picture(self) -> bytes:
        count = 8
        m, n = divmod(self.patch, self.grid[0] * self.grid[1])
        maps = [self.likeness(i) for i in range(len(self.units))]
        best = [int(i) for i in np.argsort(-maps[0].max((1, 2)), kind="stable") if i != m]
        indices = [m, *best[: count - 1]]
        figure = Figure(figsize=(11, 0.7 + 1.35 * len(maps)), dpi=84, layout="constrained")
        axes = figure.subplots(len(maps), count, squeeze=False)
        for row, values in enumerate(maps):
            for ax in axes[row]:
                ax.set_axis_off()
            for ax, image in zip(axes[row], indices, strict=False):
                heat = overlay(ax, np.asarray(self.images.pixels[image]), values[image], 0.0, 1.0)
            draw_box(axes[row, 0], n // self.grid[1], n % self.grid[1], self.grid, self.images.image_px)
            axes[row, 0].set_title(plain(self.meta["models"][row]["name"]), fontsize=9)
        figure.colorbar(heat, ax=axes, label="cosine, raw patches", fraction=0.02)
        figure.suptitle(f"What is like the boxed patch of {plain(self.images.ids[m])}", fontsize=9)
        return save_figure(figure)

    def __repr__(self) -> str:
        models = " and ".join(m["name"] for m in self.meta["models"])
        m, n = divmod(self.patch, self.grid[0] * self.grid[1])
        where = f"row {n // self.grid[1]}, column {n % self.grid[1]} of {self.images.ids[m]}"
        return f"PatchLens({models}, {len(self._shown):,} patches of {len(self.images):,} images): {where}"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget, and for pages without a kernel its picture and its words."""
        return static_bundle(self, super()._repr_mimebundle_(**kwargs))
