"""A bundle that can be understood: its labels are colours, and it sees a photo's mean colour."""

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.numpy import save_file
from text_distillation import quantise_table
from tokenizers import Tokenizer, models, pre_tokenizers

from ramctl.checkpoints.bundle import BundleWriter
from ramctl.model.preset import load_preset, preset_to_meta
from ramctl.records.labels import Label, Labels
from tests.command import Done, Ramctl

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
TEXT, OWN, WIDTH = 32, 16, 49
SHARPNESS = 2.0


def text_rows(names) -> np.ndarray:
    rows = np.zeros((len(names), TEXT), np.float32)
    for row, name in zip(rows, names, strict=True):
        row[:3] = np.array(COLOURS.get(name, (0, 0, 0))) / np.sqrt(3)
    return rows


def graph(nodes, inputs, output, constants=()) -> onnx.ModelProto:
    def values(shapes):
        pairs = shapes.items()
        return [helper.make_tensor_value_info(x, TensorProto.FLOAT, shape) for x, shape in pairs]

    built = helper.make_graph(
        [helper.make_node(kind, given, [made], **options) for kind, given, made, options in nodes],
        "colours", values(inputs), values(output),
        [numpy_helper.from_array(value, name) for name, value in constants],
    )  # fmt: skip
    return helper.make_model(built, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save_graphs(folder: Path) -> None:
    """Logits = SHARPNESS * mean colour (B, 3) . first three of a row (L, 3) + its last value."""
    means = [("ReduceMean", ["photos"], "mean", {"axes": [2, 3], "keepdims": 0})]
    onnx.save(
        graph(means, {"photos": ["B", 3, "H", "W"]}, {"mean": ["B", 3]}), folder / "photo.onnx"
    )
    to_logits = np.zeros((WIDTH, 4), np.float32)  # a row's weights of the colour and of 1
    to_logits[:3, :3], to_logits[-1, 3] = SHARPNESS * np.sqrt(3) * np.eye(3), 1
    nodes = [
        ("MatMul", ["rows", "to_logits"], "weights", {}),
        ("Pad", ["mean", "pads", "one"], "seen", {}),
        ("Transpose", ["weights"], "turned", {"perm": [1, 0]}),
        ("MatMul", ["seen", "turned"], "logits", {}),
    ]
    constants = {
        "to_logits": to_logits, "pads": np.array([0, 0, 0, 1]), "one": np.array(1, np.float32),
    }  # fmt: skip
    inputs = {"mean": ["B", 3], "rows": ["L", WIDTH]}
    scored = graph(nodes, inputs, {"logits": ["B", "L"]}, constants.items())
    onnx.save(scored, folder / "labels.onnx")


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
        save_graphs(writer.path)
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
