"""A bundle that can be understood: its labels are colours, and it sees a photo's mean colour."""

from functools import partial
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from PIL import Image
from safetensors.numpy import save_file
from text_distillation import quantise_table
from tokenizers import Tokenizer, models, pre_tokenizers

from ramctl.checkpoints.bundle import Bundle, BundleWriter, embedded_bundle
from ramctl.model.preset import load_preset, preset_to_meta
from ramctl.records.labels import Label, Labels
from tests.command import Done, Ramctl
from tests.support import one_thread, write_tiny_bundle

__all__ = ["one_thread"]

COLOURS = {
    "red": (1, -1, -1),
    "green": (-1, 1, -1),
    "blue": (-1, -1, 1),
    "white": (1, 1, 1),
    "purple": (1, -1, 1),
}
LABELS = Labels(
    [
        Label("red", "attribute", synonyms=("scarlet",), parents=("colour",)),
        Label("green", "attribute", parents=("colour",), threshold=0.9),
        Label("blue", "attribute", names={"zh": "蓝色"}, parents=("colour",)),
        Label("colour", "attribute"),
    ]
)
KINDS = Labels([
    Label("cat"), Label("sofa"), Label("room", "scene"), Label("red", "attribute"),
    Label("sit", "action"), Label("person"), Label("man", parents=("person",)),
])  # fmt: skip
RANKED = ["model.prior.classes=10", "model.prior.class_sharpness=3.0"]
TEXT, OWN = 32, 16


def text_rows(names) -> np.ndarray:
    rows = np.zeros((len(names), TEXT), np.float32)
    for row, name in zip(rows, names, strict=True):
        row[:3] = np.array(COLOURS.get(name, (0, 0, 0))) / np.sqrt(3)
    return rows


# Logits: 2 sqrt(3) * mean colour (B, 3) . first three of a row (L, 3) + its last value.
GRAPHS = {
    "photo": """colours (float[B,3,H,W] photos) => (float[B,3] mean) {
        mean = ReduceMean<axes=[2, 3], keepdims=0>(photos)
    }""",
    "labels": """colours (float[B,3] mean, float[L,49] rows) => (float[B,L] logits) <
        int64[3] sizes = {3, 45, 1}, float[1] sharpness = {3.4641016}
    > {
        text, rest, bias = Split<axis=1>(rows, sizes)
        weights = Mul(text, sharpness)
        turned = Transpose<perm=[1, 0]>(weights)
        seen = MatMul(mean, turned)
        offsets = Transpose<perm=[1, 0]>(bias)
        logits = Add(seen, offsets)
    }""",
}


def write_colour_bundle(path: Path) -> Path:
    tensors = {
        "labels.text": text_rows(LABELS.tags),
        "labels.own": np.zeros((4, OWN), np.float32),
        "labels.head": np.zeros((4, 0), np.float32),
        "labels.bias": np.array([[0], [0], [0], [3]], np.float32),  # colour: always likely
        "labels.counts": np.ones(4, np.int64),
    }
    words = {"[UNK]": 0, **{name: i for i, name in enumerate(COLOURS, 1)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with BundleWriter(path) as writer:
        writer.meta = preset_to_meta(load_preset("tiny"))
        writer.meta["thresholds"] = {"threshold": 0.6}
        LABELS.write(writer.path / "labels.jsonl")
        save_file(tensors, writer.path / "model.safetensors")
        for name, graph in GRAPHS.items():
            model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {graph}')
            onnx.save(model, writer.path / f"{name}.onnx")
        quantise_table(
            text_rows(["", *COLOURS]), np.eye(TEXT, dtype=np.float32), tokenizer.to_str()
        ).save(writer.path / "text")
    return path


@pytest.fixture(scope="session")
def colours(tmp_path_factory) -> Path:
    """The bundle; its tags are red, green (only when sure), blue and colour."""
    return write_colour_bundle(tmp_path_factory.mktemp("bundles") / "colours")


def save_photo(path: Path, colour, size=(40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder with one photo of each primary colour, a broken one and a text file."""
    folder = tmp_path / "photos"
    for name in ("red", "green", "blue"):
        save_photo(folder / f"{name}.png", name if name != "green" else (0, 255, 0))
    (folder / "sub").mkdir()
    save_photo(folder / "sub" / "white.png", "white")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    (folder / "notes.txt").write_text("no photo")
    return folder


def names(done: Done) -> list:
    """The photos of a run's records."""
    return [row["image"] for row in done.rows]


def tags(done: Done) -> list[str]:
    """The tags of the one photo of a run."""
    (row,) = done.rows
    return row["tags"]


@pytest.fixture
def tag(colours, photos, monkeypatch):
    """Runs `ramctl tag` with the colour model in the folder of photos, in this process."""
    monkeypatch.chdir(photos)
    return partial(Ramctl(photos), "tag", "--model", colours)


@pytest.fixture(scope="module")
def ranked(tmp_path_factory) -> Bundle:
    """A tiny bundle with all parts of the global branch, which ranks the labels."""
    path = tmp_path_factory.mktemp("bundles") / "ranked"
    return Bundle.open(write_tiny_bundle(path, changes=RANKED))


@pytest.fixture(scope="session")
def mini() -> Bundle:
    """The embedded model."""
    return Bundle.open(embedded_bundle())
