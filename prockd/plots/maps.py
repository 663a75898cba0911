"""Figures of patch vectors: a teacher's maps in colour, likeness to one patch, and the embedding in two dimensions."""

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from prockd.datasets import PackedImages
from prockd.evaluation.embed import Embedding, principal
from prockd.plots._draw import (
    OTHER,
    SMALL,
    bare,
    caption,
    checked_index,
    colour_bar,
    draw_box,
    grid_of,
    legend_key,
    names_of,
    overlay,
    own_or_new,
    panels,
    short_name,
    show_image,
    style,
)
from prockd.teachers.features import PatchFeatures


def plot_teacher_maps(
    features: PatchFeatures, indices: Sequence[int] | np.ndarray, *, layers: Sequence[int] | None = None
) -> Figure:
    """Images, and below them one row a layer: the first three principal components of all patches shown, as RGB.

    Patches that the teacher finds alike have the same colour, in all images of a row. ``layers`` are positions in
    ``features.layers``; None is all of them.

    Raises:
        IndexError: an image or layer that is not there.
    """
    chosen = [checked_index(i, len(features), "image") for i in indices]
    rows = (
        range(len(features.maps)) if layers is None else [checked_index(i, len(features.maps), "layer") for i in layers]
    )
    figure, axes = panels(len(rows) + 1, len(chosen), 1.15)
    for column, image in enumerate(chosen):
        show_image(axes[0, column], features.images.pixels[image])
    axes[0, 0].set_ylabel("image", fontsize=SMALL)
    for row, layer in enumerate(rows, 1):
        maps = np.asarray(features.maps[layer][chosen, 0], np.float32)  # (n, D, h, w)
        n, D, h, w = maps.shape
        components = principal(maps.transpose(0, 2, 3, 1).reshape(-1, D), 3)
        low, high = np.percentile(components, (1, 99), axis=0)
        rgb = ((components - low) / np.maximum(high - low, 1e-9)).clip(0, 1).reshape(n, h, w, 3)
        for column in range(n):
            bare(axes[row, column]).imshow(rgb[column], interpolation="nearest")
        axes[row, 0].set_ylabel(f"layer {features.layers[layer]}\n{h} × {w} patches", fontsize=SMALL)
    caption(
        figure, "Each layer's first three principal components as red, green and blue, fitted to all patches shown."
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
    chosen = [checked_index(i, len(pictures), "image") for i in (image, *others)]
    if isinstance(vectors, PatchFeatures):
        h, w = vectors.grid
        patches = vectors.fused(chosen).flatten(2).transpose(1, 2)
    else:
        h, w = grid_of(vectors.shape[1], grid)
        patches = vectors.detach()[chosen].float()
    unit = F.normalize(patches, dim=-1)  # (n, N, E)
    here = unit[0, checked_index(row, h, "row") * w + checked_index(column, w, "column")]
    maps = (unit @ here).reshape(-1, h, w).numpy()
    figure, axes = panels(2, len(chosen), 1.4)
    for i, m in enumerate(chosen):
        show_image(axes[0, i], pictures.pixels[m])
        heat = overlay(axes[1, i], pictures.pixels[m], maps[i], float(maps.min()), 1.0)
        axes[0, i].set_title(short_name(pictures.ids[m]), fontsize=SMALL)
    for ax in axes[:, 0]:
        draw_box(ax, row, column, (h, w), pictures.image_px)
    colour_bar(heat, list(axes[1]), "cosine", fraction=0.04)
    caption(figure, f"Likeness to the boxed patch: row {row}, column {column} of {h} × {w} in {pictures.ids[image]}.")
    return figure


def plot_embedding(
    embedding: Embedding,
    labels: np.ndarray,
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
    labels = np.asarray(labels).ravel()
    if len(labels) > embedding.indices[-1]:
        labels = labels[embedding.indices]
    if len(labels) != len(embedding):
        raise ValueError(f"{len(labels)} labels for {len(embedding)} points of the map")
    known = names_of(names, max(1, int(labels.max()) + 1), "{}")
    values, counts = np.unique(labels, return_counts=True)
    ranked = values[np.argsort(-counts, kind="stable")]
    common = sorted(int(v) for v in [v for v in ranked if v >= 0 and known[v] != "background"][:top])
    ax = bare(own_or_new(ax, 7.2, 5.2))
    size = float(np.clip(20_000 / len(embedding), 3, 30))
    rest = ~np.isin(labels, common)
    x, y = embedding.xy.T
    ax.scatter(x[rest], y[rest], s=size * 0.7, c=OTHER, marker="o", linewidths=0)
    for number, value in enumerate(common):
        colour, marker = style(number)
        at = labels == value
        ax.scatter(x[at], y[at], s=size, c=colour, marker=marker, linewidths=0)
    handles = [legend_key(i, known[value]) for i, value in enumerate(common)]
    if rest.any():
        grey = "background" if "background" in known and len(values) - len(common) == 1 else "others"
        handles.append(Line2D([], [], ls="", marker="o", color=OTHER, label=grey))
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=SMALL, frameon=False)
    ax.set_title(title)
    caption(ax, f"{embedding.note}. Near points are alike; the axes have no unit.")
    return ax
