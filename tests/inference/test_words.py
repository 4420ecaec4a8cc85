"""Words that a user names: files of them, what they borrow from labels, and their thresholds."""

import gzip
import json
import tracemalloc

import numpy as np
import pytest

from ramctl.checkpoints.bundle import Bundle, embedded_bundle
from ramctl.errors import RunProblem
from ramctl.inference.calibration import LISTED_LOG_ODDS, Calibration
from ramctl.inference.label_rows import borrowed, label_rows, read_words
from ramctl.inference.log_odds import log_odds_of
from ramctl.inference.thresholds import bundle_labels, choose_labels
from ramctl.model.preset import load_preset
from tests.support import TAGS

TEXTS = np.eye(3, 4, dtype=np.float32)
OWNED = np.array([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]], np.float32)


def test_descriptions_may_be_one_object_or_a_list_of_them(tmp_path):
    tags = {"heron": ["a grey bird.", "long legs"], "kettle": "boils water"}
    for name, content in {"one": tags, "list": [{tag: tags[tag]} for tag in tags]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        words = read_words(str(tmp_path / f"{name}.json"))
        assert [(word.tag, word.descriptions) for word in words] == [
            ("heron", ("a grey bird.", "long legs")),
            ("kettle", ("boils water",)),
        ]


@pytest.mark.shared
def test_the_authors_descriptions_are_read_as_published(shared, tmp_path):
    name = "openimages_rare_200_llm_tag_descriptions.json"
    packed = (shared / "labels" / "ram" / f"{name}.gz").read_bytes()
    (tmp_path / name).write_bytes(gzip.decompress(packed))
    words = read_words(str(tmp_path / name))
    assert len(set(words.tags)) == 200
    assert {len(word.descriptions) for word in words} == {51}
    assert words[0].descriptions[0] == f"a photo of a {words[0].tag.lower()}."


def test_a_model_s_name_is_a_list_of_its_labels():
    assert read_words("mini").tags == Bundle.open(embedded_bundle()).labels.tags


@pytest.mark.parametrize("content", [[], {}, [{}], ["heron"], [{"heron": ["a"]}, 3], "heron", 3])
def test_anything_else_is_named(tmp_path, content):
    (tmp_path / "words.json").write_text(json.dumps(content))
    with pytest.raises(RunProblem, match=r"words\.json: expected tags with lists of sentences"):
        read_words(str(tmp_path / "words.json"))


def test_a_word_that_mini_does_not_know_has_the_threshold_of_words_and_a_known_one_its_own():
    """At 0.5 of ten right best words only three passed."""
    bundle = Bundle.open(embedded_bundle())
    chosen = choose_labels(bundle, ["heated towel rail", "dog"], None, precision=0.9)
    own = bundle_labels(bundle, precision=0.9)
    (dog,) = bundle.labels.ids("dog")
    assert not bundle.labels.ids("heated towel rail")
    assert chosen.thresholds.tolist() == [0.2, own.thresholds[dog]]
    assert load_preset("mini").open_set_threshold == 0.2  # of the next one that is trained


def test_words_of_a_short_list_are_given_more_readily_than_those_of_a_long_one(tmp_path):
    bundle = Bundle.open(embedded_bundle())
    calibration, own = Calibration.from_bundle(bundle), bundle_labels(bundle)
    names = [label.tag for label in bundle.labels if label.validated]
    (dog,) = bundle.labels.ids("dog")
    found = {}
    for number in (2, 3, 300):
        words = ["dog", *(name for name in names if name != "dog")][:number]
        chosen = choose_labels(bundle, words, None)
        found[number] = float(chosen.thresholds[0])
        assert not chosen.uses_salience.any()
        # By Bayes' rule: the odds of a label in the list beside those of any label.
        right = calibration.slopes[dog] * log_odds_of(found[number]) + calibration.offsets[dog]
        usual = calibration.base / (1 - calibration.base)
        odds = np.exp(right) * max(1 / (number - 1) / usual, 1)
        assert np.log(odds) == pytest.approx(LISTED_LOG_ODDS, abs=1e-3)
    assert found[2] < found[3] < found[300] < own.thresholds[dog]
    assert choose_labels(bundle, ["dog", "cat"], 0.7).thresholds.tolist() == [0.7, 0.7]
    (tmp_path / "words").write_text("heron cage\n")
    assert choose_labels(bundle, f"+{tmp_path / 'words'}", None).uses_salience[dog]


def test_words_of_another_language_are_labels_in_a_list_of_that_language_alone():
    labels = (bundle := Bundle.open(embedded_bundle())).labels
    own = label_rows(bundle)

    def rows_are(words, tags, language=""):
        chosen = choose_labels(bundle, words, None, language=language)
        known = [own[labels.ids(tag)[0]] for tag in tags]
        assert np.array_equal(chosen.rows[: len(tags)], known) and chosen.labels.tags == words

    rows_are(["Hund", "Baum", "Himmel", "Rock"], ["dog", "tree", "sky", "skirt"], "de")
    rows_are(["gift", "rock", "kind"], ["gift", "rock"])
    grenade = choose_labels(bundle, ["dog", "grenade"], None).rows[1]
    assert not np.array_equal(grenade, own[labels.ids("pomegranate")[0]])


def test_a_word_gets_what_its_neighbours_own_by_how_near_they_are():
    np.testing.assert_allclose(borrowed(TEXTS[:1], TEXTS, OWNED), OWNED[:1], atol=1e-6)
    between = np.array([[1, 1, 0, 0]], np.float32) / np.sqrt(2)
    # The best cosine is sqrt(1/2), so that the share of the mean is 1/2.
    np.testing.assert_allclose(borrowed(between, TEXTS, OWNED), [[0.25, 0.25]], atol=1e-4)


def test_without_neighbours_and_without_labels_nothing_is_borrowed():
    word = np.array([[0, 0, 0, 1]], np.float32)
    assert not borrowed(word, TEXTS, OWNED).any()
    assert not borrowed(-TEXTS[:1], TEXTS[:1], OWNED[:1]).any()
    assert borrowed(TEXTS, TEXTS[:0], OWNED[:0]).tolist() == [[0, 0]] * 3


def test_many_words_take_little_more_than_their_rows_and_none_depends_on_the_others(
    tiny_bundle, tmp_path, monkeypatch
):
    monkeypatch.setattr("ramctl.inference.label_rows.EMBEDDED_AT_ONCE", 500)
    bundle, path = Bundle.open(tiny_bundle), tmp_path / "words.txt"
    words = [f"{TAGS[n % len(TAGS)]} {TAGS[n * 7 % 9]} {'o' * (n % 4)}" for n in range(5000)]
    words = list(dict.fromkeys(words)) + [f"a {word}" for word in words]
    path.write_text("\n".join(["one", *words, TAGS[0]]))
    choose_labels(bundle, str(path), None)  # what is loaded then does not count
    tracemalloc.start()
    try:
        chosen = choose_labels(bundle, str(path), None)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    n = len(chosen.labels)
    assert chosen.rows.shape == (n, chosen.rows.shape[1])
    assert (most - chosen.rows.nbytes) / n < 900
    assert np.array_equal(chosen.rows[-1], label_rows(bundle)[0])
    for place in (0, 1, 200, n - 2):
        path.write_text(chosen.labels.tags[place])
        assert np.array_equal(choose_labels(bundle, str(path), None).rows[0], chosen.rows[place])
