"""What new words borrow from the labels nearest to them."""

import tracemalloc

import numpy as np

from ramctl.checkpoints.bundle import Bundle
from ramctl.inference import label_set
from ramctl.inference.label_set import borrowed, choose_labels, label_rows
from tests.support import TAGS

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


def test_many_words_take_little_more_than_their_rows_and_none_depends_on_the_others(
    tiny_bundle, tmp_path, monkeypatch
):
    monkeypatch.setattr(label_set, "EMBEDDED_AT_ONCE", 500)
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
