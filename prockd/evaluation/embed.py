"""Many-dimensional vectors as a flat map: UMAP for neighbourhoods, PCA for a first picture at once."""

import hashlib
import io
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from tqdm.auto import tqdm

from prockd._extras import needs_extra
from prockd.cache import ArrayWriter, cache_root, cached_arrays, digest


@dataclass(frozen=True, eq=False)
class Embedding:
    """Where each vector lies on the map.

    Attributes:
        xy: (Q, 2) positions; only nearness means something, the axes have no unit.
        indices: (Q,) which rows of the vectors these are, ascending.
        method: ``"umap"`` or ``"pca"``.
        note: a sentence for the figure: the method, its seed, and how many of how many vectors are shown.
    """

    xy: Float32[np.ndarray, "Q 2"]
    indices: Int64[np.ndarray, " Q"]
    method: str
    note: str

    def __len__(self) -> int:
        return len(self.xy)

    def __repr__(self) -> str:
        return f"Embedding({self.note})"


def embed_2d(
    vectors: Float[np.ndarray, "P E"] | Float[Tensor, "P E"],
    *,
    method: str = "umap",
    seed: int = 0,
    max_points: int = 20_000,
    root: Path | None = None,
    progress: bool = True,
) -> Embedding:
    """Lay vectors out in two dimensions, near together when their directions are alike (cosine).

    The same vectors and settings give the same map, which is read from the cache the second time. UMAP takes about 15 s
    to load and compile, and 40 s for 20,000 points on one core; PCA takes less than a second.

    Args:
        vectors: (P, E), such as ``bank.embed(...)`` with images and patches flattened.
        method: ``"umap"`` or ``"pca"``.
        seed: of the subsample and of UMAP.
        max_points: more vectors than this are subsampled at random, and ``note`` says so.
        root: folder of all caches; None is ``$PROCKD_CACHE`` or ``~/.cache/prockd``.
        progress: show a progress bar.

    Raises:
        ValueError: unknown method, fewer than 3 vectors, or one of those on the map is not finite (names its row).
        CacheError: the disk is full.
    """
    sample = _Sample(vectors, method, seed, max_points)

    def build(writer: ArrayWriter) -> Mapping[str, object]:
        xy = principal(sample.unit, 2) if method == "pca" else _umap(sample.unit, seed, progress)
        writer.create("xy", (len(sample.unit), 2), np.float32)[:] = xy
        return {}

    arrays, _ = cached_arrays("embeddings", sample.key, build, root=root)
    return Embedding(np.array(arrays["xy"]), sample.indices, method, sample.note)


def is_embedded(
    vectors: Float[np.ndarray, "P E"] | Float[Tensor, "P E"],
    *,
    method: str = "umap",
    seed: int = 0,
    max_points: int = 20_000,
    root: Path | None = None,
) -> bool:
    """Whether :func:`embed_2d` only has to read the map of these vectors; arguments and errors are its own."""
    key = _Sample(vectors, method, seed, max_points).key
    return ((root or cache_root()) / "embeddings" / digest(key)).exists()


class _Sample:
    """The vectors that are laid out, of length 1, and the key under which their map is kept."""

    def __init__(self, vectors: Any, method: str, seed: int, max_points: int) -> None:
        names = {"umap": f"UMAP (seed {seed})", "pca": "PCA"}
        if method not in names:
            raise ValueError(f"method={method!r}: choose one of {', '.join(map(repr, names))}")
        P, E = vectors.shape
        if min(P, max_points) < 3 or E < 2:
            raise ValueError(
                f"{P} vectors of width {E} and max_points={max_points}: needs 3 points of width 2 at least"
            )
        self.indices = np.arange(P)
        if max_points < P:
            self.indices = np.sort(np.random.default_rng(seed).choice(P, max_points, replace=False))
        if isinstance(vectors, Tensor):
            vectors = vectors.detach().float().cpu().numpy()
        sampled = np.asarray(vectors[self.indices], np.float32)
        finite = np.isfinite(sampled).all(1)
        if not finite.all():
            row = self.indices[finite.argmin()]
            raise ValueError(f"{(~finite).sum()} of {len(sampled)} vectors are not finite, the first is row {row}")
        self.unit = sampled / np.linalg.norm(sampled, axis=1, keepdims=True).clip(1e-12)
        drawn = f"{len(self.indices):,} of {P:,} points, drawn with seed {seed}"
        self.note = f"{names[method]} of {f'{P:,} points' if len(self.indices) == P else drawn}"
        data = hashlib.sha256(self.unit.tobytes()).hexdigest()
        self.key = {"version": 1, "method": method, "seed": seed, "shape": self.unit.shape, "data": data}


def principal(vectors: Float[np.ndarray, "P E"], count: int) -> Float32[np.ndarray, "P count"]:
    """Coordinates along the first principal axes, each axis turned so that its largest weight is positive."""
    centred = vectors - vectors.mean(0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :count]  # (E, count), largest variance first
    largest = np.abs(axes).argmax(0)
    return np.asarray(centred @ (axes * np.sign(axes[largest, np.arange(count)])), np.float32)


def _umap(unit: Float32[np.ndarray, "P E"], seed: int, progress: bool) -> Float32[np.ndarray, "P 2"]:
    loading = "UMAP: loading, about 15 s the first time"
    with tqdm(total=1, desc=loading, bar_format="{desc}", disable=not progress) as bar:
        with needs_extra("lab", "UMAP"):
            import numba

            # it keeps what it compiles beside its own files or in the home, where a container may write to neither
            settings: Any = numba.config
            settings.CACHE_DIR = settings.CACHE_DIR or str(cache_root() / "numba")
            from umap import UMAP  # compiles on import, so not before it is wanted
        bar.set_description_str(f"UMAP: {len(unit):,} points, finding neighbours")
        mapper = UMAP(
            n_neighbors=min(15, len(unit) - 1),
            init="pca",
            random_state=seed,
            n_jobs=1,  # what a seed needs; said here, so that umap does not warn of it
            verbose=progress,
            tqdm_kwds={"desc": "UMAP", "unit": "round", "disable": not progress},
        )
        with redirect_stdout(io.StringIO()):  # its log; the bar stays
            xy: np.ndarray = mapper.fit_transform(unit)
        bar.set_description_str(f"UMAP: {len(unit):,} points")
    return np.asarray(xy, np.float32)
