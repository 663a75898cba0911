"""The rows of "What does this prototype do?": its best patches, the part they show, and the change without it."""

import io
from collections.abc import Callable
from typing import Any

import anywidget
import numpy as np
import traitlets
from PIL import Image, ImageDraw

from prockd.datasets import PackedImages
from prockd.evaluation.best_prototypes import prototypes_on, strongest
from prockd.evaluation.effects import PrototypeEffects
from prockd.evaluation.galleries import part_names_of
from prockd.evaluation.patches import lies_on
from prockd.students.student import Student
from prockd_widgets.assets import script, style_sheet
from prockd_widgets.patches import read_patches

THUMBS, SIDE_PX, LINES = 6, 44, 300
_CONTEXT = 3.0
"""Side of a thumbnail in patches: the patch and what is around it."""
LAYOUT = {"side": SIDE_PX, "columns": THUMBS, "lines": LINES}
"""Of the sheet: side of a thumbnail in pixels, thumbnails of a prototype, and lines before the next column begins."""


class Causes(anywidget.AnyWidget):
    """The list of prototypes, ticked in the browser or from Python; buttons do ``actions``, by name."""

    _esm = script("causes")
    _css = style_sheet("causes")
    rows: traitlets.List[Any] = traitlets.List(help="One row a prototype, in the order of the list.").tag(sync=True)
    ticked: traitlets.List[int] = traitlets.List(help="Numbers of the ticked prototypes.").tag(sync=True)
    sheet = traitlets.Bytes(help="Their best patches as one WebP picture.").tag(sync=True)
    layout_of_sheet = traitlets.Dict(help="See ``LAYOUT``.").tag(sync=True)
    steps = traitlets.Dict(help="How often Undo and Redo can be pressed.").tag(sync=True)
    busy = traitlets.Bool(False, help="Something is being measured.").tag(sync=True)

    def __init__(self, actions: dict[str, Callable[[], None]]) -> None:
        super().__init__(steps={"undo": 0, "redo": 0}, layout_of_sheet=LAYOUT)
        self.on_msg(lambda _, content, __: actions.get(str(content.get("do")), lambda: None)())

    def show(self, student: Student | None, images: PackedImages) -> None:
        """Show the enabled prototypes of a student, those of a part first where parts are known; none without one."""
        bank = None if student is None else student.bank
        self.ticked = []
        if student is None or bank is None:
            self.rows, self.sheet = [], b""
            return
        patches = read_patches("student", bank, student, images, np.arange(len(images)), student.grid)
        soft = patches.switched().reshape(len(images), -1, bank.num_prototypes)
        best, score = strongest(soft)  # (M, K)
        order = np.argsort(-score, axis=0, kind="stable")[:THUMBS]  # (T, K)
        names = part_names_of(images)
        told: dict[int, tuple[str, float]] = {}
        if names and images.parts is not None:
            found = prototypes_on(soft, lies_on(np.asarray(images.parts), student.grid, len(names)), names)
            told = {k: (", ".join(found.told(k)), float(found.shares[k, 1:].max())) for k in range(len(bank.names))}
        shown = [k for k in range(bank.num_prototypes) if bank.enabled[k]]
        shown.sort(key=lambda k: -told.get(k, ("", 0.0))[1])
        self.sheet = best_patches(
            images, student.grid, [[(int(m), int(best[m, k])) for m in order[:, k]] for k in shown]
        )
        self.rows = [
            {"k": k, "name": bank.names[k], "part": told.get(k, ("", 0.0))[0], "line": line, "thumbs": len(order)}
            for line, k in enumerate(shown)
        ]

    def measured(self, effects: PrototypeEffects) -> None:
        """Tell what changes without each prototype alone, and put those first that change most."""
        by_prototype = {members[0]: r for r, members in enumerate(effects.prototypes)}
        said = effects.rows()
        said_of = {row["removed"]: row for row in said}
        rows = []
        for row in self.rows:
            r = by_prototype[row["k"]]
            change = [100 * float(ends[r, 0]) for ends in (effects.low, effects.change, effects.high)]
            words = said_of[effects.removed[r]]
            classes = [str(words[key]) for key in ("loses most", "gains most") if words[key]]
            rows.append({**row, "change": change, "classes": ", ".join(classes)})
        largest = {m[0]: float(np.nanmax(np.abs(effects.change[r]))) for r, m in enumerate(effects.prototypes)}
        self.rows = sorted(rows, key=lambda row: (-abs(row["change"][1]), -largest[row["k"]]))


def best_patches(images: PackedImages, grid: tuple[int, int], lines: list[list[tuple[int, int]]]) -> bytes:
    """Patches with what is around them, given as image and patch, in one WebP picture."""
    (h, w), S = grid, images.image_px
    side = min(S, round(_CONTEXT * max(S / h, S / w)))
    high, wide = max(1, min(LINES, len(lines))), max(1, -(-len(lines) // LINES))  # WebP ends at 16,383 pixels
    sheet = Image.new("RGB", (wide * THUMBS * SIDE_PX, high * SIDE_PX))
    for y, line in enumerate(lines):
        for x, (m, n) in enumerate(line):
            top, left = (
                int(np.clip((at + 0.5) * S / count - side / 2, 0, S - side)) for at, count in ((n // w, h), (n % w, w))
            )
            pixels = np.asarray(images.pixels[m])[:, top : top + side, left : left + side]
            thumb = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
            at = (x + y // LINES * THUMBS) * SIDE_PX, y % LINES * SIDE_PX
            sheet.paste(thumb.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS), at)
            zoom = SIDE_PX / side
            u, v = at[0] + (n % w * S / w - left) * zoom, at[1] + (n // w * S / h - top) * zoom
            for out, colour in ((1, "black"), (0, "white")):
                ends = (u - out, v - out, u + S / w * zoom + out, v + S / h * zoom + out)
                ImageDraw.Draw(sheet).rectangle(ends, outline=colour)
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=82, method=2)
    return file.getvalue()
