"""Rivals: how others bring a student's patches near a teacher's own, in another label space and without prototypes.

Student patches f are (B, N, E), the teacher's own fused patches t are (B, N, D); no gradient reaches the teacher. Every
loss but the cosine (0..2, as :func:`prockd.training.losses.feature`) is in units of what a student gets that tells
nothing apart: 0 is perfect, and one grid of weights serves all. Papers take sums where we take such shares; that is a
factor and moves no minimum. Relations of images are B x B, of patches N x N within an image.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal as kept_orthogonal

from prockd.datasets.transforms import whole_images
from prockd.training.batches import Reader, Source
from prockd.training.losses import feature
from prockd.training.standardiser import Standardiser

TEMPERATURE = 0.07
"""Of the similarities that ``intra_image`` and ``queue`` make probabilities of, as in lightly-train."""

QUEUE = 1024
"""Past images in the queue."""

MOST_ANGLES = 64
"""Images between which RKD compares angles: there are B cubed."""

MOST_MEASURED = 1024
"""Images that the statistics of ``standardise`` are taken of, evenly among all."""


def mse(student: Float[Tensor, "B N D"], teacher: Float[Tensor, "B N D"]) -> Float[Tensor, ""]:
    """Squared error of the projected student, mean |P f - t|^2 / var t: FitNets (arXiv 1412.6550) at the patches."""
    return shared(F.mse_loss(student, teacher), teacher.var((0, 1), correction=0).mean())


def orthogonal(student: Float[Tensor, "B N D"], teacher: Float[Tensor, "B N D"]) -> Float[Tensor, ""]:
    """VkD (arXiv 2403.06213): mean |P f - t'|^2, with P kept orthogonal and t' standardised.

    An orthogonal P keeps the student's own distances, so it cannot do the student's work; t' has mean 0 and variance 1
    in each of its values over the batch, the paper's choice for tasks that tell classes apart.
    """
    return mse(student, standard(teacher))


def inverted(student: Float[Tensor, "B N E"], teacher: Float[Tensor, "B N E"]) -> Float[Tensor, ""]:
    """Inverted projection (arXiv 2403.14494): mean |f' - (P t)'|^2 / 2, the teacher brought to the student's width.

    P may leave out what the teacher knows for its own task only. Both sides are standardised over the batch, else they
    would agree on nothing (f = P t = 0).
    """
    return F.mse_loss(standard(student), standard(teacher)) / 2


def attention(student: Float[Tensor, "B N E"], teacher: Float[Tensor, "B N D"]) -> Float[Tensor, ""]:
    """Attention transfer (AT, arXiv 1612.03928): |q(f) - q(t)|^2 with q the unit map of sum_c |a_c|^2.

    The teacher's fused patches have unit length in each layer, which is the same attention everywhere; a here is what a
    patch differs by from the mean one of the batch.
    """
    maps = [F.normalize((a - a.mean((0, 1))).square().sum(-1), dim=-1) for a in (student, teacher)]
    even = torch.full_like(maps[1], maps[1].shape[-1] ** -0.5)
    return shared(*((one - maps[1]).square().sum(-1).mean() for one in (maps[0], even)))


def similarity(student: Float[Tensor, "B N E"], teacher: Float[Tensor, "B N D"]) -> Float[Tensor, ""]:
    """Similarity-preserving KD (SP, arXiv 1907.09682): |G_f - G_t|_F^2, rows of unit length, G = A A^T (B x B).

    A row of A is a whole image, its patches one after another.
    """
    grams = [F.normalize(flat @ flat.T, dim=-1) for flat in (student.flatten(1), teacher.flatten(1))]
    even = torch.full_like(grams[1], len(grams[1]) ** -0.5)
    return shared(*((one - grams[1]).square().sum(-1).mean() for one in (grams[0], even)))


def probability(student: Float[Tensor, "B N E"], teacher: Float[Tensor, "B N D"]) -> Float[Tensor, ""]:
    """PKT (arXiv 1803.10837): KL(p_t || p_f), p(i | j) = k_ij / sum_i k_ij, k = (cosine + 1) / 2, i not j.

    Of pooled images.
    """
    kernels = [((cosines(one.mean(1)) + 1) / 2).clamp_min(1e-6).log() for one in (student, teacher)]
    return shared_kl(*map(off_diagonal, kernels))


def relation(student: Float[Tensor, "B N E"], teacher: Float[Tensor, "B N D"]) -> Float[Tensor, ""]:
    """RKD (arXiv 1904.05068): Huber loss of distances in units of their mean, and of cosines of angles; 1 to 2.

    Of pooled images. A student that tells nothing has all distances 1 and all angles 60 degrees.
    """
    f, t = student.mean(1), teacher.mean(1)
    few = slice(None, None, -(-len(f) // MOST_ANGLES))
    return (huber(distances(f), distances(t), 1.0) + 2 * huber(angles(f[few]), angles(t[few]), 0.5)) / 3


def intra_image(student: Float[Tensor, "B N E"], teacher: Float[Tensor, "B N D"]) -> Float[Tensor, ""]:
    """KL between the rows of softmax(cosine / .07) of the patches of an image: lightly-train's local term."""
    return shared_kl(*(cosines(one) / TEMPERATURE for one in (student, teacher)))


class Queue(nn.Module):
    """Pooled teacher embeddings of past images in the prototypes' place: lightly-train's global term.

    KL(softmax(t q / .07) || softmax(P f q / .07)) over the q of this batch and of those before, all of unit length.

    Args:
        width: D.
        size: of past images; the oldest leave first.
    """

    past: Float[Tensor, "Q D"]
    count: Tensor

    def __init__(self, width: int, size: int = QUEUE) -> None:
        super().__init__()
        self.register_buffer("past", torch.zeros(size, width))  # in checkpoints, so that a resumed run reads the same
        self.register_buffer("count", torch.tensor(0))

    def forward(self, student: Float[Tensor, "B N D"], teacher: Float[Tensor, "B N D"]) -> Float[Tensor, ""]:
        """The loss of the projected student; in training the teacher's images join the queue first."""
        f, t = (F.normalize(one.mean(1), dim=-1) for one in (student, teacher))
        if self.training:
            self.past.copy_(torch.cat([t, self.past])[: len(self.past)])
            self.count += len(t)
        known = self.past[: int(self.count)]
        return shared_kl(f @ known.T / TEMPERATURE, t @ known.T / TEMPERATURE)


LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mse, "cosine": feature, "orthogonal": orthogonal, "inverted": inverted, "at": attention, "sp": similarity,
    "pkt": probability, "rkd": relation, "intra_image": intra_image,
}  # fmt: skip
"""By the name of the knob ``rival``; ``queue`` is a module, since it remembers."""


class Rival(nn.Module):
    """A rival's loss with what learns beside the student for it alone, and is dropped after training.

    Args:
        name: a key of ``LOSSES``, or "queue".
        embed_dim: E.
        teacher_width: D.
        standardise: of the teacher's patches before they are read, see :class:`Standardiser`.
    """

    def __init__(self, name: str, embed_dim: int, teacher_width: int, standardise: str = "none") -> None:
        super().__init__()
        self.name = name
        self.standardiser = Standardiser(standardise, teacher_width) if standardise != "none" else None
        width = teacher_width if self.standardiser is None else self.standardiser.width
        self.projector = projector(name, embed_dim, width)
        self.queue = Queue(width) if name == "queue" else None

    def forward(self, student: Float[Tensor, "B N E"], teacher: Float[Tensor, "B N D"]) -> Float[Tensor, ""]:
        """The loss of some images' patches; it is computed in single precision, since its sums are long."""
        student, teacher = student.float(), teacher.detach().float()
        if self.standardiser is not None:
            teacher = self.standardiser(teacher)
        if self.projector is not None and self.name == "inverted":
            teacher = self.projector(teacher)
        elif self.projector is not None:
            student = self.projector(student)
        loss: Tensor = (LOSSES[self.name] if self.queue is None else self.queue)(student, teacher)
        return loss

    def fit(self, sources: Iterable[Source], student: Reader, device: torch.device) -> None:
        """Take the statistics of the standardiser, if there is one, of whole images of all sources."""
        if self.standardiser is not None:
            self.standardiser.fit(whole_patches(list(sources), student, device))


def projector(name: str, embed_dim: int, teacher_width: int) -> nn.Module | None:
    """The learned map of a rival between the student's width and the teacher's; None where relations are compared."""
    if name == "inverted":
        return nn.Linear(teacher_width, embed_dim, bias=False)  # a bias would fall to the standardisation
    if name == "orthogonal":
        # the paper takes the matrix exponential of a skew-symmetric matrix; Cayley's map does the same in half the time
        return kept_orthogonal(nn.Linear(embed_dim, teacher_width, bias=False), orthogonal_map="cayley")
    if name not in ("mse", "cosine", "queue"):
        return None
    linear = nn.Linear(embed_dim, teacher_width)
    if (
        name == "mse"
    ):  # the teacher's values are small, unit length over hundreds of them: else it starts at a loss of 60
        for parameter in linear.parameters():
            nn.init.uniform_(parameter, -0.1 * embed_dim**-0.5, 0.1 * embed_dim**-0.5)
    return linear


@torch.no_grad()
def whole_patches(
    sources: list[Source], student: Reader, device: torch.device, batch_size: int = 64
) -> Iterator[Float[Tensor, "_ N D"]]:
    """The teacher's patches of whole images of some sources, some images at a time."""
    total = sum(len(source.images) for source in sources)
    for source in sources:
        M = len(source.images)
        rows = np.linspace(0, M - 1, max(1, M * min(MOST_MEASURED, total) // total)).round().astype(int)
        for start in range(0, len(rows), batch_size):
            some = rows[start : start + batch_size]
            maps = source.batch(some, whole_images(len(some)), student, device).teacher
            assert maps is not None
            yield maps.flatten(2).transpose(1, 2)


def shared(value: Float[Tensor, ""], of_even: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """A loss in units of that of a student for whom all is even."""
    return value / of_even.detach().clamp_min(1e-6)


def shared_kl(student: Float[Tensor, "*B K"], teacher: Float[Tensor, "*B K"]) -> Float[Tensor, ""]:
    """KL(softmax(teacher) || softmax(student)), a mean over rows, in units of that to even rows, log K - H(teacher)."""
    target, score = teacher.log_softmax(-1), student.log_softmax(-1)
    value = (target.exp() * (target - score)).sum(-1).mean()
    even = np.log(max(1, teacher.shape[-1])) + (target.exp() * target).sum(-1).mean()
    return shared(value, even)


def huber(student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"], even: float) -> Float[Tensor, ""]:
    """Huber loss in units of that of a student for whom all is even; 0 where there is nothing to compare."""
    both = (F.smooth_l1_loss(one, teacher, reduction="sum") for one in (student, torch.full_like(teacher, even)))
    return shared(*both)


def standard(patches: Float[Tensor, "B N E"]) -> Float[Tensor, "B N E"]:
    """Each of the E values with mean 0 and variance 1 over the batch."""
    centred = patches - patches.mean((0, 1))
    return centred / centred.square().mean((0, 1)).add(1e-8).sqrt()


def cosines(rows: Float[Tensor, "*B N E"]) -> Float[Tensor, "*B N N"]:
    """Of each row to each other."""
    unit = F.normalize(rows, dim=-1)
    return unit @ unit.mT


def off_diagonal(square: Float[Tensor, "B B"]) -> Float[Tensor, "B _"]:
    """Each row without itself."""
    B = len(square)
    return square[~torch.eye(B, dtype=torch.bool, device=square.device)].view(B, B - 1)


def distances(images: Float[Tensor, "B E"]) -> Float[Tensor, "B _"]:
    """Of each image to each other, in units of their mean."""
    apart = off_diagonal(torch.cdist(images, images, compute_mode="donot_use_mm_for_euclid_dist"))
    return apart / (apart.sum() / max(1, apart.numel())).clamp_min(1e-6)


def angles(images: Float[Tensor, "B E"]) -> Float[Tensor, "B _"]:
    """Cosine of the angle at each image between each two others, (B, (B - 1) (B - 2))."""
    B = len(images)
    apart = F.normalize(images[None] - images[:, None], dim=-1)  # (B, B, E): from the first to the second
    apart = apart[~torch.eye(B, dtype=torch.bool, device=images.device)].view(B, B - 1, images.shape[1])
    others = ~torch.eye(max(0, B - 1), dtype=torch.bool, device=images.device)
    return (apart @ apart.mT)[:, others]
