"""Names of folders, files and hub repositories; published models that have a short name."""

import hashlib
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ramctl.checkpoints.bundle import Bundle, resolve_model
from ramctl.checkpoints.hub import KNOWN, local_path
from ramctl.checkpoints.official import official_targets
from ramctl.errors import RunProblem, UsageProblem
from ramctl.model.build_ram import build_ram
from ramctl.model.preset import load_preset
from tests.support import DATA

PHOTO = DATA / "photos" / "kite.jpg"
SMALL = [
    "model.encoder.width=64", "model.encoder.window_size=3", "model.encoder.projection=16",
    "model.encoder.options={embed_dim=8,depths=[1,1,1,1],num_heads=[1,2,4,8]}",
    "model.labels.width=16", "model.tag_decoder.width=48", "model.tag_decoder.ffn_width=48",
    "model.captioning.width=48", "model.captioning.ffn_width=48", "model.captioning.layers=1",
    "model.captioning.tag_layers=2", "model.captioning.max_positions=64",
]  # fmt: skip


def test_what_is_no_bundle_at_the_hub_is_not_downloaded(hub):
    with pytest.raises(RunProblem, match=r"name:bundle\.json: cannot be downloaded: 404"):
        resolve_model("hf://owner/name")
    assert hub.asked == ["bundle.json"]


@pytest.mark.parametrize(
    ("resolve", "name"),
    [
        (local_path, "hf://owner/name"),
        (local_path, "hf://owner/name:file.bin"),
        (resolve_model, "hf://owner/name"),
    ],
)
def test_a_hub_that_does_not_answer_is_one_line(resolve, name, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(RunProblem, match=f"{name}.*: cannot be downloaded") as problem:
        resolve(name)
    assert "\n" not in str(problem.value)


@pytest.fixture
def no_models(monkeypatch, tmp_path):
    """No shelf of models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAMCTL_MODELS", str(tmp_path / "shelf"))


@pytest.mark.parametrize("name", ["ram", "ram-plus", "tag2text"])
def test_a_known_model_that_is_not_here_says_what_brings_it(name, no_models):
    with pytest.raises(UsageProblem, match=rf"`ramctl convert {name}` downloads it \(.* GB from"):
        resolve_model(name)
    with pytest.raises(UsageProblem, match=r"none in .* \(`ramctl doctor` lists"):
        resolve_model("other")


@pytest.mark.parametrize(
    ("name", "known"),
    [("RAM++", "ram-plus"), ("ram_plus", "ram-plus"), ("Mini", "mini"), ("tag2txt", "tag2text")],
)
def test_a_name_that_is_spelt_otherwise_is_suggested(name, known, no_models):
    with pytest.raises(
        UsageProblem, match=rf"model '{re.escape(name)}': .*; did you mean '{known}'\?"
    ):
        resolve_model(name)


@pytest.fixture
def checkpoint(hub, no_models, monkeypatch) -> Path:
    """A small RAM with all labels, as the authors store theirs, at the hub under its name."""
    preset = load_preset("ram-swin-b", SMALL)
    torch.manual_seed(0)
    model = build_ram(preset.model, image_size=96, n_labels=4585, vocabulary=30)
    stream = io.BytesIO()
    torch.save({"model": {n: t.detach() for n, t in official_targets(model).items()}}, stream)
    (hub.folder / "ram.pth").write_bytes(stream.getvalue())
    digest = hashlib.sha256(stream.getvalue()).hexdigest()
    ours = {"repository": "owner/name", "file": "ram.pth", "sha256": digest}
    monkeypatch.setitem(KNOWN, "ram", replace(KNOWN["ram"], **ours))
    return hub.folder / "ram.pth"


def test_a_known_model_is_downloaded_and_converted(hub, checkpoint, ramctl):
    words = ["tag", "--model", "ram", "--top", "3", "--threshold", "0", PHOTO]
    done = ramctl(*words)
    assert (done.returncode, done.messages.count("\n"), hub.asked) == (2, 1, [])
    done = ramctl("convert", "ram")
    assert done.returncode == 0 and "5.6 GB" in done.messages, done.messages
    bundle = Bundle.open(Path("shelf/ram"))
    facts = bundle.meta["provenance"]["checkpoint"]
    assert facts["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert ramctl(*words).returncode == 0
    assert ramctl("convert", "ram", "--out", "mine").returncode == 0
    assert hub.asked == ["ram.pth"] * 2


def test_another_file_than_the_published_one_is_refused(hub, checkpoint, ramctl):
    checkpoint.write_bytes(b"?" + checkpoint.read_bytes()[1:])
    done = ramctl("convert", "ram")
    assert done.returncode == 1
    assert "ram.pth: not the published file (its SHA-256 differs)" in done.messages
    assert not Path("shelf/ram").exists()
