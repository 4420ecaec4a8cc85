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
from tests.inference.peers.support import bert_base_tokenizer, save_port
from tests.support import lines, read_rows

PAPER = ("--rule", "paper")
ALL = (*PAPER, "--outliers", 0, "--threshold", 1)  # of objects and scenes


@pytest.fixture
def records(photo_records):
    """Three rounds over the photos with differing tags, so that every label has regions enough."""
    rows = []
    for turn in range(3):
        for row in photo_records:
            tags = row["tags"][turn:] + ["man"] * (turn == 1) + ["no such label"] * (turn == 2)
            of_tags = {
                name: {tag: value for tag, value in row[name].items() if tag in tags}
                for name in ("kinds", "sources")
            }
            rows.append({**row, "id": len(rows), "tags": tags, **of_tags})
    return rows


def removed(rows):
    return [entry for row in rows for entry in row.get("removed", [])]


def test_by_the_paper_tags_go_only_with_a_reason_and_nothing_else_changes(clean, records, tmp_path):
    """Unusable records are rejected in their places."""
    earlier = {"tag": "old"}
    records[0]["removed"] = [earlier]
    unusable = b"{oops\n" + lines([{"image": "none.jpg"}])
    stdin = lines(records[:2]) + unusable + lines(records[2:])
    done = clean(*PAPER, "--threshold", 0.48, "--rejects", "r.jsonl", stdin=stdin, code=3)
    rejects = read_rows(tmp_path / "r.jsonl")
    assert [(row["line"], row["code"]) for row in rejects] == [
        (3, "bad_json"), (4, "missing_image"),
    ]  # fmt: skip
    out = done.rows
    assert out[0]["removed"].pop(0) == earlier
    assert [row["id"] for row in out] == [row["id"] for row in records]
    for given, row in zip(records, out, strict=True):
        gone = [entry["tag"] for entry in row.get("removed", [])]
        assert [tag for tag in given["tags"] if tag not in gone] == row["tags"]
        for name in ("kinds", "sources"):
            assert set(row[name]) == set(row["tags"]) & set(given[name])
        assert row["mine"] == given["mine"]
    for entry in removed(out):
        assert set(entry) == {"tag", "reason", "box", "score", "distance"}
        assert entry["reason"] == "outlier" or entry["score"] <= 0.48
        assert entry["distance"] > 0
        assert all(entry[name] == round(entry[name], 4) for name in ("score", "distance"))
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
    assert b"warning" not in by_default.stderr
    records[0]["generator"] = "mine 0123456789ab"
    assert b"warning: mine 0123456789ab generated tags, " in clean(stdin=lines(records)).stderr
    monkeypatch.setattr(model_rule, "MIN_PROBABILITY", 0.6)
    entries = removed(clean(stdin=lines(records)).rows)
    facts = {(entry["tag"], entry["reason"], entry["distance"]) for entry in entries}
    assert facts == {("sky", "improbable", None)}
    assert all(entry["score"] < 0.6 for entry in entries)


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


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """Grounding DINO with small random weights."""
    return save_port(tmp_path_factory.mktemp("port"), bert_base_tokenizer())


def test_tags_are_judged_by_the_crops_of_a_detectors_boxes(
    clean, command, detector, engine_bundle, photo_records
):
    options = ("--detector", f"grounding-dino:{detector}", *PAPER, "--threshold", 1)
    out = clean(*options, stdin=lines(photo_records)).rows
    assert {entry["tag"] for entry in removed(out)} == {"horse", "field", "sky"}
    assert len({tuple(entry["box"]) for entry in removed(out)}) > len(photo_records)
    words = ("generate", "--model", engine_bundle, "--captions", 0)
    whole = [row["scores"] for row in command(*words, stdin=lines(photo_records)).rows]
    pairs = [(entry["score"], scores[entry["tag"]]) for row, scores in zip(out, whole, strict=True)
             for entry in row["removed"]]  # fmt: skip
    assert any(of_crop != of_photo for of_crop, of_photo in pairs)
