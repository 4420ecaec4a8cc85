"""`clean` as a whole: every line comes out, tags go only with a reason, nothing else changes."""

import json
from collections import Counter

import numpy as np
import pytest

from ramctl.checkpoints.bundle import embedded_bundle
from ramctl.data_engine import model_rule
from ramctl.data_engine import tags as tags_module
from ramctl.data_engine.cleaning import cleaned
from ramctl.data_engine.region_store import REGION, Decisions, RegionStore
from ramctl.data_engine.tags import implied_ids
from ramctl.records.labels import Label, Labels
from ramctl.records.record import Record
from tests.support import lines

PAPER = ("--rule", "paper")
ALL = (*PAPER, "--outliers", 0, "--threshold", 1)  # of objects and scenes


@pytest.fixture
def records(photo_records):
    """Three rounds over the photos with differing tags, so that every label has regions enough."""
    rows = []
    for turn in range(3):
        for row in photo_records:
            tags = row["tags"][turn:] + ["man"] * (turn == 1) + ["no such label"] * (turn == 2)
            kinds = {tag: kind for tag, kind in row["kinds"].items() if tag in tags}
            rows.append({**row, "id": len(rows), "tags": tags, "kinds": kinds})
    return rows


def removed(rows):
    return [entry for row in rows for entry in row.get("removed", [])]


def test_by_the_paper_tags_go_only_with_a_reason_and_nothing_else_changes(clean, records):
    done = clean(*PAPER, "--threshold", 0.48, stdin=lines(records))
    out = done.rows
    assert [row["id"] for row in out] == [row["id"] for row in records]
    for given, row in zip(records, out, strict=True):
        gone = [entry["tag"] for entry in row.get("removed", [])]
        assert [tag for tag in given["tags"] if tag not in gone] == row["tags"]
        assert set(gone) <= set(given["tags"])
        assert set(row["kinds"]) == set(row["tags"]) & set(given["kinds"])
        assert row["mine"] == given["mine"]
    for entry in removed(out):
        assert set(entry) == {"tag", "reason", "box", "score", "distance"}
        assert entry["reason"] == "outlier" or entry["score"] <= 0.48
        assert entry["distance"] > 0
        x0, y0, x1, y1 = entry["box"]
        assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
    # A tenth, rounded down, of each tag's regions.
    n_regions = [sum(tag in row["tags"] for row in records) for tag in ("horse", "field", "sky")]
    reasons = [entry["reason"] for entry in removed(out)]
    assert reasons.count("outlier") == sum(n // 10 for n in n_regions)
    n_low = reasons.count("not-predicted")
    n_all = sum(n_regions) + 8  # men
    summary = f"{len(reasons)} of {n_all} tags removed: {n_low} not-predicted, "
    assert n_low and summary in done.stderr.decode()


def test_thresholds_are_the_model_s_or_a_file_s(clean, records, tmp_path):
    paper = [*PAPER, "--outliers", 0]
    by_default = clean(*paper, stdin=lines(records))
    assert by_default.rows == clean(*paper, "--threshold", 0.5, stdin=lines(records)).rows
    low = [{"tag": tag, "threshold": 0} for tag in ("field", "sky", "man")]
    (tmp_path / "t.jsonl").write_bytes(lines([*low, {"tag": "horse", "threshold": 1}]))
    done = clean(*paper, "--threshold", "t.jsonl", stdin=lines(records))
    assert {entry["tag"] for entry in removed(done.rows)} == {"horse"}


@pytest.mark.parametrize("rule", [ALL, ("--kinds", "all")])
def test_tags_of_persons_stay(clean, records, rule, monkeypatch, tmp_path):
    monkeypatch.setattr(model_rule, "MENTIONED", -9.0)
    for row in records:
        row["sources"] = {tag: ["human"] if tag == "horse" else ["parsed"] for tag in row["tags"]}
    done = clean(*rule, stdin=lines(records))
    gone = [entry["tag"] for entry in removed(done.rows)]
    kinds = {"red"} if "all" in rule else set()
    assert set(gone) == {"field", "sky", "man"} | kinds
    assert f"{len(gone)} of {len(gone) + 8} tags removed".encode() in done.stderr


def test_by_the_model_improbable_tags_go_and_the_entry_has_the_photo_s_score(
    clean, records, monkeypatch
):
    """A caption's word alone outweighs a model that does not know; generated tags have no such."""
    for row in records:
        row["sources"] = {
            tag: ["generated-tag" if tag == "sky" else "parsed"] for tag in row["tags"]
        }
    by_default = clean(stdin=lines(records))
    assert all("removed" not in row for row in by_default.rows)  # the model is not that sure
    assert b"0 of 80 tags removed: --rule paper removes more" in by_default.stderr
    monkeypatch.setattr(model_rule, "MIN_PROBABILITY", 0.6)
    entries = removed(clean(stdin=lines(records)).rows)
    facts = {(entry["tag"], entry["reason"], entry["distance"]) for entry in entries}
    assert facts == {("sky", "improbable", None)}
    assert all(entry["score"] < 0.6 for entry in entries)


def test_rejects_come_in_their_places_and_temporary_files_go(clean, records, tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", None)
    given = [*lines(records[:2]).splitlines(True), b"{oops\n", lines([{"image": "none.jpg"}])]
    stdin = b"".join([*given, lines(records[2:3])])
    done = clean("--rejects", "r.jsonl", stdin=stdin, code=3)
    assert [row["id"] for row in done.rows] == [0, 1, 2]
    rejects = [json.loads(line) for line in (tmp_path / "r.jsonl").open()]
    assert [(row["line"], row["code"]) for row in rejects] == [
        (3, "bad_json"), (4, "missing_image"),
    ]  # fmt: skip
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.slow
@pytest.mark.shared
def test_real_photos_lose_things_that_their_captions_made_up(command, shared):
    """160 photos of Flickr8k, parsed from one caption, with dogs that another caption has."""
    data = shared / "data"
    texts = (data / "photos" / "flickr8k-train.jsonl").read_text("utf-8").splitlines()[:160]
    rows = [json.loads(text) for text in texts]
    has_dog = [any("dog" in caption.lower() for caption in row["captions"]) for row in rows]
    one = [{"image": row["image"], "captions": row["captions"][:1]} for row in rows]
    labels = embedded_bundle() / "labels.jsonl"
    parsed = command("parse", "--labels", labels, stdin=lines(one)).rows
    made_up = [n for n in range(160) if not has_dog[n]][::3]
    for number in made_up:
        row = parsed[number]
        row["tags"].append("dog")
        row["kinds"]["dog"], row["sources"]["dog"] = "object", ["generated-tag"]
    out = command("clean", "--root", data / "photos", stdin=lines(parsed)).rows
    lost = [{entry["tag"] for entry in row.get("removed", [])} for row in out]
    assert sum("dog" in lost[number] for number in made_up) >= 0.9 * len(made_up)
    assert not any("dog" in lost[n] for n in range(160) if has_dog[n])
    n_named = sum(len(row["tags"]) for row in parsed) - len(made_up)
    n_lost = sum(map(len, lost)) - sum("dog" in lost[n] for n in made_up)
    assert n_lost <= 0.03 * n_named  # captions are right


PEOPLE = Labels([
    Label("boy", parents=("child", "person")), Label("child", parents=("person",)),
    Label("person"), Label("sky"),
])  # fmt: skip


@pytest.fixture
def store():
    """Two inputs with a region for each of four tags."""
    store = RegionStore()
    for _ in range(2):
        regions = np.zeros(4, REGION)
        regions["place"], regions["log_odds"] = range(4), [0, 1, 2, 3]
        store.add(Record({}), regions, np.ones((4, 2), np.float16))
    return store


@pytest.mark.parametrize(
    ("lost", "stays"),
    [
        (["person", "sky"], ["boy", "child", "person"]),
        (["child", "person"], ["boy", "child", "person", "sky"]),
        (["boy", "person"], ["child", "person", "sky"]),  # by the child
        (["boy", "child", "person"], ["sky"]),
    ],
)
def test_what_other_tags_imply_stays_beside_them(lost, stays, store):
    reasons = np.array(["outlier" if tag in lost else "" for tag in PEOPLE.tags] * 2)
    decisions = Decisions(reasons, np.full(8, np.nan))
    row = cleaned(Record({"tags": PEOPLE.tags}, key="0"), store, PEOPLE, decisions, Counter())
    assert row["tags"] == stays
    assert {entry["tag"] for entry in row.get("removed", [])} == set(PEOPLE.tags) - set(stays)


def test_labels_without_parents_have_those_of_the_embedded_model(monkeypatch):
    built = Labels.from_tags(["boy", "person"])  # as `train` builds them of tags
    monkeypatch.setattr(tags_module, "known_labels", lambda: PEOPLE)
    assert implied_ids(["boy"], built) == {1}
    assert implied_ids(["person", "unheard of"], built) == set()


def test_a_record_loses_its_tags_with_reasons_and_keeps_earlier_ones(store):
    store.regions["is_human"][5] = True
    reasons = np.array([""] * 5 + ["outlier", "outlier", ""])
    decisions, counts = Decisions(reasons, np.full(8, 0.33336)), Counter()
    tags = ["horse", "sky", "tree", "man"]
    fields = {
        "tags": tags, "sources": {tag: ["parsed"] for tag in tags}, "removed": [{"tag": "old"}],
    }  # fmt: skip
    row = cleaned(Record(fields, key="1"), store, Labels(), decisions, counts)
    assert row["tags"] == list(row["sources"]) == ["horse", "sky", "man"]
    assert row["removed"] == [
        {"tag": "old"},
        {"tag": "tree", "reason": "outlier", "box": [0.0] * 4, "score": 0.8808,
         "distance": 0.3334},
    ]  # fmt: skip
    assert counts == {"outlier": 1}
