"""What new words borrow from the labels nearest to them."""

import numpy as np

from ramctl.inference.label_set import borrowed

TEXTS = np.eye(3, 4, dtype=np.float32)
OWNED = np.array([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]], np.float32)


def test_a_word_that_means_what_a_label_means_gets_what_it_owns():
    np.testing.assert_allclose(borrowed(TEXTS[:1], TEXTS, OWNED), OWNED[:1], atol=1e-6)


def test_a_word_between_two_labels_gets_half_of_their_mean():
    word = np.array([[1, 1, 0, 0]], np.float32) / np.sqrt(2)
    # The best cosine is sqrt(1/2), so that the share is 1/2.
    np.testing.assert_allclose(borrowed(word, TEXTS, OWNED), [[0.25, 0.25]], atol=1e-4)


def test_a_word_without_neighbours_borrows_nothing():
    word = np.array([[0, 0, 0, 1]], np.float32)
    assert not borrowed(word, TEXTS, OWNED).any()
    assert not borrowed(-TEXTS[:1], TEXTS[:1], OWNED[:1]).any()


def test_no_labels_lend_nothing():
    assert borrowed(TEXTS, TEXTS[:0], OWNED[:0]).tolist() == [[0, 0]] * 3
