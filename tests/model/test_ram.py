"""The joined model: labels, prior, cached features, frozen parts, precision."""

from dataclasses import replace

import pytest
import torch

from ramctl.model.build_ram import build_ram
from ramctl.model.captioning import CaptionInputs
from ramctl.model.label_queries import DescriptionWeighting, LabelTable
from ramctl.model.preset import load_preset
from ramctl.model.regions import cell_logits

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
        similarity = torch.nn.functional.normalize(feature, dim=-1) @ model.labels.text.T
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
            similarity = torch.nn.functional.normalize(feature, dim=-1) @ model.labels.text.T
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


def test_padding_changes_no_caption(photos):
    model, inputs = build(), captions()
    longer = torch.nn.functional.pad(inputs.caption_ids, (0, 3))
    mask = torch.nn.functional.pad(inputs.caption_mask, (0, 3))
    other_tags = inputs.tag_ids.clone()
    other_tags[:, 10:] = 3  # masked
    padded = CaptionInputs(other_tags, inputs.tag_mask, longer, mask)
    with torch.no_grad():
        encoded = model.encode(model.encoder(photos))
        expected = model.captioning(encoded.tokens, inputs)
        torch.testing.assert_close(
            model.captioning(encoded.tokens, padded)[1, :7], expected[1], atol=1e-5, rtol=1e-5
        )


def test_a_word_piece_sees_only_those_before_it(photos):
    model, inputs = build(), captions()
    changed = inputs.caption_ids.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 20
    with torch.no_grad():
        encoded = model.encode(model.encoder(photos))
        one = model.captioning(encoded.tokens, inputs)
        two = model.captioning(encoded.tokens, replace(inputs, caption_ids=changed))
    torch.testing.assert_close(one[1, :4], two[1, :4])
    assert not torch.allclose(one[1, 4:], two[1, 4:])


@pytest.mark.parametrize(("backbone", "width", "tokens"), [
    ("test_efficientnet", 256, 4), ("test_vit", 64, 17), ("test_resnet", 96, 4),
])  # fmt: skip
def test_any_timm_backbone_gives_tokens(backbone, width, tokens, photos):
    overrides = [f"model.encoder.backbone={backbone}", f"model.encoder.width={width}"]
    if backbone == "test_vit":
        overrides.append("model.encoder.image_size_option=true")
    model = build(overrides)
    with torch.no_grad():
        assert model.encoder(photos).shape == (2, tokens, width)
    assert model.encoder.extra_tokens == (1 if backbone == "test_vit" else 0)


def test_ragged_descriptions_weigh_as_each_label_alone():
    table = LabelTable([8, 0, 0, 0], 3, counts=[2, 5, 1], train_text=False)
    table.set_text(torch.randn(8, 8))
    weighting, feature = DescriptionWeighting(), torch.randn(4, 8)
    rows = table()
    assert rows.shape == (3, 5, 8)
    absent = (rows == 0).all(-1)
    with torch.no_grad():
        mixed = weighting(rows, absent, feature)
        weights = weighting.weights(rows, absent, feature)
        assert (weights[:, absent] == 0).all()
        direction = torch.nn.functional.normalize(feature, dim=-1)
        for label, (start, end) in enumerate(((0, 2), (2, 7), (7, 8))):
            own = table.text[start:end]
            alone = ((direction @ own.T) / 0.07).softmax(-1) @ own
            torch.testing.assert_close(mixed[:, label], alone, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(table(torch.tensor([2, 1])), rows[[2, 1]])


def test_described_model_takes_ragged_labels_end_to_end(photos):
    model = build(DESCRIBED, n_labels=3, description_counts=[2, 5, 1])
    with torch.no_grad():
        whole = model(photos).logits.total
        encoded = model.encode(model.encoder(photos))
        for label, (start, end) in enumerate(((0, 2), (2, 7), (7, 8))):
            alone = model.tag_logits(encoded, model.labels.text[None, start:end]).total
            torch.testing.assert_close(whole[:, label, None], alone, atol=1e-5, rtol=1e-5)
