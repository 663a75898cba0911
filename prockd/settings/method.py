"""The knobs of the method: how prototypes are found, how they augment features, how the student is trained."""

from dataclasses import dataclass

from prockd.settings.knobs import Knobs, choice, knob, plain


@dataclass(frozen=True)
class DiscoverConfig(Knobs):
    """How prototypes are found (METHOD part 1)."""

    num_prototypes: int = knob(96, 1, 4096, "How many prototypes K to learn.")
    embed_dim: int = knob(128, 2, 4096, "Width E of the space that prototypes live in.")
    init: str = choice("kmeans", ("kmeans", "uniform"), "k-means on the teacher's patches, or random (ablation).")
    salient: bool = plain(True, "Weigh patches by activity and by likeness to active ones: background gets fewer.")
    sharpness: float = knob(3.0, 0.1, 1000, "Assignment inverse temperature at the start, on unit vectors.")
    steps: int = knob(150, 0, 100_000, "Training steps of the prototype learning module after k-means.", "steps")
    batch_size: int = knob(8, 1, 4096, "Images in a training step.", "images")
    lr: float = knob(3e-3, 0, 1, "AdamW learning rate of the module.")
    max_patches: int = knob(30_000, 1, 10_000_000, "Patches that k-means sees; more are subsampled.", "patches")
    seed: int = knob(0, 0, 2**31 - 1, "Seed of sampling, k-means and training.")


@dataclass(frozen=True)
class FeatureAugmentationConfig(Knobs):
    """How prototypes are added to the student's features (METHOD part 2)."""

    content: str = choice(
        "part_maps",
        ("part_maps", "attention", "descriptor", "mlp", "none"),
        "What is added: maps of how patches differ from prototypes, attended prototypes, the residual descriptor, "
        "an equal-size MLP (control), or nothing.",
    )
    fit: str = choice(
        "closed",
        ("closed", "trained"),
        "Part maps: by ridge regression on the finished student, for tasks of whole images, or beside the head.",
    )
    num_maps: int = knob(16, 1, 1024, "Part maps that are trained: their number.")
    temperature: float = knob(0.1, 1e-3, 10, "Part maps: of the cosines by which patches belong to prototypes.")
    residual: str = choice(
        "gate", ("gate", "relu"), "f + gate * T([e; r]) with the gate starting at 0, or the paper's ReLU."
    )
    conditional: bool = plain(True, "Learn the task's own scale and shift of each prototype.")
    scaled: bool = plain(True, "Divide attention scores by sqrt(E).")
    detach: bool = plain(True, "Stop the augmented loss from reaching the backbone.")


@dataclass(frozen=True)
class DistillConfig(Knobs):
    """How the student is trained (METHOD part 3)."""

    steps: int = knob(900, 1, 10_000_000, "Optimiser steps.", "steps")
    batch_size: int = knob(24, 1, 65_536, "Labelled images in a step, over all processes.", "images")
    unlabelled_batch: int = knob(
        24, 0, 65_536, "Images without a label in each step: transfer and soft targets.", "images"
    )
    label_free_steps: int = knob(0, 0, 10_000_000, "First steps that use transfer alone, on all images.", "steps")
    lr: float = knob(16e-3, 0, 10, "Peak AdamW learning rate; warms up, then falls by a cosine to 0.")
    weight_decay: float = knob(0.05, 0, 10, "AdamW weight decay.")
    warmup: float = knob(0.05, 0, 1, "Part of the steps over which the learning rate rises.")
    min_crop: float = knob(0.5, 0.05, 1, "Smallest part of the image's area that a random crop keeps.")
    flip: bool = plain(True, "Mirror half of the images.")
    recoloured: float = knob(0.0, 0, 1, "Share of the images that the student sees in other colours.")
    label_smoothing: float = knob(0.0, 0, 0.9, "Label smoothing of the task loss.")
    augmented_weight: float = knob(1.0, 0, 100, "w1: task loss on the augmented prediction.")
    teacher_branch_weight: float = knob(
        0.0, 0, 100, "w2: task loss on the teacher's features, augmented if the student's are."
    )
    teacher_reads: str = choice("module", ("module", "patches"), "Teacher branch: g = T([u; v]) (paper), or u itself.")
    consistency_weight: float = knob(0.0, 0, 100, "w3: agreement of plain and augmented predictions.")
    assignment_weight: float = knob(0.0, 0, 1000, "w4: prototype-assignment transfer.")
    feature_weight: float = knob(
        100.0, 0, 1000, "w4: cosine between student and teacher patches in the prototype space."
    )
    soft_weight: float = knob(3.0, 0, 1000, "Soft targets: KL to what is read of the teacher's patches, all images.")
    soft_reads: str = choice(
        "part_maps", ("part_maps", "mean"), "Soft targets of whole images: part maps of the patches, or their mean."
    )
    soft_steps: int = knob(200, 0, 100_000, "Soft targets of places: steps that a head learns them for.", "steps")
    hint_weight: float = knob(0.0, 0, 100, "FitNets hint (rival): squared error to the teacher's last map.")
    rival: str = choice(
        "none",
        ("none", "mse", "cosine", "orthogonal", "inverted", "at", "sp", "pkt", "rkd", "intra_image", "queue"),
        "A rival's loss on the teacher's own patches, which needs no prototypes.",
    )
    rival_weight: float = knob(10.0, 0, 1000, "Weight of the rival.")
    standardise: str = choice(
        "none", ("none", "mean_std", "phi_s"), "Scale of the patches that the rival reads: as is, each value's, PHI-S."
    )
    gradient_share: float = knob(
        0.0,
        0,
        0.99,
        "Share of the gradient for the teacher's terms, which sets their weights in 50 steps; 0: as given.",
    )
    temperature: float = knob(0.1, 1e-3, 10, "Temperature of the assignments that are transferred.")
    train_bank: bool = plain(False, "Let the task losses move the prototypes too.")
    store: str = choice(
        "maps",
        ("maps", "embedded", "none"),
        "What is kept of the teacher: its maps, or where a frozen bank is all that reads them, patches in its space; "
        "these alone, else refused; nothing, it sees every crop (slow, exact).",
    )
    clip_grad_norm: float = knob(5.0, 0, 1e6, "Longer gradients are cut to this length; 0 leaves them.")
    seed: int = knob(0, 0, 2**31 - 1, "Seed of the data order, the crops and the flips.")
    mixed_precision: str = choice(
        "auto",
        ("auto", "no", "bf16", "fp16"),
        "Half precision in the student's passes; auto: bf16 on chips with units.",
    )
    compile: str = choice(
        "no", ("no", "default", "reduce-overhead"), "torch.compile of the student's backbone, by its modes."
    )


@dataclass(frozen=True)
class ClusterConfig(Knobs):
    """How a teacher learns to cluster its patches: two crops of a picture agree on what is the same place in it."""

    steps: int = knob(200, 1, 10_000_000, "Optimiser steps.", "steps")
    batch_size: int = knob(16, 1, 65_536, "Images in a step, each seen in two crops.", "images")
    image_px: int = knob(256, 8, 4096, "Side of the squares that crops are cut out of.", "px")
    crop_px: int = knob(160, 8, 4096, "Side of the crops that the teacher sees while it learns.", "px")
    min_crop: float = knob(0.25, 0.01, 1, "Smallest part of the image's area that a crop keeps.")
    flip: bool = plain(True, "Mirror the second crop of half of the images.")
    recoloured: float = knob(0.4, 0, 1, "Share of the second crops in other colours.")
    zoom: float = knob(0.0, 0, 1, "Share of the second crops that are a small part of the first one, enlarged.")
    num_prototypes: int = knob(96, 2, 8192, "Prototypes K that patches are assigned to.")
    embed_dim: int = knob(128, 2, 4096, "Width E of the space of the prototypes.")
    aligned: int = knob(12, 2, 64, "Rows and columns of patches that are compared where two crops overlap.")
    temperature: float = knob(0.1, 1e-3, 10, "Temperature of the assignments that are predicted.")
    balance: float = knob(0.05, 1e-3, 10, "Temperature of the balanced assignments that are their targets.")
    salience: float = knob(
        0.0, 0, 8, "Power of patches' saliency, read without labels, by which they count; 0: by how near the middle."
    )
    neighbour_weight: float = knob(0.0, 0, 100, "Patches predict the assignment of the nearest one in other pictures.")
    rarity: float = knob(0.0, 0, 4, "Power of a prototype's frequency by which its patches weigh less; 0 for none.")
    species_weight: float = knob(0.0, 0, 100, "Cross-entropy of the labels beside it; 0 reads no label.")
    label_smoothing: float = knob(0.1, 0, 0.9, "Label smoothing of the same.")
    drift_weight: float = knob(1.0, 0, 100, "Cosine of the patches to those of the teacher as it was.")
    frozen_layers: int = knob(1, 0, 64, "Layers read, from the first on, that stay as they are with all before them.")
    frozen_norms: bool = plain(True, "Batch norms keep the statistics of what the teacher was trained on.")
    lr: float = knob(2e-4, 0, 10, "Peak AdamW learning rate; warms up, then falls by a cosine to 0.")
    head_rate: float = knob(5.0, 0, 1000, "Learning rate of W_c and prototypes, in units of lr.")
    weight_decay: float = knob(0.0, 0, 10, "AdamW weight decay.")
    warmup: float = knob(0.1, 0, 1, "Part of the steps over which the learning rate rises.")
    clip_grad_norm: float = knob(5.0, 0, 1e6, "Longer gradients are cut to this length; 0 leaves them.")
    start_images: int = knob(256, 1, 100_000, "Images whose patches give the first W_c and prototypes.", "images")
    seed: int = knob(0, 0, 2**31 - 1, "Seed of the start, the data order and the crops.")
    mixed_precision: str = choice("no", ("no", "bf16", "fp16"), "Half precision in the teacher's passes.")


def paper() -> tuple[DiscoverConfig, FeatureAugmentationConfig, DistillConfig]:
    """The literal reading of the paper's description: K = 72, uniform start, no transfer term, teacher branch on."""
    return (
        DiscoverConfig(num_prototypes=72, init="uniform", salient=False, steps=0),
        FeatureAugmentationConfig(content="attention", residual="relu", conditional=False, scaled=False, detach=False),
        DistillConfig(
            augmented_weight=1.0,
            teacher_branch_weight=0.5,
            consistency_weight=1.0,
            feature_weight=0.0,
            soft_weight=0.0,
            batch_size=48,
            unlabelled_batch=0,
            train_bank=True,
        ),
    )


def best() -> tuple[DiscoverConfig, FeatureAugmentationConfig, DistillConfig]:
    """What measured best on the validation split of Farmyard (docs: README, results table)."""
    return DiscoverConfig(), FeatureAugmentationConfig(), DistillConfig()
