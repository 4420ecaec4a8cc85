"""`finetune --thresholds`: what a person kept and took out moves thresholds, and nothing else."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binomtest

from ramctl.checkpoints.bundle import Bundle, embedded_bundle
from ramctl.inference.calibration import Calibration
from ramctl.inference.fitting import CORRECTION_RIDGE, correct_offsets
from ramctl.inference.log_odds import log_odds_of, sigmoid
from ramctl.inference.thresholds import thresholds_of as bundle_thresholds
from ramctl.training.learn_thresholds import moved, wilson
from tests.training.conftest import DATA, read_rows, write_records


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
    added = correct_offsets(calibration, labels, scores[known], right[known])

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
    before, min_scores = np.array([0.3, 0.6, 0.6, 1.0]), np.array([0.0, 0.0, 0.5, 0.0])
    calibration = Calibration(1, 0, slopes, np.zeros(4), min_scores, np.zeros(4), ())
    after = moved(before, added, calibration)
    assert after[0] == 0.3 and after[3] == 1.0
    worth = slopes * log_odds_of(before)
    assert slopes[1] * log_odds_of(after[1]) + added[1] == pytest.approx(worth[1])
    assert after[2] == 0.5  # no lower than its lowest score


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (4, 5), (90, 100), (7, 7)])
def test_wilsons_interval(hits, n):
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits, n) == pytest.approx((expected.low, expected.high), abs=1e-4)
    assert wilson(0, 0) == (0, 1)


@pytest.fixture
def judged(command):
    """Tags of photos, of which the one that is given most often is refused, all others kept."""
    tagged = command("tag", "-q", *sorted(DATA.glob("p*s/*.jpg"))).rows
    records = [record for record in tagged if len(record["tags"]) > 1]
    refused = Counter(tag for record in records for tag in record["tags"]).most_common(1)[0][0]
    for record in records:
        tags = record.pop("tags")
        record["confirmed"] = [tag for tag in tags if tag != refused]
        record["refused"] = [tag for tag in tags if tag == refused]
    write_records(Path("judged.jsonl"), records)
    return refused, records


def test_refused_tags_need_more_and_all_else_stays(command, judged):
    refused, records = judged
    done = command("finetune", "--thresholds", "judged.jsonl", "--out", "mine")
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
    assert bundle_thresholds(after)[index] > bundle_thresholds(before)[index]
    offsets = [Calibration.from_bundle(bundle).offsets[index] for bundle in (before, after)]
    assert offsets[1] < offsets[0]
    for name in ("model.safetensors", "model.onnx", "model.int8.onnx", "tokenizer.json"):
        assert (after.path / name).read_bytes() == (before.path / name).read_bytes()
    assert after.meta["provenance"]["commands"][-1].startswith("ramctl finetune --thresholds")
    again = command("tag", "-q", "--model", "mine", *(r["image"] for r in records)).rows
    assert sum(refused in row["tags"] for row in again) < n_refused
    # A second sitting starts from what the first one learnt.
    command("finetune", "--thresholds", "--model", "mine", "judged.jsonl", "--out", "mine")
    further = bundle_thresholds(Bundle.open(Path("mine")))
    assert further[index] > bundle_thresholds(after)[index]


def test_the_effect_is_told_of_photos_that_nothing_was_learnt_from(command):
    """Each refused tag is one photo's alone: what is learnt of it changes no other photo."""
    tagged = command("tag", "-q", *sorted(DATA.glob("p*s/*.jpg"))).rows
    n_photos = Counter(tag for record in tagged for tag in record["tags"])
    refused = {r["image"]: [tag for tag in r["tags"] if n_photos[tag] == 1] for r in tagged}
    write_records(Path("judged.jsonl"), [{"image": i, "refused": t} for i, t in refused.items()])
    done = command("finetune", "--thresholds", "judged.jsonl", "--out", "mine")
    n = sum(map(len, refused.values()))
    assert re.search(rf"held-out photos: before, 0 of {n} .* after, 0 of {n} tags", done.messages)
    again = command("tag", "-q", "--model", "mine", *refused).rows
    assert sum(tag in refused[row["image"]] for row in again for tag in row["tags"]) < n


def test_what_cannot_be_learnt_from_is_said(command, judged, tiny_bundle):
    Path("none.jsonl").write_text('{"image": "a.jpg", "tags": ["dog"]}\n')
    Path("bad.jsonl").write_text('{"image": "a.jpg", "refused": 3}\n')
    for code, words, message in (
        (1, ["none.jsonl"], "no record has confirmed or refused tags"),
        (2, ["none.jsonl", "--epochs=2"], "leave out --epochs"),
        (1, ["bad.jsonl"], "bad.jsonl:1: refused"),
        (1, ["judged.jsonl", "--model", tiny_bundle], "calibration"),
    ):
        done = command("finetune", "--thresholds", *words, "--out", "mine", code=code)
        assert message in done.messages and not Path("mine").exists()


def test_photos_that_are_gone_are_rejected(command, judged):
    write_records(Path("in.jsonl"), [*judged[1], {"image": "gone.jpg", "confirmed": ["dog"]}])
    options = ["--out", "mine", "--rejects", "r.jsonl"]
    done = command("finetune", "--thresholds", "in.jsonl", *options, code=3)
    assert "gone.jpg" in done.messages
    assert [reject["code"] for reject in read_rows("r.jsonl")] == ["missing_image"]
    assert Path("mine/bundle.json").exists()


def thresholds_of(command, rows, *, kept: int, refused: int) -> list[float]:
    """The thresholds that records give, which hold so many decisions."""
    write_records(Path("rows.jsonl"), rows)
    done = command("finetune", "--thresholds", "rows.jsonl", "--out", "of-rows")
    assert f"decisions: {kept} kept, {refused} refused" in done.messages
    both = re.search("([0-9]+) decisions ignored: the tag was both kept and refused", done.messages)
    return [*bundle_thresholds(Bundle.open(Path("of-rows"))), int(both[1]) if both else 0]


@pytest.fixture
def row(command):
    """A photo of which a tag was kept and another one refused."""
    (tagged,) = command("tag", "-q", DATA / "photos" / "horses.jpg").rows
    kept, refused = tagged["tags"][:2]
    return {"image": tagged["image"], "confirmed": [kept], "refused": [refused]}


def test_a_photo_that_is_listed_many_times_counts_once(command, row):
    once = thresholds_of(command, [row], kept=1, refused=1)
    assert thresholds_of(command, [row] * 50, kept=1, refused=1) == once
    other = row | {"image": str(Path(row["image"]).parent / "." / ".." / "photos" / "horses.jpg")}
    halves = [{**row, "refused": []}, {**other, "confirmed": []}]
    assert thresholds_of(command, halves, kept=1, refused=1) == once


def test_decisions_about_tags_in_another_language_count_as_in_english(command, row):
    once = thresholds_of(command, [row], kept=1, refused=1)
    names = {label.tag: label.names["de"] for label in Bundle.open(embedded_bundle()).labels}
    other = {key: [names[tag] for tag in row[key]] for key in ("confirmed", "refused")}
    language = {"image": row["image"], "tag_language": "de"}
    assert thresholds_of(command, [other | language], kept=1, refused=1) == once


def test_a_tag_that_was_both_kept_and_refused_counts_neither_way(command, row):
    both = row["confirmed"][0]
    without = thresholds_of(command, [{**row, "confirmed": []}], kept=0, refused=1)
    in_one = [row | {"refused": [*row["refused"], both]}]
    in_two = [row, {**row, "refused": [both], "confirmed": []}]
    for rows in (in_one, in_two, in_two[::-1]):
        found = thresholds_of(command, rows, kept=0, refused=1)
        assert (found[:-1], found[-1]) == (without[:-1], 1)


def test_each_record_of_a_photo_that_is_gone_is_rejected(command, row):
    gone = row | {"image": "gone.jpg"}
    write_records(Path("in.jsonl"), [gone, row, gone, row])
    options = ["--out", "mine", "--rejects", "r.jsonl"]
    done = command("finetune", "--thresholds", "in.jsonl", *options, code=3)
    assert "decisions: 1 kept, 1 refused; photos: 1" in done.messages
    rejects = [(reject["line"], reject["code"]) for reject in read_rows("r.jsonl")]
    assert sorted(rejects) == [(1, "missing_image"), (3, "missing_image")]
