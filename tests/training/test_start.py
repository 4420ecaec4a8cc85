"""The first weights of backbones: timm's, files, the authors' Swin."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file

from ramctl.checkpoints.weights import resize_table
from ramctl.errors import RunProblem
from ramctl.model.encoder import ImageEncoder
from ramctl.model.preset import load_preset
from ramctl.training.start import load_encoder
from tests.training.conftest import DATA, settings

# timm's name, its width, and whether it is built for one size of photos.
BACKBONES = [
    ("test_vit", 64, True),
    ("test_convnext", 64, False),
    ("swin_tiny_patch4_window7_224", 768, True),
    ("test_efficientnet", 256, False),
]
SWIN = ["model.encoder.options={depths = [2, 2, 2, 2]}"]


def backbone(name: str, width: int, takes_size: bool) -> list[str]:
    """The settings of another backbone."""
    return [
        f"model.encoder.backbone={name}", f"model.encoder.width={width}",
        f"model.encoder.image_size_option={str(takes_size).lower()}",
    ]  # fmt: skip


def save(model: torch.nn.Module, path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)


@pytest.fixture
def photo() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 3, 224, 224)


@pytest.mark.parametrize(("name", "width", "takes_size"), BACKBONES)
def test_a_file_gives_the_features_of_timms_own_model(name, width, takes_size, photo, tmp_path):
    preset = load_preset("tiny", ["preprocess.size=224", *backbone(name, width, takes_size)])
    size = {"img_size": 224} if "vit" in name else {}
    known = timm.create_model(name, num_classes=1000, **size).eval()
    save(known, tmp_path / "weights.safetensors")
    encoder = ImageEncoder(preset.model.encoder, 224).eval()
    (weight, bias), _ = load_encoder(encoder, str(tmp_path / "weights.safetensors"))
    assert torch.equal(weight, known.get_classifier().weight.flatten(1))
    assert torch.equal(bias, known.get_classifier().bias)
    with torch.inference_mode():
        expected = known.forward_features(photo)
        found = encoder.backbone.forward_features(photo)
    torch.testing.assert_close(found, expected)


def as_microsoft_names_them(swin: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Swin's weights as in the published files: a stage's downsampling at its end, not at the
    start of the next, and two kinds of constants."""
    tensors = {}
    for name, tensor in swin.state_dict().items():
        parts = name.split(".")
        if parts[0] == "layers" and parts[2] == "downsample":
            parts[1] = str(int(parts[1]) - 1)
        tensors[".".join(parts).replace("head.fc.", "head.")] = tensor
    tensors["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)
    tensors["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    return tensors


@pytest.mark.slow
def test_the_authors_swin_file_starts_their_preset(photo, tmp_path):
    preset = load_preset("ram-swin-b", SWIN)
    options = {"depths": [2, 2, 2, 2], "num_classes": 21841}
    known = timm.create_model("swin_base_patch4_window7_224", **options).eval()
    path = tmp_path / "swin_base_patch4_window7_224_22k.pth"
    torch.save({"model": as_microsoft_names_them(known)}, path)
    encoder = ImageEncoder(preset.model.encoder, 224).eval()
    head, _ = load_encoder(encoder, str(path))
    assert head is not None and len(head[0]) == 21841
    with torch.inference_mode():
        torch.testing.assert_close(
            encoder.backbone.forward_features(photo), known.forward_features(photo)
        )
    # At 384 px with window 12 as BEiT interpolates position tables, which bundles use too.
    larger = load_preset("ram-swin-b", [*SWIN, "model.encoder.window_size=12"])
    encoder = ImageEncoder(larger.model.encoder, 384)
    load_encoder(encoder, str(path))
    name = "layers.2.blocks.1.attn.relative_position_bias_table"
    table = known.state_dict()[name]
    assert torch.equal(encoder.backbone.state_dict()[name], resize_table(table, 23 * 23))


def test_weights_of_another_backbone_are_named(tmp_path):
    save(timm.create_model("test_vit"), tmp_path / "vit.safetensors")
    encoder = ImageEncoder(load_preset("tiny").model.encoder, 64)
    with pytest.raises(RunProblem, match=r"vit\.safetensors: missing conv_stem\.weight"):
        load_encoder(encoder, str(tmp_path / "vit.safetensors"))


def test_a_named_frozen_encoder_trains_and_its_bundle_tags(
    command, parsed, tiny_options, tmp_path, monkeypatch
):
    places, known = [], timm.create_model("test_vit")
    save(known, tmp_path / "hub.safetensors")

    def fetched(place):
        places.append(place)
        return tmp_path / "hub.safetensors"

    monkeypatch.setattr("ramctl.training.start.local_path", fetched)
    start = "training.encoder=test_vit.r160_in1k", "training.backbone_lr_factor=0"
    options = [
        "--set",
        "training.steps=2",
        *settings(*start, *backbone(*BACKBONES[0])),
        *tiny_options,
    ]
    done = command("train", parsed, "--out", "m", *options)
    assert places == ["hf://timm/test_vit.r160_in1k:model.safetensors"]
    assert "backbone test_vit from test_vit.r160_in1k" in done.messages
    photo = DATA / "photos" / "horses.jpg"
    for dtype in ("fp32", "bf16"):  # in onnxruntime and in torch
        tag = ["--model", "m", "--dtype", dtype, "--threshold", 0, "--top", 2, "--boxes"]
        assert len(json.loads(command("tag", *tag, photo).stdout)["tags"]) == 2
