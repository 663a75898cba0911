"""How prototypes are found (METHOD part 1): what local things does the teacher know?"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm.auto import tqdm

from prockd.devices import default_device
from prockd.prototypes.bank import PrototypeBank, check_finite
from prockd.prototypes.kmeans import BLOCK, from_all, k_means, own_part
from prockd.prototypes.saliency import activity, learn_saliency
from prockd.settings.method import DiscoverConfig
from prockd.teachers.features import PatchFeatures

LEAST_IMAGES, PATCHES_OF_IMAGE = 2048, 32
"""Images that patches are drawn from, where there are so many, or more for more patches than so many of each."""

LEARNED_FROM = 60_000
"""Patches that the space and saliency are learned from."""

DECODED = 48
"""Patches of an image that a training step decodes."""


def discover(
    features: PatchFeatures,
    num_prototypes: int | None = None,
    *,
    config: DiscoverConfig | None = None,
    progress: bool = True,
    stop: Callable[[], bool] | None = None,
    together: bool = False,
) -> PrototypeBank:
    """Find prototypes in a teacher's features, without any label.

    A PCA gives the space, k-means the start (see :func:`cluster`), and :func:`train_bank` refines the whole module.
    All of it runs on the CPU, where the bank is left; the same seed gives the same bank, and PyTorch's own random
    generators are left as they were.

    Args:
        features: what :func:`prockd.extract` returned.
        num_prototypes: K, in place of ``config.num_prototypes``.
        config: every other knob.
        progress: show a progress bar.
        stop: asked between steps; once it says yes, the bank is returned as it is, half refined.
        together: all processes of ``torch.distributed`` call this, read and cluster a part of the patches each, and get
            the bank of one process, up to the order of sums.

    Raises:
        ValueError: more prototypes than patches, or features that are not finite (names the image).

    >>> import prockd as pk
    >>> pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    >>> images = pk.Arrays(pixels, [0] * 8, classes=["cow"])
    >>> teacher = pk.Teacher("resnet10t", image_px=32, channels=(8, 8, 8, 8), stem_width=8)
    >>> features = pk.extract(teacher, images, progress=False)
    >>> bank = pk.discover(features, num_prototypes=6, progress=False)
    >>> bank.prototypes.shape, bank.assignments(features).shape
    (torch.Size([6, 128]), torch.Size([8, 16, 6]))
    """
    config = config or DiscoverConfig()
    if num_prototypes is not None:
        config = replace(config, num_prototypes=num_prototypes)
    K, began, together = config.num_prototypes, time.perf_counter(), together and len(features) >= dist.get_world_size()
    drawn = draw_patches(features, config.max_patches, config.seed, together)
    if len(drawn) < K:
        reason = f"max_patches={config.max_patches} leaves" if len(drawn) == config.max_patches else "there are"
        patch_count = f"{len(drawn)} patches of {len(features)} images"
        raise ValueError(f"num_prototypes={K} is too many: {reason} {patch_count}")
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # torch.manual_seed would move the generators of GPUs too
        bank = PrototypeBank(
            K, features.width, config.embed_dim, teacher=features.teacher, rectify=config.init == "uniform"
        )
        unit, weights = start_space(bank, features, drawn, config, together)
        if config.init == "kmeans":
            owners = torch.from_numpy(drawn.owners)
            cluster(bank, unit, weights, owners, sharpness=config.sharpness, seed=config.seed, together=together)
        if config.steps:
            train_bank(bank, features, unit, weights, config, progress=progress, stop=stop)
    if progress:
        spent = time.perf_counter() - began
        told = f"{len(drawn):,} patches of {len(drawn.images):,} images, {len(drawn) / spent:,.0f} patches/s"
        tqdm.write(f"prototypes: {K} in {spent:.0f} s from {told}", file=sys.stderr)
    return bank.eval()


@dataclass(frozen=True)
class Drawn:
    """Random patches of some images, none of them in the bars beside a picture; ordered by image."""

    images: Int[np.ndarray, " m"]  # numbers of the images
    owners: Int[np.ndarray, " P"]  # which of them each patch is of
    patches: Int[np.ndarray, " P"]  # number of the patch in its image
    active: Float[Tensor, " P"]  # see prockd.prototypes.saliency.activity

    def __len__(self) -> int:
        return len(self.owners)

    def __getitem__(self, rows: slice | np.ndarray) -> "Drawn":
        active = self.active[rows if isinstance(rows, slice) else torch.from_numpy(rows)]
        return Drawn(self.images, self.owners[rows], self.patches[rows], active)


def draw_patches(features: PatchFeatures, count: int, seed: int, together: bool = False) -> Drawn:
    """Draw patches, of as many images as give enough different ones: of a million images most stay unread."""
    rng, N = np.random.default_rng(seed), features.grid[0] * features.grid[1]
    m = min(len(features), max(LEAST_IMAGES, count // PATCHES_OF_IMAGE))
    images = np.arange(m) if m == len(features) else np.sort(rng.permutation(len(features))[:m])
    inside = features.images.in_picture(features.grid, images)  # (m, N)
    pictured = np.flatnonzero(inside)
    sampled = pictured[np.sort(rng.choice(len(pictured), min(count, len(pictured)), replace=False))]
    mine = images[own_part(m, together)]
    lengths = torch.cat([features.lengths(mine[start : start + 64]) for start in range(0, len(mine), 64)])
    lengths = from_all(lengths, m, together)
    active = activity(lengths, torch.from_numpy(inside).view(m, *features.grid)).flatten()
    return Drawn(images, sampled // N, sampled % N, active[torch.from_numpy(sampled)])


def read_patches(features: PatchFeatures, drawn: Drawn) -> Iterator[Float[Tensor, "V p D"]]:
    """Fused patches in every view, in the order in which they were drawn; of 64 images at a time they lie in memory."""
    width = features.grid[1]
    for start in range(0, len(drawn.images), 64):
        low, high = np.searchsorted(drawn.owners, [start, start + 64])
        if low == high:
            continue
        own, patches = np.unique(drawn.owners[low:high], return_inverse=True), drawn.patches[low:high]
        indices, views = drawn.images[own[0]], []
        for view in features.views:  # the mirrored view is laid back over the image
            at = patches + width - 1 - 2 * (patches % width) if view == "mirrored" else patches
            found = features.patches(indices, own[1], at, view)
            check_finite(found[..., None, None], features, indices[own[1]])
            views.append(found)
        yield torch.stack(views)


@torch.no_grad()
def start_space(
    bank: PrototypeBank, features: PatchFeatures, drawn: Drawn, config: DiscoverConfig, together: bool = False
) -> tuple[Float[Tensor, "V P E"], Float[Tensor, " P"]]:
    """W_c from a PCA; then unit u of all patches in every view, and their weights.

    Space and saliency are learned of ``LEARNED_FROM`` patches, evenly drawn; where there are more, those are read
    again, some images at a time, and only u is kept, in half precision.
    """
    many = len(drawn) > LEARNED_FROM
    some = drawn[np.linspace(0, len(drawn) - 1, LEARNED_FROM).astype(np.int64)] if many else drawn
    patches = torch.cat(list(read_patches(features, some[own_part(len(some), together)])), 1)
    patches = from_all(patches.transpose(0, 1), len(some), together).transpose(0, 1)
    judge = learn_saliency(patches[0], some.active) if config.salient else None

    def weigh(plain: Float[Tensor, "p D"], active: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
        return torch.ones(len(plain)) if judge is None else judge(plain, active) ** 2

    if config.init == "kmeans":
        start_from_pca(bank, patches[0], weigh(patches[0], some.active))
    mine = drawn[own_part(len(drawn), together and many)]
    unit = torch.empty(len(features.views), len(mine), bank.embed_dim, dtype=torch.half if many else torch.float32)
    weights, start = torch.empty(len(mine)), 0
    for chunk in read_patches(features, mine) if many else [patches]:
        rows = slice(start, start := start + chunk.shape[1])
        unit[:, rows] = F.normalize(bank.embed(chunk.transpose(1, 2)[..., None]), dim=-1).to(unit.dtype)
        weights[rows] = weigh(chunk[0], mine.active[rows])
    if together and many:
        unit = from_all(unit.transpose(0, 1), len(drawn), together).transpose(0, 1)
        weights = from_all(weights, len(drawn), together)
    return unit, weights


@torch.no_grad()
def start_from_pca(bank: PrototypeBank, patches: Float[Tensor, "P D"], weights: Float[Tensor, " P"]) -> None:
    """W_c: a half-whitened PCA in which salient patches weigh more; fine differences count, noise does not rule."""
    weights = weights / weights.mean()
    mean = (patches * weights[:, None]).mean(0)
    spread = (patches - mean) * weights[:, None].sqrt()
    values, basis = torch.linalg.eigh(spread.T @ spread / len(patches))
    count = min(bank.embed_dim, *patches.shape)
    values, basis = values.flip(0)[:count], basis.flip(1)[:, :count]  # (count,), (D, count), greatest first
    weight = torch.zeros(bank.fuse.weight.shape)  # rows beyond the count stay 0: E may exceed D
    # Divided by the fourth root of the variance: its square root would lift directions of pure noise to full size.
    weight[:count] = (basis * values.clamp_min(1e-6 * float(values[0]) + 1e-12) ** -0.25).T
    bank.fuse.weight.copy_(weight)
    bank.fuse.bias.copy_(-weight @ mean)


@torch.no_grad()
def cluster(
    bank: PrototypeBank,
    unit: Float[Tensor, "V P E"],
    weights: Float[Tensor, " P"],
    owners: Int[Tensor, " P"],
    *,
    sharpness: float,
    seed: int,
    together: bool = False,
) -> None:
    """K-means on unit patches, where what cannot tell a part has been shrunk: the start of the assignment.

    With x = (u - mean) S, S from :func:`nuisance_shrinker`, the assignment is softmax_k(-s |x - c_k|^2): NetVLAD's own
    advice, w_k = 2 s c_k and b_k = -s |c_k|^2. It bends the assignment only; prototypes and W_c keep what tells species
    apart, which a student wants to learn.
    """
    share = (weights / weights.sum())[:, None]
    mean, shrink = nuisance_shrinker(unit, share, owners)
    points = torch.empty(unit.shape[1:], dtype=unit.dtype)
    for rows in in_blocks(len(points)):
        points[rows] = ((unit[0, rows].float() - mean) @ shrink).to(unit.dtype)
    # One size for all teachers, so that a sharpness means the same everywhere: x has a mean square of 1.
    squares = torch.stack([points[rows].float().square().sum() for rows in in_blocks(len(points))]).sum()
    size = (squares / len(points)).sqrt().clamp_min(1e-6)
    device = default_device()
    mine = own_part(len(points), together)
    own, own_weights = points[mine].div_(size).to(device), weights[mine].to(device)
    found, labels = k_means(own, own_weights, bank.num_prototypes, seed=seed, together=together)
    centres = found.cpu()
    # -s |x - c|^2 = 2 s c x - s |c|^2 and a term that is the same for all k; x = (u - mean) S / size puts S, which is
    # symmetric, and the mean into w and b, so that the assigner reads u/|u| as it is.
    weight = 2 * sharpness * centres @ shrink / size
    bank.assigner.weight.copy_(weight)
    bank.assigner.bias.copy_(-sharpness * centres.square().sum(1) - weight @ mean)
    labels = from_all(labels, len(points), together).cpu()
    bank.prototypes.copy_(middles(unit[0], weights, lambda rows: F.one_hot(labels[rows], bank.num_prototypes)))


def in_blocks(count: int) -> Iterator[slice]:
    """Rows, some at a time."""
    return (slice(start, start + BLOCK) for start in range(0, count, BLOCK))


def middles(
    unit: Float[Tensor, "P E"], weights: Float[Tensor, " P"], members: Callable[[slice], Tensor]
) -> Float[Tensor, "K E"]:
    """The weighted means of what belongs to each prototype; ``members`` tells (p, K) how much rows do."""
    sums: Tensor | float = 0.0
    for rows in in_blocks(len(unit)):
        u = unit[rows].float()
        u = torch.cat([u, torch.ones_like(u[:, :1])], 1)
        sums = sums + (members(rows) * weights[rows, None]).T @ u
    assert isinstance(sums, Tensor)
    return sums[:, :-1] / sums[:, -1:].clamp_min(1e-12)


def nuisance_shrinker(
    unit: Float[Tensor, "V P E"], share: Float[Tensor, "P 1"], owners: Int[Tensor, " P"]
) -> tuple[Float[Tensor, " E"], Float[Tensor, "E E"]]:
    """The mean, and S, which shrinks directions in which views of a patch differ (side, colour) and whole images.

    Within-class covariance normalisation, with the patch and the image as its own class: S = (C + r I)^-1/2, C the
    covariance of those differences, and r 0.3 of its mean variance. S is symmetric.
    """
    V, P, E = unit.shape
    mean, nuisance = torch.zeros(E), torch.zeros(E, E)
    for rows in in_blocks(P):
        first, part = unit[0, rows].float(), share[rows]
        mean += (first * part).sum(0)
        for v in range(1, V):
            apart = first - unit[v, rows].float()
            nuisance += apart.T @ (apart * part)
    sums = torch.zeros(int(owners.max()) + 1, E + 1)  # of each image's patches; the last column sums their weights
    for rows in in_blocks(P):
        part = share[rows]
        sums.index_add_(0, owners[rows], torch.cat([(unit[0, rows].float() - mean) * part, part], 1))
    sums = sums[sums[:, -1] > 0]  # images of which no patch was sampled have no mean
    means = sums[:, :-1] / sums[:, -1:]
    nuisance += means.T @ means / len(means)
    values, basis = torch.linalg.eigh(nuisance)
    # r keeps directions that never differ, where C is 0, from being blown up without bound.
    shrink: Tensor = basis * (values.clamp_min(0) + 0.3 * values.mean().clamp_min(1e-12)).rsqrt() @ basis.T
    return mean, shrink


def train_bank(
    bank: PrototypeBank,
    features: PatchFeatures,
    unit: Float[Tensor, "V P E"],
    weights: Float[Tensor, " P"],
    config: DiscoverConfig,
    *,
    progress: bool = True,
    stop: Callable[[], bool] | None = None,
) -> None:
    """Refine the module without labels.

    The assignment learns to predict, from one view of a patch, the prototype of another view of the same patch
    (mirrored, recoloured), with all prototypes used: swapped assignments, SwAV, arXiv 2006.09882. Prototypes follow as
    the centres of what is assigned to them. The descriptor's projection and T learn to tell the patch from g through a
    decoder that is dropped afterwards. W_c stays: moving it too lowered part purity in every trial.
    """
    device = bank.prototypes.device
    unit, decoder = unit.to(device), nn.Linear(bank.embed_dim, features.width).to(device)
    modules = (bank.assigner, bank.reduce, bank.expand, bank.transform, decoder)
    learned = [parameter for module in modules for parameter in module.parameters()]
    optimiser = torch.optim.AdamW(learned, lr=config.lr, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, total_steps=config.steps)
    rng = np.random.default_rng(config.seed)
    V, P, _ = unit.shape
    N, own_weights = features.grid[0] * features.grid[1], weights.to(device)
    with torch.no_grad():  # prototypes stay as large as they are: common parts larger than rare ones
        sizes = torch.stack([own_weights[rows] @ bank.assign(unit[:1, rows])[0] for rows in in_blocks(P)]).sum(0)
    for _ in tqdm(range(config.steps), desc="prototypes", unit="step", disable=not progress):
        if stop is not None and stop():
            break
        rows = torch.multinomial(weights, min(2048, P), replacement=True)
        first, second = rng.permutation(V)[:2] if V > 1 else (0, 0)
        a, b = (bank.assigner(unit[view, rows].float()) for view in (first, second))
        loss = (
            -0.5
            * (balanced(b, sizes=sizes) * a.log_softmax(-1) + balanced(a, sizes=sizes) * b.log_softmax(-1))
            .sum(-1)
            .mean()
        )
        indices = np.sort(rng.choice(len(features), min(config.batch_size, len(features)), replace=False))
        u = bank.read(features, indices).detach()
        some = rng.choice(N, min(DECODED, N), replace=False)  # of each image; all of them would teach it no more
        owners = np.repeat(np.arange(len(indices)), len(some))
        told = features.patches(indices, owners, np.tile(some, len(indices))).to(device)
        g: Tensor = bank(u, torch.from_numpy(some).to(device))
        loss = loss + 1 - F.cosine_similarity(decoder(g).flatten(0, 1), told, dim=-1).mean()
        loss.backward(inputs=learned)  # prototypes take part too, but no optimiser reads their gradient
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    with torch.no_grad():
        bank.prototypes.copy_(middles(unit[0], own_weights, lambda rows: bank.assign(unit[:1, rows])[0]))


@torch.no_grad()
def balanced(
    scores: Float[Tensor, "P K"],
    weights: Float[Tensor, " P"] | None = None,
    sizes: Float[Tensor, " K"] | None = None,
    *,
    max_rounds: int = 100,
) -> Float[Tensor, "P K"]:
    """Sinkhorn-Knopp: assignments near softmax(scores) that use prototypes by their sizes; rows sum to 1.

    A patch counts by its weight, a prototype by its size; all alike where there are none. In logarithms: exp(scores) of
    a sharp assignment is 0 for nearly every patch, and such a row has no share to give. Three rounds, as in SwAV, and
    for sharp scores as many more as it takes until every prototype holds between half and twice its share.
    """
    P, K = scores.shape
    weights = scores.new_ones(P) if weights is None else weights
    sizes = scores.new_ones(K) if sizes is None else sizes.clamp_min(1e-6 * float(sizes.sum()))
    logs, shares = (weights / weights.sum()).log()[:, None], (sizes / sizes.sum()).log()
    for rounds in range(1, max_rounds + 1):
        scores = (scores - (scores + logs).logsumexp(0) + shares).log_softmax(1)
        low, high = ((scores + logs).logsumexp(0) - shares).exp().aminmax()
        if rounds >= 3 and low > 0.5 and high < 2:
            break
    return scores.exp()
