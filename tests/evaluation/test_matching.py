"""Which prediction belongs to which photo."""

import pytest

from ramctl.evaluation.tagger_scores import match


@pytest.mark.parametrize(
    ("truth", "predictions", "pairs", "by_key"),
    [
        (["b.jpg", "a.jpg"], ["a.jpg", "b.jpg", "c.jpg"], [[0, 1], [1, 0]], {"name": 2}),
        (["d/x.jpg", "b.jpg"], ["b.jpg", "e/x"], [[0, 1], [1, 0]], {"name": 1, "base name": 1}),
        (["x/1.jpg", "y/1.jpg"], ["z/1.jpg"], [], {}),  # two photos of a name
        (["z/1.jpg"], ["x/1.jpg", "y/1.jpg"], [], {}),  # two predictions of it
        (["a.jpg", "x/b.png"], ["a.jpg", "y/a.jpg"], [[0, 0]], {"name": 1}),  # used once
        (["set-0000.tar#x/a.jpg"], ["a.jpg"], [[0, 0]], {"base name": 1}),
        (["a.jpg"], [], [], {}),
    ],
)
def test_each_photo_has_one_prediction_and_none_that_is_another_s(
    truth, predictions, pairs, by_key
):
    found, how = match(truth, predictions)
    assert (found.tolist(), how) == (pairs, by_key)
