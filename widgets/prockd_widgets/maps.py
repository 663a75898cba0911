"""Where patches lie on the explorer's maps: PCA at once, UMAP as soon as it is computed."""

import threading
import time
from typing import Any

import numpy as np
import torch
import traitlets
from jaxtyping import Float32

from prockd.evaluation.embed import Embedding, embed_2d, is_embedded, principal
from prockd_widgets.edits import BankEditor
from prockd_widgets.patches import pack_xy

QUICK = 5_000
"""Patches that UMAP lays out itself, in about 10 s on one core; the others go beside those that are most alike."""
NEIGHBOURS = 3


def pca_map(unit: Float32[np.ndarray, "P E"]) -> tuple[Float32[np.ndarray, "P 2"], str]:
    """Places of all patches, and a sentence for the page."""
    return principal(unit, 2), f"PCA of {len(unit):,} patches"


def umap_map(
    unit: Float32[np.ndarray, "P E"], seed: int, *, progress: bool = False
) -> tuple[Float32[np.ndarray, "P 2"], str]:
    """The same by UMAP: at most ``QUICK`` patches, drawn with the seed, are laid out, all others beside them."""
    laid_out = embed_2d(unit, seed=seed, max_points=QUICK, progress=progress)
    rest = len(unit) - len(laid_out)
    note = f"; the other {rest:,} beside the {NEIGHBOURS} most alike" if rest else ""
    places = principal(beside(unit, laid_out), 2)  # turned so that its long side lies across the page
    return places, laid_out.note.replace("points", "patches") + note


def is_quick(unit: Float32[np.ndarray, "P E"], seed: int) -> bool:
    """Whether the UMAP of these patches lies in the cache."""
    return len(unit) > 2 and is_embedded(unit, seed=seed, max_points=QUICK)


def beside(unit: Float32[np.ndarray, "P E"], laid_out: Embedding) -> Float32[np.ndarray, "P 2"]:
    """Places of all patches: those that were not laid out are pulled towards the most alike of those that were."""
    places = np.empty((len(unit), 2), np.float32)
    anchors, xy = torch.from_numpy(unit[laid_out.indices]), torch.from_numpy(laid_out.xy)
    for start in range(0, len(unit), 4096):
        cosine, nearest = (torch.from_numpy(unit[start : start + 4096]) @ anchors.T).topk(min(NEIGHBOURS, len(xy)))
        pull = (50 * cosine).softmax(1)  # so sharp that few patches come to lie between islands
        places[start : start + 4096] = (pull[..., None] * xy[nearest]).sum(1).numpy()
    places[laid_out.indices] = laid_out.xy
    return places


class MapMaker(BankEditor):
    """The part of a widget that lays patches out: maps are traits, and UMAP comes from a thread of its own."""

    status = traitlets.Unicode("", help="What the kernel has to say.").tag(sync=True)
    map_note = traitlets.Unicode("").tag(sync=True)
    maps: traitlets.List[Any] = traitlets.List(help="Name and note of each map, the best first.").tag(sync=True)
    on_map = traitlets.Unicode("PCA", help="The map that is shown: PCA or UMAP.").tag(sync=True)
    xy: traitlets.List[Any] = traitlets.List(help="Places on each map, of each model.").tag(sync=True)
    seed: int
    _umap = threading.Thread()

    def _units(self) -> list[np.ndarray]:
        """(Q, E) of each model the patches that are no bars."""
        return [m.unit[self._shown].float().numpy() for m in self.models]

    def _send_pca(self) -> None:
        self._shown = np.flatnonzero(self.models[0].shown)
        places, (note, *_) = zip(*map(pca_map, self._units()), strict=True)
        self.xy = [pack_xy(xy, self._shown, len(self.models[0].unit)) for xy in places]
        self.maps, self.map_note = [{"name": "PCA", "note": note}], note

    def lay_out(self) -> threading.Thread:
        """Compute the UMAP in the background; ``map_note`` tells how long it has been running."""
        if not self._umap.is_alive():
            self._umap = threading.Thread(target=self._lay_out, daemon=True)
            self._umap.start()
        return self._umap

    def _lay_out(self, *, progress: bool = False) -> None:
        P, before, done = len(self.models[0].unit), self.map_note, threading.Event()

        def show_seconds() -> None:
            began = time.perf_counter()
            while not done.wait(1):
                passed = time.perf_counter() - began
                self.map_note = f"{before}; UMAP is being computed, {passed:.0f} s"

        ticker = threading.Thread(target=show_seconds, daemon=True)
        ticker.start()
        try:
            places, (note, *_) = zip(*(umap_map(u, self.seed, progress=progress) for u in self._units()), strict=True)
            pca = [self.maps[-1], self.xy[-len(self.models) :]]
            with self.hold_sync():  # one message, so that the page never sees places of one map under another's name
                self.xy = [pack_xy(xy, self._shown, P) for xy in places] + pca[1]
                self.maps, self.on_map = [{"name": "UMAP", "note": note}, pca[0]], "UMAP"
            message = "The map is a UMAP now: near means alike."
        except Exception as failure:
            note, message = before, f"{type(failure).__name__}: {failure}"
        done.set()
        ticker.join()
        self.map_note, self.status = note, message
