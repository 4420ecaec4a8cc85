"""The parts of the model one by one, against their formulas; regions against whole photos."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ramctl.model.attention import AttentionBlock, FeedForwardBlock
from ramctl.model.preset import load_preset
from ramctl.model.regions import Regions, pool_regions, region_logits
from ramctl.model.tag_decoder import TagDecoder
from tests.model.test_ram import PRIOR, build, captions

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


def test_feed_forward_has_gelu_residual_and_norm():
    block = FeedForwardBlock(WIDTH, 8, dropout=0.0, eps=1e-6).eval()
    x = torch.randn(2, 3, WIDTH)
    inner = block.contract(F.gelu(block.expand(x)))
    expected = F.layer_norm(inner + x, (WIDTH,), block.norm.weight, block.norm.bias, 1e-6)
    torch.testing.assert_close(block(x), expected)


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


@pytest.mark.parametrize("overrides", [(), PRIOR])
def test_a_region_of_the_whole_photo_is_scored_like_the_photo(photos, overrides):
    model = build(overrides)
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
