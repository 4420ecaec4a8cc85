"""Presets: read strictly, overridden by key, stored and read back; the authors' numbers.

The last column of `official_presets.tsv` says where a number comes from: `file:line` at commit
7cb804a of github.com/xinyu1205/recognize-anything, a part of the paper, or `ours:` with the reason.
"""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ramctl.errors import UsageProblem
from ramctl.model import preset as presets
from ramctl.model.build_ram import build_ram
from ramctl.model.preset import write_table
from ramctl.model.ram import RAM
from tests.conftest import REPOSITORY

with Path(__file__).with_name("official_presets.tsv").open(encoding="utf-8", newline="") as file:
    ROWS = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
NAMES = [name for name in ROWS[0] if name not in ("key", "source")]


@pytest.mark.parametrize("name", presets.preset_names())
def test_a_preset_survives_being_stored(name):
    preset = presets.load_preset(name)
    assert preset.name == name
    assert presets.preset_from_table(write_table(preset)) == preset
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


def flat(table: dict, prefix: str = "") -> dict[str, object]:
    """Nested tables as one, with dotted keys."""
    values: dict[str, object] = {}
    for key, value in table.items():
        nested = flat(value, f"{prefix}{key}.") if isinstance(value, dict) else None
        values |= {prefix + key: value} if nested is None else nested
    return values


@pytest.mark.parametrize("name", NAMES)
def test_every_number_is_the_one_in_the_table(name):
    expected = {row["key"]: json.loads(row[name]) for row in ROWS if row[name] != "-"}
    assert flat(write_table(presets.load_preset(name))) == expected


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


def test_an_own_file_builds_on_a_preset_as_the_manual_s_of_another_backbone_does(tmp_path):
    manual = REPOSITORY / "ramctl" / "training" / "README.md"
    (text,) = re.findall(r"```toml\n(.*?)```", manual.read_text("utf-8"), re.DOTALL)
    (tmp_path / "own.toml").write_text(text)
    preset = presets.load_preset(str(tmp_path / "own.toml"))
    mini = presets.load_preset("mini")
    assert (preset.name, preset.training.frozen_stages) == ("mobilenet", 0)
    assert preset.model.labels == mini.model.labels and preset.training.lr == mini.training.lr
    model = build_ram(preset.model, image_size=224, n_labels=3, vocabulary=30).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 64)).logits.total.shape == (1, 3)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("training.lrr=1", "unknown setting preset.training.lrr"),
        ("training.loss=none", "preset.training.loss: Invalid enum value 'none'"),
        ("training.lr=fast", "preset.training.lr: Expected `float`, got `str`"),
        ("training.batch_size=1.5", "preset.training.batch_size: Expected `int`"),
        ("training.augment.crop_scale=[1]", "crop_scale: Expected `array` of length 2"),
        ("training.accumulation=0", "preset.training.accumulation: Expected `int` >= 1"),
        ("training.epochs=inf", "preset.training.epochs: Expected `float` <= "),
        ("precision=2", "preset.precision: Expected `float` < 1"),
        ("model.encoder=3", "preset.model.encoder: Expected `object`"),
        ("training.lr", "expected KEY=VALUE"),
    ],
)
def test_a_wrong_override_is_named(override, complaint):
    with pytest.raises(UsageProblem, match=complaint.replace("[", r"\[")):
        presets.load_preset("mini", [override])


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("maxi", "known: mini, ram-plus"), ("none.toml", "no preset"), ("x.toml", r"x\.toml")],
)
def test_a_preset_that_cannot_be_read_is_named(name, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.toml").write_text("[[[")
    with pytest.raises(UsageProblem, match=complaint):
        presets.load_preset(name)
