"""Presets: read strictly, overridden by key, stored and read back."""

from dataclasses import replace

import pytest
import torch

from ramctl.errors import UsageProblem
from ramctl.model import preset as presets
from ramctl.model.build_ram import build_ram
from ramctl.model.ram import RAM


@pytest.mark.parametrize("name", presets.preset_names())
def test_a_preset_survives_being_stored(name):
    preset = presets.load_preset(name)
    assert preset.name == name
    assert presets.preset_from_table(presets.write_table(preset)) == preset
    assert presets.preset_from_meta(presets.preset_to_meta(preset)) == preset


def build(preset: presets.Preset, n_labels: int, vocabulary: int, n_descriptions: int) -> RAM:
    """The model without memory."""
    described = preset.model.labels.kind == "descriptions"
    counts = [n_descriptions] * n_labels if described else None
    with torch.device("meta"):
        return build_ram(
            preset.model, image_size=preset.preprocess.size, n_labels=n_labels,
            vocabulary=vocabulary, description_counts=counts,
        )  # fmt: skip


# Unique parameters counted in the authors' models (384 px, real label lists, BERT's vocabulary).
@pytest.mark.parametrize(
    ("name", "n_labels", "parameters"),
    [
        ("ram-swin-l", 4585, 469_148_785),
        ("ram-plus-swin-l", 4585, 329_493_046),
        ("tag2text-swin-b", 3429, 372_007_193),
    ],
)
def test_official_presets_have_the_authors_number_of_parameters(name, n_labels, parameters):
    model = build(presets.finetuning_preset(presets.load_preset(name)), n_labels, 30_524, 51)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_fine_tuning_has_the_overridden_settings_but_its_own_and_the_length():
    settings = ["frozen_stages=1", "lr=5e-5", "steps=3", "augment.flip=0"]
    overrides = [*(f"training.{setting}" for setting in settings), "finetuning.batch_size=8"]
    mini = presets.load_preset("mini")
    preset = presets.override_preset(mini, overrides)
    assert (preset.training.lr, preset.training.steps) == (5e-5, 3)
    expected = replace(
        mini.finetuning, frozen_stages=1, batch_size=8, augment=preset.training.augment
    )
    assert preset.finetuning == expected
    for bad in ("training=3", "training.rate=1"):
        with pytest.raises(UsageProblem, match="training"):
            presets.override_preset(mini, [bad])


def test_an_own_file_builds_on_a_preset(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('base = "mini"\nname = "own"\n[training]\nlr = 0.5\n')
    preset = presets.load_preset(str(path))
    assert (preset.name, preset.training.lr) == ("own", 0.5)
    assert preset.model == presets.load_preset("mini").model


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("training.lrr=1", "unknown setting preset.training.lrr"),
        ("nonsense.x=1", "unknown setting preset.nonsense"),
        ("training.loss=none", "preset.training.loss: Invalid enum value 'none'"),
        ("training.lr=fast", "preset.training.lr: Expected `float`, got `str`"),
        ("training.epochs=true", "preset.training.epochs: Expected `float`"),
        ("training.batch_size=1.5", "preset.training.batch_size: Expected `int`"),
        ("training.augment.crop_scale=[1]", "crop_scale: Expected `array` of length 2"),
        ("training.accumulation=0", "preset.training.accumulation: Expected `int` >= 1"),
        ("finetuning.steps=-5", "preset.finetuning.steps: Expected `int` >= 0"),
        ("training.epochs=inf", "preset.training.epochs: Expected `float` <= "),
        ("training.lr=nan", "preset.training.lr: Expected `float` >= 0"),
        ("precision=2", "preset.precision: Expected `float` < 1"),
        ("training.distill=clip", "preset.training.distill: Expected `array`"),
        ("model.encoder=3", "preset.model.encoder: Expected `object`"),
        ("model.captioning.beams=0", "preset.model.captioning.beams: Expected `int` >= 1"),
        ("preprocess.size=0", "preset.preprocess.size: Expected `int` >= 1"),
        ("training.lr", "expected KEY=VALUE"),
    ],
)
def test_a_wrong_override_is_named(override, complaint):
    with pytest.raises(UsageProblem, match=complaint.replace("[", r"\[")):
        presets.load_preset("mini", [override])


def test_an_unknown_preset_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(UsageProblem, match="known: mini, ram-plus"):
        presets.load_preset("maxi")
    with pytest.raises(UsageProblem, match="no preset"):
        presets.load_preset(str(tmp_path / "x.toml"))
    (tmp_path / "x.toml").write_text("[[[")
    with pytest.raises(UsageProblem, match=r"x\.toml"):
        presets.load_preset(str(tmp_path / "x.toml"))
