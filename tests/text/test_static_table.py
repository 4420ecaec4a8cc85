"""The static text embedding: its files and its sums."""

import numpy as np
import pytest
from text_distillation import build_tokenizer, quantise_table

from ramctl.checkpoints.static_table import StaticTextEncoder, unit


@pytest.fixture
def table() -> StaticTextEncoder:
    tokenizer = build_tokenizer({"[UNK]": 0, "red": 1, "bus": 2, "##s": 3})
    rows = np.array([[9, 9], [1, 0], [0, 2], [0.1, 0.1]], np.float32)
    return quantise_table(rows, np.eye(3, 2), tokenizer.to_str())


def test_a_text_is_the_sum_of_its_known_pieces_at_length_one(table):
    expected = unit(np.array([[1, 0], [0, 1], [1, 2], [1, 0], [0, 0], [0, 0]], np.float32))
    texts = ["red", "Bus", "red bus", "red 日", "日本", ""]
    np.testing.assert_allclose(table.embed_names(texts), expected, atol=0.01)


def test_the_encoders_vectors_are_projected_to_unit_length(table):
    np.testing.assert_allclose(table.project(np.array([[3.0, 4.0, 9.0]])), [[0.6, 0.8]], atol=1e-6)
