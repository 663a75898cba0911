"""Every check passes its reference, fails the stub, tells wrong answers apart, and never raises."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from prockd import checks
from prockd.checks import augmentation, discovery, effects, features, images, inspection, tasks, training, tuning
from prockd.checks.verdict import exercise

ALL = {name.removeprefix("check_"): getattr(checks, name) for name in checks.__all__ if name.startswith("check_")}
every = pytest.mark.parametrize("name", ALL)


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return F.kl_div(q.log_softmax(-1), p.softmax(-1), reduction="batchmean")


def cos(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return F.cosine_similarity(a, b, dim=-1)


def t_interval(gains: Any, factor: float, ddof: int = 1, root: bool = True) -> tuple[float, float, float]:
    half = factor * np.std(gains, ddof=ddof) / (len(gains) ** 0.5 if root else 1)
    return np.mean(gains), np.mean(gains) - half, np.mean(gains) + half


def rows(count: int, part: str = "leg", name: str = "leg", images: int = 40) -> list[dict[str, Any]]:
    return [{"image": str(m % images), "part": part, "name": name} for m in range(count)]


def tries(*changed: dict[str, Any], expected: str = "lower") -> list[dict[str, Any]]:
    return [{"changed": c, "expected": f"{expected} {i}".strip(), "z": 0.5} for i, c in enumerate(changed)]


def box(a: Any, b: Any, clamp: bool = True, union: bool = True) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0) if clamp else width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - (both if union else 0))


def one_side(joints: np.ndarray, width: int) -> np.ndarray:
    return np.stack([width - joints[:, 0], joints[:, 1], joints[:, 2]], 1)


def empty_is_zero(predicted: np.ndarray, truth: np.ndarray, num_classes: int) -> float:
    """Mean IoU that counts a class that does not occur as 0, unless all pixels are right."""
    occurring = len(np.union1d(predicted, truth[truth != 255]))
    right = tasks.mean_iou(predicted, truth, num_classes)
    return right if right == 1 else right * occurring / num_classes


def unpaired(before: np.ndarray, after: np.ndarray, draws: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(v, (draws, len(v))).mean(1) for v in (before, after)]
    return np.percentile(drawn[1] - drawn[0], (2.5, 97.5))


WRONG: dict[str, list[tuple[Any, str]]] = {
    "cosine_map": [
        (lambda x, n: x @ x[n], "divide each patch by its own length"),
        (lambda x, n: F.normalize(x, dim=0) @ F.normalize(x, dim=0)[n], "last axis"),
        (lambda x, n: F.normalize(x, dim=-1) @ F.normalize(x, dim=-1)[0], "is it patch n"),
        (lambda x, n: F.normalize(x, dim=-1) @ F.normalize(x, dim=-1).T, "yours is (7, 7)"),
    ],
    "three_directions": [
        (lambda x: x @ torch.linalg.svd(x, full_matrices=False).Vh[:3].T, "take the mean"),
        (lambda x: (x - x.mean(0))[:, :3], "rotate to principal directions"),
        (lambda x: (x - x.mean(0)) @ torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[-3:].T, "keep the first"),
    ],
    "chance": [
        (lambda part: 1 / len(np.unique(part)), "not equally common"),
        (lambda part: np.bincount(part).max() / len(part), "one name for all"),
    ],
    "place_answer": [
        (lambda parts: parts.mean(0), "a mean of names is none"),
        (lambda parts: np.array([np.bincount(row).argmax() for row in parts]), "yours is (9,)"),
        (lambda parts: parts.max(0), "with np.bincount, then argmax"),
        (lambda parts: np.array([np.bincount(column).argmax() for column in parts.T]), "parts above 0 only"),
    ],
    "soft_assignment": [
        (lambda x, c, t: (F.normalize(x, dim=-1) @ F.normalize(c, dim=-1).T / t).softmax(0), "dim=-1"),
        (lambda x, c, t: (x @ F.normalize(c, dim=-1).T / t).softmax(-1), "normalise the patches"),
        (lambda x, c, t: (F.normalize(x, dim=-1) @ c.T / t).softmax(-1), "normalise the prototypes"),
        (lambda x, c, t: (F.normalize(x, dim=-1) @ F.normalize(c, dim=-1).T * t).softmax(-1), "do not multiply"),
    ],
    "residuals": [
        (lambda a, u, c: a.T @ u, "take the prototypes away"),
        (lambda a, u, c: (a[:, :, None] * (u[:, None] - c)).mean(0), "do not divide"),
        (lambda a, u, c: (a[:, :, None] * (u[:, None] - c)).sum(0), "of 600 numbers"),
        (lambda a, u, c: u.T @ a, "yours is (4, 3)"),
    ],
    "purity": [
        (lambda k, part: np.bincount(part).max() / len(part), "chance level"),
        (lambda k, part: np.mean([np.bincount(part[k == i]).max() / sum(k == i) for i in np.unique(k)]), "once"),
        (lambda k, part: sum(np.bincount(part[k == i]).max() for i in np.unique(k)), "share of all patches"),
    ],
    "used": [
        (lambda a: torch.exp(-torch.xlogy(a, a).sum(-1)).mean(), "first the mean over patches"),
        (lambda a: -torch.xlogy(a.mean(0), a.mean(0)).sum(), "take e to the entropy"),
        (lambda a: torch.exp(-(a.mean(0) * a.mean(0).log()).sum()), "0 log 0"),
        (lambda a: len(a.argmax(-1).unique()), "not the first choices"),
    ],
    "selection": [
        (lambda: rows(5), "lasso"),
        (lambda: rows(40, images=2), "not in one image"),
        (lambda: rows(40, part="torso"), "lie on torso"),
        (lambda: rows(40, name="p07"), "explorer.rename"),
    ],
    "clearest": [
        (lambda parts, part: (parts == part).mean(0).argmax() + 10, "axis 1"),
        (lambda parts, part: 1, "only patches on the part asked for"),
        (lambda parts, part: (parts == part).mean(1), "yours is (5,)"),
    ],
    "no_part": [
        (lambda shares: shares[:, 1:].max(1).argmin(), "below a quarter"),
        (lambda shares: shares[:, 1:].max(1).argmax(), "not the largest"),
        (lambda shares: np.where(shares[:, 1:].max(1) >= 0.25, shares.max(1), 9).argmin() + 1, "column 0"),
    ],
    "looked_at": [
        (lambda a: -torch.xlogy(a, a).sum(-1).mean(), "take e to the entropy"),
        (lambda a: torch.exp(-torch.xlogy(a.mean(0), a.mean(0)).sum()), "of each patch first"),
        (lambda a: (a > 0).sum(-1).double().mean(), "mean of e to the entropies"),
    ],
    "part_map": [
        (lambda h, a, c: (a.T @ h - a.sum(0)[:, None] * c) / a.sum(0)[:, None], "0 / 0"),
        (lambda h, a, c: a.T @ h - a.sum(0)[:, None] * c, "divide by 1 +"),
        (lambda h, a, c: a.T @ h / (1 + a.sum(0)[:, None]), "take a_nk c_k away"),
    ],
    "ridge": [
        (lambda V, Y, s: augmentation.ridge(V, Y, 1e-6), "penalty times"),
        (lambda V, Y, s: V.T @ Y / (1 + s), "should be Y"),
        (lambda V, Y, s: V.T @ torch.linalg.solve(V @ V.T + s * len(V) * torch.eye(8).double(), Y), "as it is"),
        (lambda V, Y, s: torch.linalg.solve(V @ V.T + s * torch.eye(8).double(), Y), "yours is (8, 3)"),
    ],
    "left_out": [
        (lambda V, Y, s: V @ augmentation.ridge(V, Y, s), "each image told itself"),
        (lambda V, Y, s: Y - augmentation.left_out(V, Y, s), "that is the error"),
    ],
    "feature_loss": [
        (lambda s, t: 1 - cos(s, t).mean(), "teacher.detach()"),
        (lambda s, t: 1 - (s * t.detach()).sum(-1).mean(), "normalise both sides"),
        (lambda s, t: (1 - cos(s, t.detach())).sum(), "not a sum"),
        (lambda s, t: 1 - cos(s.detach(), t).mean(), "student's side"),
        (lambda s, t: cos(s, t.detach()).mean(), "1 - cosine"),
    ],
    "soft_loss": [
        (lambda s, t: kl(t, s), "teacher_logits.detach()"),
        (lambda s, t: kl(s, t.detach()), "KL(student || teacher)"),
        (lambda s, t: F.kl_div(s, t.detach().softmax(-1), reduction="batchmean"), "softmax"),
        (lambda s, t: kl(t.detach(), s) / 5, "batchmean"),
    ],
    "soft_targets": [
        (lambda k, y, a, C: training.soft_targets(k, y, a, C) * 2, "softmax"),
        (lambda k, y, a, C: F.one_hot(training.soft_targets(k, y, a, C).argmax(-1), C), "no argmax"),
        (lambda k, y, a, C: training.soft_targets(k, y, a, C).flip(-1), "column c is class c"),
        (lambda k, y, a, C: training.soft_targets(k, y, a - a.mean(0) + k.mean(0), C), "known ones"),
    ],
    "interval": [
        (lambda g: t_interval(g, 1.96), "1.96 is for many"),
        (lambda g: t_interval(g, 3.182, root=False), "root of n"),
        (lambda g: t_interval(g, 3.182, ddof=0), "ddof=1"),
        (lambda g: t_interval(g, 3.182)[::-1], "in the order"),
    ],
    "clearly_above": [
        (lambda r: [name for name, low, high in r if low + high > 0], "mean is not enough"),
        (lambda r: [name for name, low, high in r if low * high > 0], "clear of zero is not enough"),
        (lambda r: ["ours"], "whoever it is"),
    ],
    "standard_error": [
        (lambda p, n: p * (1 - p) / n, "root of the variance"),
        (lambda p, n: (0.25 / n) ** 0.5, "not a quarter"),
        (lambda p, n: (p * (1 - p)) ** 0.5, "root of their number"),
    ],
    "best_of_luck": [
        (lambda n, e: 2 * e, "one draw is not enough"),
        (lambda n, e: e * (n - 1), "not a sum"),
        (lambda n, e: e * np.random.default_rng(0).normal(size=(20_000, n)).mean(), "maximum of each row"),
    ],
    "diary": [
        (lambda: tries({"lr": 1, "seed": 1}, {"seed": 1}, {"steps": 9}), "which of them"),
        (lambda: tries({"seed": 1}), "bad ones too"),
        (lambda: tries({"seed": 1}, {"lr": 1}, {"learning": 1}), "none of DistillConfig"),
        (lambda: tries({"lr": 1}, {"lr": 2}, {"steps": 3}), "seed alone"),
        (lambda: [t | {"z": "41.0%"} for t in tries({"lr": 1}, {"lr": 2}, {"seed": 3})], "panel.wait()"),
        (lambda: [t | {"expected": ""} for t in tries({"lr": 1}, {"lr": 2}, {"seed": 3})], "before you press Run"),
    ],
    "mean_iou": [
        (lambda p, t, n: (p == t)[t != 255].mean(), "accuracy of pixels"),
        (lambda p, t, n: tasks.mean_iou(p, np.where(t == 255, 0, t), n) if 255 in t else 0, "leave these pixels out"),
        (lambda p, t, n: np.mean([tasks.mean_iou(a, b, n) for a, b in zip(p, t, strict=True)]), "union"),
        (empty_is_zero, "leave it out of the mean"),
    ],
    "box_iou": [
        (lambda a, b: box(a, b, clamp=False), "clamp both"),
        (lambda a, b: box(a, b, union=False), "area a + area b - both"),
    ],
    "mirrored": [
        (lambda j, names, w: one_side(j, w), "exchange the rows"),
        (lambda j, names, w: np.c_[one_side(j, w)[[0, 2, 1], :1], j[:, 1:]], "exchange whole rows"),
        (lambda j, names, w: j[[0, 2, 1]], "width - x"),
        (lambda j, names, w: tasks.mirrored(j, names, w)[:, :2], "yours is (3, 2)"),
    ],
    "leaks": [
        (lambda train, test, group: sorted({*train} & {*test}), "compare groups"),
        (lambda train, test, group: sorted({*map(group, train)} ^ {*map(group, test)}), "not in either"),
        (lambda train, test, group: [n for n in train if group(n) in {*map(group, test)}], "not the file"),
    ],
    "divide": [
        (lambda g, share, seed: (range(15, 60), range(15)), "draw groups"),
        (lambda g, share, seed: (range(60), []), "neither side is empty"),
        (lambda g, share, seed: images.divide(g, share, 0), "draw with the seed"),
        (lambda g, share, seed: images.divide(g, share, seed)[::-1], "train comes first"),
    ],
    "normalised": [
        (lambda x, m, s: np.moveaxis((x - np.array(m)) / s, 2, 0), "divide by 255"),
        (lambda x, m, s: images.normalised(x[..., ::-1], m, s), "no [..., ::-1]"),
        (lambda x, m, s: np.moveaxis(x / 255 - np.array(m), 2, 0), "divide by std"),
        (lambda x, m, s: (x / 255 - np.array(m)) / s, "yours is (4, 6, 3)"),
    ],
    "made_usual": [
        (lambda z, said, away: z - said[:, away].sum(1), "put the usual back"),
        (lambda z, said, away: z - (said[:, away] - said[:, away].mean(1, keepdims=True)).sum(1) + 1, "axis 0"),
        (lambda z, said, away: effects.made_usual(z, said, range(4)), "the others stay"),
    ],
    "random_groups": [
        (lambda own, K, d, s: np.random.default_rng(s).integers(0, K, (d, len(own))), "np.setdiff1d"),
        (lambda own, K, d, s: np.random.default_rng(s).choice(np.setdiff1d(range(K), own), (d, len(own))), "replace"),
        (lambda own, K, d, s: np.repeat(effects.random_groups(own, K, 1, s), d, 0), "before all draws"),
    ],
    "paired_change": [
        (lambda a, b, d, s: unpaired(a, b, d, s), "of the same ones"),
        (lambda a, b, d, s: effects.paired_change(b, a, d, s), "became worse"),
        (lambda a, b, d, s: effects.paired_change(a, b, d, s)[::-1], "in this order"),
    ],
}  # fmt: skip


def stub(*arguments: Any) -> Any:
    raise NotImplementedError


def test_every_exercise_has_wrong_answers_here_and_is_described_by_the_form_of_its_answer() -> None:
    assert set(WRONG) == set(ALL)
    assert len(ALL) >= 27
    for check in ALL.values():
        assert inspect.getdoc(check).startswith("``answer(")


@every
def test_the_reference_passes_and_is_told_why(name: str) -> None:
    reference = ALL[name](stub).reference
    verdict = ALL[name](reference)
    assert verdict.passed, str(verdict)
    assert len(verdict.right) >= 2
    assert verdict.or_reference() is reference


@every
def test_the_stub_fails_and_the_page_goes_on_with_the_reference(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for empty in (stub, lambda *arguments: None):
        verdict = ALL[name](empty)
        assert not verdict.passed
        assert callable(verdict.or_reference())
        assert verdict.or_reference() is not empty
        assert f"uses the reference of '{name}'" in capsys.readouterr().out
    assert "nothing is written yet" in str(ALL[name](stub))


@every
def test_plausible_wrong_answers_are_told_apart(name: str) -> None:
    found = [ALL[name](answer) for answer, _ in WRONG[name]]
    for verdict, (_, message) in zip(found, WRONG[name], strict=True):
        assert not verdict.passed
        assert message in verdict.wrong, f"{message!r} is not in: {verdict}"
    assert len({verdict.wrong for verdict in found}) == len(found) >= 2


ODD = (None, 3, "text", lambda: 1, lambda *a: "text", lambda *a: float("nan"), lambda *a: a[99], type, SystemExit)


@every
def test_no_answer_whatever_raises(name: str) -> None:
    for answer in ODD:
        verdict = ALL[name](answer)
        assert not verdict.passed
        assert str(verdict).splitlines()[0] == f"{name}: not yet"


def test_an_error_in_an_answer_is_told_in_its_own_words() -> None:
    verdict = checks.check_chance(lambda part: part["leg"])
    assert "ends with IndexError: only integers" in verdict.wrong


def test_checking_leaves_the_random_numbers_of_a_page_as_they_were() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    for check in ALL.values():
        check(check(stub).reference)
    assert torch.equal(torch.rand(3), expected)


def test_what_was_right_before_the_first_mistake_is_said() -> None:
    @exercise(abs)
    def check_two(answer: Callable[[], int]):
        yield answer() > 0, "it is positive", "add something"
        yield answer() > 9, "it is large", "add more"

    assert str(check_two(lambda: 5)).splitlines() == ["two: not yet", "✓ it is positive", "✗ it is large: add more"]


def test_references_by_hand_are_the_library_s_own() -> None:
    f, prototypes = torch.rand(12, 4), F.normalize(torch.rand(3, 4), dim=-1)
    from prockd.prototypes.part_maps import belonging, part_descriptor

    h, a = belonging(f[None], prototypes)
    assert torch.allclose(
        augmentation.part_map(h[0], a[0], prototypes), part_descriptor(f[None], prototypes)[0], atol=1e-5
    )
    assert torch.allclose(discovery.soft_assignment(f, prototypes, 0.1), a[0], atol=1e-5)
    assert features.chance(np.array([1, 1, 2, 2])) == 0.5
    assert inspection.clearest(np.array([[1, 1], [1, 2]]), 2) == 1
    assert tuning.standard_error(0.5, 25) == pytest.approx(0.1)
