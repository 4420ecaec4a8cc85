"""Records by number, kept features, held-out photos, random crops, validation."""

import numpy as np
import pytest
import torch
from PIL import Image

from ramctl.model.encoder import ImageEncoder
from ramctl.model.preprocess import Preprocess
from ramctl.model.preset import AugmentConfig, load_preset
from ramctl.photos.decoding import load_photo
from ramctl.training import features
from ramctl.training.annotations import Records, read_records
from ramctl.training.augmentation import TrainingPhoto, random_crop
from tests.training.conftest import DATA, training_records, write_records

PREPROCESS = load_preset("tiny").preprocess


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return ImageEncoder(load_preset("tiny").model.encoder, PREPROCESS.size).eval()


def read(tmp_path, rows, rejects=None, **options) -> Records:
    """The records of some rows, of which none may be rejected unless `rejects` takes them."""
    on_reject = (lambda r: pytest.fail(str(r))) if rejects is None else rejects.append
    path = tmp_path / "in.jsonl"
    if isinstance(rows, bytes):
        path.write_bytes(rows)
    else:
        write_records(path, rows)
    target = tmp_path / "records.jsonl"
    return read_records(target, [str(path)], str(DATA), on_reject, "train", **options)


def fill(records, encoder, *, flip=True):
    return features.photo_features(records, encoder, PREPROCESS, lambda n: None, flip=flip)


def test_kept_features_are_the_encoder_s_of_both_views(encoder, tmp_path):
    kept, problems = fill(read(tmp_path, training_records()), encoder)
    photo = Preprocess(PREPROCESS)(load_photo("photos/kite.jpg", DATA))
    for view, pixels in enumerate([photo, photo[..., ::-1].copy()]):
        with torch.no_grad():
            expected = encoder(torch.from_numpy(pixels)[None])[0].numpy()
        assert np.allclose(kept[3, view], expected, rtol=2e-3, atol=2e-3)
    assert not problems


def test_features_that_are_there_stay_and_unreadable_photos_are_reported_again(
    encoder, tmp_path, monkeypatch
):
    rows = training_records()
    rows.insert(1, {**rows[0], "image": "nowhere.jpg"})
    records = read(tmp_path, rows)
    kept, problems = fill(records, encoder, flip=False)
    assert {index: why.code for index, why in problems.items()} == {1: "missing_image"}
    whole, path = np.array(kept), records.path.with_suffix(".f16")
    path.write_bytes(path.read_bytes()[: 2 * whole[:5].size + 7])  # a torn row at its end
    read_again, photo = [], TrainingPhoto.__call__
    monkeypatch.setattr(TrainingPhoto, "__call__", lambda *a: read_again.append(a[1]) or photo(*a))
    kept, problems = fill(records, encoder, flip=False)
    assert list(problems) == [1]
    assert read_again == [*(row["image"] for row in rows[5:]), "nowhere.jpg"]
    np.testing.assert_allclose(kept, whole, rtol=2e-3, atol=2e-3)


def test_records_are_read_by_number_with_their_lines_and_bad_ones_rejected(tmp_path):
    lines = [
        '\ufeff{"image": "a", "tags": []}', "", "{bad", '{"image": "b", "tags": 5}',
        '{"image": "ü", "tags": ["x"], "captions": ["an x"], "main": ["x"]}',
    ]  # fmt: skip
    rejects = []
    found = read(tmp_path, "\n".join(lines).encode(), rejects)
    assert [(r.line, r.code) for r in rejects] == [(3, "bad_json"), (4, "bad_field")]
    assert (found.n_lines, len(found)) == (4, 2)
    notes = [found[place] for place in range(2)]
    assert [(n.line, n.image, n.main) for n in notes] == [(1, "a", None), (5, "ü", ("x",))]
    assert [caption.text for caption in notes[1].captions] == ["an x"]
    assert found.base(notes[0]) == DATA


def test_random_crops_reach_every_edge_of_the_photo_and_no_further():
    photo, random = Image.new("L", (2, 2)), np.random.default_rng(0)
    photo.putdata([10, 20, 30, 40])
    crops = (random_crop(photo, (0.25, 0.25), 1, random) for _ in range(100))
    assert {crop.getpixel((0, 0)) for crop in crops} == {10, 20, 30, 40}


def test_photos_are_augmented_the_same_way_for_the_same_seed():
    photo = TrainingPhoto(PREPROCESS, AugmentConfig((0.2, 1.0), 0.5, 2, 5))
    looks = [photo("photos/kite.jpg", DATA, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert looks[0].shape == (3, 64, 64)
    assert np.array_equal(looks[0], looks[1])
    assert not np.array_equal(looks[0], looks[2])


@pytest.mark.parametrize(
    ("n_photos", "share"), [(300, 0), (700, 0.1), (1500, 0.08), (3000, 0.04), (9000, 0.02)]
)
def test_as_many_photos_are_held_out_as_thresholds_need_and_no_more(
    tmp_path, monkeypatch, n_photos, share
):
    rows = [{"image": f"/nowhere/{n}.jpg", "tags": ["dog"]} for n in range(n_photos)]
    rows += rows[:90]
    found = read(tmp_path, rows, hold_out=True)
    held, trained = (
        {found[i].image for i in np.flatnonzero(which).tolist()}
        for which in (found.held_out, ~found.held_out)
    )
    assert not held & trained
    assert len(held) / n_photos == pytest.approx(share, abs=0.015)
    if share:
        assert found.held_out.sum() >= 50
    monkeypatch.setattr("ramctl.training.annotations.MAX_HELD_OUT", 60)
    few = read(tmp_path, rows, hold_out=True).held_out
    assert bool(share) * 55 <= few.sum() <= 60
    assert len(few) == n_photos + 90
