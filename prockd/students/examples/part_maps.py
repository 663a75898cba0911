"""z+ with numpy alone: what each prototype says of how the patches of its part differ from it.

part_maps.safetensors has prototypes (K, E) and a map of each. In closed form maps are (K, E, C), and with a bias they
give class scores; else maps are (K, q, r) between reduce (q, E) and spread (E, r), and what they say is added.
"""

from pathlib import Path

import numpy as np
from picture import FACTS
from safetensors.numpy import load_file

WEIGHTS = load_file(Path(__file__).with_name("part_maps.safetensors"))
PROTOTYPES, MAPS = WEIGHTS["prototypes"], WEIGHTS["maps"]
GIVES_CLASSES = "bias" in WEIGHTS


def direction(vectors):
    """Of length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def belonging(features):
    """The directions h of patches (B, N, E), and how much each belongs to every prototype (B, N, K)."""
    h = direction(features)
    scores = h @ direction(PROTOTYPES).T / FACTS["part_maps"]["temperature"]
    a = np.exp(scores - scores.max(-1, keepdims=True))
    return h, a / a.sum(-1, keepdims=True)


def class_scores(features):
    """(B, N, E) -> z+ (B, C)."""
    h, a = belonging(features)
    total = a.sum(1)[..., None]
    v = (a.transpose(0, 2, 1) @ h - total * PROTOTYPES) / (1 + total)
    return np.einsum("bke,kec->bc", v, MAPS) + WEIGHTS["bias"]


def added(features):
    """(B, N, E) -> f+ (B, N, E), which the head reads."""
    (h, a), reduce = belonging(features), WEIGHTS["reduce"].T
    w = a * (a.shape[1] / (1 + a.sum(1, keepdims=True)))
    of_patches = np.einsum("bnk,bnq,kqr->bnr", w, h @ reduce, MAPS, optimize=True)
    of_centres = w @ np.einsum("kq,kqr->kr", PROTOTYPES @ reduce, MAPS)
    return features + (of_patches - of_centres) @ WEIGHTS["spread"].T
