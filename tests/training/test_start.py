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

VIT = [
    "model.encoder.backbone=test_vit", "model.encoder.width=64",
    "model.encoder.image_size_option=true",
]  # fmt: skip


def save(model: torch.nn.Module, path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)


@pytest.fixture
def photo() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 3, 224, 224)


@pytest.mark.parametrize(("name", "changes"), [("test_vit", VIT), ("test_efficientnet", [])])
def test_a_file_gives_the_features_of_timms_own_model(name, changes, photo, tmp_path):
    preset = load_preset("tiny", ["preprocess.size=224", *changes])
    size = {"img_size": 224} if changes else {}
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
    other = ImageEncoder(load_preset("tiny", VIT if not changes else []).model.encoder, 224)
    with pytest.raises(RunProblem, match=r"weights\.safetensors: missing "):
        load_encoder(other, str(tmp_path / "weights.safetensors"))


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
    tensors["layers.0.blocks.0.attn_mask"] = torch.zeros(64, 49, 49)
    return tensors


SMALL_SWIN = [
    "model.encoder.width=128",
    "model.encoder.options={embed_dim = 16, depths = [1, 1, 2, 1], num_heads = [1, 2, 4, 8]}",
]


def test_the_authors_swin_file_starts_their_preset(photo, tmp_path):
    preset = load_preset("ram-swin-b", SMALL_SWIN)
    options = {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8]}
    options |= {"num_classes": 21841}
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
    larger = load_preset("ram-swin-b", [*SMALL_SWIN, "model.encoder.window_size=12"])
    encoder = ImageEncoder(larger.model.encoder, 384)
    load_encoder(encoder, str(path))
    name = "layers.2.blocks.1.attn.relative_position_bias_table"
    table = known.state_dict()[name]
    assert torch.equal(encoder.backbone.state_dict()[name], resize_table(table, 23 * 23))


def test_a_named_frozen_encoder_trains_and_its_bundle_tags(
    command, parsed, tiny_options, tmp_path, monkeypatch
):
    places, known = [], timm.create_model("test_vit")
    save(known, tmp_path / "hub.safetensors")

    def fetched(place):
        places.append(place)
        return tmp_path / "hub.safetensors"

    monkeypatch.setattr("ramctl.training.start.local_path", lambda place, _: fetched(place))
    start = "training.encoder=test_vit.r160_in1k", "training.backbone_lr_factor=0"
    changes = settings("training.steps=2", *start, *VIT)
    done = command("train", parsed, "--out", "m", *changes, *tiny_options)
    assert places == ["hf://timm/test_vit.r160_in1k:model.safetensors"]
    assert "backbone test_vit from test_vit.r160_in1k" in done.messages
    photo = DATA / "photos" / "horses.jpg"
    for dtype in ("fp32", "bf16"):  # in onnxruntime and in torch
        tag = ["--model", "m", "--dtype", dtype, "--threshold", 0, "--top", 2, "--boxes"]
        assert len(json.loads(command("tag", *tag, photo).stdout)["tags"]) == 2


def test_the_papers_preset_names_the_way_to_train_without_downloads(
    command, parsed, tmp_path, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    given = ["train", parsed, "--root", DATA, "--out", "m", "--preset", "ram-swin-b"]
    done = command(*given, code=1)
    assert "cannot be downloaded" in done.messages and not (tmp_path / "m.work").exists()
    for remedy in ("`--distill clip:FOLDER`", "`--text mini --distill none --set training.enc"):
        assert remedy in done.messages
    done = command(
        *given, "--text", "mini", "--distill", "none",
        *settings("training.encoder=", "training.steps=1", "training.workers=0", *SMALL_SWIN),
        "--set", "model.captioning=false",
    )  # fmt: skip
    assert "labels from the static table of mini" in done.messages
    assert "with random weights" in done.messages
