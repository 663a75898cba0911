import pytest
import safetensors.torch
import timm
import torch

from prockd.teachers.presets import TEACHER_PRESETS, preset_rows
from prockd.teachers.teacher import Teacher
from prockd.teachers.weights import WeightsError

NAMES = pytest.mark.parametrize("name", TEACHER_PRESETS)


def built(name: str, **options) -> Teacher:
    """Shapes without numbers: the meta device allocates nothing, so the largest teacher takes seconds."""
    with torch.device("meta"):
        return Teacher(name, **options)


@NAMES
def test_a_preset_gives_the_patches_it_announces(name):
    preset, teacher = TEACHER_PRESETS[name], built(name)
    assert (teacher.image_px, teacher.layers) == (preset.image_px, preset.layers)
    assert teacher.grids == preset.grids
    assert teacher.widths == preset.widths
    maps = teacher(torch.zeros(2, 3, teacher.image_px, teacher.image_px, device="meta"))
    assert [tuple(m.shape) for m in maps] == [(2, w, *g) for w, g in zip(preset.widths, preset.grids, strict=True)]


@NAMES
def test_the_weights_that_a_preset_names_exist_and_want_its_normalisation(name):
    preset = TEACHER_PRESETS[name]
    model, _, tag = preset.model.partition(".")
    assert not tag or preset.model in timm.list_models(model, pretrained=True)
    known = timm.get_pretrained_cfg(preset.model)
    assert tag == "" or (known.mean, known.std) == preset.normalisation


def test_the_input_is_normalised_as_the_preset_says(images):
    preset = TEACHER_PRESETS["mobilenetv2_tf"]
    torch.manual_seed(0)
    teacher = Teacher("mobilenetv2_tf", image_px=32)
    torch.manual_seed(0)
    plain = timm.create_model("mobilenetv2_100", num_classes=0, pad_type="same").eval()
    wanted = plain.forward_intermediates(
        images * 2 - 1, indices=list(preset.layers), output_fmt="NCHW", intermediates_only=True
    )
    for got, want in zip(teacher(images), wanted, strict=True):
        torch.testing.assert_close(got, want)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_what_is_passed_beside_the_name_wins_over_the_preset():
    teacher = Teacher(
        "mobilenetv2_tf", image_px=64, layers=(1,), mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 2.0), pad_type=""
    )
    assert (teacher.image_px, teacher.layers, teacher.grids) == (64, (1,), ((16, 16),))
    assert teacher.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert teacher.std.flatten().tolist() == [1, 1, 2]


@pytest.mark.parametrize("wrong", [{"mean": (0.5,)}, {"std": (1.0, 0.0, 1.0)}], ids=str)
def test_a_normalisation_that_is_not_three_numbers_is_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}=.*three numbers"):
        Teacher("mobilenetv2_tf", image_px=32, **wrong)


def test_another_normalisation_is_another_teacher():
    def print_of(**options):
        torch.manual_seed(0)
        return Teacher("mobilenetv2_tf", image_px=32, **options).fingerprint

    assert print_of() == print_of(mean=(0.5, 0.5, 0.5))
    assert print_of() != print_of(mean=(0.5, 0.5, 0.4))


def test_weights_of_another_input_size_have_their_positions_resampled(tmp_path):
    options = {"embed_dim": 24, "depth": 3, "num_heads": 2}
    torch.manual_seed(0)
    state = timm.create_model("vit_small_patch14_dinov2", img_size=112, **options).state_dict()
    state["pos_embed"][:] = torch.arange(24.0)  # the same at every place, so at every size
    path = tmp_path / "dinov2.safetensors"
    safetensors.torch.save_file(state, path)
    teacher = Teacher("dinov2_small", weights=path, image_px=56, layers=(0, 1, 2), **options)
    assert teacher.grids == ((4, 4),) * 3
    torch.testing.assert_close(teacher.backbone.pos_embed.data, torch.arange(24.0).expand(1, 17, 24))
    assert torch.equal(teacher.backbone.blocks[1].attn.qkv.weight, state["blocks.1.attn.qkv.weight"])


def test_the_authors_own_file_of_dinov2_is_read(tmp_path):
    options = {"embed_dim": 24, "depth": 3, "num_heads": 2}
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch14_dinov2", img_size=56, **options)
    own = dict(model.state_dict()) | {"mask_token": torch.zeros(1, 24)}
    own["pos_embed"] = torch.cat([torch.zeros(1, 1, 24), own["pos_embed"][:, -16:]], 1)  # theirs counts the class token
    torch.save(own, tmp_path / "dinov2_vits14_pretrain.pth")
    teacher = Teacher(
        "dinov2_small", weights=tmp_path / "dinov2_vits14_pretrain.pth", image_px=56, layers=(0, 1, 2), **options
    )
    torch.testing.assert_close(teacher.backbone.blocks[0].mlp.fc1.weight, model.blocks[0].mlp.fc1.weight)


def test_a_wrong_name_is_answered_with_presets_too():
    with pytest.raises(WeightsError, match="did you mean one of dinov2_small"):
        Teacher("dinov2_smal")


def test_the_table_names_every_teacher_there_is():
    rows = preset_rows()
    assert [row["name"] for row in rows] == list(TEACHER_PRESETS)
    assert all(row["description"] for row in rows)
