"""Files of words and of sentences that describe them."""

import gzip
import json

import pytest

from ramctl.checkpoints.bundle import Bundle, embedded_bundle
from ramctl.errors import RunProblem
from ramctl.inference.label_set import choose_labels, own_labels, read_words
from ramctl.model.config import load_preset


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


@pytest.mark.parametrize("content", [[], {}, [{}], ["heron"], [{"heron": ["a"]}, 3], "heron", 3])
def test_anything_else_is_named(tmp_path, content):
    (tmp_path / "words.json").write_text(json.dumps(content))
    with pytest.raises(RunProblem, match=r"words\.json: expected an object: tag -> list of sent"):
        read_words(str(tmp_path / "words.json"))


def test_a_word_that_mini_does_not_know_has_the_threshold_of_words_and_a_known_one_its_own():
    """scripts/mini/word_threshold.py: at 0.5 of ten right best words only three passed."""
    bundle = Bundle.open(embedded_bundle())
    chosen = choose_labels(bundle, ["heated towel rail", "dog"], None)
    own = own_labels(bundle)
    (dog,) = bundle.labels.ids("dog")
    assert not bundle.labels.ids("heated towel rail")
    assert chosen.thresholds.tolist() == [0.2, own.thresholds[dog]]
    assert load_preset("mini").open_set_threshold == 0.2  # of the next one that is trained
