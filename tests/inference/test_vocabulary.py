"""Words that a user names: files of them, what they borrow from labels, and their thresholds."""

import json
import random

import numpy as np
import pytest

from ramctl import Tagger
from ramctl.checkpoints.bundle import Bundle
from ramctl.errors import RunProblem
from ramctl.inference.thresholds import usual_thresholds
from ramctl.inference.vocabulary import borrowed, open_vocabulary, read_words
from ramctl.records.labels import Labels
from tests.support import DATA

PHOTOS = sorted((DATA / "photos").iterdir())
HORSES = DATA / "photos" / "horses.jpg"
TEXTS = np.eye(3, 4, dtype=np.float32)
TRAINED = np.array([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]], np.float32)


def test_descriptions_may_be_one_object_or_a_list_of_them(tmp_path):
    tags = {"heron": ["a grey bird.", "long legs"], "kettle": "boils water"}
    for name, content in {"one": tags, "list": [{tag: tags[tag]} for tag in tags]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        words = read_words(str(tmp_path / f"{name}.json"))
        assert [(word.tag, word.descriptions) for word in words] == [
            ("heron", ("a grey bird.", "long legs")),
            ("kettle", ("boils water",)),
        ]


@pytest.mark.parametrize("content", [[{"heron": ["a"]}, 3], "heron", {"heron": 3}])
def test_anything_else_is_named(tmp_path, content):
    (tmp_path / "words.json").write_text(json.dumps(content))
    with pytest.raises(RunProblem, match=r"words\.json: expected tags with lists of sentences"):
        read_words(str(tmp_path / "words.json"))


def test_a_word_that_is_no_label_has_the_curve_of_such_words_and_a_known_one_its_own(mini):
    chosen = open_vocabulary(mini, ["heated towel rail", "dogs"])
    (dog,) = mini.labels.ids("dog")
    assert not mini.labels.ids("heated towel rail")
    names, (rail, known) = chosen.columns
    assert names == ["heated towel rail", "dogs"] and known == dog
    curves = chosen.labels.curves
    assert curves[rail].tolist() == mini.meta["open_set"]["calibration"]
    assert curves[known].tolist() == list(mini.labels[dog].calibration)
    assert chosen.thresholds[[rail, known]].tolist() == [mini.threshold] * 2
    at_90 = min(row[0] for row in mini.meta["precisions"] if row[1] >= 0.9)
    assert open_vocabulary(mini, ["dog"], precision=0.9).thresholds[dog] == at_90
    by_user = open_vocabulary(mini, ["dog", "cat"], 0.7)
    assert set(by_user.thresholds) == {0.7, 1} and by_user.thresholds[dog] == 0.7
    assert not by_user.allows and not by_user.fills_up


def test_words_of_a_list_are_added_to_the_labels(mini, tmp_path):
    (tmp_path / "words").write_text("heron cage\ndog\n")
    added = open_vocabulary(mini, f"+{tmp_path / 'words'}")
    assert added.labels.tags == [*mini.labels.tags, "heron cage"]
    assert added.listed is None and added.allows and added.fills_up


def test_words_of_another_language_are_labels_in_a_list_of_that_language_alone(mini):
    labels = mini.labels

    def ids(words, language=""):
        found, places = open_vocabulary(mini, words, language=language).columns
        assert found == words
        return places

    german = ids(["Hund", "Baum", "Himmel", "Rock"], "de")
    assert german == [labels.ids(tag)[0] for tag in ("dog", "tree", "sky", "skirt")]
    assert ids(["gift", "rock"]) == [labels.ids(tag)[0] for tag in ("gift", "rock")]
    (grenade,) = ids(["grenade"])  # German for a pomegranate's like
    assert grenade != labels.ids("pomegranate")[0]


def test_a_word_gets_the_vectors_of_its_neighbours_by_how_near_they_are():
    np.testing.assert_allclose(borrowed(TEXTS[:1], TEXTS, TRAINED), TRAINED[:1], atol=1e-6)
    between = np.array([[1, 1, 0, 0]], np.float32) / np.sqrt(2)
    # The best cosine is sqrt(1/2), so that the mean counts half.
    np.testing.assert_allclose(borrowed(between, TEXTS, TRAINED), [[0.25, 0.25]], atol=1e-4)
    near = np.array([[1, 0, 0], [0.6, 0.8, 0]], np.float32)
    own = borrowed(near, near, TRAINED[:2], but_own=True)
    np.testing.assert_allclose(own, 0.36 * TRAINED[[1, 0]], atol=1e-6)


def test_a_precision_has_the_lowest_threshold_that_reaches_it(tmp_path):
    table = [[0.3, 0.7, 9.0], [0.5, 0.92, 6.0], [0.6, 0.9, 5.0], [0.8, 0.95, 2.0]]
    bundle, labels = Bundle(tmp_path, {"precisions": table}), Labels.from_tags(["a"])
    found = [usual_thresholds(bundle, labels, p)[0] for p in (0.5, 0.7, 0.9, 0.93)]
    assert found == [0.3, 0.3, 0.5, 0.8]
    with pytest.raises(RunProblem, match=r"no threshold reaches precision 0\.99: at most 0\.950$"):
        usual_thresholds(bundle, labels, 0.99)
    with pytest.raises(RunProblem, match="it is not calibrated"):
        usual_thresholds(Bundle(tmp_path, {}), labels, 0.9)


def test_the_model_s_own_words_get_what_the_plain_run_gives_them(mini):
    plain = Tagger.from_pretrained().tag(PHOTOS)
    rng, given = random.Random(0), sorted({tag for result in plain for tag in result.tags})
    words = sorted({*rng.sample(given, 8), *rng.sample(mini.labels.tags, 72)})
    listed = Tagger.from_pretrained(labels=words).tag(PHOTOS)
    for before, after in zip(plain, listed, strict=True):
        assert after.scores == {tag: p for tag, p in before.scores.items() if tag in words}


def test_plurals_and_synonyms_are_labels_and_columns_are_the_words_in_order(mini, tmp_path):
    (tmp_path / "words").write_text("# of mine\n\n  # too\nHORSES\ncar\nauto\nwomen\nfarm gate\n")
    tagger = Tagger.from_pretrained(labels=tmp_path / "words", dense=True)
    names, _ = tagger.vocabulary.columns
    assert names == ["HORSES", "car", "auto", "women", "farm gate"]
    horses, car, auto, women, gate = tagger.tag(HORSES).dense
    every = dict(
        zip(mini.labels.tags, Tagger.from_pretrained(dense=True).tag(HORSES).dense, strict=True)
    )
    expected = [every[tag] for tag in ("horse", "car", "woman")]
    assert [horses, car, women] == pytest.approx(expected, rel=1e-4)
    assert auto == car and 0 < gate < 1


def test_pet_is_the_animal_and_nobody_strokes(mini):
    (pet,) = [label for label in mini.labels if label.tag == "pet"]
    assert (pet.kind, pet.names["de"], pet.synonyms) == ("object", "Haustier", ())


def test_words_without_a_known_part_are_named_once(ramctl, tmp_path):
    (tmp_path / "words").write_text("xqzzy\ngrass\nblorp\n")
    done = ramctl("tag", HORSES, PHOTOS[0], "--labels", "words")
    assert done.messages.count("unknown to the model: xqzzy, blorp\n") == 1
    assert done.rows[0]["tags"] == ["grass"]
    with pytest.raises(RunProblem, match="knows none of the words"):
        Tagger.from_pretrained(labels=["xqzzy"])


def test_labels_without_evidence_are_given_only_when_they_are_named(mini):
    unproven = {label.tag for label in mini.labels if not label.validated}

    def given(**options):
        results = Tagger.from_pretrained(**options).tag(PHOTOS)
        return {tag for result in results for tag in result.tags}

    for options in ({"precision": 0.5}, {"threshold": 0.1}):
        assert unproven.isdisjoint(given(**options))
        assert given(labels=sorted(unproven), **options)
