"""Figures of prototypes: where they are, what they stand for, and who uses them."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from prockd.datasets import PackedImages
from prockd.evaluation.parts import PartAgreement, part_agreement, patch_parts
from prockd.plots._draw import (
    SMALL,
    caption,
    checked_index,
    colour_bar,
    draw_box,
    draw_shares,
    legend_key,
    matching_grid,
    names_of,
    overlay,
    own_or_new,
    panels,
    short_name,
    show_image,
    style,
)
from prockd.prototypes.bank import Patch, PrototypeBank, nearest_patches
from prockd.teachers.features import PatchFeatures


def plot_gallery(
    assignments: Float[Tensor, "M N K"],
    images: PackedImages,
    *,
    prototypes: Sequence[int] | None = None,
    count: int = 8,
    names: Sequence[str] | None = None,
    part_names: Sequence[str] | None = None,
    context: float = 2.0,
    full: bool = False,
    grid: tuple[int, int] | None = None,
    bank: PrototypeBank | None = None,
    features: PatchFeatures | None = None,
) -> Figure:
    """One row a prototype: the patches that belong most to it, best first, one from an image, each in its box.

    Args:
        assignments: soft assignments of every patch.
        images: the images, in the same order.
        prototypes: which; None is the ten that most patches prefer, or where parts are known the one that lies most on
            each part.
        count: patches in a row.
        names: of all K prototypes.
        part_names: by part index; where the images have part masks, each row then tells its part (as in
            :func:`plot_part_table`) and that part's share of the patches that prefer the prototype.
        context: what is shown around the patch on each side, in patches.
        full: show the whole image.
        grid: rows and columns of patches.
        bank: the prototypes; with ``features`` each patch tells its distance too, 1 - cosine (0..2).
        features: of the same images.

    Raises:
        IndexError: a prototype that is not there.
        ValueError: assignments of another number of images, or ``count`` below 1.
    """
    M, _, K = assignments.shape
    h, w = matching_grid(assignments, images, grid)
    labels = names_of(names, K)
    if count < 1:
        raise ValueError(f"count={count}: at least one patch a row")
    assigned = assignments.argmax(-1).numpy()
    usage = np.bincount(assigned.ravel(), minlength=K)
    table = None
    if images.parts is not None and part_names is not None:
        parts = patch_parts(np.asarray(images.parts), (h, w), len(part_names))
        table = part_agreement(assigned, parts, K, len(part_names)).table
    if prototypes is None and table is not None:
        best = (table[:, 1:] / np.maximum(usage, 1)[:, None]).argmax(0)  # (P - 1,), one a part
        prototypes = list(dict.fromkeys(best[table[:, 1:].any(0)].tolist()))
    elif prototypes is None:
        prototypes = [int(k) for k in np.argsort(-usage, kind="stable")[:10] if usage[k]]
    chosen = [checked_index(k, K, "prototype") for k in prototypes]
    figure, axes = panels(len(chosen), min(count, M), 1.0, below=0.18)
    for row, k in enumerate(chosen):
        label = f"{labels[k]}\n{usage[k]:,} patches"
        if table is not None and part_names is not None and usage[k]:
            part = _parts_of(table)[k]
            label += f"\n{part_names[part]} {table[k, part] / usage[k]:.0%}"
        axes[row, 0].set_ylabel(label, fontsize=SMALL, rotation=0, ha="right", va="center", labelpad=6)
        for ax, patch in zip(axes[row], nearest_patches(assignments, (h, w), k, count), strict=True):
            pixels = images.pixels[patch.image]
            left, top, side_x, side_y = _window((h, w), patch.row, patch.column, images.image_px, context)
            if full:
                left, top, side_x, side_y = 0, 0, images.image_px, images.image_px
            show_image(ax, pixels[:, top : top + side_y, left : left + side_x])
            draw_box(ax, patch.row, patch.column, (h, w), images.image_px, left, top)
            told = f"{patch.score:.2f} · {short_name(images.ids[patch.image])}"
            if bank is not None and features is not None:
                told += f"\ndistance {_distance(bank, features, patch, k):.2f}"
            ax.set_xlabel(told, fontsize=6, labelpad=2)
    about = (
        f"Strongest patches of {len(chosen)} of {K} prototypes in {M:,} images, best first, at most one an image; "
        f"each box is one patch. Numbers: assignment, 0..1{', and distance, 1 - cosine' if bank and features else ''}."
    )
    caption(figure, about)
    return figure


def plot_heatmap(
    assignments: Float[Tensor, "M N K"],
    images: PackedImages,
    image: int,
    prototype: int,
    *,
    smooth: bool = False,
    name: str | None = None,
    grid: tuple[int, int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """How much each place of an image belongs to a prototype, 0..1: raw patches, or smoothed (bilinear) and said so.

    Raises:
        IndexError: an image or prototype that is not there.
        ValueError: assignments of another number of images.
    """
    h, w = matching_grid(assignments, images, grid)
    m, k = checked_index(image, len(images), "image"), checked_index(prototype, assignments.shape[2], "prototype")
    values = assignments[m, :, k].reshape(h, w)
    if smooth:
        size = (images.image_px, images.image_px)
        values = F.interpolate(values[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    ax = own_or_new(ax, 3.8, 3.9)
    heat = overlay(ax, images.pixels[m], values.numpy(), 0.0, 1.0)
    colour_bar(heat, ax, "assignment", fraction=0.046, pad=0.03)
    kind = "smoothed" if smooth else f"raw, {h} × {w} patches"
    ax.set_title(f"{name or f'p{k:02d}'}: {kind}", fontsize=SMALL + 1)
    caption(ax, f"{short_name(images.ids[m])}; highest patch {float(assignments[m, :, k].max()):.2f}")
    return ax


def plot_assignments(
    assignments: Float[Tensor, "M N K"],
    images: PackedImages,
    indices: Sequence[int] | np.ndarray,
    *,
    names: Sequence[str] | None = None,
    top: int = 12,
    grid: tuple[int, int] | None = None,
) -> Figure:
    """Images, and below each the strongest prototype of its patches; the ``top`` commonest are coloured and named.

    Raises:
        IndexError: an image that is not there.
        ValueError: assignments of another number of images.
    """
    h, w = matching_grid(assignments, images, grid)
    labels = names_of(names, assignments.shape[2])
    chosen = [checked_index(i, len(images), "image") for i in indices]
    assigned = assignments[chosen].argmax(-1).numpy()  # (n, N)
    usage = np.bincount(assigned.ravel(), minlength=len(labels))
    common = [int(k) for k in np.argsort(-usage, kind="stable")[:top] if usage[k]]
    rank = np.full(len(labels), -1)
    rank[common] = np.arange(len(common))
    figure, axes = panels(2, len(chosen), 1.7)
    rows, columns = np.divmod(np.arange(h * w), w)
    step_y, step_x = images.image_px / h, images.image_px / w
    for i, m in enumerate(chosen):
        show_image(axes[0, i], images.pixels[m])
        colours = np.ma.masked_less(rank[assigned[i]].reshape(h, w), 0)
        tints = ListedColormap([to_rgba(style(r)[0], 0.65) for r in range(len(common))])
        overlay(axes[1, i], images.pixels[m], colours, -0.5, len(common) - 0.5, tints)
        for r in range(len(common)):
            at = rank[assigned[i]] == r
            x, y = (columns[at] + 0.5) * step_x - 0.5, (rows[at] + 0.5) * step_y - 0.5
            axes[1, i].scatter(x, y, s=6, c="white", marker=style(r)[1], edgecolors="black", linewidths=0.4)
    handles = [legend_key(r, f"{labels[k]} ({usage[k]:,})") for r, k in enumerate(common)]
    figure.legend(handles=handles, loc="outside right upper", fontsize=SMALL, frameon=False)
    left = int((usage > 0).sum()) - len(common)
    rest = f"; {left} rarer ones are left grey" if left else ""
    caption(figure, f"Strongest prototype of each of {h} × {w} patches; {len(common)} are coloured{rest}.")
    return figure


def plot_part_table(
    agreement: PartAgreement,
    part_names: Sequence[str],
    names: Sequence[str] | None = None,
    *,
    ax: Axes | None = None,
) -> Axes:
    """Prototypes by parts: which share of a prototype's patches lies on each part, rows by part, then purity.

    A prototype's part is the commonest on the animals where more than a quarter of its patches lie, else background.

    Raises:
        ValueError: names that do not fit the table.
    """
    table = agreement.table
    labels = names_of(names, len(table))
    if len(part_names) != table.shape[1]:
        raise ValueError(f"{len(part_names)} part names for a table of {table.shape[1]} parts")
    counts = table.sum(1)
    shares = table / np.maximum(counts, 1)[:, None]
    parts = _parts_of(table)
    purity = shares[np.arange(len(table)), parts]
    order = [int(k) for k in np.lexsort((-purity, (parts - 1) % table.shape[1])) if counts[k]]  # background last
    ax = own_or_new(ax, 7.2, 1.6 + 0.19 * len(order))
    heat = ax.imshow(shares[order], cmap="cividis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    for y, k in enumerate(order):
        dark = "black" if purity[k] > 0.55 else "white"
        ax.text(parts[k], y, f"{purity[k]:.0%}", ha="center", va="center", fontsize=6.5, color=dark)
        ax.text(table.shape[1] - 0.4, y, f"{counts[k]:,}", va="center", fontsize=6.5)
    ax.set_xticks(range(table.shape[1]), part_names, fontsize=SMALL)
    ax.set_yticks(range(len(order)), [labels[k] for k in order], fontsize=6.5)
    ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    colour_bar(heat, ax, "share of the prototype's patches", pad=0.1, fraction=0.03, format=PercentFormatter(1))
    dead = f" {len(table) - len(order)} prototypes without a patch are left out." if len(order) < len(table) else ""
    about = (
        f"{counts.sum():,} patches, numbers at the side; prototypes with at most a quarter on animals come last. "
        f"On the animals purity is {agreement.purity:.2f} and NMI {agreement.nmi:.2f}; the commonest part alone "
        f"would be {agreement.majority:.2f}.{dead}"
    )
    caption(ax, about)
    return ax


def plot_usage(
    assignments: Float[Tensor, "M N K"],
    labels: Sequence[int] | np.ndarray,
    classes: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Classes by prototypes: which share of a class's patches prefers each prototype, the most used first.

    Images without a label are left out.

    Raises:
        ValueError: not one label an image.
    """
    M, _, K = assignments.shape
    known = np.asarray(labels)
    if len(known) != M:
        raise ValueError(f"{len(known)} labels for the assignments of {M} images")
    assigned = assignments.argmax(-1).numpy()
    counts = np.stack([np.bincount(assigned[known == c].ravel(), minlength=K) for c in range(len(classes))])
    order = np.argsort(-counts.sum(0), kind="stable")
    shares = (counts / np.maximum(counts.sum(1, keepdims=True), 1))[:, order]
    ax = own_or_new(ax, 8.0, 1.7 + 0.24 * len(classes))
    heat = ax.imshow(shares, cmap="cividis", vmin=0, aspect="auto", interpolation="nearest")
    named = names_of(names, K)
    ax.set_xticks(range(K), [named[k] for k in order], rotation=90, fontsize=6.5 if K <= 60 else 4)
    ax.set_yticks(range(len(classes)), classes, fontsize=SMALL)
    ax.tick_params(length=0)
    colour_bar(
        heat, ax, "share of the class's patches", pad=0.02, fraction=0.03, format=PercentFormatter(1, decimals=0)
    )
    caption(
        ax, f"Strongest prototype of {counts.sum():,} patches; a column that lights up in one row tells that class."
    )
    return ax


def plot_agreement(
    teacher_assignments: Float[Tensor, "M N K"],
    student_assignments: Float[Tensor, "M N K"],
    *,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Does the student see the teacher's prototype in the same patch? Rows teacher, columns student, diagonal agrees.

    Both are assignments of the same patches: resize the map of one to the grid of the other first.
    """
    K = teacher_assignments.shape[2]
    table = np.zeros((K, K))
    teacher, student = (a.argmax(-1).flatten().numpy() for a in (teacher_assignments, student_assignments))
    np.add.at(table, (teacher, student), 1)
    same = int(np.trace(table))
    ax = draw_shares(table, names_of(names, K), "student's strongest prototype", "teacher's", ax)
    ax.set_title(f"{same:,} of {len(teacher):,} patches agree ({same / max(1, len(teacher)):.0%})", fontsize=SMALL + 2)
    chance = float((table.sum(0) * table.sum(1)).sum() / max(1.0, table.sum()) ** 2)
    caption(ax, f"Each row sums to 100 %. Chance would be {chance:.0%} with the same usage.")
    return ax


@torch.no_grad()
def _distance(bank: PrototypeBank, features: PatchFeatures, patch: Patch, prototype: int) -> float:
    """1 - cosine between a patch and a prototype, in the space of the prototypes."""
    bank.check(features)
    u = bank.embed(features.fused([patch.image]).to(bank.prototypes.device))[0]  # (N, E)
    mine = u[patch.row * features.grid[1] + patch.column]
    return 1 - float(F.cosine_similarity(mine, bank.prototypes[prototype], dim=0))


def _window(grid: tuple[int, int], row: int, column: int, image_px: int, context: float) -> tuple[int, int, int, int]:
    """Left, top, width and height in pixels of a patch with its context, moved into the image."""
    place = []
    for index, cells in ((column, grid[1]), (row, grid[0])):
        size = image_px / cells
        side = min(image_px, round(size * (1 + 2 * context)))
        place.append((min(max(0, round((index - context) * size)), image_px - side), side))
    (left, width), (top, height) = place
    return left, top, width, height


def _parts_of(table: np.ndarray) -> np.ndarray:
    """Each prototype's part: the commonest where more than a quarter of its patches lie on animals, else background."""
    front = table[:, 1:]
    return np.where(4 * front.sum(1) > table.sum(1), front.argmax(1) + 1, 0)
