"""Which prediction belongs to which photo."""

from pathlib import Path

import pytest

from ramctl.tagger_scores import PhotoName, match


def photos(*names: str, base: str = "") -> list[PhotoName]:
    return [PhotoName(name, Path(base)) for name in names]


@pytest.mark.parametrize(
    ("truth", "predictions", "pairs"),
    [
        (photos("b.jpg", "a.jpg"), photos("a.jpg", "b.jpg", "c.jpg"), [[0, 1], [1, 0]]),
        (photos("d/x.jpg", "b.jpg"), photos("b.jpg", "e/x.jpg"), [[0, 1], [1, 0]]),
        (photos("x/1.jpg", "y/1.jpg"), photos("z/1.jpg"), []),
        (photos("z/1.jpg"), photos("x/1.jpg", "y/1.jpg"), []),
        (photos("a.jpg", "x/a.png"), photos("a.jpg"), [[0, 0]]),
        (photos("a.jpg", "../y/a.jpg", base="/x"), photos("a.jpg", base="/y"), [[0, 0]]),
    ],
    ids=["as written", "in order of the truth", "two photos of a name", "two predictions of it",
         "used once", "used once, as written"],
)  # fmt: skip
def test_each_photo_has_one_prediction_and_none_that_is_another_s(truth, predictions, pairs):
    assert match(truth, predictions)[0].tolist() == pairs


def test_names_as_written_come_first():
    assert match(photos("b.jpg", "a.jpg"), photos("a.jpg", "b.jpg"))[1] == {"image": 2}


@pytest.mark.parametrize(
    ("truth", "prediction"),
    [
        (PhotoName("photos/a.jpg", Path("data")), PhotoName("data/photos/a.jpg", Path())),
        (
            PhotoName("set.tar#a.jpg", Path("/data")),
            PhotoName("/data/x/../set.tar#a.jpg", Path("/out")),
        ),
        (PhotoName("./photos//a.jpg", Path("here")), PhotoName("photos/a.jpg", Path("there"))),
    ],
)
def test_paths_meet_after_normalising(truth, prediction):
    assert match([truth], [prediction])[1] == {"path": 1}


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
    assert match(photos(truth), photos(prediction))[1] == {"name": 1}
