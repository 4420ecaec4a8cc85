"""Labels learn from captions that leave things out: rates of mention, silence, the first thing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ramctl.labels import Label, Labels
from ramctl.training.data.targets import Annotation, Caption
from ramctl.training.label_vectors import (
    Collection,
    Mentions,
    choice_loss,
    fit,
    lifted,
    style_of,
    unlabelled_loss,
)

LABELS = Labels([Label("dog", parents=("animal",)), Label("sky"), Label("animal"), Label("red")])
DOG, SKY, ANIMAL, RED = range(4)
DENSE = "A dog of many words that stands before a wall and looks at all of us here"


def note(*tags: str, text: str = DENSE, **fields) -> Annotation:
    return Annotation("a.jpg", Path(), tags, (Caption(text, tags),), None, (), **fields)


def test_styles_of_captions():
    short = note("dog", text="A dog.")
    several = replace(short, captions=short.captions * 2)
    assert [style_of(n) for n in (several, short, replace(short, captions=()), note("dog"))] == [
        0,
        1,
        1,
        2,
    ]


def test_rates_are_those_at_which_captions_name_what_is_there():
    random = np.random.default_rng(0)
    there = random.random((4000, 4)) < [0.3, 0.6, 0.5, 0.4]
    is_named = there & (random.random(there.shape) < [0.9, 0.3, 0.5, 0.6])
    tags = [[LABELS.tags[i] for i in np.flatnonzero(row & [1, 1, 0, 1])] for row in is_named]
    probabilities = torch.tensor(np.where(there, 0.9, 0.1), dtype=torch.float32)
    learnt = Mentions.learn([note(*names) for names in tags], LABELS, probabilities)
    rates = learnt.rates[2]
    assert rates[DOG] > 0.75 and rates[RED] == pytest.approx(0.6, abs=0.12)
    assert rates[SKY] == pytest.approx(0.3, abs=0.1)
    # The dog implies the animal.
    assert learnt.implied[is_named[:, DOG]][:, ANIMAL].all()


def test_silence_is_evidence_by_its_rate_and_a_denial_is_certain():
    notes = [note("dog"), note("sky"), replace(note(), negatives=("red",))]
    mentions = Mentions.learn(notes, LABELS, torch.full((3, 4), 0.5))
    mentions = replace(mentions, rates=torch.tensor([[0.5] * 4, [0.5] * 4, [0.8, 0.25, 0.5, 0.5]]))
    logits = torch.zeros(3, 4)
    expected = np.log(0.5) + np.log(1 - 0.125) + np.log(1 - 0.25)  # a dog, no sky, no red
    expected += np.log(1 - 0.4) + np.log(0.5) + 2 * np.log(1 - 0.25)  # sky alone
    expected += np.log(0.5)  # red is denied, and the rest unknown
    assert unlabelled_loss(logits, mentions).item() == pytest.approx(-expected, rel=1e-5)
    expected += 0.1 * np.log(0.5)  # the dog's animal
    assert unlabelled_loss(logits, mentions, 0.1).item() == pytest.approx(-expected, rel=1e-5)


def test_the_first_thing_is_a_choice_among_all():
    mentions = Mentions.learn([note("dog", "sky"), note()], LABELS, torch.full((2, 4), 0.5))
    assert mentions.fractions[0].argmax() == 0 and not mentions.fractions[1].any()
    better, worse = torch.tensor([[3.0, 0, 0, 0]] * 2), torch.tensor([[0.0, 0, 3, 0]] * 2)
    losses = [choice_loss(logits, mentions.fractions).item() for logits in (better, worse)]
    assert losses[0] < losses[1] and choice_loss(better[1:], mentions.fractions[1:]) == 0


@pytest.fixture
def collection():
    """Photos of dogs before a sky, or not, and reference photos that look otherwise."""
    random = torch.Generator().manual_seed(1)
    is_dog = torch.arange(60) % 2 == 0
    notes = [note("dog", "sky") if dog else note("red", "sky") for dog in is_dog]
    features = torch.randn(60, 40, generator=random) / 8
    features[:, 0] += is_dog.float() - 0.5
    features[:, 1] += 0.5
    reference = torch.randn(80, 40, generator=random) / 3
    reference[:, 1] -= 0.5
    log_odds = torch.full((60, 4), -1.0)
    mentions = Mentions.learn(notes, LABELS, log_odds.sigmoid())
    n_things = len(mentions.things)
    choice = torch.zeros(60, n_things)
    return Collection(features, log_odds, choice, torch.ones(n_things), mentions, reference)


def changes(fitted, features):
    return features @ fitted.weight + fitted.bias


def test_a_fit_learns_the_collection_and_leaves_other_photos_as_they_were(collection):
    fitted = fit(collection)
    added = changes(fitted, collection.features)[:, DOG]
    assert added[::2].min() > 3 and added[1::2].max() < 1
    without = fit(replace(collection, reference=collection.reference[:0]))
    far = [changes(one, collection.reference).square().mean().sqrt() for one in (fitted, without)]
    assert far[0] < 0.6 * far[1]


def test_labels_are_lifted_on_the_photos_of_the_collection_alone(collection):
    before = fit(collection)
    after = lifted(before, collection, 1.5)
    for features, expected in ((collection.features, 1.5), (collection.reference, 0.0)):
        added = changes(after, features) - changes(before, features)
        assert added.mean().item() == pytest.approx(expected, abs=0.15)
        assert added.std().item() < 0.4
    alone = replace(collection, reference=collection.reference[:0])
    added = lifted(before, alone, 1.5).bias - before.bias
    np.testing.assert_allclose(added, 1.5)
