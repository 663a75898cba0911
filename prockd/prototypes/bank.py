"""The bank of prototypes (METHOD part 1): what local things a teacher's patches are compared with."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float16, Int16
from torch import Tensor, nn

from prockd.cache import digest
from prockd.teachers.embedded import EmbeddedFeatures
from prockd.teachers.features import PatchFeatures
from prockd.teachers.features import check_finite as check_finite
from prockd.teachers.weights import check_size, values_flaw
from prockd.untrusted import FLAG, RefusedError, fields, list_of, parse_json, reading, shown, text, whole
from prockd.writing import write_file

BANK_OPTIONS = {
    "num_prototypes": whole(1, 8192), "feature_dim": whole(1, 65_536), "embed_dim": whole(1, 4096),
    "teacher": text(200), "rectify": FLAG, "rank": whole(1, 4096),
}  # fmt: skip
"""What a file may say of a bank."""

CHUNK_BYTES = 2**23
"""Of patches and assignments that are in memory at once where many images are assigned."""


class PrototypeBank(nn.Module):
    """K prototypes and the way from a teacher's patch to them.

    u = W_c t (``rectify=True`` adds the paper's ReLU); a = softmax_k(w_k u/|u| + b_k) (NetVLAD, arXiv 1511.07247);
    V_k = sum_n a_nk (u_n/|u_n| - c_k); v = projection of the normalised V; g = T([u; v]).
    Inputs may lie on any device and are brought to the bank's. Of the methods, those that take a prototype's number
    raise IndexError where there is none, and assignment raises ValueError where every prototype is disabled.

    Args:
        num_prototypes: K, those disabled later included.
        feature_dim: D, summed width of the teacher's layers.
        embed_dim: E, width of the prototypes.
        teacher: fingerprint of the teacher that the bank belongs to.
        rectify: apply a ReLU after W_c.
        rank: width to which each residual is reduced before they are joined, in place of a K*E x E matrix.

    >>> bank = PrototypeBank(num_prototypes=6, feature_dim=48, embed_dim=16)
    >>> u = bank.embed(torch.rand(2, 48, 8, 8))  # two images of 8 x 8 patches
    >>> u.shape, bank.assign(u).shape, bank(u).shape
    (torch.Size([2, 64, 16]), torch.Size([2, 64, 6]), torch.Size([2, 64, 16]))
    >>> bank.rename(3, "left ear")
    >>> bank.merge(3, 5)
    >>> bank
    PrototypeBank(6 prototypes of width 16, 1 merged, teacher unknown)
    """

    enabled: Tensor
    merged: Tensor

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
        self.num_prototypes, self.embed_dim, self.teacher, self.rectify = num_prototypes, embed_dim, teacher, rectify
        self.fuse = nn.Linear(feature_dim, embed_dim)
        self.prototypes = nn.Parameter(torch.rand(num_prototypes, embed_dim) / embed_dim**0.5)
        self.assigner = nn.Linear(embed_dim, num_prototypes)
        self.reduce = nn.Linear(embed_dim, rank, bias=False)
        self.expand = nn.Linear(num_prototypes * rank, embed_dim)
        self.transform = nn.Linear(2 * embed_dim, embed_dim)
        self.names = [f"p{k:02d}" for k in range(num_prototypes)]
        self.register_buffer("enabled", torch.ones(num_prototypes, dtype=torch.bool))
        self.register_buffer("merged", torch.arange(num_prototypes))  # the prototype that counts k's patches

    @property
    def options(self) -> dict[str, Any]:
        """What the constructor takes to make an empty bank of this shape."""
        return {
            "num_prototypes": self.num_prototypes, "feature_dim": self.fuse.in_features, "embed_dim": self.embed_dim,
            "teacher": self.teacher, "rectify": self.rectify, "rank": self.reduce.out_features,
        }  # fmt: skip

    def embed(self, fused: Float[Tensor, "B D h w"]) -> Float[Tensor, "B N E"]:
        """u: teacher patches in the space of the prototypes, row by row of the grid."""
        u: Tensor = self.fuse(fused.to(self.prototypes).flatten(2).transpose(1, 2))  # (B, N, E)
        return F.relu(u) if self.rectify else u

    def assign(self, u: Float[Tensor, "B N E"]) -> Float[Tensor, "B N K"]:
        """Soft assignment of each patch; rows sum to 1, disabled and merged prototypes get 0."""
        if not self.enabled.any():
            raise ValueError(f"all {self.num_prototypes} prototypes are disabled: enable one, bank.enable(k)")
        scores = self.assigner(F.normalize(u.to(self.prototypes), dim=-1))
        a = scores.masked_fill(~self.enabled[self.merged], float("-inf")).softmax(-1)
        return torch.zeros_like(a).index_add(-1, self.merged, a)

    def residuals(self, u: Float[Tensor, "B N E"]) -> Float[Tensor, "B K E"]:
        """V = A'U - diag(A'1) C: the same number as sum_n a_nk (u_n - c_k), without a tensor of size B*K*E*N."""
        a, unit = self.assign(u), F.normalize(u.to(self.prototypes), dim=-1)
        return a.transpose(1, 2) @ unit - a.sum(1).unsqueeze(-1) * self.prototypes

    def describe(self, u: Float[Tensor, "B N E"]) -> Float[Tensor, "B E"]:
        """v: intra-normalised residuals, flattened, L2-normalised and projected by a factorised matrix."""
        v = F.normalize(self.residuals(u), dim=-1)  # (B, K, E)
        v = v / v.flatten(1).norm(dim=1).clamp_min(1e-6)[:, None, None]
        projected: Tensor = self.expand(self.reduce(v).flatten(1))
        return projected

    def forward(self, u: Float[Tensor, "B N E"], patches: Tensor | None = None) -> Float[Tensor, "B n E"]:
        """G = T([u; v]): every patch, or only those of some numbers, joined with the image's descriptor."""
        u = u.to(self.prototypes)
        v, u = self.describe(u).unsqueeze(1), u if patches is None else u[:, patches]
        g: Tensor = self.transform(torch.cat([u, v.expand_as(u)], dim=-1))
        return g

    @property
    def space(self) -> str:
        """Fingerprint of all that u depends on: the teacher, W_c and the ReLU; no prototype, assignment or switch."""
        tensors = [p.detach().cpu().contiguous().numpy() for p in self.fuse.parameters()]
        return digest(
            [
                self.teacher,
                self.fuse.weight.shape,
                self.rectify,
                *(hashlib.sha256(t.tobytes()).hexdigest() for t in tensors),
            ]
        )

    @torch.no_grad()
    def assignments(self, features: PatchFeatures | EmbeddedFeatures, *, view: str = "plain") -> Float[Tensor, "M N K"]:
        """Soft assignment of every patch, to half precision, on the CPU: 4 N K bytes an image.

        :meth:`strongest` keeps less of many images. ValueError for another teacher's features, or NaN.
        """
        whole = torch.empty(len(features), math.prod(features.grid), self.num_prototypes)
        for rows, a in self._assigned(features, view):
            whole[rows] = a.half().float().cpu()
        return whole

    @torch.no_grad()
    def strongest(
        self, features: PatchFeatures | EmbeddedFeatures, count: int = 1, *, view: str = "plain"
    ) -> tuple[Float16[Tensor, "M N k"], Int16[Tensor, "M N k"]]:
        """How much every patch belongs to the prototypes that it belongs to most, and their numbers, best first.

        On the CPU, 4 N bytes an image for each that is asked for; errors are those of :meth:`assignments`.
        """
        shape = len(features), math.prod(features.grid), min(count, self.num_prototypes)
        shares, numbers = torch.empty(shape, dtype=torch.float16), torch.empty(shape, dtype=torch.int16)
        for rows, a in self._assigned(features, view):
            best = a.topk(shape[2])
            shares[rows], numbers[rows] = best.values.half().cpu(), best.indices.short().cpu()
        return shares, numbers

    def _assigned(
        self, features: PatchFeatures | EmbeddedFeatures, view: str
    ) -> Iterator[tuple[slice, Float[Tensor, "B N K"]]]:
        """Assignments of some images after the other, as many at once as CHUNK_BYTES hold."""
        self.check(features)
        each = 4 * math.prod(features.grid) * (self.num_prototypes + features.width)
        at_once = max(1, CHUNK_BYTES // each)
        for start in range(0, len(features), at_once):
            rows = slice(start, min(start + at_once, len(features)))
            yield rows, self.assign(self.read(features, np.arange(rows.start, rows.stop), view))

    def read(
        self, features: PatchFeatures | EmbeddedFeatures, indices: Sequence[int] | np.ndarray, view: str = "plain"
    ) -> Float[Tensor, "B N E"]:
        """U of some images, embedded now or before; ValueError for features that are not finite, or an unseen view."""
        if isinstance(features, EmbeddedFeatures):
            maps = features.embedded(indices, view)
            check_finite(maps, features, np.asarray(indices))
            return maps.flatten(2).transpose(1, 2).to(self.prototypes)
        maps = features.projected(indices, self.fuse.weight, view)
        check_finite(maps, features, np.asarray(indices))
        u = maps.flatten(2).transpose(1, 2) + self.fuse.bias
        return F.relu(u) if self.rectify else u

    def rename(self, prototype: int, name: str) -> None:
        """Give a prototype a name, which is saved with the bank; an empty one raises ValueError."""
        if not name.strip():
            raise ValueError(f"the name of prototype {prototype} is empty")
        self.names[self._number(prototype)] = name.strip()

    def disable(self, prototype: int) -> None:
        """Leave a prototype, and what was merged into it, out; ValueError for the last one that is enabled."""
        k = self._number(prototype)
        if self.enabled.sum() == 1 and self.enabled[k]:
            raise ValueError(f"{self.names[k]} is the last prototype that is enabled: enable another one first")
        self.enabled[k] = False

    def enable(self, prototype: int) -> None:
        """Take a prototype back; one that was merged stands for itself again, where its centre is."""
        k = self._number(prototype)
        self.enabled[k], self.merged[k] = True, k

    @torch.no_grad()
    def merge(self, into: int, other: int, *, share: float = 0.5) -> None:
        """Make two prototypes one: ``into`` gets the patches of ``other``, and what was merged into that.

        The common centre lies at ``share`` of the way to ``other``, 0..1. ValueError where the two are the same, or one
        of them is disabled or merged already.
        """
        i, j = self._number(into), self._number(other)
        if i == j:
            raise ValueError(f"{self.names[i]} cannot be merged into itself")
        for k in (i, j):
            if not self.enabled[k]:
                raise ValueError(f"{self.names[k]} is disabled or merged: enable it first, bank.enable({k})")
        if not 0 <= share <= 1:
            raise ValueError(f"share={share} is not from 0 to 1")
        self.prototypes[i] += share * (self.prototypes[j] - self.prototypes[i])
        self.merged[self.merged == j] = i
        self.enabled[j] = False

    def _number(self, prototype: int) -> int:
        if not 0 <= prototype < self.num_prototypes:
            raise IndexError(f"prototype {prototype} is not there: {self.num_prototypes} are numbered from 0")
        return int(prototype)

    def check(self, features: PatchFeatures | EmbeddedFeatures) -> None:
        """Refuse features of another teacher, width or space with a ValueError."""
        if isinstance(features, PatchFeatures):
            self.check_teacher(features.teacher, features.width)
        elif features.space != self.space:
            raise ValueError(
                f"these features were embedded in space {features.space[:8]}, but the bank's is {self.space[:8]}: "
                "embed them with this bank, embed_features(bank, ...)"
            )

    def check_teacher(self, teacher: str, width: int) -> None:
        """Refuse another teacher's fingerprint or summed width D with a ValueError."""
        if width != self.fuse.in_features or (self.teacher and teacher != self.teacher):
            raise ValueError(
                f"these features come from teacher {teacher[:8]} (width {width}), but the bank was "
                f"learned from teacher {self.teacher[:8]} (width {self.fuse.in_features}): extract them again with the "
                "bank's teacher, or find prototypes anew in them, pk.discover(features)"
            )

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write tensors, names and switches to one safetensors file; FileExistsError where one is, unasked."""
        metadata = {"prockd_bank": json.dumps(self.options), "names": json.dumps(self.names)}
        return write_file(path, safetensors.torch.save(self.state_dict(), metadata), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> "PrototypeBank":
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: the file is missing, damaged, or not a prototype bank: options, names, values and switches that
                no bank has are refused.
        """
        advice = "give what PrototypeBank.save or `prockd discover` of this version wrote"
        with reading(path, "a prototype bank", ValueError, advice):
            with safetensors.safe_open(path, framework="pt") as file:
                metadata: dict[str, str] = file.metadata() or {}
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            if flaw := values_flaw(state):
                raise RefusedError(flaw)
            bank = cls.described(parse_json(metadata["prockd_bank"]), parse_json(metadata["names"]), state)
            state = {"merged": bank.merged} | state  # files older than merging have no such key
            check_switches(state)
            bank.load_state_dict(state)
        return bank

    @classmethod
    def described(cls, options: Any, names: Any, state: Mapping[str, Tensor], prefix: str = "") -> "PrototypeBank":
        """An empty bank as a file describes it; RefusedError for what no bank has, or more values than the file."""
        told = fields(options, BANK_OPTIONS, where="bank.options")
        own = {name: value for name, value in state.items() if name.startswith(prefix)}
        check_size(lambda: cls(**told), own)
        bank = cls(**told)
        if not list_of(text(1000, least=1), bank.num_prototypes, bank.num_prototypes).holds(names):
            raise RefusedError(f"names are {shown(names)}, not one text for each of {bank.num_prototypes} prototypes")
        bank.names = names
        return bank

    def __repr__(self) -> str:
        merged = sum(k != into for k, into in enumerate(self.merged.tolist()))
        disabled = self.num_prototypes - int(self.enabled.sum()) - merged
        switches = (f", {disabled} disabled" if disabled else "") + (f", {merged} merged" if merged else "")
        size = f"{self.num_prototypes} prototypes of width {self.embed_dim}"
        return f"PrototypeBank({size}{switches}, teacher {self.teacher[:8] or 'unknown'})"


def check_switches(state: Mapping[str, Tensor], prefix: str = "") -> None:
    """Refuse switches that no bank has: RefusedError for another kind of number, no prototype enabled, odd mergers."""
    enabled, merged = state[f"{prefix}enabled"], state[f"{prefix}merged"]
    if enabled.dtype != torch.bool or merged.dtype != torch.int64 or enabled.shape != merged.shape or enabled.ndim != 1:
        raise RefusedError("enabled and merged are not one switch and one whole number for each prototype")
    K = len(merged)
    if bool((merged < 0).any() or (merged >= K).any()) or not torch.equal(merged[merged], merged):
        raise RefusedError(f"merged is {shown(merged.tolist())}: each must name a prototype of 0..{K - 1}")
    if not enabled.any():
        raise RefusedError(f"all {K} prototypes are disabled: nothing could be assigned")


class Patch(NamedTuple):
    """One patch of one image, and how strongly it belongs to a prototype (0..1)."""

    image: int
    row: int
    column: int
    score: float


def nearest_patches(
    assignments: Float[Tensor, "M N K"], grid: tuple[int, int], prototype: int, count: int = 9, *, per_image: int = 1
) -> list[Patch]:
    """The patches that belong most to a prototype, best first, at most ``per_image`` from one image.

    >>> assignments = torch.tensor([[[0.75, 0.25], [0.5, 0.5]], [[0.0, 1.0], [0.25, 0.75]]])  # 2 images of 1 x 2
    >>> nearest_patches(assignments, (1, 2), prototype=0, count=1)
    [Patch(image=0, row=0, column=0, score=0.75)]
    """
    scores, patches = assignments[:, :, prototype].cpu().topk(min(per_image, assignments.shape[1]), dim=1)
    best = scores.flatten().argsort(descending=True)[:count]
    image, patch, score = best // scores.shape[1], patches.flatten()[best], scores.flatten()[best]
    columns = (image, patch // grid[1], patch % grid[1], score)
    return [Patch(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def groups_in_turn(ordered: Sequence[int] | np.ndarray, groups: Sequence[Hashable] | None) -> list[int]:
    """Images, best first, so reordered that no group has its second one before each group has had its first.

    Frames of one video are near copies of each other: what comes first should be one of each video. Without groups the
    order stays.

    >>> groups_in_turn([0, 1, 3, 2], groups=("a", "a", "b", "b"))
    [0, 3, 1, 2]
    """
    images, seen = [int(m) for m in ordered], Counter[Hashable]()
    if groups is None:
        return images
    turns = []
    for m in images:
        turns.append(seen[groups[m]])
        seen[groups[m]] += 1
    return [images[place] for place in np.argsort(turns, kind="stable")]


class BankHealth(NamedTuple):
    """Health of a bank on some images."""

    usage: np.ndarray
    """(K,) part of the patches whose strongest prototype this is."""
    dead: tuple[int, ...]
    """Prototypes that no patch prefers."""
    duplicates: tuple[tuple[int, int], ...]
    """Pairs whose prototypes point the same way (cosine above 0.95)."""


def bank_health(bank: PrototypeBank, assignments: Float[Tensor, "M N K"]) -> BankHealth:
    """Usage of each prototype, and which are dead or duplicates."""
    counts = assignments.argmax(-1).flatten().cpu().bincount(minlength=bank.num_prototypes).numpy()
    unit = F.normalize(bank.prototypes.detach(), dim=-1)
    close = (unit @ unit.T > 0.95).triu(diagonal=1).nonzero().tolist()
    return BankHealth(counts / counts.sum(), tuple(np.flatnonzero(counts == 0).tolist()), tuple(map(tuple, close)))
