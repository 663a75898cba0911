import dataclasses
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from conftest import TINY, draw_stripes
from torch.nn import functional as F

from prockd.datasets import Arrays, PackedImages, pack
from prockd.evaluation.scores import Scores, evaluate, predict
from prockd.prototypes.bank import PrototypeBank
from prockd.settings.method import FeatureAugmentationConfig
from prockd.students.student import Student
from prockd.tasks import TASKS, Classification, Detection, Segmentation
from prockd.teachers.weights import WeightsError

TASK = Classification(2, ("upright", "level"))
CONTENTS = ("attention", "descriptor", "mlp")


def made(bank: PrototypeBank | None = None, augment: FeatureAugmentationConfig | None = None, **changes) -> Student:
    options = {"image_px": 32, "embed_dim": 16, **TINY, **changes}
    return Student(
        options.pop("backbone", "resnet10t"), options.pop("task", TASK), bank, feature_augmentation=augment, **options
    )


def unrelated_bank(embed_dim: int = 16) -> PrototypeBank:
    return PrototypeBank(6, 48, embed_dim)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


# The same start


@pytest.mark.parametrize("content", [*CONTENTS, "none"])
def test_backbone_adapter_and_head_start_the_same_with_and_without_a_bank(bank, content):
    plain = made().state_dict()
    for student in (made(bank), made(bank, FeatureAugmentationConfig(content=content))):
        state = student.state_dict()
        assert all(torch.equal(state[key], value) for key, value in plain.items())
    assert len(plain) > 50


def test_the_plain_prediction_is_the_same_with_and_without_a_bank(bank, images):
    plain = made().eval()(images)
    both = made(bank, FeatureAugmentationConfig("attention")).eval()(images)
    assert torch.equal(both.logits, plain.logits)
    assert plain.augmented_logits is None


def test_the_seed_decides_the_start_and_the_random_numbers_of_others_are_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    made(augment=FeatureAugmentationConfig("attention"), seed=3)
    assert torch.equal(torch.rand(3), expected)
    bank = unrelated_bank()
    first, again, other = (made(bank, FeatureAugmentationConfig("attention"), seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert not torch.equal(first.adapter[0].weight, other.adapter[0].weight)
    assert not torch.equal(first.feature_augmentation.encode.weight, other.feature_augmentation.encode.weight)


def test_making_a_student_is_no_step_of_its_batch_norms():
    for name, buffer in made().backbone.named_buffers():
        if name.endswith("running_mean"):
            assert (buffer == 0).all(), name
        if name.endswith("num_batches_tracked"):
            assert buffer == 0, name


# What is predicted


@pytest.mark.parametrize(
    ("backbone", "options"),
    [("resnet10t", TINY), *((name, {}) for name in ("test_vit", "test_convnext", "mobilenetv3_small_050"))],
)
def test_any_backbone_becomes_a_student_that_learns_from_both_predictions(backbone, options):
    torch.manual_seed(0)
    student = Student(
        backbone,
        TASK,
        unrelated_bank(),
        feature_augmentation=FeatureAugmentationConfig("attention", residual="relu"),
        image_px=32,
        **options,
    )
    output = student(torch.rand(2, 3, 32, 32))
    h, w = student.grid
    assert output.features.shape == (2, h * w, 16)
    assert output.logits.shape == output.augmented_logits.shape == (2, 2)
    assert output.last.shape == (2, student.last_width, *student.last_grid)
    (output.logits.square().sum() + output.augmented_logits.square().sum()).backward()
    for module in (student.backbone, student.adapter, student.head, student.feature_augmentation):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_features_are_the_sum_of_all_layers_on_the_finest_grid(images):
    student = made(layers=(1, 2)).eval()
    maps = student._maps(images)
    fine, coarse = (conv(m) for conv, m in zip(student.adapter, maps, strict=True))
    total = fine + F.interpolate(coarse, fine.shape[2:], mode="bilinear")
    assert student.grid == (8, 8)
    torch.testing.assert_close(student(images).features, total.flatten(2).transpose(1, 2))


def test_the_own_normalisation_of_the_backbone_is_applied(images):
    student = made().eval()
    mean, std = (torch.tensor(student.backbone.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    direct = student.backbone.forward_intermediates((images - mean) / std, intermediates_only=True)
    torch.testing.assert_close(student(images).last, direct[-1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("content", CONTENTS)
def test_the_augmented_prediction_starts_equal_to_the_plain_one_with_a_gate(bank, images, content):
    student = made(bank, FeatureAugmentationConfig(content=content)).eval()
    output = student(images)
    torch.testing.assert_close(output.augmented_logits, output.logits)
    torch.nn.init.constant_(student.feature_augmentation.gate, 0.5)
    opened = student(images)
    assert (opened.augmented_logits - opened.logits).abs().max() > 1e-4
    assert torch.equal(opened.logits, output.logits)


def test_the_plain_prediction_never_touches_the_prototypes(bank, images):
    student = made(bank, FeatureAugmentationConfig("attention")).eval()
    before = student(images)
    with torch.no_grad():
        for parameter in [*bank.parameters(), *student.feature_augmentation.parameters()]:
            parameter.fill_(float("nan"))
    after = student(images)
    assert torch.equal(after.logits, before.logits)
    assert after.augmented_logits.isnan().all()


@pytest.mark.parametrize("augment", [None, FeatureAugmentationConfig(content="none")])
def test_without_augmentation_there_is_no_augmented_prediction(bank, images, augment):
    student = made(bank, augment)
    assert student.feature_augmentation is None
    assert student(images).augmented_logits is None
    assert student.extra_parameters == 0


def test_z_alone_is_told_without_a_look_at_what_augments(bank, packed, monkeypatch):
    student = made(bank, FeatureAugmentationConfig("attention"))
    both = evaluate(student, packed).predictions
    monkeypatch.setattr(Student, "read_augmented", None)
    assert np.array_equal(predict(student, packed), both)


def test_a_disabled_prototype_has_no_say_in_the_augmented_prediction(bank, images):
    student = made(bank, FeatureAugmentationConfig("attention", residual="relu")).eval()
    everything = student(images).augmented_logits
    bank.enabled[2] = False
    without = student(images).augmented_logits
    assert (everything - without).abs().max() > 0
    with torch.no_grad():
        bank.prototypes[2] = 100.0
    assert torch.equal(student(images).augmented_logits, without)


def test_the_width_of_the_bank_decides(images):
    student = made(unrelated_bank(24), FeatureAugmentationConfig("attention"), embed_dim=99)
    assert student.embed_dim == 24
    assert student(images).features.shape[2] == 24
    assert made(embed_dim=40)(images).features.shape[2] == 40


def test_layers_that_are_not_read_are_dropped_and_change_nothing(images):
    short, long = made(layers=(1, 2)).eval(), made(layers=(1, 2, -1)).eval()
    assert short.plain_parameters < 0.7 * long.plain_parameters
    torch.testing.assert_close(short._maps(images)[1], long._maps(images)[1])
    with pytest.raises(ValueError, match=r"layers 0\.\.4"):
        made(layers=(9,))


@pytest.mark.parametrize(
    ("backbone", "format"), [("mobileone_s0", "contiguous_format"), ("test_convnext", "channels_last")]
)
def test_a_strided_convolution_of_one_pixel_on_the_image_is_trained_contiguous(backbone, format):
    student = Student(backbone, TASK, image_px=32)
    wanted, seen = getattr(torch, format), []
    assert student.memory_format == wanted
    first = next(m for m in student.backbone.modules() if isinstance(m, torch.nn.Conv2d))
    first.register_forward_pre_hook(lambda module, inputs: seen.extend([inputs[0], module.weight]))
    for given in (torch.contiguous_format, torch.channels_last):
        student(torch.rand(2, 3, 32, 32).contiguous(memory_format=given))
    assert len(seen) == 4
    assert all(tensor.is_contiguous(memory_format=wanted) for tensor in seen)


@pytest.mark.slow
def test_one_network_of_each_family_that_once_ended_the_process_trains_saves_and_loads():
    names = ["repvgg_a0", "mobileone_s0", "fastvit_t8", "fastvit_mci0", "test_resnet"]
    command = [
        sys.executable,
        Path(__file__).parents[1] / "benchmarks" / "sweep.py",
        "--steps",
        "10",
        "--models",
        *names,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stdout)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["model"]: row["error"] for row in rows} == dict.fromkeys(names, "")


def test_the_augmentation_is_given_by_its_own_arguments_too(bank, images):
    config = FeatureAugmentationConfig("attention", residual="relu", conditional=False)
    first, second = made(bank, config).eval(), made(bank, dataclasses.asdict(config)).eval()
    assert torch.equal(first(images).augmented_logits, second(images).augmented_logits)
    assert made(bank, {"content": "none"}).feature_augmentation is None
    assert made(bank, {}).feature_augmentation is not None


# Devices


def test_a_student_is_made_on_the_device_of_its_bank_and_takes_images_of_the_cpu(images):
    student = made(unrelated_bank().to("meta"), FeatureAugmentationConfig("attention"))
    assert {t.device.type for t in student.state_dict().values()} == {"meta"}
    assert made().to("meta")(images).logits.device.type == "meta"


# Counting


def test_plain_parameters_are_those_of_backbone_adapter_and_head(bank):
    backbone = sum(p.numel() for p in timm.create_model("resnet10t", num_classes=0, **TINY).parameters())
    adapter = sum(width * 16 + 16 for width in (16, 24, 32))
    head = 2 * 16 + 16 * 2 + 2
    assert made().plain_parameters == backbone + adapter + head
    assert made(bank, FeatureAugmentationConfig("attention")).plain_parameters == made().plain_parameters


def test_extra_parameters_are_those_that_only_the_augmented_prediction_needs(bank):
    shared = (16 * 16 + 16) + (32 * 16 + 16) + 16  # encode, transform, gate
    count = {
        "attention": 3 * 6 * 16,  # the prototypes, their scales and their shifts
        "descriptor": sum(p.numel() for p in bank.parameters()),
        "mlp": 2 * 9 * 16 + 9 + 16,
    }
    for content, own in count.items():
        assert made(bank, FeatureAugmentationConfig(content=content)).extra_parameters == shared + own, content
    literal = FeatureAugmentationConfig("attention", residual="relu", conditional=False)
    assert made(bank, literal).extra_parameters == shared - 16 + 6 * 16
    assert made(bank, FeatureAugmentationConfig()).extra_parameters == 6 * 16 + 6 * 16 * 2 + 2  # a map a class, a bias
    trained = FeatureAugmentationConfig(fit="trained", num_maps=3)
    assert made(bank, trained).extra_parameters == 6 * 16 + 6 * 3 * 3 + 2 * 16 * 3


def test_repr_tells_parameters_patches_and_classes(bank):
    assert "maps 4x4 of 16, 2x2 of 24, 1x1 of 32 joined to 4x4 patches of 16; Classification of 2 classes" in repr(
        made()
    )
    told = repr(made(bank, FeatureAugmentationConfig("attention")))
    assert "for attention" in told
    assert "k for part_maps" in repr(made(bank, FeatureAugmentationConfig()))
    assert "48 teacher values a patch" in told


# Weights


def test_a_backbone_starts_from_local_weights_untouched(tmp_path):
    torch.manual_seed(7)
    state = timm.create_model("resnet10t", **TINY).state_dict()
    for key, value in state.items():
        if key.endswith("running_mean"):
            value.normal_()
    safetensors.torch.save_file(state, tmp_path / "start.safetensors")
    student = made(weights=tmp_path / "start.safetensors")
    for key, value in student.backbone.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert torch.equal(student.adapter[0].weight, made().adapter[0].weight)


def test_weights_of_another_network_are_refused(tmp_path):
    safetensors.torch.save_file(timm.create_model("test_vit").state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(WeightsError, match="does not fit the model"):
        made(weights=tmp_path / "vit.safetensors")


def test_a_saved_student_predicts_the_same(bank, images, tmp_path):
    student = made(bank, FeatureAugmentationConfig("attention", residual="relu")).eval()
    path = student.save(tmp_path / "deep" / "student.safetensors")
    other = made(unrelated_bank(), FeatureAugmentationConfig("attention", residual="relu"), seed=9).eval()
    other.load_state_dict(safetensors.torch.load_file(path))
    assert torch.equal(other(images).logits, student(images).logits)
    assert torch.equal(other(images).augmented_logits, student(images).augmented_logits)


def test_a_loaded_student_is_the_saved_one_whatever_its_task(bank, images, tmp_path):
    for task in (TASK, Segmentation(3, ("a", "b", "c"), class_weights=(1.0, 2.0, 1.0)), Detection(2, ("a", "b"))):
        student = made(bank, FeatureAugmentationConfig("attention", residual="relu"), task=task, grid=4).eval()
        bank.names[2], bank.enabled[1] = "leg", False
        loaded = Student.load(student.save(tmp_path / f"{type(task).__name__}.safetensors"))
        assert loaded.task == task
        assert repr(loaded) == repr(student)
        assert loaded.bank.names == bank.names
        assert not loaded.training
        for name in ("logits", "augmented_logits"):
            first, second = (getattr(s(images), name) for s in (student, loaded))
            for a, b in zip(task.decode(first, 32), task.decode(second, 32), strict=True):
                assert np.array_equal(a.boxes if hasattr(a, "boxes") else a, b.boxes if hasattr(b, "boxes") else b)


def test_a_backbone_that_uses_one_weight_in_several_places_is_saved_and_loaded(images, tmp_path):
    student = made().eval()
    block = student.backbone.layer1[0]
    block.bn1.weight = block.bn2.weight
    torch.nn.init.normal_(block.bn1.weight)
    loaded = Student.load(student.save(tmp_path / "student.safetensors"))
    assert torch.equal(loaded(images).logits, student(images).logits)


def test_a_student_without_a_bank_is_loaded_too(images, tmp_path):
    student = made(embed_dim=24, layers=(2, 3)).eval()
    loaded = Student.load(student.save(tmp_path / "plain.safetensors"))
    assert loaded.bank is None
    assert torch.equal(loaded(images).logits, student(images).logits)


def test_a_file_that_holds_no_student_and_a_student_of_an_unknown_task_are_refused(bank, tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="is not a file that prockd wrote"):
        Student.load(bank.save(tmp_path / "bank.safetensors"))
    with pytest.raises(WeightsError, match=r"missing\.safetensors"):
        Student.load(tmp_path / "missing.safetensors")
    path = made().save(tmp_path / "student.safetensors")
    monkeypatch.delitem(TASKS, "classification")
    with pytest.raises(WeightsError, match=r"'classification' of its own: pass it as Student\.load"):
        Student.load(path)
    assert Student.load(path, TASK).task == TASK


def test_a_dense_task_reads_finer_layers_of_a_pyramid_and_any_grid_can_be_asked_for(images):
    coarse, fine = made(), made(task=Segmentation(3))
    assert coarse.grid == (4, 4)
    assert fine.grid == (8, 8)
    assert set(coarse.layers) < set(fine.layers)
    asked = made(grid=16)
    assert asked(images).features.shape == (3, 256, 16)
    assert "joined to 16x16 patches" in repr(asked)


def test_predictions_can_be_left_out_for_the_last_images_of_a_batch(bank, images):
    student = made(bank, FeatureAugmentationConfig("attention", residual="relu")).eval()
    whole, part, none = student(images), student(images, 2), student(images, 0)
    torch.testing.assert_close(part.logits, whole.logits[:2])
    torch.testing.assert_close(part.augmented_logits, whole.augmented_logits[:2])
    assert torch.equal(part.features, whole.features)
    assert none.logits is None
    assert none.augmented_logits is None


# Scores


def test_scores_are_the_share_of_right_predictions(packed):
    student = made()
    scores = evaluate(student, packed)
    logits = student.eval()(torch.from_numpy(np.array(packed.pixels)) / 255).logits
    assert scores.predictions.tolist() == logits.argmax(1).tolist()
    assert scores.plain == pytest.approx((logits.argmax(1).numpy() == packed.labels).mean())
    assert scores.labels.tolist() == packed.labels.tolist()
    assert scores.augmented is None
    assert "12 images" in repr(scores)


def test_both_predictions_are_scored(bank, packed):
    student = made(bank, FeatureAugmentationConfig("attention"))
    assert evaluate(student, packed).augmented == evaluate(student, packed).plain
    torch.nn.init.constant_(student.feature_augmentation.gate, 50.0)
    scores = evaluate(student, packed)
    assert scores.augmented == pytest.approx((scores.augmented_predictions == packed.labels).mean())
    assert "z+" in repr(scores)


def student_with_history() -> Student:
    """Its batch norms have seen other images than those that are scored, so that training mode would show."""
    student = made()
    for _ in range(3):
        student.train()(torch.rand(8, 3, 32, 32))
    return student


@pytest.mark.parametrize("training", [True, False])
def test_scoring_is_done_in_eval_mode_changes_nothing_and_restores_the_mode(packed, training):
    student = student_with_history().train(training)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    student.head.register_forward_hook(
        lambda module, _, out: pytest.fail("scored in training") if module.training else out
    )
    evaluate(student, packed)
    assert student.training is training
    assert student.backbone.bn1.training is training
    assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())


def test_predictions_do_not_depend_on_the_batch_size(bank, packed):
    student = made(bank, FeatureAugmentationConfig("attention", residual="relu"))
    together, alone = evaluate(student, packed), evaluate(student, packed, batch_size=1)
    uneven = evaluate(student, packed, batch_size=5)
    for other in (alone, uneven):
        assert other.predictions.tolist() == together.predictions.tolist()
        assert other.augmented_predictions.tolist() == together.augmented_predictions.tolist()


@pytest.mark.parametrize(("backbone", "options"), [("resnet10t", TINY), ("test_vit", {})])
def test_images_of_another_size_are_scored_at_the_students_size(tmp_path, backbone, options):
    pixels, labels = draw_stripes(6, 32)
    student = Student(backbone, TASK, image_px=32, embed_dim=16, **options)
    small = pack(Arrays(pixels, labels, TASK.classes), 32, root=tmp_path)
    large = pack(Arrays(pixels.repeat(2, 1).repeat(2, 2), labels, TASK.classes), 64, root=tmp_path)
    seen: list[tuple[int, ...]] = []
    inner = student._maps
    student._maps = lambda images: seen.append(tuple(images.shape[2:])) or inner(images)
    assert evaluate(student, large).predictions.tolist() == evaluate(student, small).predictions.tolist()
    assert set(seen) == {(32, 32)}


@pytest.mark.parametrize("label", [-1, 2])
def test_scoring_refuses_labels_outside_the_task(packed, label):
    labels = packed.labels.copy()
    labels[4] = label
    wrong: PackedImages = replace(packed, labels=labels)
    with pytest.raises(ValueError, match=f"image '4' has label {label}"):
        evaluate(made(), wrong)


def test_scores_are_plain_values():
    scores = Scores(0.5, None, np.array([0]), None, np.array([1]))
    assert repr(scores) == "Scores(plain z 50.0%, 1 images)"


@pytest.mark.parametrize("name", ["crossvit_tiny_240", "halonet_h1"])
def test_a_network_of_a_fixed_size_says_its_size(name):
    with pytest.raises(WeightsError, match=rf"{name} cannot read images of 96 px.*made for \d+ px, set image_px"):
        Student(name, Classification(2), image_px=96)


def test_networks_of_other_channels_than_rgb_are_refused():
    for count in (1, 4):
        with pytest.raises(WeightsError, match=f"in_chans={count}: teachers and students read RGB"):
            Student("resnet10t", Classification(2), image_px=32, in_chans=count)
