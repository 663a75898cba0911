import pytest
import torch
from torch.nn import functional as F

from prockd.tasks import Classification

TASK = Classification(4, ("cow", "dog", "elk", "fox"))


def test_the_head_reads_the_mean_of_all_patches():
    torch.manual_seed(0)
    head, features = TASK.head(16), torch.randn(3, 10, 16)
    logits = head(features)
    assert logits.shape == (3, 4)
    torch.testing.assert_close(head(features[:, torch.randperm(10)]), logits)
    torch.testing.assert_close(head(features.mean(1, keepdim=True)), logits)
    assert (head(torch.cat([features, torch.randn(3, 1, 16)], 1)) - logits).abs().max() > 1e-4


def test_the_loss_is_cross_entropy_and_smoothing_keeps_it_above_zero():
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 3])
    by_hand = -torch.stack([logits[i].log_softmax(0)[label] for i, label in enumerate(labels)]).mean()
    torch.testing.assert_close(TASK.loss(logits, labels), by_hand)
    sure = 50 * F.one_hot(labels, 4).float()
    assert TASK.loss(sure, labels) < 1e-6 < 1 < TASK.loss(sure, labels, 0.1)


def test_consistency_is_zero_for_equal_predictions_and_reaches_both():
    plain, augmented = torch.randn(2, 6, 4)
    assert TASK.consistency(plain, plain + 3.0).item() == pytest.approx(0, abs=1e-6)
    plain.requires_grad_()
    augmented.requires_grad_()
    value = TASK.consistency(plain, augmented)
    p, q = augmented.softmax(-1), plain.softmax(-1)
    torch.testing.assert_close(value, (p * (p / q).log()).sum(-1).mean())
    value.backward()
    assert plain.grad.abs().sum() > 0
    assert augmented.grad.abs().sum() > 0


@pytest.mark.parametrize("label", [-1, 4, 99])
def test_a_label_outside_the_task_is_refused_with_the_image_and_the_range(label):
    with pytest.raises(ValueError, match=rf"image 'b\.png' has label {label}, but the task has classes 0\.\.3"):
        TASK.check(torch.tensor([0, label, 3]), ("a.png", "b.png", "c.png"))
    TASK.check(torch.tensor([0, 1, 2, 3]), ("a", "b", "c", "d"))
