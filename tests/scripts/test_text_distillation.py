"""How the static text embedding is fitted: vocabulary, texts, rows."""

import numpy as np
import text_distillation

from ramctl.checkpoints.static_table import unit

CAPTIONS = ["A red bus near a red car .", "The red bus stops", "two dogs"] * 3
PIECES = {"[UNK]": 0, "red": 1, "bus": 2, "b": 3, "##us": 4, "d": 5, "##og": 6, "##s": 7, "日": 8}


def test_phrases_do_not_start_or_end_with_stop_words():
    counts = text_distillation.count_phrases(CAPTIONS, ["Sea Lion"])
    assert counts.words["red"] == 9
    assert counts.phrases["red bus"] == 6
    assert "a red" not in counts.phrases
    assert counts.names == {"sea lion"}


def test_the_vocabulary_keeps_what_spells_any_latin_word_and_the_most_used_words():
    counts = text_distillation.count_phrases(CAPTIONS, ["sea lion"])
    vocabulary = text_distillation.choose_vocabulary(counts, PIECES, 8)
    assert {"[UNK]", "b", "d", "##us", "##og", "##s"} <= vocabulary.keys()
    assert list(vocabulary)[-2:] == ["red", "bus"]
    assert list(vocabulary.values()) == list(range(8))


def test_a_fitted_table_points_where_its_targets_do():
    draw = np.random.default_rng(0)
    counts = text_distillation.count_phrases(CAPTIONS, ["sea lion"])
    vocabulary = text_distillation.choose_vocabulary(counts, PIECES, 20)
    tokenizer = text_distillation.build_tokenizer(vocabulary)
    texts = text_distillation.training_texts(counts, vocabulary)
    assert "red bus" in texts and "us" in texts and "[UNK]" not in texts
    hidden = {word: draw.normal(size=16) for text in texts for word in text.split()}
    sums = np.stack([np.sum([hidden[word] for word in text.split()], 0) for text in texts])
    meaning = dict(zip(texts, unit(sums), strict=True))
    vectors = np.stack([meaning[text] for text in texts])
    projection = text_distillation.principal_projection(vectors, 16)
    rows = text_distillation.fit_table(texts, unit(vectors @ projection), tokenizer, epochs=100)
    table = text_distillation.quantise_table(rows, projection, tokenizer.to_str())
    known = ["red", "bus", "red bus"]
    targets = np.stack([meaning[text] for text in known])
    found = text_distillation.agreement(table, known, targets, neighbours=1)
    assert found["cosine"] > 0.98
    assert found["retrieved"] == 1.0
