import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from conftest import TINY
from torch.nn import functional as F

from prockd._data_path import data_path
from prockd.datasets import read_image
from prockd.farmyard import Farmyard
from prockd.students import Student
from prockd.tasks import Classification
from prockd.teachers.teacher import Teacher
from prockd.teachers.weights import WeightsError, read_weights

REAL = os.environ.get("PROCKD_REAL_DATA")


def tiny(**changes) -> Teacher:
    """The same random teacher each time, 34 k parameters."""
    torch.manual_seed(0)
    return Teacher("resnet10t", **{"image_px": 32, "layers": (1, 2, 3), **TINY, **changes})


def state_of(name: str = "resnet10t", **options) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return timm.create_model(name, **(TINY if name == "resnet10t" else {}), **options).state_dict()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


# Frozen


def test_a_teacher_stays_in_eval_mode_whatever_is_asked(teacher):
    for ask in (teacher.train, lambda: teacher.train(True), lambda: torch.nn.Sequential(teacher).train()):
        ask()
        assert not any(module.training for module in teacher.modules())


def test_a_teacher_is_frozen_and_gives_no_gradient(teacher, images):
    assert not any(p.requires_grad for p in teacher.parameters())
    images.requires_grad_()
    assert not any(m.requires_grad for m in teacher(images))


def test_looking_at_images_changes_nothing_in_the_teacher(images):
    teacher = tiny()
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    teacher.train()(images)
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())


def test_what_a_teacher_says_of_an_image_does_not_depend_on_the_others_in_the_batch(teacher, images):
    together, alone = teacher(images), teacher(images[1:2])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[1:2], b, atol=1e-5, rtol=1e-4)


# Layers


def test_a_pyramid_gives_several_layers_at_once(images):
    teacher = tiny(layers=(1, 2, 3))
    maps = teacher(images)
    assert [tuple(m.shape) for m in maps] == [(3, 8, 8, 8), (3, 16, 4, 4), (3, 24, 2, 2)]
    assert teacher.widths == (8, 16, 24)
    assert teacher.grids == ((8, 8), (4, 4), (2, 2))


def test_each_layer_alone_equals_that_layer_among_others(images):
    together = tiny(layers=(1, 3))(images)
    for m, layer in zip(together, (1, 3), strict=True):
        torch.testing.assert_close(m, tiny(layers=(layer,))(images)[0])


@pytest.mark.parametrize("name", ["test_resnet", "test_byobnet", "test_convnext", "test_efficientnet", "test_vit"])
def test_any_backbone_gives_the_maps_it_announces(name):
    teacher = Teacher(name, image_px=64)
    assert len(teacher.layers) == 3
    maps = teacher(torch.rand(1, 3, 64, 64))
    assert [(m.shape[1], tuple(m.shape[2:])) for m in maps] == list(zip(teacher.widths, teacher.grids, strict=True))
    assert all(m.isfinite().all() and m.std() > 0 for m in maps)


def test_several_layers_of_a_transformer_differ_and_share_one_grid(vit, images):
    maps = vit(images)
    assert [tuple(m.shape) for m in maps] == [(3, 24, 4, 4)] * len(vit.layers)
    assert len(maps) > 1
    assert (maps[0] - maps[1]).abs().max() > 1e-3


def test_class_and_register_tokens_are_not_among_the_patches(vit, images):
    assert vit.backbone.num_prefix_tokens == 5
    last = vit(images)[-1]
    assert last.shape[2] * last.shape[3] == (32 // 8) ** 2
    tokens = vit.backbone.forward_features((images - vit.mean) / vit.std)  # (B, 5 + 16, 24), after the last norm
    patches = vit.backbone.norm(last.flatten(2).transpose(1, 2))
    torch.testing.assert_close(patches, tokens[:, 5:], atol=1e-5, rtol=1e-4)


def test_a_transformer_is_made_for_the_image_size_that_was_asked():
    teacher = Teacher("test_vit", image_px=48, layers=(-1,))
    assert (teacher.image_px, teacher.grids) == (48, ((3, 3),))


def test_negative_layers_count_from_the_end(images):
    last = tiny(layers=(-1,))
    assert last.layers == (4,)
    torch.testing.assert_close(last(images)[0], tiny(layers=(4,))(images)[0])


@pytest.mark.parametrize("layers", [(5,), (-6,), (0, 99), ()])
def test_layers_outside_the_model_are_refused_with_those_there_are(layers):
    with pytest.raises(ValueError, match=r"layers 0\.\.4"):
        tiny(layers=layers)


def test_layers_in_any_order_are_the_same_teacher_with_maps_in_ascending_order(images):
    shuffled, sorted_ = tiny(layers=(3, -4, 2)), tiny(layers=(1, 2, 3))
    assert shuffled.layers == (1, 2, 3)
    assert (shuffled.widths, shuffled.fingerprint) == (sorted_.widths, sorted_.fingerprint)
    for a, b in zip(shuffled(images), sorted_(images), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("layers", [(1, 1), (3, 1, 3), (4, -1)])
def test_a_layer_that_is_named_twice_is_refused(layers):
    with pytest.raises(ValueError, match=r"name one of layers 0\.\.4 twice"):
        tiny(layers=layers)


# Normalisation


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet"])
def test_the_own_normalisation_of_the_model_is_applied(name):
    teacher = Teacher(name, image_px=32)
    config = teacher.backbone.pretrained_cfg
    grey = torch.tensor(config["mean"]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    bright = grey + torch.tensor(config["std"]).view(1, 3, 1, 1)
    for image, normal in ((grey, torch.zeros(1, 3, 32, 32)), (bright, torch.ones(1, 3, 32, 32))):
        direct = teacher.backbone.forward_intermediates(normal, indices=list(teacher.layers), intermediates_only=True)
        torch.testing.assert_close(teacher(image)[-1], direct[-1], atol=1e-4, rtol=1e-3)


def test_the_two_normalisations_above_are_not_the_same_one():
    assert Teacher("test_efficientnet", image_px=32).mean.tolist() != Teacher("test_resnet", image_px=32).mean.tolist()


# Names and the hub


@pytest.mark.parametrize(("wrong", "meant"), [("resnte18", "resnet18"), ("resnet_18", "resnet18"),
                                              ("mobilnetv3_small_050", "mobilenetv3_small_050")])  # fmt: skip
def test_an_unknown_name_is_answered_with_similar_ones(wrong, meant):
    with pytest.raises(WeightsError, match=rf"no model '{wrong}'; did you mean .*\b{meant}\b"):
        Teacher(wrong)


@pytest.mark.parametrize("reason", ["Name or service not known\nmore lines", ""])
def test_an_unreachable_hub_is_one_clear_message_that_names_the_local_way(monkeypatch, reason):
    def offline(name, *, pretrained=False, **options):
        assert pretrained
        raise OSError(reason)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError, match=r"weights='file\.safetensors'.*Teacher\('farmyard'\)") as told:
        Teacher("resnet18", pretrained=True)
    assert "'resnet18' (OSError: " in str(told.value)
    assert "\n" not in str(told.value)


def test_a_mistake_in_the_options_is_not_blamed_on_the_hub():
    with pytest.raises(TypeError, match="wings"):
        Teacher("resnet10t", wings=2)


# Weights from a file


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_local_weights_are_loaded_and_the_classifier_in_the_file_is_ignored(tmp_path, images, suffix, wrapped):
    state = state_of(num_classes=7)
    assert "fc.weight" in state
    path = tmp_path / f"weights{suffix}"
    stored = {f"module.{key}": value for key, value in state.items()} if wrapped else state
    if suffix == ".pth":
        torch.save({"state_dict": stored, "epoch": 3} if wrapped else stored, path)
    else:
        safetensors.torch.save_file(stored, path)
    teacher = tiny(weights=path)
    for key, value in teacher.backbone.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert (teacher(images)[0] - tiny()(images)[0]).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "head"), [("test_convnext", "head.fc"), ("test_byobnet", "head.fc"),
                                            ("test_vit", "head"), ("test_efficientnet", "classifier")])  # fmt: skip
def test_a_classifier_is_ignored_under_whatever_name_it_has_and_nothing_else_is(tmp_path, name, head):
    state = state_of(name)
    assert f"{head}.weight" in state
    safetensors.torch.save_file(state, tmp_path / "weights.safetensors")
    teacher = Teacher(name, weights=tmp_path / "weights.safetensors")
    for key, value in teacher.backbone.state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize(("averaged", "raw"), [("state_dict_ema", "state_dict"), ("model_ema", "model")])
def test_averaged_weights_are_taken_before_raw_ones_and_that_is_said(tmp_path, averaged, raw):
    state = state_of()
    ema = {key: value + 1 if value.is_floating_point() else value for key, value in state.items()}
    torch.save({raw: state, averaged: ema, "epoch": 3}, tmp_path / "checkpoint.pth.tar")
    with pytest.warns(UserWarning, match=rf"averaged weights \({averaged}\) and raw ones \({raw}\): the averaged"):
        teacher = tiny(weights=tmp_path / "checkpoint.pth.tar")
    assert torch.equal(teacher.backbone.state_dict()["conv1.0.weight"], ema["conv1.0.weight"])


@pytest.mark.parametrize("prefix", ["module.", "model.", "backbone.", "_orig_mod.", "module.model.backbone."])
def test_the_names_of_what_a_network_was_part_of_are_taken_off(tmp_path, prefix):
    state = state_of()
    stored = {f"{prefix}{key}": value for key, value in state.items()} | {"criterion.weight": torch.ones(3)}
    safetensors.torch.save_file(stored, tmp_path / "weights.safetensors")
    teacher = tiny(weights=tmp_path / "weights.safetensors")
    assert torch.equal(teacher.backbone.state_dict()["conv1.0.weight"], state["conv1.0.weight"])


def test_of_a_student_beside_its_teacher_the_teacher_is_read(tmp_path):
    state = state_of()
    stored = {f"teacher.backbone.{key}": value for key, value in state.items()}
    stored |= {f"student.backbone.{key}": value * 0 for key, value in state.items()}
    torch.save(stored, tmp_path / "dino.pth")
    assert torch.equal(
        tiny(weights=tmp_path / "dino.pth").backbone.state_dict()["conv1.0.weight"], state["conv1.0.weight"]
    )


@pytest.mark.parametrize("name", ["TEACHER.SAFETENSORS", "model.bin", "model.pt"])
def test_safetensors_are_known_by_their_content(tmp_path, name):
    state = state_of()
    for pad in range(0, 64, 8):  # the length of the header is what a pickle would be taken by
        safetensors.torch.save_file(state, tmp_path / name, {"note": "x" * pad})
        read = read_weights(tmp_path / name)
        assert torch.equal(read["conv1.0.weight"], state["conv1.0.weight"])


def test_weights_of_another_patch_size_are_bent_only_with_a_word(tmp_path):
    state = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=2).state_dict()
    torch.save(state, tmp_path / "p16.pth")
    with pytest.warns(UserWarning, match="was trained on patches of 16 px and is bent to 8 px"):
        Teacher("vit_tiny_patch16_224", weights=tmp_path / "p16.pth", image_px=32, patch_size=8, depth=2)


def test_a_side_whose_edge_no_patch_sees_is_refused_with_those_that_fit():
    with pytest.raises(WeightsError, match=r"^image_px=111 .*15 px at the right and lower edge .* Choose 96 or 112$"):
        Teacher("vit_tiny_patch16_224", image_px=111, depth=2)
    assert Teacher("resnet10t", image_px=111).image_px == 111  # padded: its last patches see the edge
    with pytest.raises(WeightsError, match=r"Choose 32 or 48$"):
        Student("vit_tiny_patch16_224", Classification(2, ("a", "b")), image_px=40, depth=2)


def test_weights_in_half_precision_are_read_into_full_precision(tmp_path):
    state = {key: value.half() if value.is_floating_point() else value for key, value in state_of().items()}
    safetensors.torch.save_file(state, tmp_path / "half.safetensors")
    teacher = tiny(weights=tmp_path / "half.safetensors")
    assert {p.dtype for p in teacher.parameters()} == {torch.float32}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_missing_file_is_named(tmp_path, suffix):
    with pytest.raises(WeightsError, match=f"no weights at .*nowhere{suffix}"):
        tiny(weights=tmp_path / f"nowhere{suffix}")
    with pytest.raises(WeightsError, match="no weights at"):
        tiny(weights=tmp_path)


def test_missing_unexpected_and_misshapen_tensors_are_told_apart(tmp_path):
    state = state_of(num_classes=0)
    first = "conv1.0.weight"
    cases = {
        r"1 missing, such as conv1\.0\.weight": {k: v for k, v in state.items() if k != first},
        r"1 unexpected, such as wing\.weight": state | {"wing.weight": torch.zeros(1)},
        r"1 of another shape, such as conv1\.0\.weight: \(1, 2\)": state | {first: torch.zeros(1, 2)},
    }
    for message, changed in cases.items():
        path = tmp_path / "weights.safetensors"
        safetensors.torch.save_file(changed, path)
        with pytest.raises(WeightsError, match=f"{path.name} does not fit the model .*{message}"):
            tiny(weights=path)


def test_weights_of_another_model_are_refused(tmp_path):
    safetensors.torch.save_file(state_of("test_vit"), tmp_path / "vit.safetensors")
    with pytest.raises(WeightsError, match=r"missing.*unexpected.*another model"):
        tiny(weights=tmp_path / "vit.safetensors")


class Burglar:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors", ".bin"])
@pytest.mark.parametrize("by_torch", [False, True])
def test_a_pickle_with_code_in_it_is_refused_and_never_run(tmp_path, suffix, by_torch):
    trace, path = tmp_path / "burgled", tmp_path / f"weights{suffix}"
    loot = {"conv1.weight": Burglar(trace)}
    if by_torch:
        torch.save(loot, path)
    else:
        path.write_bytes(pickle.dumps(loot))
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        tiny(weights=path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Burglar(trace)))  # the trap itself works
    assert trace.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, suffix, part):
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    if suffix == ".pth":
        torch.save(state_of(), whole)
    else:
        safetensors.torch.save_file(state_of(), whole)
    path.write_bytes(whole.read_bytes()[: int(part * whole.stat().st_size)])
    with pytest.raises(WeightsError, match=f"cut{suffix} cannot be read as weights"):
        tiny(weights=path)


@pytest.mark.parametrize(
    "content", [b"<html>404: Not Found</html>", b"\x89PNG\r\n\x1a\n" + b"\0" * 99, b"\x80\x04K\x01."]
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_that_never_held_weights_is_refused(tmp_path, content, suffix):
    (tmp_path / f"weights{suffix}").write_bytes(content)
    with pytest.raises(WeightsError, match="weights"):
        tiny(weights=tmp_path / f"weights{suffix}")


def test_random_bytes_never_end_in_anything_but_a_clear_refusal(tmp_path):
    rng = np.random.default_rng(0)
    torch.save({"a": torch.zeros(3)}, tmp_path / "good.pth")
    good = np.frombuffer((tmp_path / "good.pth").read_bytes(), np.uint8)
    for _ in range(60):
        bad = good.copy()
        places = rng.integers(0, len(bad), 40)
        bad[places] = rng.integers(0, 256, 40)
        (tmp_path / "bad.pth").write_bytes(bad.tobytes())
        try:
            state = read_weights(tmp_path / "bad.pth")
        except WeightsError:
            continue
        assert set(map(type, state.values())) <= {torch.Tensor}


@pytest.mark.parametrize("content", [torch.zeros(3), {"epoch": 3}, [torch.zeros(1)]])
def test_a_pickle_that_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=f"not a state dict .* but holds {type(content).__name__}"):
        tiny(weights=tmp_path / "weights.pth")


# Fingerprint


def test_the_fingerprint_is_the_same_for_the_same_teacher_and_changes_with_all_that_decides_the_features():
    teachers = {
        "same": tiny(),
        "layers": tiny(layers=(1, 2)),
        "image_px": tiny(image_px=64),
        "padding": tiny(output_stride=16),
        "activation": tiny(act_layer="silu"),
        "normalisation": tiny(pretrained_cfg_overlay={"mean": (0.5, 0.5, 0.5)}),
    }
    one_weight = tiny()
    one_weight.backbone.conv1[0].weight[0, 0, 0, 0] += 1e-3
    running = tiny()
    running.backbone.bn1.running_mean[0] += 1e-3
    teachers |= {"one weight": one_weight, "running mean": running}
    prints = {what: teacher.fingerprint for what, teacher in teachers.items()}
    assert prints["same"] == tiny().fingerprint
    assert len(set(prints.values())) == len(prints), prints


def test_options_read_from_a_file_and_options_typed_give_the_same_fingerprint():
    channels = TINY["channels"]
    assert isinstance(channels, tuple)
    assert tiny(channels=list(channels)).fingerprint == tiny(channels=channels).fingerprint


def test_repr_tells_size_and_patches(teacher):
    assert "layer 2: 4x4 patches of 16" in repr(teacher)
    assert "frozen, 32 px" in repr(teacher)


# The teacher that ships with prockd


def shipped() -> Path:
    return data_path("farmyard", "teacher.safetensors")


def test_the_farmyard_teacher_loads_and_is_small():
    assert shipped().stat().st_size <= 15e6
    teacher = Teacher("farmyard")
    assert min(teacher.grid) >= 20  # thin parts are a patch wide at least
    maps = teacher(torch.rand(2, 3, teacher.image_px, teacher.image_px))
    assert len(maps) == len(teacher.layers) > 1
    assert all(m.isfinite().all() and m.std() > 1e-3 for m in maps)


def test_the_farmyard_teacher_knows_the_source_species_and_no_target_species():
    with safetensors.safe_open(shipped(), framework="pt") as file:
        card = json.loads(file.metadata()["prockd"])
    source, target = (set(Farmyard(split, "train", 1).classes) for split in ("source", "target"))
    assert set(card["classes"]) == source
    assert not set(card["classes"]) & target
    assert set(card["stages"]) >= {"species", "clusters"}
    assert card["data"].startswith("farmyard-1/source/train/")
    for name, stage in card["stages"].items():
        assert stage["val_accuracy"] > 0.8, name
        assert stage["config"]["steps"] * stage["seconds"], name
    assert card["images"] * len(card["data"])


def test_the_farmyard_file_holds_a_backbone_and_no_classifier():
    state = read_weights(shipped())
    assert not [key for key in state if key.startswith(("fc.", "head.", "classifier."))]


def test_a_farmyard_file_that_prockd_did_not_write_is_refused(tmp_path):
    safetensors.torch.save_file(state_of(), tmp_path / "teacher.safetensors")
    with pytest.raises(WeightsError, match="not a file that prockd wrote"):
        Teacher("farmyard", weights=tmp_path / "teacher.safetensors")


def test_metadata_of_the_file_decide_architecture_layers_size_and_normalisation(tmp_path):
    about = {
        "architecture": "resnet10t", "timm_kwargs": {"channels": [8, 16, 24, 32], "stem_width": 8},
        "layers": [2, 3], "image_px": 48, "mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 3.0],
    }  # fmt: skip
    path = tmp_path / "teacher.safetensors"
    safetensors.torch.save_file(state_of(num_classes=0), path, {"prockd": json.dumps(about)})
    teacher = Teacher("farmyard", weights=path)
    assert (teacher.layers, teacher.image_px) == ((2, 3), 48)
    torch.testing.assert_close(teacher.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(teacher.std.flatten(), torch.tensor([1.0, 2.0, 3.0]))
    assert Teacher("farmyard", weights=path, layers=(1,), image_px=32).grids == ((8, 8),)


# Real weights, real animals


@pytest.mark.real
@pytest.mark.skipif(REAL is None, reason="PROCKD_REAL_DATA is not set")
def test_with_real_weights_frames_of_one_video_are_closer_than_frames_of_different_videos():
    half = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    teacher = Teacher(
        "mobilenetv2_100", weights=Path(REAL) / "teachers" / "mobilenetv2_100_imagenet.safetensors",
        pad_type="same", pretrained_cfg_overlay=half, layers=(-1,),
    )  # fmt: skip
    assert teacher.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    images, videos = [], []
    for number, video in enumerate(("cows", "goat", "horsejump-high")):
        frames = sorted((Path(REAL) / "animals" / video / "frames").glob("*.jpg"))
        for path in frames[:: len(frames) // 4][:4]:
            pixels = torch.from_numpy(read_image(path)).permute(2, 0, 1)[None] / 255
            images.append(F.interpolate(pixels, (224, 224), mode="bilinear", antialias=True))
            videos.append(number)
    pooled = F.normalize(teacher(torch.cat(images))[0].mean((2, 3)), dim=1)
    likeness, video = pooled @ pooled.T, torch.tensor(videos)
    same = (video[:, None] == video) & ~torch.eye(len(video), dtype=torch.bool)
    assert likeness[same].mean() > likeness[video[:, None] != video].mean() + 0.1
    nearest = likeness.fill_diagonal_(-1).argmax(1)
    assert (video[nearest] == video).float().mean() > 0.9
