"""`--model onnx:FOLDER`: graphs of other projects, and folders that are not right."""

import json

import numpy as np
import onnx
import pytest

from ramctl import RamctlError, Tagger
from ramctl.inference.peers import open_peer
from ramctl.inference.peers.onnx_folder import GRAPH, LABELS, PREPROCESS
from tests.inference.peers.support import SETTINGS, channel_graph, write_folder

RED = np.full((9, 7, 3), (255, 0, 51), np.uint8)
MEAN = np.array([(1 - 0.5) / 0.5, (0 - 0.4) / 0.5, (0.2 - 0.3) / 0.25], np.float32)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "net")


@pytest.mark.parametrize(
    "made",
    [channel_graph(), channel_graph("1, 2", "4, 4, 3")],
    ids=["channels first", "channels last"],
)
def test_scores_are_those_of_the_graph(made, folder):
    onnx.save(made, folder / GRAPH)
    expected = 1 / (1 + np.exp(-MEAN))
    peer = open_peer(f"onnx:{folder}", [])
    assert peer.labels == ("red", "green", "blue")
    np.testing.assert_allclose(peer.scores([RED] * 3), [expected] * 3, atol=1e-6)
    tagger = Tagger.from_pretrained(f"onnx:{folder}", dense=True)
    assert tagger.tag(RED).tags == ["red"]
    np.testing.assert_allclose(tagger.tag([RED, RED])[1].dense, expected, atol=1e-6)


def test_weights_beside_the_graph_are_read_and_others_refused(folder):
    (folder / "weights.bin").write_bytes(np.full(3, 2, np.float32).tobytes())
    (folder / GRAPH).write_bytes(channel_graph(weights="weights.bin").SerializeToString())
    first = open_peer(f"onnx:{folder}", [])
    np.testing.assert_allclose(first.scores([RED]), [1 / (1 + np.exp(-2 * MEAN))], atol=1e-6)
    (folder / "weights.bin").write_bytes(np.full(3, 3, np.float32).tobytes())
    assert open_peer(f"onnx:{folder}", []).fingerprint != first.fingerprint
    (folder / "weights.bin").rename(folder.parent / "weights.bin")
    (folder / GRAPH).write_bytes(channel_graph(weights="../weights.bin").SerializeToString())
    with pytest.raises(RamctlError, match=r"model\.onnx: .*xternal data path"):
        open_peer(f"onnx:{folder}", [])


WRONG = {
    "labels": (LABELS, b"red\ngreen\n", r"net/model\.onnx: its output, \(1, 3\), .* of 2 labels"),
    "no labels": (LABELS, b"", r"net/labels\.txt: no labels in it"),
    "not probabilities": (
        PREPROCESS, SETTINGS | {"output": "probabilities"}, "is not probabilities of 3 labels",
    ),
    "no graph": (GRAPH, b"no graph", r"net/model\.onnx: "),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_folder_that_is_not_right_is_one_line(case, folder):
    name, content, message = WRONG[case]
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / name).write_bytes(content)
    with pytest.raises(RamctlError, match=message) as problem:
        open_peer(f"onnx:{folder}", [])
    assert "\n" not in str(problem.value)
