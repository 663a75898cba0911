"""The prototype learning module (METHOD part 1): what local things does the teacher know?"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float
from sklearn.cluster import KMeans
from torch import Tensor, nn
from tqdm.auto import tqdm

from prockd.config import DiscoverConfig
from prockd.features import PatchFeatures


class PrototypeBank(nn.Module):
    """K prototypes and the way from a teacher's patch to them.

    u = W_c t (``rectify=True`` adds the paper's ReLU); a = softmax_k(w_k u/|u| + b_k) (NetVLAD, arXiv 1511.07247);
    V_k = sum_n a_nk (u_n/|u_n| - c_k); v = projection of the normalised V; g = T([u; v]).

    Args:
        num_prototypes: K.
        feature_dim: D, summed width of the teacher's layers.
        embed_dim: E, width of the prototypes.
        teacher: fingerprint of the teacher that the bank belongs to.
        rectify: apply a ReLU after W_c.
        rank: width to which each residual is reduced before they are joined, in place of a K*E x E matrix.
    """

    def __init__(
        self,
        num_prototypes: int,
        feature_dim: int,
        embed_dim: int,
        *,
        teacher: str = "",
        rectify: bool = False,
        rank: int = 16,
    ) -> None:
        super().__init__()
        self.teacher, self.rectify = teacher, rectify
        self.fuse = nn.Linear(feature_dim, embed_dim)
        self.prototypes = nn.Parameter(torch.rand(num_prototypes, embed_dim) / embed_dim**0.5)
        self.assigner = nn.Linear(embed_dim, num_prototypes)
        self.reduce = nn.Linear(embed_dim, rank, bias=False)
        self.expand = nn.Linear(num_prototypes * rank, embed_dim)
        self.transform = nn.Linear(2 * embed_dim, embed_dim)
        self.names = [f"p{k:02d}" for k in range(num_prototypes)]
        self.enabled: Tensor
        self.register_buffer("enabled", torch.ones(num_prototypes, dtype=torch.bool))

    @property
    def num_prototypes(self) -> int:
        """K, the disabled ones included."""
        return self.prototypes.shape[0]

    @property
    def embed_dim(self) -> int:
        """E."""
        return self.prototypes.shape[1]

    def embed(self, fused: Float[Tensor, "B D h w"]) -> Float[Tensor, "B N E"]:
        """u: teacher patches in the space of the prototypes, row by row of the grid."""
        u: Tensor = self.fuse(fused.flatten(2).transpose(1, 2))  # (B, N, E)
        return F.relu(u) if self.rectify else u

    def assign(self, u: Float[Tensor, "B N E"]) -> Float[Tensor, "B N K"]:
        """Soft assignment of each patch; rows sum to 1, disabled prototypes get 0."""
        scores = self.assigner(F.normalize(u, dim=-1)).masked_fill(~self.enabled, float("-inf"))
        return torch.softmax(scores, dim=-1)

    def residuals(self, u: Float[Tensor, "B N E"]) -> Float[Tensor, "B K E"]:
        """V = A'U - diag(A'1) C: the same number as sum_n a_nk (u_n - c_k), without a tensor of size B*K*E*N."""
        a = self.assign(u)
        return a.transpose(1, 2) @ F.normalize(u, dim=-1) - a.sum(1).unsqueeze(-1) * self.prototypes

    def describe(self, u: Float[Tensor, "B N E"]) -> Float[Tensor, "B E"]:
        """v: intra-normalised residuals, flattened, L2-normalised and projected by a factorised matrix."""
        v = F.normalize(self.residuals(u), dim=-1)  # (B, K, E)
        v = v / v.flatten(1).norm(dim=1).clamp_min(1e-6)[:, None, None]
        projected: Tensor = self.expand(self.reduce(v).flatten(1))
        return projected

    def forward(self, u: Float[Tensor, "B N E"]) -> Float[Tensor, "B N E"]:
        """G = T([u; v]): every patch joined with the image's descriptor."""
        v = self.describe(u).unsqueeze(1).expand_as(u)
        g: Tensor = self.transform(torch.cat([u, v], dim=-1))
        return g

    @torch.no_grad()
    def assignments(self, features: PatchFeatures, *, view: int = 0, chunk: int = 256) -> Float[Tensor, "M N K"]:
        """Soft assignment of every patch of a data set, in half precision.

        Raises:
            ValueError: the features come from another teacher, or hold NaN.
        """
        self.check(features)
        parts = []
        for start in range(0, len(features), chunk):
            indices = np.arange(start, min(start + chunk, len(features)))
            fused = features.fused(indices, view)
            check_finite(fused, features, indices)
            parts.append(self.assign(self.embed(fused.to(self.prototypes.device))).half().cpu())
        return torch.cat(parts).float()

    def check(self, features: PatchFeatures) -> None:
        """Refuse features of another teacher.

        Raises:
            ValueError: fingerprints or widths differ.
        """
        if features.width != self.fuse.in_features or (self.teacher and features.teacher != self.teacher):
            raise ValueError(
                f"these features come from teacher {features.teacher[:8]} (width {features.width}), but the bank was "
                f"learned from teacher {self.teacher[:8]} (width {self.fuse.in_features}); extract them again with the "
                "bank's teacher"
            )

    def save(self, path: str | Path) -> Path:
        """Write tensors, names and switches to one safetensors file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {
            "num_prototypes": self.num_prototypes, "feature_dim": self.fuse.in_features, "embed_dim": self.embed_dim,
            "teacher": self.teacher, "rectify": self.rectify, "rank": self.reduce.out_features,
        }  # fmt: skip
        metadata = {"prockd_bank": json.dumps(about), "names": json.dumps(self.names)}
        safetensors.torch.save_file(self.state_dict(), path, metadata)
        return path

    @classmethod
    def load(cls, path: str | Path) -> "PrototypeBank":
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: the file is missing, damaged, or not a prototype bank.
        """
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                metadata: dict[str, str] = file.metadata() or {}
                about: dict[str, Any] = json.loads(metadata["prockd_bank"])
                names = json.loads(metadata["names"])
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            bank = cls(about.pop("num_prototypes"), about.pop("feature_dim"), about.pop("embed_dim"), **about)
            bank.load_state_dict(state)
            if len(names) != bank.num_prototypes:
                raise KeyError(f"{len(names)} names for {bank.num_prototypes} prototypes")
        except (OSError, safetensors.SafetensorError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{path} is not a prototype bank that can be read ({type(error).__name__}: {error})"
            ) from error
        bank.names = names
        return bank

    def __repr__(self) -> str:
        off = int((~self.enabled).sum())
        about = f"{self.num_prototypes} prototypes of width {self.embed_dim}" + (f", {off} disabled" if off else "")
        return f"PrototypeBank({about}, teacher {self.teacher[:8]})"


@dataclass(frozen=True)
class Patch:
    """One patch of one image, and how strongly it belongs to a prototype (0..1)."""

    image: int
    row: int
    column: int
    score: float


def nearest_patches(
    assignments: Float[Tensor, "M N K"], grid: tuple[int, int], prototype: int, count: int = 9, *, per_image: int = 1
) -> list[Patch]:
    """The patches that belong most to a prototype, best first, at most ``per_image`` from one image."""
    scores = assignments[:, :, prototype]
    top, where = scores.topk(min(per_image, scores.shape[1]), dim=1)
    order = top.flatten().argsort(descending=True)[:count]
    found = []
    for i in order.tolist():
        image, patch = i // top.shape[1], int(where.flatten()[i])
        found.append(Patch(image, patch // grid[1], patch % grid[1], float(top.flatten()[i])))
    return found


@dataclass(frozen=True)
class BankReport:
    """Health of a bank on some images.

    Attributes:
        usage: (K,) part of the patches whose strongest prototype this is.
        dead: prototypes that no patch prefers.
        duplicates: pairs whose prototypes point the same way (cosine above 0.95).
    """

    usage: np.ndarray
    dead: tuple[int, ...]
    duplicates: tuple[tuple[int, int], ...]


def report(bank: PrototypeBank, assignments: Float[Tensor, "M N K"]) -> BankReport:
    """Usage of each prototype, and which are dead or duplicates."""
    usage = (
        np.bincount(assignments.argmax(-1).flatten().numpy(), minlength=bank.num_prototypes)
        / assignments[..., 0].numel()
    )
    unit = F.normalize(bank.prototypes.detach(), dim=-1)
    close = torch.triu(unit @ unit.T > 0.95, diagonal=1).nonzero().tolist()
    return BankReport(usage, tuple(np.flatnonzero(usage == 0).tolist()), tuple((i, j) for i, j in close))


def discover(
    features: PatchFeatures,
    num_prototypes: int | None = None,
    *,
    config: DiscoverConfig | None = None,
    progress: bool = True,
) -> PrototypeBank:
    """Find prototypes in a teacher's features, without any label.

    A PCA gives the space, k-means the start (w_k = s c_k, b_k = -s |c_k|^2 / 2, NetVLAD's own advice), and
    :func:`train_bank` refines the whole module.

    Args:
        features: what :func:`prockd.extract` returned.
        num_prototypes: K, in place of ``config.num_prototypes``.
        config: every other knob.
        progress: show a progress bar.

    Raises:
        ValueError: more prototypes than patches, or features that are not finite (names the image).
    """
    config = config or DiscoverConfig()
    if num_prototypes is not None:
        config = replace(config, num_prototypes=num_prototypes)
    total = len(features) * features.grid[0] * features.grid[1]
    if config.num_prototypes > total:
        raise ValueError(
            f"num_prototypes={config.num_prototypes} is more than the {total} patches of {len(features)} images"
        )
    torch.manual_seed(config.seed)
    bank = PrototypeBank(
        config.num_prototypes,
        features.width,
        config.embed_dim,
        teacher=features.teacher,
        rectify=config.init == "uniform",
    )
    patches, weights = sample_patches(features, config.max_patches, config.seed)
    if not config.salient:
        weights = torch.ones_like(weights)
    if config.init == "kmeans":
        start_from_pca(bank, patches[0])
        cluster(bank, patches[0], weights, config)
    if config.steps:
        train_bank(bank, features, patches, weights, config, progress=progress)
    return bank.eval()


def sample_patches(features: PatchFeatures, count: int, seed: int, *, chunk: int = 256) -> tuple[Tensor, Tensor]:
    """A random (V, P, D) sample of fused patches in every view, and the (P,) weight of each: its saliency.

    The weight is the cube of the patch's energy over its image's mean energy: on Farmyard a patch of an animal weighs
    several times as much as one of the background, though nobody told the teacher which is which.

    Raises:
        ValueError: features of an image are not finite; the message names it.
    """
    rng = np.random.default_rng(seed)
    M, N = len(features), features.grid[0] * features.grid[1]
    chosen = np.sort(rng.choice(M * N, min(count, M * N), replace=False))
    patches, weights = [], []
    for start in range(0, M, chunk):
        indices = np.arange(start, min(start + chunk, M))
        inside = chosen[(chosen >= start * N) & (chosen < (indices[-1] + 1) * N)] - start * N
        views = []
        for view in range(features.num_views):
            fused = features.fused(indices, view)
            check_finite(fused, features, indices)
            fused = fused.flip(3) if view == 1 else fused  # the mirrored view, laid back over the image
            views.append(fused.flatten(2).transpose(1, 2).flatten(0, 1)[inside])
        energy = features.energy(indices).flatten(1)
        energy = energy / energy.mean(1, keepdim=True).clamp_min(1e-6)
        patches.append(torch.stack(views))
        weights.append(energy.flatten()[inside] ** 3)
    return torch.cat(patches, 1), torch.cat(weights)


def check_finite(fused: Float[Tensor, "B D h w"], features: PatchFeatures, indices: np.ndarray) -> None:
    """Refuse features that are not finite.

    Raises:
        ValueError: names the first image that has them.
    """
    good = torch.isfinite(fused).flatten(1).all(1)
    if not good.all():
        image = features.images.ids[int(indices[int((~good).nonzero()[0])])]
        raise ValueError(
            f"features of image {image!r} are not finite: look at it, or choose layers whose values fit in float16"
        )


@torch.no_grad()
def start_from_pca(bank: PrototypeBank, patches: Float[Tensor, "P D"]) -> None:
    """A half-whitened PCA as W_c: fine differences count, noise does not rule."""
    mean = patches.mean(0)
    _, values, basis = torch.pca_lowrank(patches - mean, q=min(bank.embed_dim, *patches.shape), center=False, niter=3)
    spread = (values / len(patches) ** 0.5).clamp_min(1e-6).sqrt()
    weight = torch.zeros_like(bank.fuse.weight)
    weight[: basis.shape[1]] = (basis / spread).T
    bank.fuse.weight.copy_(weight)
    bank.fuse.bias.copy_(-weight @ mean)


@torch.no_grad()
def cluster(
    bank: PrototypeBank, patches: Float[Tensor, "P D"], weights: Float[Tensor, " P"], config: DiscoverConfig
) -> None:
    """Spherical k-means in the space of W_c: centres become prototypes and NetVLAD's assignment."""
    unit = F.normalize(bank.embed(patches.T[None, :, :, None])[0], dim=-1)
    kmeans = KMeans(bank.num_prototypes, n_init=1, max_iter=100, random_state=config.seed)
    kmeans.fit(unit.numpy(), sample_weight=weights.numpy())
    centres = torch.from_numpy(kmeans.cluster_centers_).float()
    bank.prototypes.copy_(centres)
    bank.assigner.weight.copy_(2 * config.sharpness * centres)
    bank.assigner.bias.copy_(-config.sharpness * centres.square().sum(1))


def train_bank(
    bank: PrototypeBank,
    features: PatchFeatures,
    patches: Float[Tensor, "V P D"],
    weights: Float[Tensor, " P"],
    config: DiscoverConfig,
    *,
    progress: bool = True,
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
