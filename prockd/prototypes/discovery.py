"""How prototypes are found (METHOD part 1): what local things does the teacher know?"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from tqdm.auto import tqdm

from prockd.prototypes.bank import PrototypeBank, check_finite
from prockd.settings.method import DiscoverConfig
from prockd.teachers.features import PatchFeatures

BARS, OUTER, BETWEEN, INNER = range(-1, 3)
"""Zones of a square: beside the picture, along its border, and at least a third of its shorter side away from it."""

SHRINK = 0.3
"""How far nuisance directions are shrunk: this part of their mean variance is left unwhitened."""


def discover(
    features: PatchFeatures,
    num_prototypes: int | None = None,
    *,
    config: DiscoverConfig | None = None,
    progress: bool = True,
    stop: Callable[[], bool] | None = None,
) -> PrototypeBank:
    """Find prototypes in a teacher's features, without any label.

    A PCA gives the space, k-means the start (w_k = 2 s c_k, b_k = -s |c_k|^2, NetVLAD's own advice, see
    :func:`cluster`), and :func:`train_bank` refines the whole module.

    Args:
        features: what :func:`prockd.extract` returned.
        num_prototypes: K, in place of ``config.num_prototypes``.
        config: every other knob.
        progress: show a progress bar.
        stop: asked between steps; once it says yes, the bank is returned as it is, half refined.

    Raises:
        ValueError: more prototypes than patches, or features that are not finite (names the image).
    """
    config = config or DiscoverConfig()
    if num_prototypes is not None:
        config = replace(config, num_prototypes=num_prototypes)
    torch.manual_seed(config.seed)
    bank = PrototypeBank(
        config.num_prototypes,
        features.width,
        config.embed_dim,
        teacher=features.teacher,
        rectify=config.init == "uniform",
    )
    patches, where, owners = sample_patches(features, config.max_patches, config.seed)
    if config.num_prototypes > len(owners):
        kept = f"max_patches={config.max_patches} leaves" if len(owners) == config.max_patches else "there are"
        wanted, found = f"num_prototypes={config.num_prototypes}", f"{len(owners)} patches of {len(features)} images"
        raise ValueError(f"{wanted} is too many: {kept} {found}")
    weights = torch.ones(len(owners))
    if config.salient:
        weights = saliency(patches[0], where, seed=config.seed) ** 2
    if config.init == "kmeans":
        start_from_pca(bank, patches[0], weights)
        cluster(bank, patches, weights, owners, config)
    if config.steps:
        train_bank(bank, features, patches, weights, config, progress=progress, stop=stop)
    return bank.eval()


def sample_patches(
    features: PatchFeatures, count: int, seed: int, *, chunk: int = 256
) -> tuple[Tensor, Tensor, Tensor]:
    """A random (V, P, D) sample of fused patches in every view, the (P,) zone and the (P,) image of each.

    Bars beside a padded picture are left out: see :func:`zones`.

    Raises:
        ValueError: features of an image are not finite; the message names it.
    """
    rng = np.random.default_rng(seed)
    M, N = len(features), features.grid[0] * features.grid[1]
    where = zones(features.images.pictured, features.grid).ravel()
    pictured = np.flatnonzero(where != BARS)
    chosen = pictured[np.sort(rng.choice(len(pictured), min(count, len(pictured)), replace=False))]
    patches = []
    for start in range(0, M, chunk):
        indices = np.arange(start, min(start + chunk, M))
        inside = chosen[(chosen >= start * N) & (chosen < (indices[-1] + 1) * N)] - start * N
        views = []
        for view in range(features.num_views):
            fused = features.fused(indices, view)
            check_finite(fused, features, indices)
            fused = fused.flip(3) if view == 1 else fused  # the mirrored view, laid back over the image
            views.append(fused.flatten(2).transpose(1, 2).flatten(0, 1)[inside])
        patches.append(torch.stack(views))
    return torch.cat(patches, 1), torch.from_numpy(where[chosen]), torch.from_numpy(chosen // N)


def zones(pictured: Float[np.ndarray, "M 4"], grid: tuple[int, int]) -> Int[np.ndarray, "M N"]:
    """Where each patch lies in its picture: ``BARS`` beside it, ``OUTER`` along its border, ``INNER`` or ``BETWEEN``.

    Args:
        pictured: x0, y0, x1, y1 in 0..1 of each square: what of it shows the picture. A patch belongs to the picture
            when its centre does.
        grid: rows and columns of patches.
    """
    distances, sides = [], []
    for low, high, count in zip((1, 0), (3, 2), grid, strict=True):
        centre = (np.arange(count) + 0.5) / count
        inside = (centre >= pictured[:, low, None]) & (centre <= pictured[:, high, None])  # (M, count)
        first, last = inside.argmax(1)[:, None], count - 1 - inside[:, ::-1].argmax(1)[:, None]
        number = np.arange(count)
        distances.append(np.where(inside, np.minimum(number - first, last - number), -1))
        sides.append(inside.sum(1))
    ring = np.minimum(distances[0][:, :, None], distances[1][:, None, :]).reshape(len(pictured), -1)
    deep = np.maximum(1, np.minimum(*sides) // 3)[:, None]
    return np.select([ring < 0, ring == 0, ring >= deep], [BARS, OUTER, INNER], BETWEEN).astype(np.int8)


def saliency(patches: Float[Tensor, "P D"], where: Int[Tensor, " P"], *, seed: int = 0) -> Float[Tensor, " P"]:
    """How much each patch looks like the middle of pictures rather than like their border, 0..1.

    The border prior of salient object detection (Wei et al., ECCV 2012): photographers keep what they mean away from
    the edge. A logistic regression learns to tell outer from inner patches by their features and then judges all of
    them, wherever they lie; nobody says which is which. A grid without an inside gives 1 everywhere.

    Args:
        patches: fused features.
        where: the zone of each, see :func:`zones`.
        seed: of the patches that the regression learns from.
    """
    outer, inner = (torch.nonzero(where == zone).flatten() for zone in (OUTER, INNER))
    count = min(len(outer), len(inner), 5000)
    if count < 2:
        return torch.ones(len(patches))
    rng = np.random.default_rng(seed)
    rows = torch.cat([side[torch.from_numpy(rng.permutation(len(side))[:count])] for side in (outer, inner)])
    scaler = StandardScaler().fit(patches[rows].numpy())
    judge = LogisticRegression(C=0.01, max_iter=200)
    judge.fit(scaler.transform(patches[rows].numpy()), np.repeat([0, 1], count))
    return torch.from_numpy(judge.predict_proba(scaler.transform(patches.numpy()))[:, 1]).float()


@torch.no_grad()
def start_from_pca(bank: PrototypeBank, patches: Float[Tensor, "P D"], weights: Float[Tensor, " P"]) -> None:
    """W_c: a half-whitened PCA in which salient patches weigh more; fine differences count, noise does not rule."""
    weights = weights / weights.mean()
    mean = (patches * weights[:, None]).mean(0)
    spread = (patches - mean) * weights[:, None].sqrt()
    values, basis = torch.linalg.eigh(spread.T @ spread / len(patches))
    count = min(bank.embed_dim, *patches.shape)
    values, basis = values.flip(0)[:count], basis.flip(1)[:, :count]  # (count,), (D, count), greatest first
    weight = torch.zeros_like(bank.fuse.weight)
    weight[:count] = (basis * values.clamp_min(1e-6 * float(values[0]) + 1e-12) ** -0.25).T
    bank.fuse.weight.copy_(weight)
    bank.fuse.bias.copy_(-weight @ mean)


@torch.no_grad()
def cluster(
    bank: PrototypeBank,
    patches: Float[Tensor, "V P D"],
    weights: Float[Tensor, " P"],
    owners: Int[Tensor, " P"],
    config: DiscoverConfig,
) -> None:
    """K-means on unit patches, where what cannot tell a part has been shrunk: the start of the assignment.

    Shrunk are the directions in which views of the same patch differ (side, colour) and in which whole images differ
    (species, style, light): within-class covariance normalisation, with the patch and the image as its own class. It
    bends the assignment only; prototypes and W_c keep what tells species apart, which a student wants to learn.
    """
    views = [F.normalize(bank.embed(view.T[None, :, :, None])[0], dim=-1) for view in patches]
    share = (weights / weights.sum())[:, None]
    mean = (views[0] * share).sum(0)
    nuisance = torch.zeros(bank.embed_dim, bank.embed_dim)
    for view in views[1:]:
        nuisance += (views[0] - view).T @ ((views[0] - view) * share)
    of_image = torch.zeros(int(owners.max()) + 1, bank.embed_dim + 1)
    of_image.index_add_(0, owners, torch.cat([(views[0] - mean) * share, share], 1))
    of_image = of_image[of_image[:, -1] > 0]
    means = of_image[:, :-1] / of_image[:, -1:]
    nuisance += means.T @ means / len(means)
    values, basis = torch.linalg.eigh(nuisance)
    shrink = basis * (values.clamp_min(0) + SHRINK * values.mean().clamp_min(1e-12)).rsqrt() @ basis.T
    calm = (views[0] - mean) @ shrink
    size = calm.square().sum(1).mean().sqrt().clamp_min(1e-6)
    kmeans = KMeans(bank.num_prototypes, n_init=1, max_iter=100, random_state=config.seed)
    kmeans.fit((calm / size).numpy(), sample_weight=weights.numpy())
    centres = torch.from_numpy(kmeans.cluster_centers_).float()
    weight = 2 * config.sharpness * centres @ shrink / size
    bank.assigner.weight.copy_(weight)
    bank.assigner.bias.copy_(-config.sharpness * centres.square().sum(1) - weight @ mean)
    members = F.one_hot(torch.from_numpy(kmeans.labels_).long(), bank.num_prototypes).float() * share
    bank.prototypes.copy_((members.T @ views[0]) / members.sum(0).clamp_min(1e-12)[:, None])


def train_bank(
    bank: PrototypeBank,
    features: PatchFeatures,
    patches: Float[Tensor, "V P D"],
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
    decoder = nn.Linear(bank.embed_dim, features.width)
    learned = [*bank.assigner.parameters(), *bank.reduce.parameters(), *bank.expand.parameters()]
    learned += [*bank.transform.parameters(), *decoder.parameters()]
    optimiser = torch.optim.AdamW(learned, lr=config.lr, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, total_steps=config.steps)
    rng = np.random.default_rng(config.seed)
    V, P, _ = patches.shape
    for _ in tqdm(range(config.steps), desc="prototypes", unit="step", disable=not progress):
        if stop is not None and stop():
            break
        chosen = torch.multinomial(weights, min(2048, P), replacement=True)
        first, second = rng.permutation(V)[:2] if V > 1 else (0, 0)
        pair = (bank.embed(patches[v, chosen].T[None, :, :, None])[0] for v in (first, second))
        a, b = (bank.assigner(F.normalize(x, dim=-1)) for x in pair)
        loss = -0.5 * (balanced(b) * a.log_softmax(-1) + balanced(a) * b.log_softmax(-1)).sum(-1).mean()
        indices = np.sort(rng.choice(len(features), min(config.batch_size, len(features)), replace=False))
        fused = features.fused(indices)
        g: Tensor = bank(bank.embed(fused).detach())
        loss = loss + 1 - F.cosine_similarity(decoder(g), fused.flatten(2).transpose(1, 2), dim=-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        u = bank.embed(patches[0].T[None, :, :, None])  # (1, P, E)
        shares = bank.assign(u)[0] * weights[:, None]
        bank.prototypes.copy_(shares.T @ F.normalize(u[0], dim=-1) / shares.sum(0).clamp_min(1e-6)[:, None])


@torch.no_grad()
def balanced(scores: Float[Tensor, "P K"], *, rounds: int = 3) -> Float[Tensor, "P K"]:
    """Sinkhorn-Knopp: assignments near softmax(scores) that use all prototypes equally; rows sum to 1."""
    q = torch.exp(scores - scores.max())
    for _ in range(rounds):
        q = q / q.sum(0, keepdim=True).clamp_min(1e-12)
        q = q / q.sum(1, keepdim=True).clamp_min(1e-12)
    return q
