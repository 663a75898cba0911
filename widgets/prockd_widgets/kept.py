"""An explorer that stays alive in a saved notebook: a page of some images in an output, within a budget of bytes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from prockd_widgets.html import page_of
from prockd_widgets.snapshot import shown_map
from prockd_widgets.sprites import sprite_sheet

MAX_IMAGES, MAX_BYTES = 30, 1_000_000
_FRAME = (
    "<div><iframe title='{title}' sandbox='allow-scripts allow-downloads' style='width: 100%; height: {height}px; "
    "border: 0' srcdoc='{page}'></iframe></div>"
)


def kept_frame(widget: Any, *, max_images: int = MAX_IMAGES, max_bytes: int = MAX_BYTES, height_px: int = 1060) -> str:
    """The explorer on some of its images as an ``iframe`` that needs neither kernel nor network nor another file.

    The nearest patches of the prototypes of the gallery choose the images; there are fewer where bytes are short.

    Raises:
        ValueError: not even one image fits into ``max_bytes``.
    """
    order = telling_images(widget)
    count = min(max_images, len(order))
    while count:
        page = page_of(widget, "Prototype explorer", some_images(widget, sorted(order[:count])))
        quoted = page.replace("&", "&amp;").replace("'", "&#39;")
        frame = _FRAME.format(title="Prototype explorer", height=height_px, page=quoted)
        size = len(frame.encode())
        if size <= max_bytes:
            return frame
        count = min(count - 1, int(count * max_bytes / size))
    raise ValueError(f"max_bytes={max_bytes:,} holds no image: the page of one has {size:,} bytes")


def _shown(widget: Any) -> tuple[int, int]:
    """The patch in the box and the image; in place of a picture of one's own, which is not kept, the best there is."""
    if widget.image < len(widget.images):
        return widget.patch, widget.image
    near = widget.stats[widget.model][widget.prototype]["near"] if widget.prototype >= 0 else []
    patch = near[0][0] if near else -1
    return patch, max(0, patch // (widget.grid[0] * widget.grid[1]))


def telling_images(widget: Any) -> list[int]:
    """Every image, those first that tell most: the one that is shown, then the nearest ones of what galleries show."""
    stats, N = widget.stats[widget.model], widget.grid[0] * widget.grid[1]
    M, gallery = len(widget.images), widget._gallery(widget.model)
    near = [[p // N for p, _ in stats[k]["near"]] for k in (widget.prototype, *gallery) if k >= 0]
    turns = [row[turn] for turn in range(max(map(len, near), default=0)) for row in near if turn < len(row)]
    spread = np.argsort(np.arange(M) * 0.618034 % 1).tolist()  # steps of the golden ratio: some from all over
    return list(dict.fromkeys([_shown(widget)[1], *turns, *spread]))


def some_images(widget: Any, images: Sequence[int]) -> dict[str, Any]:
    """The traits that the page needs, of some of the images alone, their patches numbered anew."""
    N, T, meta = widget.grid[0] * widget.grid[1], widget._count, widget.meta
    M, L = len(widget.images), len(widget.models)
    place = np.full(M + 1, -1)
    place[list(images)] = np.arange(len(images))

    def cut(data: bytes, start: int = 0, stop: int | None = None) -> bytes:
        whole = np.frombuffer(data, np.uint8)[start:stop]
        return whole.reshape(M, -1)[list(images)].tobytes() if len(whole) else b""

    def moved(patch: int) -> int:
        return int(place[patch // N] * N + patch % N) if 0 <= patch < M * N and place[patch // N] >= 0 else -1

    sheet = sprite_sheet(widget.images.select(list(images)))
    shares, (patch, image) = M * N * T, _shown(widget)
    chosen = shown_map(widget)
    of_images = {
        key: [meta[key][m] for m in images] if meta[key] is not None else None
        for key in ("ids", "labels", "shown", "groups", "answers")
    }
    note = "" if len(images) == M else f"{len(images)} of {M:,} images are kept in this page"
    return {
        "meta": {
            **meta,
            **of_images,
            "patches": len(images) * N,
            "sheet": {"cell": sheet.cell_px, "columns": sheet.columns},
            "note": note or meta["note"],
        },
        "sheet": sheet.data,
        "parts": cut(widget.parts),
        "xy": [cut(xy) for xy in widget.xy[chosen * L : chosen * L + L]],
        "maps": [widget.maps[chosen]],
        "map_note": widget.maps[chosen]["note"],
        "top": [cut(top, 0, len(top) - shares) + cut(top, len(top) - shares) for top in widget.top],
        "codes": [cut(codes) for codes in widget.codes],
        "stats": [
            [row | {"near": [[moved(p), d] for p, d in row["near"] if moved(p) >= 0]} for row in rows]
            for rows in widget.stats
        ],
        "selection": np.array(sorted(moved(p) for p in widget.selection if moved(p) >= 0), np.uint32).tobytes(),
        "patch": moved(patch),
        "image": max(0, int(place[image])),
        "show": widget.show if image == widget.image else "prototype",
        "own": {},
        "past": [],
        "future": [],
        "status": "",
    }
