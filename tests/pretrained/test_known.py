"""Models that have a short name: asked for, downloaded, checked, converted once."""

import hashlib
import io
import sys
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import pytest
import torch

from ramctl.checkpoints.bundle import Bundle, missing_model
from ramctl.checkpoints.official import official_targets
from ramctl.commands.command import obtain
from ramctl.model.build_ram import build_ram
from ramctl.model.preset import load_preset
from ramctl.pretrained.known import KNOWN
from tests.conftest import REPOSITORY
from tests.peers.conftest import clip_tokenizer
from tests.peers.test_contrastive import siglip_folder
from tests.pretrained.conftest import put

__all__ = ["clip_tokenizer", "siglip_folder"]

PHOTO = REPOSITORY / "tests" / "data" / "photos" / "kite.jpg"
WHERE = "/owner/name/resolve/main/ram.pth"
SMALL = [
    "model.encoder.width=64", "model.encoder.window_size=3", "model.encoder.projection=16",
    "model.encoder.options={embed_dim=8,depths=[1,1,1,1],num_heads=[1,2,4,8]}",
    "model.labels.width=16", "model.tag_decoder.width=48", "model.tag_decoder.ffn_width=48",
    "model.captioning.width=48", "model.captioning.ffn_width=48", "model.captioning.layers=1",
    "model.captioning.tag_layers=2", "model.captioning.max_positions=64",
]  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint() -> bytes:
    """A small RAM with all labels, as the authors store theirs."""
    preset = load_preset("ram-swin-b", SMALL)
    torch.manual_seed(0)
    model = build_ram(preset.model, image_size=96, n_labels=4585, vocabulary=30)
    stream = io.BytesIO()
    torch.save({"model": {n: t.detach() for n, t in official_targets(model).items()}}, stream)
    return stream.getvalue()


@pytest.fixture
def shelf(hub, checkpoint, tmp_path, monkeypatch):
    """An empty folder of models, and the hub where the known ones are."""
    put(hub, {"ram.pth": checkpoint})
    digest = hashlib.sha256(checkpoint).hexdigest()
    ours = {"repository": "owner/name", "file": "ram.pth", "sha256": digest}
    monkeypatch.setitem(KNOWN, "ram", replace(KNOWN["ram"], **ours))
    monkeypatch.setenv("RAMCTL_MODELS", str(tmp_path / "shelf"))
    return tmp_path / "shelf"


def test_it_is_downloaded_once_and_found_offline(hub, shelf, checkpoint, ramctl, monkeypatch):
    words = ["tag", "--model", "ram", "--top", "3", "--threshold", "0", PHOTO]
    done = ramctl(*words)
    assert (done.returncode, hub.asked) == (2, [])
    for way in ("`ramctl convert ram`", "`ramctl tag --download`", "5.6 GB", "licence Apache-2.0"):
        assert way in done.messages
    assert done.messages.count("\n") == 1 and not shelf.exists()
    tagged = ramctl(*words, "--download")
    assert tagged.returncode == 0, tagged.messages
    assert [path.name for path in shelf.iterdir()] == ["ram"]
    bundle = Bundle.open(shelf / "ram", verify=True)
    facts = bundle.meta["provenance"]["checkpoint"]
    assert facts["sha256"] == hashlib.sha256(checkpoint).hexdigest()
    hub.asked.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert ramctl(*words).stdout == ramctl(*words, "--download").stdout == tagged.stdout
    assert "ram is on this machine" in ramctl("convert", "ram").messages
    assert hub.asked == []


def test_a_download_that_was_stopped_goes_on(hub, shelf, checkpoint, ramctl):
    work = shelf / ".ram.ramctl-download"
    work.mkdir(parents=True)
    (work / "ram.pth.part").write_bytes(b"?" + checkpoint[1:-1000])  # its first byte will tell
    hub.faults[WHERE] = iter([None, 500])  # the first asks for facts
    done = ramctl("convert", "ram")
    assert done.returncode == 1
    assert f"{work / 'ram.wrong'}: not the published file (its SHA-256 differs)" in done.messages
    assert (work / "ram.wrong").read_bytes() == b"?" + checkpoint[1:]
    assert not (shelf / "ram").exists()
    assert ramctl("convert", "ram").returncode == 0
    assert [path.name for path in shelf.iterdir()] == ["ram"]


def test_a_hub_that_goes_away_leaves_no_bundle_and_keeps_what_there_is(hub, shelf, ramctl):
    hub.faults["*"] = repeat(500)
    done = ramctl("convert", "ram")
    assert (done.returncode, done.messages.count("\n")) == (1, 2)
    assert "failed 4 times" in done.messages
    assert missing_model("ram") and not (shelf / "ram").exists()
    hub.faults.clear()
    put(hub, {"w.bin": b""})
    assert "ram.pth: No such file" in ramctl("convert", "ram").messages


def test_what_the_hub_s_cache_has_is_not_downloaded_again(hub, shelf, ramctl):
    from huggingface_hub import hf_hub_download

    cached = Path(hf_hub_download("owner/name", "ram.pth"))
    hub.asked.clear()
    assert ramctl("convert", "ram", "--out", "mine").returncode == 0
    assert (hub.asked, cached.exists()) == ([], True)


@pytest.mark.parametrize(("answer", "is_there"), [("n\n", False), ("\n", False), ("y\n", True)])
def test_on_a_terminal_one_question_decides(shelf, monkeypatch, answer, is_there):
    for name in ("stdin", "stderr"):
        stream = io.StringIO(answer)
        stream.isatty = lambda: True
        monkeypatch.setattr(sys, name, stream)
    obtain("ram", {})
    question = (
        "ram: 5.6 GB from huggingface.co/owner/name, licence Apache-2.0. Download and convert?"
    )
    assert f"{question} [y/N]" in sys.stderr.getvalue()
    assert (shelf / "ram").exists() == is_there


def test_a_peer_is_what_the_hub_s_cache_has(
    hub, shelf, ramctl, siglip_folder, tmp_path, monkeypatch
):
    files = {path.name: path.read_bytes() for path in siglip_folder.iterdir()}
    put(hub, files | {"pytorch_model.bin": b"the same again", "model.h5": b"and again"})
    ours = {"repository": "owner/name", "file": "model.safetensors"}
    monkeypatch.setitem(KNOWN, "siglip2", replace(KNOWN["siglip2"], **ours))
    (tmp_path / "words.txt").write_text("kite\nsky\n")
    tag = ["tag", "-q", "--threshold", "0", PHOTO, "--labels", tmp_path / "words.txt", "--model"]
    assert "has no labels of its own" in ramctl("tag", PHOTO, "--model", "siglip2").messages
    assert "`ramctl convert siglip2`" in ramctl(*tag, "siglip2").messages
    assert hub.asked == []
    done = ramctl(*tag, "siglip2", "--download")
    assert done.rows == ramctl(*tag, f"siglip:{siglip_folder}").rows
    assert not [asked for asked in hub.asked if ".bin" in asked or ".h5" in asked]
    hub.asked.clear()
    assert ramctl(*tag, "siglip2").rows == done.rows
    assert "needs a bundle" in ramctl("search", "--model", "siglip2", "x.jsonl", "kite").messages
    assert hub.asked == []


def test_the_table_is_whole_and_listed(ramctl, shelf):
    done = ramctl("doctor")
    lines = done.stdout.decode().splitlines()
    for name, known in KNOWN.items():
        assert any(f"{name}: `ramctl convert {name}`, {known.offer}" in line for line in lines)


def test_a_folder_of_somebodys_is_refused_before_anything_is_downloaded(shelf, ramctl, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    done = ramctl("convert", "ram", "--out", "mine")
    assert done.returncode == 2 and "mine" in done.messages, done.messages
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "letter.txt"]
