"""`clean` as a whole: every line comes out, tags go only with a reason, and the statistics tell."""

import json
import weakref
from dataclasses import replace
from functools import partial

import pytest

from ramctl.checkpoints.bundle import Bundle, BundleWriter
from ramctl.data_engine import cleaning
from ramctl.data_engine.baseline import Baseline, BaselineOptions
from ramctl.data_engine.region_detectors import RegionFinder, by_attention
from ramctl.data_engine.region_store import RegionStore
from ramctl.labels import Labels
from ramctl.records.record import Record
from tests.conftest import REPOSITORY
from tests.data_engine.conftest import DATA
from tests.support import lines

PAPER = ("--min-probability", 0)


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


def test_tags_go_only_with_a_reason_and_nothing_else_changes(clean, records):
    out = clean("--outliers", 0.1, "--threshold", 0.48, stdin=lines(records)).rows
    assert [row["id"] for row in out] == [row["id"] for row in records]
    n_removed = 0
    for given, row in zip(records, out, strict=True):
        gone = [entry["tag"] for entry in row.get("removed", [])]
        assert [tag for tag in given["tags"] if tag not in gone] == row["tags"]
        assert set(gone) <= set(given["tags"])
        assert set(row["kinds"]) == set(row["tags"]) & set(given["kinds"])
        assert row["mine"] == given["mine"]
        for entry in row.get("removed", []):
            assert set(entry) == {"tag", "reason", "box", "score", "distance", "chance"}
            assert entry["reason"] in ("outlier", "not-predicted", "outlier+not-predicted")
            x0, y0, x1, y1 = entry["box"]
            assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
        n_removed += len(gone)
    assert n_removed


def test_a_tag_goes_when_the_model_does_not_see_it_and_stays_when_it_does(clean, records):
    unseen = clean("--threshold", 1, stdin=lines(records)).rows
    entries = [entry for row in unseen for entry in row.get("removed", [])]
    assert {entry["reason"] for entry in entries} == {"not-predicted"}
    assert {entry["distance"] for entry in entries} == {None}  # nobody asked for outliers
    assert not any("horse" in row["tags"] for row in unseen)
    assert clean("--threshold", 0, stdin=lines(records)).rows == records


def test_thresholds_of_regions_may_be_those_of_a_file(clean, records, tmp_path):
    (tmp_path / "t.jsonl").write_text('{"tag":"horse","threshold":1}\n')
    done = clean(*PAPER, "--threshold", "t.jsonl", stdin=lines(records))
    gone = {entry["tag"] for row in done.rows for entry in row.get("removed", [])}
    assert gone == {"horse"}
    done = clean("--threshold", "1.5", stdin=lines(records), code=2)
    assert b"--threshold 1.5: not between 0 and 1" in done.stderr


def test_human_tags_other_kinds_and_unknown_tags_are_left_alone(clean, records, tmp_path):
    for row in records:
        row["sources"] = {tag: ["human"] if tag == "horse" else ["parsed"] for tag in row["tags"]}
    done = clean("--threshold", 1, "--stats", "stats.json", stdin=lines(records))
    gone = {entry["tag"] for row in done.rows for entry in row.get("removed", [])}
    assert gone == {"field", "sky", "man"}
    told = done.stderr.decode()
    assert "tags left alone: 24 of another kind, 8 unknown to the model" in told
    stats = json.loads((tmp_path / "stats.json").read_bytes())
    assert stats["removed"] == {"not-predicted": sum(stats["removed"].values())}
    n_before, n_after = (stats[f"tags_{when}"]["tags"] for when in ("before", "after"))
    assert n_before - n_after == stats["removed"]["not-predicted"]


def test_by_default_every_kind_is_cleaned_and_an_added_tag_keeps_its_likeliest_photo(
    command, engine_bundle, records
):
    for row in records:
        row["sources"] = {tag: ["generated-tag"] for tag in row["tags"]}
    given = records[:2]
    clean = partial(command, "clean", "--model", engine_bundle)
    done = clean("--min-probability", 1, stdin=lines(given))
    for tag in ("sky", "red"):
        assert sum(tag in row["tags"] for row in given) == 2
        assert sum(tag in row["tags"] for row in done.rows) == 1


def test_by_default_tags_go_that_are_likely_wrong_and_the_entry_says_how_likely(clean, records):
    """A caption's word alone outweighs a model that does not know; generated tags have no such."""
    for row in records:
        row["sources"] = {
            tag: ["generated-tag" if tag == "sky" else "parsed"] for tag in row["tags"]
        }
    out = clean("--min-probability", 0.6, stdin=lines(records)).rows
    entries = [entry for row in out for entry in row.get("removed", [])]
    assert {(entry["tag"], entry["reason"]) for entry in entries} == {("sky", "improbable")}
    assert all(entry["chance"] < 0.6 for entry in entries)
    by_default = clean(stdin=lines(records)).rows
    assert all("removed" not in row for row in by_default)  # the model is not that sure


def test_tags_that_the_detector_does_not_find_are_left_alone(clean, records, monkeypatch):
    monkeypatch.setattr(
        cleaning, "open_detector", lambda *_: lambda view: [None] * len(view.labels)
    )
    n_objects = sum(
        tag in ("horse", "field", "sky", "man") for row in records for tag in row["tags"]
    )
    done = clean("--threshold", 1, stdin=lines(records))
    assert done.rows == records
    assert f"{n_objects} without a region" in done.stderr.decode()


def test_few_records_of_a_long_stream_are_in_memory(engine_bundle):
    baseline = Baseline.load(str(engine_bundle), BaselineOptions(batch=4, threads=1))
    finder, store = RegionFinder(baseline, by_attention, ("object",)), RegionStore()
    photos = sorted((DATA / "photos").glob("*.jpg"))
    alive: weakref.WeakSet[Record] = weakref.WeakSet()
    most = 0

    def stream():
        nonlocal most
        for number in range(100):
            fields = {"image": photos[number % 8].name, "tags": ["no such label"], "n": number}
            item = Tracked(fields, base=DATA / "photos")
            alive.add(item)
            most = max(most, len(alive))
            yield item

    for item, found in finder.find(stream()):
        store.add(item, *found)
    assert most <= 3 * 4
    assert [item.fields["n"] for item in store.inputs()] == list(range(100))


class Tracked(Record):
    """A record that can be referred to weakly."""

    __slots__ = ("__weakref__",)
    __hash__ = object.__hash__


DOUBLED = {"train": "horse", "sky": "field"}  # of one the first label scores more, of one the last


@pytest.fixture(scope="module")
def doubled_bundle(engine_bundle, tmp_path_factory):
    """The same model with strings that are two labels each, as some of a converted bundle are."""
    path = tmp_path_factory.mktemp("doubled") / "bundle"
    bundle = Bundle.open(engine_bundle)
    labels = [replace(label, tag=DOUBLED.get(label.tag, label.tag)) for label in bundle.labels]
    with BundleWriter(path) as writer:
        for file in engine_bundle.iterdir():
            if file.name not in ("bundle.json", "labels.jsonl"):
                (writer.path / file.name).write_bytes(file.read_bytes())
        Labels(labels).write(writer.path / "labels.jsonl")
        writer.meta = {name: value for name, value in bundle.meta.items() if name != "files"}
    return path


def test_a_doubled_string_scores_the_maximum_over_its_ids(
    command, doubled_bundle, engine_bundle, photo_records
):
    rows = [{**row, "tags": ["horse", "train", "field", "sky"]} for row in photo_records]
    rule = ["--threshold", 1]
    by_id = command("clean", "--model", engine_bundle, *rule, stdin=lines(rows)).rows
    apart = [{e["tag"]: e["score"] for e in row["removed"]} for row in by_id]
    rows = [{**row, "tags": ["horse", "field"]} for row in photo_records]
    joined = command("clean", "--model", doubled_bundle, *rule, stdin=lines(rows))
    for scores, row in zip(apart, joined.rows, strict=True):
        joint = {entry["tag"]: entry["score"] for entry in row["removed"]}
        assert scores["horse"] > scores["train"] and scores["field"] < scores["sky"]
        assert joint == {"horse": scores["horse"], "field": scores["sky"]}
    generated = command(
        "generate", "--model", doubled_bundle, "--captions", 0, "--threshold", 0, stdin=lines(rows)
    )
    for row in generated.rows:
        assert row["tags"].count("horse") == row["tags"].count("field") == 1


@pytest.mark.slow
@pytest.mark.shared
def test_real_photos_lose_things_that_their_captions_made_up(command, shared):
    """160 photos of Flickr8k, parsed from one caption, with dogs that another caption has."""
    data = shared / "data"
    texts = (data / "photos" / "flickr8k-train.jsonl").read_text("utf-8").splitlines()[:160]
    rows = [json.loads(text) for text in texts]
    has_dog = [any("dog" in caption.lower() for caption in row["captions"]) for row in rows]
    one = [{"image": row["image"], "captions": row["captions"][:1]} for row in rows]
    labels = REPOSITORY / "ramctl" / "bundles" / "mini" / "labels.jsonl"
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
