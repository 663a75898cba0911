"""What else could be read of a finished student: the controls of its part maps, fitted alike with the same targets."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from prockd.datasets import PackedImages
from prockd.devices import device_for, on_device
from prockd.evaluation.scores import outputs
from prockd.prototypes.part_maps import TEMPERATURE, belonging, part_descriptor
from prockd.students.student import Student
from prockd.training.batches import Batch, Source, patches_of
from prockd.training.inputs import StoredFeatures
from prockd.training.readings import (
    MOST_UNLABELLED,
    fit_reading,
    fitted_rows,
    in_views,
    is_tags,
    some_rows,
    targets_of,
    to_probabilities,
    whole,
)
from prockd.training.ridge import fit_ridge

Read = Callable[[Float[Tensor, "B N E"]], Float[Tensor, "B V"]]
"""What a linear reading gets of patches."""


@torch.no_grad()
def control_readings(
    student: Student,
    features: StoredFeatures,
    unlabelled: StoredFeatures | None,
    test: PackedImages,
    *,
    flip: bool = True,
    seed: int = 0,
    readings: Callable[[Tensor, Tensor, int], Mapping[str, Read]] | None = None,
) -> dict[str, float]:
    """The test score of z+ by part maps and by each control, all fitted to one student in the same closed form.

    Every reading gets the same images, the same targets (labels, and what the teacher's side thinks of unlabelled
    images) and the same choice of strength; only what it reads of the student's patches differs.

    Args:
        student: finished, of a task that is read pooled.
        features: the teacher's, of the labelled images.
        unlabelled: of more images; None for none.
        test: labelled images that nothing was chosen on.
        flip: labelled images are read mirrored too.
        seed: of what is random in the controls.
        readings: makes others than :func:`readings_of`, of the same arguments.

    Raises:
        ValueError: a student without a bank, or of a task that is not read pooled.
    """
    task, bank = student.task, student.bank
    if bank is None or not task.pooled:
        raise ValueError(f"{student!r} has no reading in closed form: pass a bank, and a task of one answer an image")
    with on_device(device_for(student), student):  # the fits, in 64 bits, are the CPU's on any machine
        features = features.select(fitted_rows(features.images, bank))
        labelled, every = Source(features.images, features, bank, task=task, flip=flip), np.arange(len(features))
        reading, was_training = fit_reading(student, labelled), student.training
        student.eval()

        def own(batch: Batch) -> Tensor:
            patches: Tensor = student(batch.images, 0).features
            return patches.cpu()

        try:
            others = soft = None
            more = labelled if unlabelled is None else Source(unlabelled.images, unlabelled, bank, flip=flip)
            seen = list(whole(more, some_rows(more.images, MOST_UNLABELLED, seed), student, mirrored=False))
            drawn = torch.cat([patches_of(batch).cpu() for batch in seen])
            if unlabelled is not None:
                others = torch.cat([own(batch) for batch in seen])
                soft = torch.cat([to_probabilities(task, reading(patches_of(batch))) for batch in seen]).cpu()
            unseen = torch.cat([output.features.cpu() for output in outputs(student, test)])
            targets, scores = targets_of(task, labelled.images, every), {}
            for name, read in (readings or readings_of)(bank.prototypes.detach(), drawn, seed).items():

                def joined(patches: Tensor, read: Read = read) -> Tensor:
                    return torch.cat([read(part) for part in torch.split(patches, 16)])

                # labelled images are passed anew for each: there may be more of them than patches fit the memory
                x = in_views(labelled, every, student, lambda batch, joined=joined: joined(own(batch)))  # type: ignore[misc]
                ridge = fit_ridge(x, targets, None if others is None else joined(others), soft, tags=is_tags(task))
                scores[name] = task.score(task.decode(ridge(joined(unseen)), test.image_px), test).value
        finally:
            student.train(was_training)
    return scores


def readings_of(prototypes: Float[Tensor, "K E"], drawn: Float[Tensor, "M N E"], seed: int = 0) -> Mapping[str, Read]:
    """Part maps and their controls by name; ``drawn`` are the teacher's patches of images that need no labels.

    "refitted mean" reads no prototypes; "shuffled" gives every patch the assignment of another one of its image;
    "random patches" and "random vectors" stand in the prototypes' place; "random ReLU" and "bilinear" are wide readings
    of patches without any reference.
    """
    K, E = prototypes.shape
    generator = torch.Generator().manual_seed(seed)
    every = F.normalize(drawn.flatten(0, 1), dim=-1)
    patches = every[torch.randperm(len(every), generator=generator)[:K]]
    vectors = F.normalize(torch.randn(K, E, generator=generator), dim=-1) * prototypes.norm(dim=-1).mean()
    weights = torch.randn(E, K * E, generator=generator)
    upper = torch.triu_indices(E, E)

    def shuffled(f: Tensor) -> Tensor:
        h, a = belonging(f, prototypes, temperature=TEMPERATURE)
        order = torch.rand(a.shape[:2], generator=generator).argsort(1)
        a = a.gather(1, order.unsqueeze(-1).expand_as(a))
        total = a.sum(1).unsqueeze(-1)
        return ((a.transpose(1, 2) @ h - total * prototypes) / (1 + total)).flatten(1)

    def bilinear(f: Tensor) -> Tensor:
        h = F.normalize(f, dim=-1)
        return (h.transpose(1, 2) @ h / h.shape[1])[:, upper[0], upper[1]]

    return {
        "part maps": lambda f: part_descriptor(f, prototypes).flatten(1),
        "refitted mean": lambda f: F.normalize(f, dim=-1).mean(1),
        "shuffled": shuffled,
        "random patches": lambda f: part_descriptor(f, patches).flatten(1),
        "random vectors": lambda f: part_descriptor(f, vectors).flatten(1),
        "random ReLU": lambda f: (F.normalize(f, dim=-1) @ weights).relu().mean(1),
        "bilinear": bilinear,
    }
