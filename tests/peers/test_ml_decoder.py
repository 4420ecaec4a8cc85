"""ML-Decoder against the formula of its paper, from timm's folders and the authors' files."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.layers.ml_decoder import MLDecoder
from torch.nn import functional

from ramctl.inference.peers import open_peer
from tests.peers.support import randomise

NAMES = [f"class {index}" for index in range(23)]
GROUPS, WIDTH = 5, 768
INPUT = {
    "input_size": [3, 64, 64], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
    "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash",
}  # fmt: skip


def formula(features, weights, groups):
    """Logits (B, C) of features (B, N, C'): cross-attention of group queries, then group FC."""
    w = dict(weights)
    memory = functional.relu(features @ w["embed_standart.weight"].T + w["embed_standart.bias"])
    layer = {k.removeprefix("decoder.layers.0."): v for k, v in w.items() if "layers.0." in k}

    def norm(x, name):
        return functional.layer_norm(x, (WIDTH,), layer[f"{name}.weight"], layer[f"{name}.bias"])

    def heads(x, part):
        rows = slice(part * WIDTH, (part + 1) * WIDTH)
        x = x @ layer["multihead_attn.in_proj_weight"][rows].T
        x = x + layer["multihead_attn.in_proj_bias"][rows]
        return x.reshape(*x.shape[:-1], 8, WIDTH // 8).transpose(-2, -3)  # (B, 8, n, 96)

    query = w["query_embed.weight"].expand(len(features), -1, -1)
    query = norm(2 * query, "norm1")  # the first layer adds the query to itself
    attention = heads(query, 0) @ heads(memory, 1).transpose(-1, -2) / (WIDTH // 8) ** 0.5
    mixed = (attention.softmax(-1) @ heads(memory, 2)).transpose(-2, -3).flatten(-2)
    mixed = mixed @ layer["multihead_attn.out_proj.weight"].T
    query = norm(query + mixed + layer["multihead_attn.out_proj.bias"], "norm2")
    hidden = functional.relu(query @ layer["linear1.weight"].T + layer["linear1.bias"])
    query = norm(query + hidden @ layer["linear2.weight"].T + layer["linear2.bias"], "norm3")
    n_classes = len(w["duplicate_pooling_bias"])
    each = torch.einsum("bgd,gdk->bgk", query, w["duplicate_pooling"])
    assert query.shape[1] == groups
    return each.flatten(1)[:, :n_classes] + w["duplicate_pooling_bias"]


def head(width):
    made = MLDecoder(
        num_classes=len(NAMES), num_of_groups=GROUPS, decoder_embedding=WIDTH,
        initial_num_features=width,
    )  # fmt: skip
    return randomise(made)


def write_folder(folder, backbone, architecture, prefix, width=512):
    """A folder as timm writes it: the head stands where timm's own classifier would."""
    weights = {f"{prefix}.{name}": tensor for name, tensor in head(width).state_dict().items()}
    save_file({**backbone.state_dict(), **weights}, folder / "model.safetensors")
    config = {"architecture": architecture, "label_names": NAMES, "pretrained_cfg": INPUT}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=0).eval()


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory, resnet):
    return write_folder(tmp_path_factory.mktemp("ml-decoder"), resnet, "resnet10t", "fc")


def pixels(photo, size):
    resized = Image.fromarray(photo).resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None] / 255


def test_scores_equal_the_papers_formula(timm_folder, resnet, photos):
    peer = open_peer(f"ml-decoder:{timm_folder}", [], device="cpu")
    assert peer.labels == tuple(NAMES)
    scores = peer.scores(photos)
    for photo, row in zip(photos, scores, strict=True):
        with torch.no_grad():
            features = resnet.forward_features((pixels(photo, 64) - 0.5) / 0.5)
            logits = formula(features.flatten(2).transpose(1, 2), head(512).state_dict(), GROUPS)
        np.testing.assert_allclose(row, logits[0].sigmoid().numpy(), atol=5e-6)
    assert scores.std(0).max() > 1e-3


def test_a_few_labels_are_columns_of_all(timm_folder, photos):
    whole = open_peer(f"ml-decoder:{timm_folder}", [], device="cpu").scores(photos)
    few = open_peer(f"ml-decoder:{timm_folder}", ["Class 7", "yeti", "class-2"], device="cpu")
    assert few.unknown == ("yeti",)
    np.testing.assert_array_equal(few.scores(photos)[:, [0, 2]], whole[:, [7, 2]])


def authors_names(state):
    """timm's TResNet weights under the names and the scale of the authors' inplace-ABN model."""
    # A convolution with a stride is followed by a blur, which puts it one level deeper.
    strided = ("layer2.0.conv1", "layer3.0.conv2", "layer4.0.conv2")
    renamed = {}
    for name, tensor in state.items():
        deeper = "0." if any(place in name for place in strided) else ""
        new = name.replace(".conv.", f".{deeper}0.").replace(".bn.", f".{deeper}1.")
        if not name.endswith("num_batches_tracked"):
            renamed[new] = tensor - 1e-5 if name.endswith("bn.weight") else tensor
    return renamed


def test_an_authors_checkpoint_needs_no_other_file(tmp_path, photos):
    torch.manual_seed(0)
    backbone = timm.create_model("tresnet_m", num_classes=0).eval()
    weights = authors_names(backbone.state_dict())
    for name, tensor in head(2048).state_dict().items():
        own = name if name.startswith("decoder.") else f"decoder.{name}"
        weights[f"head.{own}"] = tensor
    classes = dict(enumerate(NAMES))
    torch.save({"model": weights, "idx_to_class": classes}, tmp_path / "tresnet_m.pth")
    peer = open_peer(f"ml-decoder:{tmp_path / 'tresnet_m.pth'}", [], device="cpu")
    scores = peer.scores(photos[:1])
    with torch.no_grad():
        features = backbone.forward_features(pixels(photos[0], 448))
        logits = formula(features.flatten(2).transpose(1, 2), head(2048).state_dict(), GROUPS)
    np.testing.assert_allclose(scores[0], logits[0].sigmoid().numpy(), atol=1e-4)
