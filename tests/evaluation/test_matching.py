"""Which prediction belongs to which photo."""

from pathlib import Path

import pytest

from ramctl.tagger_scores import Photo, match


def photos(*names: str, base: str = "") -> list[Photo]:
    return [Photo(name, Path(base)) for name in names]


def test_names_as_written_come_first():
    pairs, by_key = match(photos("b.jpg", "a.jpg"), photos("a.jpg", "b.jpg", "c.jpg"))
    assert pairs.tolist() == [[0, 1], [1, 0]]
    assert by_key == {"image": 2}


@pytest.mark.parametrize(
    ("truth", "prediction"),
    [
        (Photo("photos/a.jpg", Path("data")), Photo("data/photos/a.jpg", Path())),
        (Photo("set.tar#a.jpg", Path("/data")), Photo("/data/x/../set.tar#a.jpg", Path("/out"))),
        (Photo("./photos//a.jpg", Path("here")), Photo("photos/a.jpg", Path("there"))),
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


def test_a_base_name_that_is_not_unique_matches_nothing():
    assert match(photos("x/1.jpg", "y/1.jpg"), photos("z/1.jpg"))[0].tolist() == []
    assert match(photos("z/1.jpg"), photos("x/1.jpg", "y/1.jpg"))[0].tolist() == []


def test_no_prediction_is_used_twice():
    pairs, _ = match(photos("a.jpg", "x/a.png"), photos("a.jpg"))
    assert pairs.tolist() == [[0, 0]]


def test_a_prediction_that_met_its_photo_is_no_other_photos_too():
    truth = [Photo("a.jpg", Path("/x")), Photo("../y/a.jpg", Path("/x"))]
    assert match(truth, [Photo("a.jpg", Path("/y"))])[0].tolist() == [[0, 0]]


def test_pairs_are_in_the_order_of_the_truth():
    pairs, _ = match(photos("d/x.jpg", "b.jpg"), photos("b.jpg", "e/x.jpg"))
    assert pairs.tolist() == [[0, 1], [1, 0]]
