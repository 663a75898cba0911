"""How prototypes are found (METHOD part 1): what local things does the teacher know?"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from torch import Tensor, nn
from tqdm.auto import tqdm

from prockd.prototypes.bank import PrototypeBank, check_finite
from prockd.prototypes.saliency import activity, patch_saliency
from prockd.settings.method import DiscoverConfig
from prockd.teachers.features import PatchFeatures


def discover(
    features: PatchFeatures,
    num_prototypes: int | None = None,
    *,
    config: DiscoverConfig | None = None,
    progress: bool = True,
    stop: Callable[[], bool] | None = None,
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
    sample = sample_patches(features, config.max_patches, config.seed)
    patches, owners = sample.patches, sample.owners
    if config.num_prototypes > len(owners):
        reason = f"max_patches={config.max_patches} leaves" if len(owners) == config.max_patches else "there are"
        patch_count = f"{len(owners)} patches of {len(features)} images"
        raise ValueError(f"num_prototypes={config.num_prototypes} is too many: {reason} {patch_count}")
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # torch.manual_seed would move the generators of GPUs too
        K, E, rectify = config.num_prototypes, config.embed_dim, config.init == "uniform"
        bank = PrototypeBank(K, features.width, E, teacher=features.teacher, rectify=rectify)
        weights = patch_saliency(patches[0], sample.active) ** 2 if config.salient else torch.ones(len(owners))
        if config.init == "kmeans":
            start_from_pca(bank, patches[0], weights)
        with torch.no_grad():
            unit = F.normalize(bank.embed(patches.transpose(1, 2)[..., None]), dim=-1)  # (V, P, E)
        if config.init == "kmeans":
            cluster(bank, unit, weights, owners, sharpness=config.sharpness, seed=config.seed)
        if config.steps:
            train_bank(bank, features, unit, weights, config, progress=progress, stop=stop)
    return bank.eval()


@dataclass(frozen=True)
class Sample:
    """Random patches of some images, none of them in the bars beside a picture."""

    patches: Float[Tensor, "V P D"]  # fused, in every view
    owners: Int[Tensor, " P"]  # the image of each
    active: Float[Tensor, " P"]  # see prockd.prototypes.saliency.activity


def sample_patches(features: PatchFeatures, count: int, seed: int) -> Sample:
    """A random sample of fused patches; of 64 images at a time the features lie in memory."""
    rng = np.random.default_rng(seed)
    M, N = len(features), features.grid[0] * features.grid[1]
    inside = features.images.in_picture(features.grid)  # (M, N)
    pictured = np.flatnonzero(inside)
    sampled = pictured[np.sort(rng.choice(len(pictured), min(count, len(pictured)), replace=False))]
    patches, lengths = [], []
    for start in range(0, M, 64):
        indices = np.arange(start, min(start + 64, M))
        chosen = sampled[(sampled >= start * N) & (sampled < (indices[-1] + 1) * N)] - start * N
        views = []
        for view in features.views:
            fused = features.fused(indices, view)
            check_finite(fused, features, indices)
            fused = fused.flip(3) if view == "mirrored" else fused  # the mirrored view, laid back over the image
            views.append(fused.flatten(2).transpose(1, 2).flatten(0, 1)[chosen])
        patches.append(torch.stack(views))
        lengths.append(features.lengths(indices))
    active = activity(torch.cat(lengths), torch.from_numpy(inside).view(M, *features.grid))
    return Sample(torch.cat(patches, 1), torch.from_numpy(sampled // N), active.flatten()[torch.from_numpy(sampled)])


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
) -> None:
    """K-means on unit patches, where what cannot tell a part has been shrunk: the start of the assignment.

    With x = (u - mean) S, S from :func:`nuisance_shrinker`, the assignment is softmax_k(-s |x - c_k|^2): NetVLAD's own
    advice, w_k = 2 s c_k and b_k = -s |c_k|^2. It bends the assignment only; prototypes and W_c keep what tells species
    apart, which a student wants to learn.
    """
    share = (weights / weights.sum())[:, None]
    mean = (unit[0] * share).sum(0)
    shrink = nuisance_shrinker(unit, share, owners)
    shrunk = (unit[0] - mean) @ shrink
    # One size for all teachers, so that a sharpness means the same everywhere: x has a mean square of 1.
    size = shrunk.square().sum(1).mean().sqrt().clamp_min(1e-6)
    kmeans = KMeans(bank.num_prototypes, n_init=1, max_iter=100, random_state=seed)
    kmeans.fit((shrunk / size).numpy(), sample_weight=weights.numpy())
    centres = torch.from_numpy(kmeans.cluster_centers_).float()
    # -s |x - c|^2 = 2 s c x - s |c|^2 and a term that is the same for all k; x = (u - mean) S / size puts S, which is
    # symmetric, and the mean into w and b, so that the assigner reads u/|u| as it is.
    weight = 2 * sharpness * centres @ shrink / size
    bank.assigner.weight.copy_(weight)
    bank.assigner.bias.copy_(-sharpness * centres.square().sum(1) - weight @ mean)
    members = F.one_hot(torch.from_numpy(kmeans.labels_).long(), bank.num_prototypes) * share  # (P, K)
    bank.prototypes.copy_(F.normalize(members, p=1, dim=0).T @ unit[0])  # the mean of the patches of each


def nuisance_shrinker(
    unit: Float[Tensor, "V P E"], share: Float[Tensor, "P 1"], owners: Int[Tensor, " P"]
) -> Float[Tensor, "E E"]:
    """S: shrinks directions in which views of a patch differ (side, colour) and whole images (species, style, light).

    Within-class covariance normalisation, with the patch and the image as its own class: S = (C + r I)^-1/2, C the
    covariance of those differences, and r 0.3 of its mean variance. S is symmetric.
    """
    E = unit.shape[2]
    nuisance = torch.zeros(E, E)
    for view in unit[1:]:
        nuisance += (unit[0] - view).T @ ((unit[0] - view) * share)
    mean = (unit[0] * share).sum(0)
    sums = torch.zeros(int(owners.max()) + 1, E + 1)  # of each image's patches; the last column sums their weights
    sums.index_add_(0, owners, torch.cat([(unit[0] - mean) * share, share], 1))
    sums = sums[sums[:, -1] > 0]  # images of which no patch was sampled have no mean
    means = sums[:, :-1] / sums[:, -1:]
    nuisance += means.T @ means / len(means)
    values, basis = torch.linalg.eigh(nuisance)
    # r keeps directions that never differ, where C is 0, from being blown up without bound.
    shrink: Tensor = basis * (values.clamp_min(0) + 0.3 * values.mean().clamp_min(1e-12)).rsqrt() @ basis.T
    return shrink


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
    with torch.no_grad():  # prototypes stay as large as they are: common parts larger than rare ones
        sizes = (bank.assign(unit[:1])[0] * weights.to(device)[:, None]).sum(0)
    for _ in tqdm(range(config.steps), desc="prototypes", unit="step", disable=not progress):
        if stop is not None and stop():
            break
        rows = torch.multinomial(weights, min(2048, P), replacement=True)
        first, second = rng.permutation(V)[:2] if V > 1 else (0, 0)
        a, b = bank.assigner(unit[first, rows]), bank.assigner(unit[second, rows])
        loss = (
            -0.5
            * (balanced(b, sizes=sizes) * a.log_softmax(-1) + balanced(a, sizes=sizes) * b.log_softmax(-1))
            .sum(-1)
            .mean()
        )
        indices = np.sort(rng.choice(len(features), min(config.batch_size, len(features)), replace=False))
        fused = features.fused(indices).to(device)
        g: Tensor = bank(bank.embed(fused).detach())
        loss = loss + 1 - F.cosine_similarity(decoder(g), fused.flatten(2).transpose(1, 2), dim=-1).mean()
        loss.backward(inputs=learned)  # prototypes take part too, but no optimiser reads their gradient
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    with torch.no_grad():
        members = bank.assign(unit[:1])[0] * weights.to(device)[:, None]
        bank.prototypes.copy_(F.normalize(members, p=1, dim=0).T @ unit[0])


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
