"""The bundle folder: written whole, opened with checks, found by its name here and on the hub."""

import errno
import hashlib
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from ramctl.checkpoints.bundle import Bundle, BundleWriter, resolve_model
from ramctl.checkpoints.hub import KNOWN
from ramctl.checkpoints.official import official_targets
from ramctl.errors import RunProblem, UsageProblem
from ramctl.model.build_ram import build_ram
from ramctl.model.preset import load_preset
from ramctl.records.labels import Labels
from tests.support import DATA

PHOTO = DATA / "photos" / "kite.jpg"
SMALL = [
    "model.encoder.width=64", "model.encoder.window_size=3", "model.encoder.projection=16",
    "model.encoder.options={embed_dim=8,depths=[1,1,1,1],num_heads=[1,2,4,8]}",
    "model.labels.width=16", "model.tag_decoder.width=48", "model.tag_decoder.ffn_width=48",
    "model.captioning.width=48", "model.captioning.ffn_width=48", "model.captioning.layers=1",
    "model.captioning.tag_layers=2", "model.captioning.max_positions=64",
]  # fmt: skip


@pytest.fixture
def model(tmp_path):
    """The folder of a bundle."""
    with BundleWriter(tmp_path / "model") as writer:
        Labels.from_tags(["dog", "cat"]).write(writer.path / "labels.jsonl")
        save_file({"x": np.full(3, 1, np.float32)}, writer.path / "model.safetensors")
        writer.meta = {"thresholds": {"threshold": 0.3}, "preprocess": {}}
    return tmp_path / "model"


def test_a_bundle_is_opened_as_it_was_written_and_a_failed_writer_leaves_it(model):
    no_full_disk = FileNotFoundError(errno.ENOENT, "No such file", "elsewhere")
    with pytest.raises(FileNotFoundError), BundleWriter(model) as writer:
        (writer.path / "half").write_text("")
        raise no_full_disk
    assert [path.name for path in model.parent.iterdir()] == ["model"]
    bundle = Bundle.open(model)
    assert (bundle.labels.tags, bundle.threshold) == (["dog", "cat"], 0.3)
    assert bundle.tensors(["x"])["x"].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("model.safetensors", lambda content: content[:-1], r"s: \d+ bytes instead of \d+$"),
        ("model.safetensors", None, "safetensors: missing from the bundle$"),
        ("bundle.json", lambda content: content.replace(b'"format": 2', b'"format": 1'),
         "format 1, this ramctl reads 2: convert or train it again$"),
        ("bundle.json", lambda content: content[:-9], "json: damaged: "),
    ],
)  # fmt: skip
def test_opening_says_in_one_line_which_file_is_wrong(model, name, change, complaint):
    content = (model / name).read_bytes()
    (model / name).unlink() if change is None else (model / name).write_bytes(change(content))
    with pytest.raises(RunProblem, match=complaint) as told:
        Bundle.open(model)
    assert "\n" not in str(told.value)


def test_a_bundle_reads_no_files_outside_its_folder(model):
    secret = model.parent / "secret"
    (model / "model.safetensors").rename(secret)
    (model / "model.safetensors").symlink_to(secret)
    with pytest.raises(RunProblem, match="leads outside the bundle"):
        Bundle.open(model)


class Hub:
    """What stands for the hub's client: the files of `owner/name` are in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, []

    def hf_hub_download(self, repository: str, file: str) -> str:
        self.asked.append(file)
        if repository != "owner/name" or not (self.folder / file).is_file():
            raise FileNotFoundError(f"404: no {file}\nin {repository}")
        return str(self.folder / file)

    def snapshot_download(self, repository: str, ignore_patterns: list[str]) -> str:
        self.asked.append(repository)
        return copytree(self.folder, self.folder.with_name("snapshot"))


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Hub:
    """A hub with an empty repository."""
    made = Hub(tmp_path / "hub")
    made.folder.mkdir()
    for name in ("hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(f"huggingface_hub.{name}", getattr(made, name))
    return made


def test_only_a_bundle_is_downloaded_whole(hub, model):
    with pytest.raises(
        RunProblem, match=r"name:bundle\.json: cannot be downloaded: 404: no bundle.json$"
    ):
        resolve_model("hf://owner/name")
    assert hub.asked == ["bundle.json"]
    copytree(model, hub.folder, dirs_exist_ok=True)
    assert Bundle.open(resolve_model("hf://owner/name")).labels.tags == ["dog", "cat"]


@pytest.fixture
def shelf(monkeypatch, tmp_path) -> Path:
    """An empty shelf of models, beside the current folder's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAMCTL_MODELS", str(tmp_path / "shelf"))
    return tmp_path / "shelf"


def test_models_are_found_by_folder_and_on_the_shelf(model, shelf):
    copytree(model, shelf / "pets")
    assert resolve_model("pets") == shelf / "pets"
    assert str(resolve_model("shelf/pets")) == "shelf/pets"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("birds", r"model 'birds': .*none in .*shelf \(`ramctl doctor` lists some to download\)$"),
        ("ram-plus", r"`ramctl convert ram-plus` downloads it \(3.0 GB from huggingface.co/xinyu"),
        ("RAM++", r"model 'RAM\+\+': .*; did you mean 'ram-plus'\?"),
        ("tag2txt", r"; did you mean 'tag2text'\?"),
        ("owner/name", r"; on the hub it would be hf://owner/name$"),
        ("hf://owner", r"^hf://owner:bundle.json: expected hf://owner/name or hf"),
        ("x.pth", r"^model x.pth: a file, not a bundle; `ramctl convert x.pth --arch"),
    ],
)
def test_a_model_that_is_not_here_says_what_brings_it(name, complaint, shelf):
    Path("x.pth").write_bytes(b"")
    with pytest.raises(UsageProblem, match=complaint):
        resolve_model(name)


@pytest.fixture
def checkpoint(hub, shelf, monkeypatch) -> Path:
    """A small RAM with all labels, as the authors store theirs, at the hub under its name."""
    preset = load_preset("ram-swin-b", SMALL)
    torch.manual_seed(0)
    ram = build_ram(preset.model, image_size=96, n_labels=4585, vocabulary=30)
    path = hub.folder / "ram.pth"
    torch.save({"model": {n: t.detach() for n, t in official_targets(ram).items()}}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    ours = {"repository": "owner/name", "file": "ram.pth", "sha256": digest}
    monkeypatch.setitem(KNOWN, "ram", KNOWN["ram"]._replace(**ours))
    return path


def test_a_known_model_is_downloaded_and_converted_unless_it_is_another_file(
    hub, checkpoint, shelf, command
):
    words = ["tag", "--model", "ram", "--top", "3", "--threshold", "0", PHOTO]
    command(*words, code=2)
    assert hub.asked == []
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(b"?" + content[1:])
    refused = command("convert", "ram", code=1).messages
    assert "ram.pth: not the published file (its SHA-256 differs)" in refused
    assert not (shelf / "ram").exists()
    checkpoint.write_bytes(content)
    assert "5.6 GB" in command("convert", "ram").messages
    facts = Bundle.open(shelf / "ram").meta["provenance"]["checkpoint"]
    assert facts["sha256"] == hashlib.sha256(content).hexdigest()
    command(*words)
    assert hub.asked == ["ram.pth"] * 2
