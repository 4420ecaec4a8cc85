"""Which prediction belongs to which photo."""

import pytest

from ramctl.tagger_scores import match


@pytest.mark.parametrize(
    ("truth", "predictions", "pairs"),
    [
        (["b.jpg", "a.jpg"], ["a.jpg", "b.jpg", "c.jpg"], [[0, 1], [1, 0]]),
        (["d/x.jpg", "b.jpg"], ["b.jpg", "e/x.jpg"], [[0, 1], [1, 0]]),
        (["x/1.jpg", "y/1.jpg"], ["z/1.jpg"], []),
        (["z/1.jpg"], ["x/1.jpg", "y/1.jpg"], []),
        (["a.jpg", "x/a.png"], ["a.jpg"], [[0, 0]]),
        (["x/b.jpg", "a.jpg"], ["a.jpg", "b"], [[0, 1], [1, 0]]),
        (["a.jpg"], [], []),
    ],
    ids=["as written", "in order of the truth", "two photos of a name", "two predictions of it",
         "used once", "as written first", "none"],
)  # fmt: skip
def test_each_photo_has_one_prediction_and_none_that_is_another_s(truth, predictions, pairs):
    assert match(truth, predictions)[0].tolist() == pairs


def test_names_as_written_come_first():
    assert match(["b.jpg", "a.jpg"], ["a.jpg", "b.jpg"])[1] == {"name": 2}


@pytest.mark.parametrize(
    ("truth", "prediction"),
    [
        ("photos/a.jpg", "other/a.jpg"),
        ("set-0000.tar#a.jpg", "unpacked/a.jpg"),
        ("set-0000.tar#x/a.jpg", "a.jpg"),
        ("d/a", "imgs/d/a.jpg"),
    ],
)
def test_base_names_meet_last(truth, prediction):
    assert match([truth], [prediction])[1] == {"base name": 1}
