"""The model and its parts against their formulas: labels, prior, captions, regions, backbones."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ramctl.model.attention import AttentionBlock
from ramctl.model.build_ram import build_ram
from ramctl.model.captioning import CaptionInputs
from ramctl.model.preset import load_preset
from ramctl.model.regions import Regions, cell_logits, pool_regions, region_logits
from ramctl.model.tag_decoder import TagDecoder

PRIOR = [
    "model.prior.classes=10", "model.prior.class_token=true",
]  # fmt: skip
DESCRIBED = [
    "model.labels.kind=descriptions", "model.labels.own_width=0", "model.labels.own_bias=false",
    "model.prior=false", "model.encoder.mean_token=true",
]  # fmt: skip


def build(overrides=(), n_labels=6, **options):
    preset = load_preset("tiny", overrides)
    model = build_ram(preset.model, image_size=64, n_labels=n_labels, vocabulary=20, **options)
    with torch.no_grad():
        model.labels.text.normal_()
        model.labels.own.normal_()
        model.labels.bias.normal_()
    if model.prior is not None and model.prior.classifier is not None:
        model.prior.set_classes(torch.randn(10, 256), torch.zeros(10), torch.randn(10, 32))
    return model.eval()


def captions(batch=2):
    ids = torch.randint(1, 20, (batch, 7))
    mask = torch.ones(batch, 7)
    mask[0, 5:] = 0
    tag_mask = torch.ones(batch, 24)
    tag_mask[:, 10:] = 0
    return CaptionInputs(torch.randint(1, 20, (batch, 24)), tag_mask, ids, mask)


@pytest.mark.parametrize("n_frozen", [0, 3], ids=["whole backbone", "frozen stages"])
def test_kept_features_give_what_photos_give(photos, n_frozen):
    model = build(PRIOR)
    if n_frozen:
        model.encoder.freeze(n_frozen)
    with torch.no_grad():
        kept = model.encoder.frozen_features(photos)
        assert (kept.shape[-1] != model.encoder(photos).shape[-1]) == bool(n_frozen)
        assert torch.equal(model(kept).logits.total, model(photos).logits.total)


def test_the_pooled_feature_is_dropped_in_training_alone_and_classes_keep_what_they_know(photos):
    model = build([*PRIOR, "model.prior.dropout=0.5"])
    with torch.no_grad():
        features = model.encoder(photos)
        known = model.prior(features)
        assert torch.equal(model.prior(features).own, known.own)
        model.train()
        dropped = model.prior(features)
    assert not torch.allclose(dropped.own, known.own)
    assert torch.equal(dropped.classes, known.classes)
    assert load_preset("tiny", PRIOR).model.prior.dropout == 0  # as bundles of earlier versions


def test_logits_are_the_sum_of_decoder_prior_and_own_parts(photos):
    model = build(PRIOR)
    with torch.no_grad():
        features = model.encoder(photos)
        encoded = model.encode(features)
        states = model.tag_decoder(
            model.tag_decoder.prepare(model.label_queries(model.labels.text)[None]),
            model.tag_decoder.contexts(encoded.tokens),
        )
        decoder = model.tag_decoder.shared_head(states).squeeze(-1)
        pooled = features.mean(1)
        mixture = model.prior.classifier(pooled).softmax(-1) @ model.prior.class_names
        feature = model.prior.to_label_space(pooled)
        similarity = F.normalize(feature, dim=-1) @ model.labels.text.T
        own = model.prior.own_projection(pooled) @ model.labels.own.T
        expected = decoder + model.prior.scale * similarity + own + model.labels.bias[:, 0]
        torch.testing.assert_close(model(photos).logits.total, expected)
        torch.testing.assert_close(encoded.photo.feature, feature)
        token = model.prior.token_projection(mixture)
        torch.testing.assert_close(encoded.tokens[:, -1], token)
        assert encoded.tokens.shape[1] == features.shape[1] + 1


def test_a_cell_is_scored_as_the_global_branch_scores_a_photo_that_has_no_other(photos):
    model = build(["model.prior.class_sharpness=3.0", *PRIOR])
    with torch.no_grad():
        features = model.encoder(photos)
        logits = cell_logits(model, features, model.prepare_labels(model.labels()))
        assert logits.shape == (2, 6, features.shape[1])
        for cell in range(features.shape[1]):
            alone = features[:, cell]  # (B, C)
            likely = (model.prior.classifier(alone) / model.prior.config.temperature).softmax(-1)
            names = model.prior.class_names
            feature = model.prior.to_label_space(alone)
            expected = model.prior.own_projection(alone) @ model.labels.own.T
            similarity = F.normalize(feature, dim=-1) @ model.labels.text.T
            expected += model.prior.scale * similarity + model.prior.offset
            mixture = likely @ torch.exp(3 * names @ model.labels.text.T)
            expected += model.prior.class_scale * torch.log(mixture)
            torch.testing.assert_close(logits[..., cell], expected)


def test_a_subset_of_labels_trains_only_its_own_rows(photos):
    model = build()
    model(photos, model.labels(torch.tensor([1, 4]))).logits.total.sum().backward()
    assert model.labels.bias.grad.flatten().nonzero().flatten().tolist() == [1, 4]
    assert model.labels.text.grad is None


@pytest.mark.parametrize("switches", [
    ["model.labels.own_width=0"], ["model.labels.own_bias=false"], ["model.prior.similarity=false"],
    ["model.prior.mlp_width=0"], ["model.captioning=false"], ["model.labels.kind=learnt"],
    ["model.prior=false", "model.labels.own_width=0"],
])  # fmt: skip
def test_each_part_can_be_switched_off(switches, photos):
    with torch.no_grad():
        out = build(switches)(photos)
    assert out.logits.total.shape == (2, 6)
    assert (out.encoded.photo is None) == ("model.prior=false" in switches)


@pytest.mark.parametrize(
    ("backbone", "width", "tokens"), [("test_vit", 64, 17), ("test_resnet", 96, 4)]
)
def test_any_timm_backbone_gives_tokens(backbone, width, tokens, photos):
    overrides = [f"model.encoder.backbone={backbone}", f"model.encoder.width={width}"]
    if backbone == "test_vit":
        overrides.append("model.encoder.image_size_option=true")
    model = build(overrides)
    with torch.no_grad():
        assert model.encoder(photos).shape == (2, tokens, width)
    assert model.encoder.extra_tokens == (1 if backbone == "test_vit" else 0)


def test_described_model_takes_ragged_labels_end_to_end(photos):
    model = build(DESCRIBED, n_labels=3, description_counts=[2, 5, 1])
    with torch.no_grad():
        whole = model(photos).logits.total
        encoded = model.encode(model.encoder(photos))
        for label, (start, end) in enumerate(((0, 2), (2, 7), (7, 8))):
            alone = model.tag_logits(encoded, model.labels.text[None, start:end]).total
            torch.testing.assert_close(whole[:, label, None], alone, atol=1e-5, rtol=1e-5)


WIDTH, TOKENS = 16, 5


@pytest.fixture
def decoder():
    config = load_preset("tiny").model.tag_decoder
    config = replace(config, width=WIDTH, heads=4, layers=2, ffn_width=8, dropout=0.0)
    made = TagDecoder(config, WIDTH, shared_head=True).eval()
    for parameter in made.parameters():  # larger than at the start, so that every part matters
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def test_attention_is_that_of_the_paper_with_residual_and_norm():
    block = AttentionBlock(WIDTH, WIDTH, dropout=0.0, eps=1e-6).eval()
    x, context = torch.randn(2, 3, WIDTH), torch.randn(2, TOKENS, WIDTH)
    q, k, v = (
        linear(y).view(2, -1, 4, 4).transpose(1, 2)
        for linear, y in ((block.query, x), (block.key, context), (block.value, context))
    )
    maps = (q @ k.transpose(-1, -2) / math.sqrt(4)).softmax(-1)
    mixed = (maps @ v).transpose(1, 2).reshape(2, 3, WIDTH)
    expected = F.layer_norm(block.output(mixed) + x, (WIDTH,), block.norm.weight, eps=1e-6)
    keys_values = block.keys_values(context, 4)
    torch.testing.assert_close(block(x, keys_values), expected)
    found: list[torch.Tensor] = []
    torch.testing.assert_close(block(x, keys_values, maps=found), expected)
    torch.testing.assert_close(found[0], maps)


def test_no_layer_sees_a_hidden_token(decoder):
    tokens = torch.randn(2, TOKENS, WIDTH)
    other = tokens.clone()
    other[:, 2] += 5
    mask = torch.zeros(2, 1, 1, TOKENS)
    mask[..., 2] = float("-inf")
    queries = decoder.prepare(torch.randn(1, 3, WIDTH))
    one, two = (decoder(queries, decoder.contexts(t), mask) for t in (tokens, other))
    torch.testing.assert_close(one, two)
    assert not torch.allclose(one, decoder(queries, decoder.contexts(tokens)))


@pytest.mark.parametrize("overrides", [(), PRIOR, DESCRIBED])
def test_a_region_of_the_whole_photo_is_scored_like_the_photo(photos, overrides):
    counts = [2, 5, 1, 1, 3, 2] if overrides is DESCRIBED else None
    model = build(overrides, description_counts=counts)
    with torch.no_grad():
        labels = model.prepare_labels(model.labels())
        features = model.encoder(photos)
        grid = features.shape[1] - model.encoder.extra_tokens
        which = torch.tensor([[0, 1], [1, 4], [1, 0]])
        regions = Regions(which[:, 0], torch.ones(3, grid), which[:, 1])
        logits, feature = region_logits(model, features, regions, labels)
        expected = model(photos).logits.total[which[:, 0], which[:, 1]]
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(feature.norm(dim=-1), torch.ones(3))


def test_a_region_weighs_its_tokens_by_how_much_it_covers(photos):
    model = build()
    with torch.no_grad():
        features = model.encoder(photos)
        cover = torch.rand(1, features.shape[1] - model.encoder.extra_tokens)
        regions = Regions(torch.tensor([0]), cover, torch.tensor([2]))
        pooled = pool_regions(model, features, regions)
    grid = features[0, model.encoder.extra_tokens :]
    torch.testing.assert_close(pooled[0], (cover[0, :, None] * grid).sum(0) / cover.sum())


def test_captions_belong_to_the_photos_that_have_some(photos):
    model, inputs = build(), captions(1)
    with torch.no_grad():
        some = model(photos, captions=inputs, captioned=torch.tensor([1])).caption_logits
        alone = model(photos[1:], captions=inputs).caption_logits
    torch.testing.assert_close(some, alone)
