"""The static text embedding: its files, its sums, and how it is fitted."""

import subprocess
import sys

import numpy as np
import pytest
from text_distillation import (
    agreement,
    build_tokenizer,
    choose_vocabulary,
    count_phrases,
    fit_table,
    principal_projection,
    quantise_table,
    training_texts,
)

from ramctl.errors import RunProblem
from ramctl.text.static_table import StaticTextEncoder, unit

CAPTIONS = ["A red bus near a red car .", "The red bus stops", "two dogs"] * 3
PIECES = {"[UNK]": 0, "red": 1, "bus": 2, "b": 3, "##us": 4, "d": 5, "##og": 6, "##s": 7, "日": 8}


@pytest.fixture
def table() -> StaticTextEncoder:
    tokenizer = build_tokenizer({"[UNK]": 0, "red": 1, "bus": 2, "##s": 3})
    rows = np.array([[9, 9], [1, 0], [0, 2], [0.1, 0.1]], np.float32)
    return quantise_table(rows, np.eye(3, 2), tokenizer.to_str())


def test_a_text_is_the_sum_of_its_pieces_at_length_one(table):
    expected = unit(np.array([[1, 0], [0, 1], [1, 2]], np.float32))
    np.testing.assert_allclose(table.embed_names(["red", "Bus", "red bus"]), expected, atol=0.01)


def test_a_text_of_unknown_signs_is_zero(table):
    assert not table.embed_names(["日本", ""]).any()


def test_unknown_parts_do_not_count(table):
    np.testing.assert_array_equal(table.embed_names(["red 日"]), table.embed_names(["red"]))


def test_a_saved_table_is_the_same(table, tmp_path):
    table.save(tmp_path / "text")
    again = StaticTextEncoder.read(tmp_path / "text")
    np.testing.assert_array_equal(again.embed_names(["red bus"]), table.embed_names(["red bus"]))
    np.testing.assert_array_equal(again.projection, table.projection)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RunProblem, match=r"table\.safetensors"):
        StaticTextEncoder.read(tmp_path)


def test_the_encoders_vectors_are_projected_to_unit_length(table):
    np.testing.assert_allclose(table.project(np.array([[3.0, 4.0, 9.0]])), [[0.6, 0.8]], atol=1e-6)


def test_embedding_words_needs_no_torch():
    code = "import sys, ramctl.text.static_table; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_phrases_do_not_start_or_end_with_stop_words():
    counts = count_phrases(CAPTIONS, ["Sea Lion"])
    assert counts.words["red"] == 9
    assert counts.phrases["red bus"] == 6
    assert "a red" not in counts.phrases
    assert counts.names == {"sea lion"}


def test_the_vocabulary_keeps_what_spells_any_latin_word_and_the_most_used_words():
    counts = count_phrases(CAPTIONS, ["sea lion"])
    vocabulary = choose_vocabulary(counts, PIECES, 8)
    assert {"[UNK]", "b", "d", "##us", "##og", "##s"} <= vocabulary.keys()
    assert list(vocabulary)[-2:] == ["red", "bus"]
    assert list(vocabulary.values()) == list(range(8))


def test_a_fitted_table_points_where_its_targets_do():
    draw = np.random.default_rng(0)
    counts = count_phrases(CAPTIONS, ["sea lion"])
    vocabulary = choose_vocabulary(counts, PIECES, 20)
    tokenizer = build_tokenizer(vocabulary)
    texts = training_texts(counts, vocabulary)
    assert "red bus" in texts and "us" in texts and "[UNK]" not in texts
    hidden = {word: draw.normal(size=16) for text in texts for word in text.split()}
    sums = np.stack([np.sum([hidden[word] for word in text.split()], 0) for text in texts])
    meaning = dict(zip(texts, unit(sums), strict=True))
    vectors = np.stack([meaning[text] for text in texts])
    projection = principal_projection(vectors, 16)
    rows = fit_table(texts, unit(vectors @ projection), tokenizer, epochs=100)
    table = quantise_table(rows, projection, tokenizer.to_str())
    known = ["red", "bus", "red bus"]
    found = agreement(table, known, np.stack([meaning[text] for text in known]), neighbours=1)
    assert found["cosine"] > 0.98
    assert found["retrieved"] == 1.0
