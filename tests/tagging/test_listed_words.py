"""`--labels`: the embedded model's own words and new ones."""

import random

import pytest

from ramctl import RunProblem, Tagger
from ramctl.checkpoints.bundle import Bundle, embedded_bundle
from tests.support import DATA

PHOTOS = sorted((DATA / "photos").iterdir())
HORSES = DATA / "photos" / "horses.jpg"
LABELS = Bundle.open(embedded_bundle()).labels


def test_the_model_s_own_words_get_what_the_plain_run_gives_them():
    plain = Tagger.from_pretrained().tag(PHOTOS)
    rng, given = random.Random(0), sorted({tag for result in plain for tag in result.tags})
    words = sorted({*rng.sample(given, 8), *rng.sample(LABELS.tags, 72)})
    listed = Tagger.from_pretrained(labels=words).tag(PHOTOS)
    for before, after in zip(plain, listed, strict=True):
        assert after.scores == {tag: p for tag, p in before.scores.items() if tag in words}


def test_plurals_and_synonyms_are_labels_and_columns_are_the_words_in_order(tmp_path):
    (tmp_path / "words").write_text("# of mine\n\nhorses\ncar\nauto\nfarm gate\n")
    tagger = Tagger.from_pretrained(labels=tmp_path / "words", dense=True)
    names, _ = tagger.vocabulary.columns
    assert names == ["horses", "car", "auto", "farm gate"]
    horses, car, auto, gate = tagger.tag(HORSES).dense
    every = dict(
        zip(LABELS.tags, Tagger.from_pretrained(dense=True).tag(HORSES).dense, strict=True)
    )
    assert (horses, car) == pytest.approx((every["horse"], every["car"]), rel=1e-4)
    assert auto == car and 0 < gate < 1


def test_words_without_a_known_part_are_named_once(ramctl, tmp_path):
    (tmp_path / "words").write_text("xqzzy\ngrass\nblorp\n")
    done = ramctl("tag", HORSES, PHOTOS[0], "--labels", "words")
    assert done.messages.count("2 words are unknown to the model: xqzzy, blorp\n") == 1
    assert done.rows[0]["tags"] == ["grass"]
    with pytest.raises(RunProblem, match="knows none of the words"):
        Tagger.from_pretrained(labels=["xqzzy"])


def test_labels_without_evidence_are_given_only_when_they_are_named():
    unproven = {label.tag for label in LABELS if not label.validated}

    def given(**options):
        results = Tagger.from_pretrained(**options).tag(PHOTOS)
        return {tag for result in results for tag in result.tags}

    for options in ({"precision": 0.5}, {"threshold": 0.1}):
        assert unproven.isdisjoint(given(**options))
        assert given(labels=sorted(unproven), **options)


def test_precision_asks_for_surer_tags_of_listed_words_too():
    def tags(**options):
        return [*Tagger.from_pretrained(**options).tag(HORSES).scores]

    usual, surer = tags(precision=0.6), tags(precision=0.9)
    assert 0 < len(surer) < len(usual) and set(surer) < set(usual)
    words = ["grass", "horse", "sky"]
    assert set(tags(precision=0.6, labels=words)) == set(usual) & set(words)
    with pytest.raises(RunProblem, match=r"no threshold reaches precision 0\.999: at most 0\.99"):
        tags(precision=0.999)
