"""MKT's checkpoints against its formula, written from the paper and the authors' file layout."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from torchvision.transforms import functional as pictures

from ramctl.inference.peers import open_peer
from tests.peers.support import LABELS

WIDTH, SHARED, PATCH, SIDE, LAYERS, TEXT_TOKENS = 128, 24, 16, 5, 2, 77


def transformer_weights(draw, width):
    weights = {}
    for index in range(LAYERS):
        shapes = {
            "attn.in_proj_weight": (3 * width, width), "attn.in_proj_bias": (3 * width,),
            "attn.out_proj.weight": (width, width), "attn.out_proj.bias": (width,),
            "mlp.c_fc.weight": (4 * width, width), "mlp.c_fc.bias": (4 * width,),
            "mlp.c_proj.weight": (width, 4 * width), "mlp.c_proj.bias": (width,),
        }  # fmt: skip
        for name, shape in shapes.items():
            weights[f"transformer.resblocks.{index}.{name}"] = draw(shape)
        for norm in ("ln_1", "ln_2"):
            weights[f"transformer.resblocks.{index}.{norm}.weight"] = 1 + 0.1 * draw((width,))
            weights[f"transformer.resblocks.{index}.{norm}.bias"] = 0.1 * draw((width,))
    return weights


@pytest.fixture(scope="module")
def stages(clip_tokenizer):
    """State dicts of both stages under the authors' names."""
    generator = torch.Generator().manual_seed(0)

    def draw(shape):
        return torch.randn(shape, generator=generator) / max(shape[-1], 1) ** 0.5

    image = {
        "class_embedding": draw((WIDTH,)),
        "positional_embedding": draw((SIDE * SIDE + 1, WIDTH)),
        "conv1.weight": draw((WIDTH, 3, PATCH, PATCH)) / PATCH,
        "projection_dist": draw((WIDTH, SHARED)),
        "projection.fc1.weight": draw((SHARED, WIDTH)),
        "projection.fc1.bias": draw((SHARED,)),
        "projection.fc2.weight": draw((SHARED, SHARED)),
        "projection.fc2.bias": draw((SHARED,)),
    }
    for norm in ("ln_pre", "ln_post"):
        image |= {f"{norm}.weight": 1 + draw((WIDTH,)), f"{norm}.bias": draw((WIDTH,))}
    text = {
        "token_embedding.weight": draw((len(clip_tokenizer), 64)),
        "positional_embedding": draw((TEXT_TOKENS, 64)),
        "ln_final.weight": 1 + draw((64,)),
        "ln_final.bias": draw((64,)),
        "text_projection": draw((64, SHARED)),
    }
    image |= transformer_weights(draw, WIDTH)
    text |= transformer_weights(draw, 64)
    return image, text


@pytest.fixture
def folder(tmp_path, stages, clip_tokenizer):
    image, text = stages
    torch.save(image, tmp_path / "first_stage.pth")
    torch.save({f"module.{name}": tensor for name, tensor in text.items()}, tmp_path / "model.pth")
    clip_tokenizer.save_pretrained(tmp_path)
    return tmp_path


def norm(x, weights, name):
    own = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return functional.layer_norm(x, x.shape[-1:], *own)


def transformer(x, weights, *, causal):
    """OpenAI's residual blocks over one sequence (n, width), heads of 64."""
    n, width = x.shape
    mask = torch.full((n, n), float("-inf")).triu(1) if causal else torch.zeros(n, n)
    for index in range(LAYERS):
        place = f"transformer.resblocks.{index}."
        w = {k.removeprefix(place): t for k, t in weights.items() if k.startswith(place)}
        qkv = norm(x, w, "ln_1") @ w["attn.in_proj_weight"].T + w["attn.in_proj_bias"]
        q, k, v = (part.reshape(n, -1, 64).transpose(0, 1) for part in qkv.chunk(3, -1))
        mixed = ((q @ k.transpose(1, 2) / 8 + mask).softmax(-1) @ v).transpose(0, 1)
        x = x + mixed.reshape(n, width) @ w["attn.out_proj.weight"].T + w["attn.out_proj.bias"]
        hidden = norm(x, w, "ln_2") @ w["mlp.c_fc.weight"].T + w["mlp.c_fc.bias"]
        hidden = hidden * (1.702 * hidden).sigmoid()
        x = x + hidden @ w["mlp.c_proj.weight"].T + w["mlp.c_proj.bias"]
    return x


def expected_scores(photo, labels, stages, tokenizer):
    image, text = stages
    size = SIDE * PATCH
    bicubic = pictures.InterpolationMode.BICUBIC
    resized = pictures.resize(Image.fromarray(photo), int(size / (224 / 256)), bicubic)
    pixels = pictures.to_tensor(pictures.center_crop(resized, [size, size]))
    pixels = pictures.normalize(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    patches = functional.conv2d(pixels[None], image["conv1.weight"], stride=PATCH)[0]
    x = torch.cat([image["class_embedding"][None], patches.flatten(1).T])
    x = norm(x + image["positional_embedding"], image, "ln_pre")
    x = norm(transformer(x, image, causal=False), image, "ln_post") @ image["projection_dist"]
    vectors = []
    for label in labels:
        ids = tokenizer(f"There is a {label} in the scene")["input_ids"]
        t = text["token_embedding.weight"][ids] + text["positional_embedding"][: len(ids)]
        t = norm(transformer(t, text, causal=True), text, "ln_final")
        vectors.append(t[int(np.argmax(ids))] @ text["text_projection"])
    similar = x @ torch.stack(vectors).T
    best = similar[1:].topk(16, 0).values.mean(0)
    return (best / best.norm() + similar[0] / similar[0].norm()) / 2


def test_scores_equal_the_authors_formula(folder, stages, clip_tokenizer, photos):
    scores = open_peer(f"mkt:{folder}", LABELS, device="cpu").scores(photos[:2])
    for photo, row in zip(photos[:2], scores, strict=True):
        expected = expected_scores(photo, LABELS, stages, clip_tokenizer)
        np.testing.assert_allclose(2 * row - 1, expected.numpy(), atol=1e-4)
    assert scores.std(1).min() > 1e-3
