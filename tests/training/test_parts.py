"""Kept features, validation, thresholds, schedules, checkpoints."""

import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ramctl.errors import RunProblem
from ramctl.inference.fitting import Judged, choose_thresholds
from ramctl.model.encoder import ImageEncoder
from ramctl.model.preprocess import Preprocess
from ramctl.model.preset import AugmentConfig, load_preset
from ramctl.photos.decoding import load_photo
from ramctl.records.record import Record
from ramctl.training.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from ramctl.training.data.augmentation import TrainingPhoto, random_crop
from ramctl.training.data.features import FeatureCache, FeatureStore
from ramctl.training.data.record_file import MAX_OPEN_SOURCES, Source
from ramctl.training.data.record_scan import scan_records
from ramctl.training.data.targets import read_annotation
from ramctl.training.validation import Scored
from tests.support import n_open_files
from tests.training.conftest import DATA, training_records, write_records


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    preset = load_preset("tiny")
    return ImageEncoder(preset.model.encoder, preset.preprocess.size).eval()


PREPROCESS = load_preset("tiny").preprocess


def annotations():
    return [read_annotation(Record(row, base=DATA)) for row in training_records()]


def fill(cache: FeatureCache):
    return cache.fill(annotations(), lambda i, p: pytest.fail(str(p)), lambda n: None)


def scan(path: Path, rejects: list | None = None, *, hold_out: bool = False, **options):
    """The records of a file, of which none may be rejected unless `rejects` takes them."""
    on_reject = (lambda r: pytest.fail(str(r))) if rejects is None else rejects.append
    source = Source(path, path.name, path.parent)
    return scan_records([source], on_reject, "train", hold_out=hold_out, **options)


def test_kept_features_are_the_encoder_s_of_both_views(encoder, tmp_path):
    kept = fill(FeatureCache(tmp_path, encoder, PREPROCESS, flip=True))
    photo = Preprocess(PREPROCESS)(load_photo("photos/kite.jpg", DATA))
    for view, pixels in enumerate([photo, photo[..., ::-1].copy()]):
        with torch.no_grad():
            expected = encoder(torch.from_numpy(pixels)[None])[0].numpy()
        assert np.allclose(kept.of(3, view), expected, rtol=2e-3, atol=2e-3)


def test_features_are_computed_once_a_photo_and_encoder(encoder, tmp_path, monkeypatch):
    kept = fill(FeatureCache(tmp_path, encoder, PREPROCESS, flip=True))
    cache = FeatureCache(tmp_path, encoder, PREPROCESS, flip=True)
    monkeypatch.setattr(cache, "_encode", lambda photos: pytest.fail("computed again"))
    found = fill(cache)
    assert np.array_equal(found.rows, kept.rows)
    assert np.array_equal(found.of(0, 1), kept.of(0, 1))
    torch.manual_seed(5)
    another = ImageEncoder(load_preset("tiny").model.encoder, PREPROCESS.size).eval()
    assert len(FeatureCache(tmp_path, another, PREPROCESS, flip=True).stores[0]) == 0


def test_a_torn_feature_file_is_cut_and_continued(tmp_path):
    store = FeatureStore(tmp_path, (2, 3))
    values = np.arange(18, dtype=np.float16).reshape(3, 2, 3)
    store.append([bytes([n]) * 16 for n in range(3)], values)
    with (tmp_path / "features.f16").open("ab") as stream:
        stream.write(b"torn")
    with (tmp_path / "keys.bin").open("r+b") as stream:
        stream.truncate(40)
    store = FeatureStore(tmp_path, (2, 3))
    assert len(store) == 2
    store.append([b"x" * 16], values[:1] + 1)
    again = FeatureStore(tmp_path, (2, 3))
    assert np.array_equal(again[again.places[b"x" * 16]], values[0] + 1)
    assert np.array_equal(again[1], values[1])


def test_records_are_read_by_offset_with_their_line_numbers(tmp_path):
    path = tmp_path / "in.jsonl"
    lines = [
        '\ufeff{"image": "a", "tags": []}',
        "",
        "{bad",
        '{"image": "b", "tags": 5}',
        '{"image": "ü", "tags": ["x"]}',
    ]
    path.write_bytes("\n".join(lines).encode())
    rejects = []
    found = scan(path, rejects)
    assert [(r.line, r.code) for r in rejects] == [(3, "bad_json"), (4, "bad_field")]
    assert found.n_lines == 4
    records = [found.records[place] for place in range(2)]
    assert [(r.line, r.fields["image"]) for r in records] == [(1, "a"), (5, "ü")]


def test_of_many_input_files_few_are_open_at_a_time(tmp_path):
    sources = []
    for number in range(3 * MAX_OPEN_SOURCES):
        row = {"image": str(number), "tags": []}
        path = write_records(tmp_path / f"{number}.jsonl", [row])
        sources.append(Source(path, path.name, tmp_path))
    found = scan_records(sources, lambda r: pytest.fail(str(r)), "train", hold_out=False)
    before, limits = n_open_files(), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + MAX_OPEN_SOURCES + 5, limits[1]))
    try:
        for _ in range(2):
            read = [found.records[place].fields["image"] for place in range(len(sources))]
            assert read == [str(number) for number in range(len(sources))]
        del found
        assert n_open_files() == before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_validation_map_leaves_out_labels_that_do_not_occur_and_unknown_ones():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    scores = rng.random((40, 4)).astype(np.float32)
    truth = (rng.random((40, 4)) < 0.3).astype(np.int8)
    truth[:, 3] = 0
    truth[:5, 0] = -1
    known = truth[:, 0] >= 0
    expected = [average_precision_score(truth[known, 0], scores[known, 0])]
    expected += [average_precision_score(truth[:, c], scores[:, c]) for c in (1, 2)]
    assert Scored(scores, truth).mean_average_precision() == pytest.approx(np.mean(expected))


def test_the_last_two_checkpoints_are_kept_and_a_damaged_one_is_passed_over(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"step": step})
    first, second = list_checkpoints(tmp_path)
    said: list[str] = []
    assert load_checkpoint(tmp_path, said.append) == {"step": 3} and not said
    second.write_bytes(second.read_bytes()[:-9])
    assert load_checkpoint(tmp_path, said.append) == {"step": 2}
    assert said == [f"{second}: damaged, not used"]
    first.write_bytes(b"")
    with pytest.raises(RunProblem, match="damaged"):
        load_checkpoint(tmp_path, said.append)
    assert load_checkpoint(tmp_path / "nothing", said.append) is None


def test_random_crops_reach_every_edge_of_the_photo_and_no_further():
    photo, random = Image.new("L", (2, 2)), np.random.default_rng(0)
    photo.putdata([10, 20, 30, 40])
    crops = (random_crop(photo, (0.25, 0.25), 1, random) for _ in range(100))
    assert {crop.getpixel((0, 0)) for crop in crops} == {10, 20, 30, 40}


def test_photos_are_augmented_the_same_way_for_the_same_seed():
    photo = TrainingPhoto(PREPROCESS, AugmentConfig((0.2, 1.0), 0.5, 2, 5))
    annotation = annotations()[0]
    looks = [photo(annotation, np.random.default_rng(seed)) for seed in (1, 1, 2)]
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
    path = write_records(tmp_path / "in.jsonl", [*rows, *rows[:90]])
    found = scan(path, hold_out=True)
    held, trained = ({found.records[i].fields["image"] for i in ids.tolist()}
                     for ids in (found.held_out_ids, found.training_ids))  # fmt: skip
    assert not held & trained
    assert len(held) / n_photos == pytest.approx(share, abs=0.015)
    if share:
        assert len(found.held_out_ids) >= 50
    monkeypatch.setattr("ramctl.training.data.record_scan.MAX_HELD_OUT", 60)
    few = scan(path, hold_out=True)
    assert bool(share) * 55 <= len(few.held_out_ids) <= 60
    assert len(few.training_ids) + len(few.held_out_ids) == n_photos + 90


def test_what_scores_are_worth_is_stored_beside_thresholds_of_the_best_f1():
    rng = np.random.default_rng(0)
    worth = rng.random((400, 6))
    truth = (rng.random((400, 6)) < worth).astype(np.int8)
    judged, evidence = Judged(worth, truth == 1, truth >= 0), np.ones(6, bool)
    choice = choose_thresholds(judged, evidence, load_preset("tiny"))
    own, shared = choice.calibration.f1_thresholds(worth)
    assert np.array_equal(choice.thresholds, own) and choice.shared == shared
    assert "tags a photo" in choice.note and not choice.is_calibrated
    chosen = worth > choice.calibration.thresholds(0.8)
    assert truth[chosen].mean() == pytest.approx(0.8, abs=0.05)
    asked = choose_thresholds(judged, evidence, load_preset("tiny", ["precision=0.8"]))
    assert asked.is_calibrated
    assert np.array_equal(asked.thresholds, choice.calibration.thresholds(0.8))
    few = Judged(worth[:3], truth[:3] == 1, truth[:3] >= 0)
    for photos in (few, None):
        choice = choose_thresholds(photos, evidence, load_preset("tiny"))
        assert choice.calibration is None and set(choice.thresholds) == {choice.shared} == {0.5}
