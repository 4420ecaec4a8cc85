"""Full-size checkpoints: every key of the authors' state dicts is used or derivable."""

import re
from pathlib import Path

import pytest
import torch

from ramctl.checkpoints import official
from ramctl.errors import RunProblem
from tests.parity.conftest import FILES, N_LABELS

FULL_SIZE = {  # the list of keys, the number of labels, and the preset
    "ram": ("full_size_keys_ram_swin_large.txt", 4585, "ram-swin-l"),
    "ram-plus": ("full_size_keys_ram_plus_swin_large.txt", 4585, "ram-plus-swin-l"),
    "tag2text": ("full_size_keys_tag2text_swin.txt", 3429, "tag2text-swin-b"),
}


NORM = "encoder.layer.0.output.LayerNorm.bias"


def full_size_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors without memory, of the names and shapes in the list."""
    tensors = {}
    for line in path.read_text("utf-8").splitlines():
        name, shape, dtype, *_ = line.split("\t")
        sizes = [int(size) for size in shape.strip("()").split(",") if size.strip()]
        tensors[name] = torch.empty(sizes, dtype=getattr(torch, dtype), device="meta")
    return tensors


@pytest.mark.shared
@pytest.mark.parametrize("architecture", list(FULL_SIZE))
def test_every_full_size_key_is_used_or_derivable_and_tells_the_backbone(parity, architecture):
    name, n_labels, expected = FULL_SIZE[architecture]
    tensors = full_size_tensors(parity / name)
    preset = official.infer_preset(architecture, tensors)
    size = "base" if architecture == "tag2text" else "large"
    encoder = preset.model.encoder
    assert (encoder.backbone, encoder.window_size, preset.name) == (
        f"swin_{size}_patch4_window12_384", 12, expected,
    )  # fmt: skip
    assert (preset.preprocess.size, preset.preprocess.loader) == (384, "official")
    with torch.device("meta"):
        model = official.build_official(preset, tensors, n_labels)
    official.check_official_keys(official.official_targets(model), tensors)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.pop("fc.weight"), "missing fc.weight"),
        (lambda t: t.update(surprise=torch.zeros(1)), "unknown surprise"),
        (lambda t: t.update({"fc.weight": torch.zeros(1, 5)}), r"fc.weight has shape \[1, 5\]"),
        (lambda t: t.pop("label_embed"), "missing label_embed"),
        (lambda t: t.update({f"tagging_head.{NORM}": torch.ones(96)}), "must equal"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_an_error_that_names_the_key(parity, change, complaint):
    tensors = official.read_official(parity / "ram_tiny.safetensors")
    change(tensors)
    with pytest.raises(RunProblem, match=complaint):
        official.convert_official("ram", tensors, 24)


WORDS = "text_decoder.bert.embeddings.word_embeddings.weight"
SHARED = r"encoder\.layer\.[01]\.(crossattention|intermediate|output)\."


@pytest.mark.shared
@pytest.mark.parametrize(
    "left_out",
    [
        rf"tagging_head\.{SHARED}",
        rf"tag_encoder\.{SHARED}",
        r"text_decoder\.cls\.predictions\.decoder\.",
        re.escape(WORDS),
    ],
)
def test_shared_tensors_may_be_stored_once_and_under_names_of_a_distributed_run(
    parity, tmp_path, left_out
):
    whole = official.read_official(parity / "ram_tiny.safetensors")
    part = {f"module.{k}": v for k, v in whole.items() if not re.match(left_out, k)}
    assert len(part) < len(whole)
    torch.save({"model": part}, tmp_path / "x.pth")
    tensors = official.read_official(tmp_path / "x.pth")
    assert tensors.keys() == whole.keys()
    preset, model = official.convert_official("ram", tensors, 24)
    expected_preset, expected = official.convert_official("ram", whole, 24)
    assert preset == expected_preset
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


@pytest.mark.shared
@pytest.mark.parametrize("architecture", ["ram", "tag2text"])
def test_a_file_without_the_captioning_branch_tags_as_the_whole_one(
    load_recorded, parity, tmp_path, architecture
):
    recorded = load_recorded(architecture)
    name = FILES[architecture]
    whole = official.read_official(parity / f"{name}.safetensors")
    part = {k: v for k, v in whole.items() if not k.startswith(("tag_encoder.", "text_decoder."))}
    torch.save({"model": part}, tmp_path / "x.pth")
    tensors = official.read_official(tmp_path / "x.pth")
    preset, model = official.convert_official(architecture, tensors, N_LABELS[architecture])
    assert preset.model.captioning is None
    with torch.no_grad():
        logits = model.eval()(recorded.io["image"]).logits.total
    torch.testing.assert_close(logits, recorded.io["eval.logits"], rtol=1e-4, atol=1e-4)
    half = {k: v for k, v in whole.items() if not k.startswith("text_decoder.")}
    with pytest.raises(RunProblem, match="missing text_decoder"):
        official.convert_official(architecture, half, N_LABELS[architecture])


@pytest.mark.shared
@pytest.mark.parametrize("held", list(FILES))
@pytest.mark.parametrize("asked", list(FILES))
def test_another_architecture_is_named(parity, held, asked):
    tensors = official.read_official(parity / f"{FILES[held]}.safetensors")
    if held == asked:
        official.infer_preset(asked, tensors)
        return
    with pytest.raises(RunProblem, match=f"a {held} checkpoint, not {asked}: .+--arch {held}$"):
        official.infer_preset(asked, tensors)


def test_weights_of_another_project_are_named_by_what_they_hold():
    swin = {"patch_embed.proj.weight": torch.ones(1), "norm.bias": torch.ones(1)}
    with pytest.raises(RunProblem, match=r"not a ram .+missing label_embed, wordvec_proj.weight"):
        official.infer_preset("ram", swin)


@pytest.mark.shared
def test_ram_with_swin_b_is_the_preset_of_that_name(parity):
    tensors = full_size_tensors(parity / FULL_SIZE["ram"][0])
    small = full_size_tensors(parity / FULL_SIZE["tag2text"][0])
    tensors = {k: v for k, v in tensors.items() if not k.startswith("visual_encoder.")}
    tensors |= {k: v for k, v in small.items() if k.startswith("visual_encoder.")}
    preset = official.infer_preset("ram", tensors)
    assert preset.name == "ram-swin-b"
    assert preset.model.encoder.backbone == "swin_base_patch4_window12_384"


@pytest.mark.shared
def test_a_tag_list_of_another_length_than_descriptions_is_an_error(parity):
    tensors = official.read_official(parity / "ram_plus_tiny.safetensors")
    with pytest.raises(RunProblem, match="1224 descriptions do not divide into 23"):
        official.convert_official("ram-plus", tensors, 23)


def test_a_checkpoint_file_without_tensors_is_an_error(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(RunProblem, match="no table of tensors"):
        official.read_official(tmp_path / "x.pth")
