"""`finetune --thresholds`: what a person kept and took out moves thresholds, and nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binomtest

from ramctl.calibration import CORRECTION_RIDGE, Calibration, log_odds_of, sigmoid
from ramctl.checkpoints.bundle import Bundle, embedded_bundle
from ramctl.training.corrections import moved, wilson
from tests.conftest import REPOSITORY

PHOTOS = REPOSITORY / "tests" / "data" / "photos"


def test_corrections_are_the_most_likely_ones():
    random = np.random.default_rng(0)
    n, n_labels = 40, 6
    slopes, offsets = random.uniform(0.5, 2, n_labels), random.normal(0, 1, n_labels)
    offsets[5] = np.nan  # never given
    none = np.zeros(n_labels)
    calibration = Calibration(1, 0, slopes, offsets, none, none, ())
    scores = random.random((n, n_labels))
    known, right = random.random((2, n, n_labels)) < 0.6
    right[:, 1] = False  # always refused
    known[:, 2] = False  # nobody said anything of it
    _, labels = np.nonzero(known)
    added = calibration.corrections(labels, scores[known], right[known])

    def unlikely(own, label):
        z = slopes[label] * log_odds_of(scores[:, label]) + offsets[label] + own[0]
        p, k, r = sigmoid(z), known[:, label], right[:, label]
        lost = -np.log(np.where(r, p, 1 - p))[k].sum()
        return lost + CORRECTION_RIDGE * own[0] ** 2 / 2

    best = [minimize(unlikely, [0.0], (label,)).x[0] for label in range(5)]
    assert added[:5] == pytest.approx(best, abs=1e-3)
    assert added[2] == added[5] == 0
    assert added[1] == min(added)


def test_a_threshold_moves_to_where_a_tag_is_as_likely_right_as_before():
    slopes, added = np.array([1.0, 2.0, 1.0, 1.0]), np.array([0.0, -1.0, 3.0, -2.0])
    before, floors = np.array([0.3, 0.6, 0.6, 1.0]), np.array([0.0, 0.0, 0.5, 0.0])
    after = moved(before, added, slopes, floors)
    assert after[0] == 0.3 and after[3] == 1.0
    worth = slopes * log_odds_of(before)
    assert slopes[1] * log_odds_of(after[1]) + added[1] == pytest.approx(worth[1])
    assert after[2] == 0.5  # no lower than its floor


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (4, 5), (90, 100), (7, 7)])
def test_wilsons_interval(hits, n):
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits, n) == pytest.approx((expected.low, expected.high), abs=1e-4)
    assert wilson(0, 0) == (0, 1)


@pytest.fixture
def judged(ramctl, tmp_path, monkeypatch):
    """Tags of photos, of which the first of each is refused, and all others are kept."""
    monkeypatch.chdir(tmp_path)
    out = ramctl("tag", "-q", *sorted(map(str, PHOTOS.glob("*.jpg")))).stdout
    records = [json.loads(line) for line in out.splitlines()]
    records = [record for record in records if len(record["tags"]) > 1]
    refused = records[0]["tags"][0]
    for record in records:
        tags = record.pop("tags")
        record["confirmed"] = [tag for tag in tags if tag != refused]
        record["refused"] = [tag for tag in tags if tag == refused]
    Path("judged.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return refused, records


def test_refused_tags_need_more_and_all_else_stays(ramctl, judged):
    refused, records = judged
    done = ramctl("finetune", "--thresholds", "judged.jsonl", "--out", "mine")
    assert done.returncode == 0, done.messages
    n = sum(len(r["confirmed"]) + len(r["refused"]) for r in records)
    n_refused = sum(len(r["refused"]) for r in records)
    said = f"decisions: {n - n_refused} kept, {n_refused} refused; photos: {len(records)}"
    assert said in done.messages
    assert f"on held-out photos: before, {n - n_refused} of {n} tags right" in done.messages
    before, after = Bundle.open(embedded_bundle()), Bundle.open(Path("mine"), verify=True)
    shown = {tag for r in records for tag in [*r["confirmed"], *r["refused"]]}
    for old, new in zip(before.labels, after.labels, strict=True):
        if old.tag not in shown:
            assert new == old
    (index,) = before.labels.ids(refused)
    assert after.thresholds[index] > before.thresholds[index]
    assert after.calibration.offsets[index] < before.calibration.offsets[index]
    for name in ("model.safetensors", "model.onnx", "model.int8.onnx", "tokenizer.json"):
        assert (after.path / name).read_bytes() == (before.path / name).read_bytes()
    assert after.meta["provenance"]["commands"][-1].startswith("ramctl finetune --thresholds")
    again = ramctl("tag", "-q", "--model", "mine", *(r["image"] for r in records)).stdout
    given = [json.loads(line)["tags"] for line in again.splitlines()]
    n_given = sum(refused in tags for tags in given)
    assert n_given < n_refused
    # A second sitting starts from what the first one learnt.
    done = ramctl("finetune", "--thresholds", "--model", "mine", "judged.jsonl", "--out", "mine")
    assert done.returncode == 0, done.messages
    assert Bundle.open(Path("mine")).thresholds[index] > after.thresholds[index]


def test_what_cannot_be_learnt_from_is_said(ramctl, judged, tmp_path):
    def said(code, *words):
        done = ramctl("finetune", "--thresholds", *words, "--out", "mine")
        assert done.returncode == code and not Path("mine").exists()
        return done.messages

    Path("none.jsonl").write_text('{"image": "a.jpg", "tags": ["dog"]}\n')
    assert "no record has confirmed or refused tags" in said(1, "none.jsonl")
    assert "--thresholds trains nothing: it goes without --epochs" in said(
        2, "none.jsonl", "--epochs=2"
    )
    Path("bad.jsonl").write_text('{"image": "a.jpg", "refused": 3}\n')
    assert "bad.jsonl:1: refused" in said(1, "bad.jsonl")


def test_photos_that_are_gone_are_rejected(ramctl, judged):
    lost = json.dumps({"image": "gone.jpg", "confirmed": ["dog"]})
    Path("in.jsonl").write_text(Path("judged.jsonl").read_text() + lost + "\n")
    done = ramctl("finetune", "--thresholds", "in.jsonl", "--out", "mine", "--rejects", "r.jsonl")
    assert done.returncode == 3 and "gone.jpg" in done.messages
    assert json.loads(Path("r.jsonl").read_text())["code"] == "missing_image"
    assert Path("mine/bundle.json").exists()


def test_a_bundle_that_does_not_know_what_its_scores_are_worth_is_named(
    ramctl, judged, tiny_bundle
):
    done = ramctl(
        "finetune", "--thresholds", "--model", tiny_bundle, "judged.jsonl", "--out", "mine"
    )
    assert done.returncode == 1 and "calibration" in done.messages
