"""Figures of patch vectors: a teacher's maps in colour, likeness to one patch, and the embedding in two dimensions."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from prockd.datasets import PackedImages
from prockd.evaluation.embed import Embedding, principal
from prockd.plots import _draw as draw
from prockd.teachers.features import PatchFeatures


def plot_teacher_maps(
    features: PatchFeatures, indices: Sequence[int] | np.ndarray, *, layers: Sequence[int] | None = None
) -> Figure:
    """Images, and below them one row a layer: the first three principal components of all their patches, as RGB.

    Patches that the teacher finds alike have the same colour, in all images of a row. ``layers`` are positions in
    ``features.layers``; None is all of them.

    Raises:
        IndexError: an image or layer that is not there.
    """
    selected = draw.checked_indices(indices, len(features), "image")
    positions = range(len(features.layers))
    rows = draw.checked_indices(positions if layers is None else layers, len(positions), "layer")
    figure, axes = draw.panels(len(rows) + 1, len(selected), 1.15)
    for ax, image in zip(axes[0], selected, strict=True):
        draw.show_image(ax, features.images.pixels[image])
    axes[0, 0].set_ylabel("image", fontsize=draw.SMALL)
    for row, layer in zip(axes[1:], rows, strict=True):
        maps = features.layer_maps(selected, layers=slice(layer, layer + 1))[0].numpy()  # (n, D, h, w)
        n, D, h, w = maps.shape
        shown = features.images.select(selected).in_picture((h, w)).ravel()  # not the bars beside padded pictures
        components = principal(maps.transpose(0, 2, 3, 1).reshape(-1, D)[shown], 3)
        low, high = np.percentile(components, (1, 99), axis=0)
        rgb = np.ones((len(shown), 3))
        rgb[shown] = ((components - low) / np.maximum(high - low, 1e-9)).clip(0, 1)
        for ax, picture in zip(row, rgb.reshape(n, h, w, 3), strict=True):
            draw.bare(ax).imshow(picture, interpolation="nearest")
        row[0].set_ylabel(f"layer {features.layers[layer]}\n{h} × {w} patches", fontsize=draw.SMALL)
    draw.caption(
        figure, "A layer's first three principal components as red, green and blue, fitted to all patches shown."
    )
    return figure


def plot_similarity(
    vectors: PatchFeatures | Float[Tensor, "M N E"],
    image: int,
    row: int,
    column: int,
    *,
    others: Sequence[int] = (),
    images: PackedImages | None = None,
    grid: tuple[int, int] | None = None,
) -> Figure:
    """Cosine between one patch and every patch of its own image and of ``others``, on one scale.

    Args:
        vectors: a teacher's features, or any patch vectors such as a student's, with ``images``.
        image: the image of the patch.
        row: row of the patch in the grid, from the top.
        column: column of the patch.
        others: more images to look at.
        images: the images that the vectors belong to; features bring their own.
        grid: rows and columns of patches.

    Raises:
        IndexError: an image or patch that is not there.
        ValueError: vectors without images.
    """
    pictures = vectors.images if isinstance(vectors, PatchFeatures) else images
    if pictures is None:
        raise ValueError("patch vectors alone have no pictures: pass images=")
    selected = draw.checked_indices([image, *others], len(pictures), "image")
    if isinstance(vectors, PatchFeatures):
        h, w = vectors.grid
        patches = vectors.fused(selected).flatten(2).transpose(1, 2)
    else:
        h, w = draw.grid_of(vectors, pictures, grid)
        patches = vectors[torch.tensor(selected)].float()
    (y,), (x,) = draw.checked_indices([row], h, "row"), draw.checked_indices([column], w, "column")
    unit = F.normalize(patches, dim=-1)  # (n, N, E)
    likeness, shown = draw.array(unit @ unit[0, y * w + x]), pictures.select(selected).in_picture((h, w))
    maps = np.where(shown, likeness, np.nan).reshape(-1, h, w)  # the bars beside padded pictures show nothing
    figure, axes = draw.panels(2, len(selected), 1.4)
    for i, m in enumerate(selected):
        draw.show_image(axes[0, i], pictures.pixels[m])
        heat = draw.overlay(axes[1, i], pictures.pixels[m], maps[i], float(np.nanmin(maps)), 1.0)
        axes[0, i].set_title(draw.short_name(pictures.ids[m]), fontsize=draw.SMALL)
    for ax in axes[:, 0]:
        draw.draw_box(ax, y, x, (h, w), pictures.image_px)
    draw.colour_bar(heat, list(axes[1]), "cosine", fraction=0.04)
    draw.caption(figure, f"Likeness to the boxed patch: row {y}, column {x} of {h} × {w} in {pictures.ids[image]}.")
    return figure


def plot_embedding(
    embedding: Embedding,
    labels: np.ndarray | Tensor,
    *,
    names: Sequence[str] | None = None,
    title: str = "",
    top: int = 12,
    ax: Axes | None = None,
) -> Axes:
    """The map of an embedding, coloured by any label: prototype, part, image or class.

    Args:
        embedding: what :func:`prockd.evaluation.embed.embed_2d` returned.
        labels: one integer a point of the map, or one a vector that was embedded; negative is unknown.
        names: of the labels.
        title: of the picture, such as "by part".
        top: labels that get a colour, commonest first; the rest, the unknown and "background" are grey.
        ax: where to draw.

    Raises:
        ValueError: not one label a point.
    """
    labels = draw.array(labels).ravel()
    if len(labels) > embedding.indices[-1]:
        labels = labels[embedding.indices]
    if len(labels) != len(embedding):
        raise ValueError(f"{len(labels)} labels for {len(embedding)} points of the map")
    texts = draw.names_of(names, max(1, int(labels.max()) + 1), "{}")
    values, counts = np.unique(labels, return_counts=True)
    ranked = values[np.argsort(-counts, kind="stable")].tolist()
    common = sorted([v for v in ranked if v >= 0 and texts[v] != "background"][:top])
    ax = draw.bare(draw.own_or_new(ax, 7.2, 5.2))
    size = float(np.clip(20_000 / len(embedding), 3, 30))
    rest = ~np.isin(labels, common)
    x, y = embedding.xy.T
    ax.scatter(x[rest], y[rest], s=size * 0.7, c=draw.OTHER, marker="o", linewidths=0)
    for number, value in enumerate(common):
        at, (colour, marker) = labels == value, draw.style(number)
        ax.scatter(x[at], y[at], s=size, c=colour, marker=marker, linewidths=0)
    handles = [draw.legend_key(i, texts[value]) for i, value in enumerate(common)]
    if rest.any():
        grey = "background" if "background" in texts and len(values) - len(common) == 1 else "others"
        handles.append(Line2D([], [], ls="", marker="o", color=draw.OTHER, label=grey))
    draw.legend(ax, handles)
    ax.set_title(title)
    draw.caption(ax, f"{embedding.note}. Near points are alike; the axes have no unit.")
    return ax
