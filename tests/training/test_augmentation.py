"""Training photos: the authors' operations, random crops, the loader of tagging."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from ramctl.model.preset import AugmentConfig, load_preset
from ramctl.training.augmentation import OPERATIONS, UNCHANGED, TrainingPhoto, random_crop
from tests.training.conftest import DATA

BY_HALF = {"ShearX", "ShearY", "Rotate"}  # another interpolation than OpenCV's


@pytest.mark.shared
def test_operations_do_what_the_authors_do(shared):
    recorded = np.load(shared / "parity" / "augment_expected.npz")
    photo = Image.fromarray(recorded["input"])
    for name, operation in OPERATIONS.items():
        for sign, direction in (("pos", 1.0), ("neg", -1.0)):
            if name == "AutoContrast" or f"{name}.{sign}" not in recorded.files:
                continue
            # OpenCV's direction of shears and rotations.
            magnitude = 0.5 * direction * (-1 if name in BY_HALF else 1)
            ours = np.asarray(operation(photo, magnitude)).astype(int)
            difference = np.abs(ours - recorded[f"{name}.{sign}"])
            if name in BY_HALF:
                assert difference.mean() < 3 and (difference > 8).mean() < 0.03, name
            else:
                assert difference.max() == 0, name
    # Theirs whitens photos.
    stretched = np.asarray(OPERATIONS["AutoContrast"](photo, 0))
    assert (stretched.min(), stretched.max()) == (0, 255)


def test_a_random_crop_has_its_area_and_any_shape_from_3_4_to_4_3_anywhere():
    x, y = np.meshgrid(*[np.arange(256, dtype=np.uint8)] * 2)  # each pixel shows where it was
    photo, random = Image.fromarray(np.stack([x, y, y], -1)), np.random.default_rng(0)
    crops = np.array([random_crop(photo, (0.25, 0.25), 32, random) for _ in range(500)], int)
    first, last = crops[:, 4, 4, :2].T, crops[:, 28, 28, :2].T
    width, height = (last - first) * 32 / 24
    assert width * height == pytest.approx(128**2, rel=0.04)
    widest, aspects = np.log(4 / 3), np.log(width / height)
    assert (aspects.min(), aspects.max()) == pytest.approx((-widest, widest), abs=0.03)
    assert (first.min(1) < 20).all() and (last.max(1) > 238).all()


def test_photos_are_augmented_the_same_way_for_the_same_seed():
    photo = TrainingPhoto(load_preset("tiny").preprocess, AugmentConfig((0.2, 1.0), 0.5, 2, 5))
    looks = [photo("photos/kite.jpg", DATA, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert looks[0].shape == (3, 64, 64) and np.array_equal(looks[0], looks[1])
    assert not np.array_equal(looks[0], looks[2])


@pytest.mark.parametrize(("loader", "expected"), [("official", (255, 0, 0)), ("fast", (255,) * 3)])
def test_photos_are_read_in_training_as_in_tagging(tmp_path, loader, expected):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    changes = {"size": 8, "loader": loader, "mean": (0.0,) * 3, "std": (1 / 255,) * 3}
    preprocess = dataclasses.replace(load_preset("ram-swin-b").preprocess, **changes)
    photo = TrainingPhoto(preprocess, UNCHANGED)("clear.png", tmp_path, np.random.default_rng(0))
    assert np.round(photo[:, 4, 4]).tolist() == list(expected)
