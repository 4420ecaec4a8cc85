"""scripts/bench/pointing.py: its geometry, worked out by hand."""

import numpy as np
import pointing
import pytest


def test_boxes_are_alike_by_their_intersection_over_their_union():
    assert pointing.iou((0, 0, 0.5, 0.5), (0.25, 0, 0.75, 0.5)) == pytest.approx(1 / 3)
    assert pointing.iou((0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1)) == 0
    assert pointing.iou((0.1, 0.2, 0.5, 0.6), (0.1, 0.2, 0.5, 0.6)) == pytest.approx(1)


def test_chance_is_the_area_that_boxes_cover_together():
    boxes = [(0, 0, 0.5, 0.5), (0.25, 0.25, 0.75, 0.75)]
    assert pointing.area(boxes) == pytest.approx(0.25 + 0.25 - 0.0625)
    random = np.random.default_rng(0).random((20_000, 2))
    hits = np.mean([pointing.is_in(boxes, point) for point in random])
    assert hits == pytest.approx(pointing.area(boxes), abs=0.02)


def test_a_peak_is_the_middle_of_its_cell():
    heat = np.zeros((4, 8))
    heat[1, 6] = 1
    assert pointing.peak(heat) == (6.5 / 8, 1.5 / 4)


def test_both_halves_hold_about_as_many_photos_and_none_twice():
    halves = [pointing.half_of(f"photo-{number}.jpg") for number in range(1000)]
    assert 430 < halves.count("choice") < 570
    assert set(halves) == {"choice", "report"}
