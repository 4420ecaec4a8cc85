"""The taggers of `scripts/taggers` against their libraries, their papers' formulas, other files."""

import json

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from timm.layers.ml_decoder import MLDecoder
from torch.nn import functional
from torchvision.transforms import functional as pictures

from ramctl.inference.peers import open_peer
from tests.inference.peers.support import LABELS, TEXT, VISION, randomise, small_swin


@pytest.fixture(scope="module")
def blip(tmp_path_factory, bert_tokenizer):
    folder, special = tmp_path_factory.mktemp("blip"), bert_tokenizer
    text = TEXT | {
        "bos_token_id": special.cls_token_id, "eos_token_id": special.sep_token_id,
        "pad_token_id": special.pad_token_id, "vocab_size": len(special), "encoder_hidden_size": 48,
    }  # fmt: skip
    config = transformers.BlipConfig(
        text_config=text, vision_config=VISION, image_text_hidden_size=24
    )
    randomise(transformers.BlipForImageTextRetrieval(config)).save_pretrained(folder)
    bert_tokenizer.save_pretrained(folder)
    transformers.BlipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("head", ["blip", "blip-itc"])
def test_blip_equals_the_librarys_model_text_by_text(blip, photos, head):
    model = transformers.BlipForImageTextRetrieval.from_pretrained(blip).eval()
    processor = transformers.BlipProcessor.from_pretrained(blip)
    expected = np.zeros((len(photos), len(LABELS)))
    for row, photo in enumerate(photos):
        for column, label in enumerate(LABELS):
            inputs = processor(
                images=Image.fromarray(photo), text=f"a picture of {label}", return_tensors="pt"
            )
            inputs = {name: inputs[name] for name in ("pixel_values", "input_ids")}
            with torch.no_grad():
                answer = model(**inputs, use_itm_head=head == "blip").itm_score[0]
            expected[row, column] = answer.softmax(0)[1] if head == "blip" else (1 + answer[0]) / 2
    scores = open_peer(f"{head}:{blip}", LABELS, device="cpu").scores(photos)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert scores.std(1).min() > 1e-3


CLASSES = ["dog", "wall-other-merged", "tree-merged", "dining table", "floor-wood", "sky"]
SIZES = {
    "hidden_dim": 32, "encoder_feedforward_dim": 32, "dim_feedforward": 32, "encoder_layers": 1,
    "decoder_layers": 2, "num_attention_heads": 4, "num_queries": 10,
    "id2label": dict(enumerate(CLASSES)),
    "label2id": {name: index for index, name in enumerate(CLASSES)},
}  # fmt: skip


@pytest.fixture(scope="module")
def mask2former(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("mask2former")
    config = transformers.Mask2FormerConfig(
        backbone_config=small_swin(1, 2, 3, 4), feature_size=32, mask_feature_size=32, **SIZES
    )
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    with torch.no_grad():  # segments that differ, and classes that are told apart
        for name, tensor in model.named_parameters():
            if "class_predictor" in name:
                tensor.normal_(0, 0.5)
            if "queries_embedder" in name or "queries_features" in name:
                tensor.normal_(0, 3)
    model.save_pretrained(folder)
    size = {"shortest_edge": 64, "longest_edge": 128}
    transformers.Mask2FormerImageProcessor(size=size, ignore_index=255).save_pretrained(folder)
    return folder


def test_mask2former_scores_a_class_as_the_librarys_surest_segment(mask2former, photos):
    model = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(mask2former).eval()
    processor = transformers.Mask2FormerImageProcessor.from_pretrained(mask2former)
    scores = open_peer(f"mask2former:{mask2former}", [], device="cpu").scores(photos[:2])
    for photo, row in zip(photos[:2], scores, strict=True):
        with torch.no_grad():
            outputs = model(**processor(images=[Image.fromarray(photo)], return_tensors="pt"))
        segments = outputs.class_queries_logits.softmax(-1)[0, :, :-1]
        np.testing.assert_allclose(row, segments.max(0).values, atol=1e-5)
    assert scores.std(1).min() > 1e-3


def test_classes_are_found_by_their_everyday_names(mask2former, photos):
    labels = ["wall", "Dining-Table", "unicorn", "floor wood"]
    peer = open_peer(f"mask2former:{mask2former}", labels, device="cpu")
    own = open_peer(f"mask2former:{mask2former}", [], device="cpu")
    assert own.labels == ("dog", "wall", "tree", "dining table", "floor-wood", "sky")
    assert peer.labels == tuple(labels) and peer.unknown == ("unicorn",)
    scores = peer.scores(photos[:1])
    np.testing.assert_array_equal(scores[:, [0, 1, 3]], own.scores(photos[:1])[:, [1, 3, 4]])
    assert scores[0, 2] == 0


NAMES = [f"class {index}" for index in range(23)]
INPUT = {
    "input_size": [3, 64, 64], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
    "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash",
}  # fmt: skip


def head(width):
    made = MLDecoder(
        num_classes=len(NAMES), num_of_groups=5, decoder_embedding=768, initial_num_features=width,
    )  # fmt: skip
    return randomise(made)


def ml_decoder(features, head):
    """Logits (B, C) of features (B, N, C'): the library's layers over group queries, group FC."""
    memory = functional.relu(head.embed_standart(features)).transpose(0, 1)
    query = head.query_embed.weight[:, None].expand(-1, len(features), -1)
    for layer in head.decoder.layers:
        query = layer(query, memory)
    each = torch.einsum("gbd,gdk->bgk", query, head.duplicate_pooling)
    return each.flatten(1)[:, : len(NAMES)] + head.duplicate_pooling_bias


def expected_of(backbone, head, photo, size, mean=0.0, std=1.0):
    resized = Image.fromarray(photo).resize((size, size), Image.Resampling.BILINEAR)
    pixels = (pictures.to_tensor(resized)[None] - mean) / std
    with torch.no_grad():
        features = backbone.forward_features(pixels).flatten(2).transpose(1, 2)
        return ml_decoder(features, head)[0].sigmoid().numpy()


def test_a_timm_folder_scores_by_the_ml_decoder_s_formula(tmp_path, photos):
    torch.manual_seed(0)
    backbone = timm.create_model("resnet10t", num_classes=0).eval()
    weights = {f"fc.{name}": tensor for name, tensor in head(512).state_dict().items()}
    save_file({**backbone.state_dict(), **weights}, tmp_path / "model.safetensors")
    config = {"architecture": "resnet10t", "label_names": NAMES, "pretrained_cfg": INPUT}
    (tmp_path / "config.json").write_text(json.dumps(config))
    peer = open_peer(f"ml-decoder:{tmp_path}", [], device="cpu")
    assert peer.labels == tuple(NAMES)
    scores = peer.scores(photos)
    expected = [expected_of(backbone, head(512), photo, 64, 0.5, 0.5) for photo in photos]
    np.testing.assert_allclose(scores, expected, atol=5e-6)
    assert scores.std(0).max() > 1e-3


OPENAI = {
    "embeddings.patch_embedding": "conv1", "embeddings.class": "class",
    "embeddings.position_embedding.weight": "positional_embedding", "embeddings.token": "token",
    "pre_layrnorm": "ln_pre", "post_layernorm": "ln_post", "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks", "layer_norm": "ln_", "self_attn": "attn",
    "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
}  # fmt: skip


def openai_weights(model, projection, theirs):
    """The weights of transformers' half of a CLIP under OpenAI's names, the projection's MKT's."""
    weights = {}
    for name, tensor in model.state_dict().items():
        name = name.removeprefix("vision_model.").removeprefix("text_model.")
        for ours, old in OPENAI.items():
            name = name.replace(ours, old)
        weights[name] = tensor
    for index in range(2):
        place = f"transformer.resblocks.{index}.attn."
        for kind in ("weight", "bias"):
            parts = [weights.pop(f"{place}{part}_proj.{kind}") for part in "qkv"]
            weights[f"{place}in_proj_{kind}"] = torch.cat(parts)
    weights[theirs] = weights.pop(f"{projection}.weight").T.contiguous()
    return weights


def test_mkt_equals_the_mean_of_two_similarities_each_of_length_one(
    tmp_path, clip_tokenizer, photos
):
    act = {"hidden_act": "quick_gelu", "num_hidden_layers": 2, "projection_dim": 24}
    image = randomise(transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(
        hidden_size=128, intermediate_size=512, num_attention_heads=2, image_size=80,
        patch_size=16, **act,
    )))  # fmt: skip
    text = randomise(transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(
        hidden_size=64, intermediate_size=256, num_attention_heads=1,
        vocab_size=len(clip_tokenizer), eos_token_id=clip_tokenizer.eos_token_id, **act,
    )))  # fmt: skip
    first = openai_weights(image, "visual_projection", "projection_dist")
    first["projection.fc1.weight"] = torch.zeros(24, 128)  # no score goes through it
    second = openai_weights(text, "text_projection", "text_projection")
    torch.save(first, tmp_path / "first_stage.pth")
    torch.save({f"module.{name}": tensor for name, tensor in second.items()}, tmp_path / "2.pth")
    clip_tokenizer.save_pretrained(tmp_path)
    scores = open_peer(f"mkt:{tmp_path}", LABELS, device="cpu").scores(photos[:2])
    prompts = [f"There is a {label} in the scene" for label in LABELS]
    with torch.no_grad():
        labels = text(**clip_tokenizer(prompts, padding=True, return_tensors="pt")).text_embeds
    for photo, row in zip(photos[:2], scores, strict=True):
        bicubic = pictures.InterpolationMode.BICUBIC
        resized = pictures.resize(Image.fromarray(photo), int(80 / (224 / 256)), bicubic)
        pixels = pictures.to_tensor(pictures.center_crop(resized, [80, 80]))
        pixels = pictures.normalize(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        with torch.no_grad():
            tokens = image.vision_model(pixels[None]).last_hidden_state[0]
            shared = image.visual_projection(image.vision_model.post_layernorm(tokens))
        similar = shared @ labels.T
        best = similar[1:].topk(16, 0).values.mean(0)
        expected = (best / best.norm() + similar[0] / similar[0].norm()) / 2
        np.testing.assert_allclose(2 * row - 1, expected.numpy(), atol=1e-4)
    assert scores.std(1).min() > 1e-3
