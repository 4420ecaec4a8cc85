"""What a person is shown of a cleaning: which tags, in what order, and that decisions come back."""

from functools import partial

import numpy as np
import pytest

from ramctl.data_engine import doubtful_tags
from ramctl.data_engine.doubtful_tags import Review, doubts, region_doubts
from ramctl.data_engine.evidence import NOT_PREDICTED, OUTLIER
from ramctl.data_engine.region_store import REGION
from ramctl.data_engine.removals import Cleaner, removing_rows
from ramctl.records.record import Record, Reject
from ramctl.records.verdicts import Verdicts
from tests.data_engine.test_removals import decision
from tests.support import lines, page_data


def test_doubt_is_the_share_of_regions_between_a_region_and_the_border():
    scores = np.array([0.1, 0.9, 0.3, 0.2, 0.8], np.float32)
    # In order of scores: removed, kept, removed, kept, kept; two are removed.
    gone = np.array([True, False, True, False, False])
    assert doubts(scores, gone) == pytest.approx([-0.3, -0.5, 0.1, 0.1, -0.3])
    none = doubts(scores, np.zeros(5, bool))
    assert none == pytest.approx([-0.1, -0.9, -0.5, -0.3, -0.7])


class Index:
    """Regions in memory, some of them on each input, as `RegionIndex` gives them."""

    def __init__(self, *of_input):
        self.firsts = np.cumsum([0, *map(len, of_input)])
        self.offsets = np.array([0, self.firsts[-1]])
        self.table = np.zeros(self.firsts[-1], REGION)
        self.table["box"] = [0.0, 0.25, 0.5, 1.0]
        for row, (place, score) in enumerate(one for own in of_input for one in own):
            self.table["place"][row], self.table["score"][row] = place, score

    def regions(self, rows):
        return self.table[rows]

    def at_input(self, position):
        first, last = self.firsts[position], self.firsts[position + 1]
        return int(first), self.table[first:last]


def reviewed(index, decisions, records, verdicts=None):
    for position, record in enumerate(records):
        if isinstance(record, Record):
            record.key = str(position)
    cleaner = Cleaner(index, removing_rows(decisions), Verdicts(verdicts or {}))
    review = Review(cleaner, region_doubts(decisions, index))
    return review, review.judged(records)


def record(**fields):
    return Record({"image": "a.jpg", "dense": [0.5] * 9, **fields})


def test_removed_added_and_a_few_kept_tags_are_judged():
    sources = {
        "horse": ["parsed"], "sky": ["generated-tag", "generated-caption"],
        "field": ["parsed", "generated-tag"], "red": ["generated-tag"], "tall": ["parsed"],
    }  # fmt: skip
    one = record(
        tags=list(sources), sources=sources, captions=["A horse."], generated_captions=["a field"],
        kinds={"horse": "object", "red": "attribute"}, scores={"red": 0.25, "tall": 0.5},
    )  # fmt: skip
    index = Index([(0, 0.125), (1, 0.5), (2, 0.75)])
    decisions = [decision([0, 2], [OUTLIER | NOT_PREDICTED, 0], 0.75, [0.125, 0.75])]
    unread = Reject("in.jsonl", 2, "clean", "missing_image", "no such file")
    review, judged = reviewed(index, decisions, [one, unread])
    told = [(own.tag, own.state, own.reason) for own in judged]
    assert told == [
        ("horse", "removed", "outlier+not-predicted"), ("sky", "added", None),
        ("field", "kept", None), ("red", "added", None),
    ]  # fmt: skip
    horse, sky, _, red = judged
    assert (horse.kind, horse.score, horse.distance) == ("object", 0.125, 0.75)
    assert horse.box == [0.0, 0.25, 0.5, 1.0] and horse.sources == ["parsed"]
    assert horse.doubt == pytest.approx(-0.25)
    assert (horse.probability, sky.probability) == (0.125, None)
    # Nothing was decided on these: the lower the score, the more doubtful.
    assert (sky.doubt, sky.score, sky.distance) == (-0.5, 0.5, None)
    assert (red.doubt, red.score, red.box) == (-0.25, 0.25, None)
    assert horse.record is red.record and horse.record.photo.fields == {"image": "a.jpg"}
    assert (horse.record.captions, horse.record.generated) == (["A horse."], ["a field"])
    totals = {tag: dict(counts) for tag, counts in review.totals.items()}
    assert totals == {
        "horse": {"removed": 1}, "sky": {"added": 1}, "field": {"kept": 1}, "red": {"added": 1},
        "tall": {"kept": 1},
    }  # fmt: skip


def test_the_less_probable_is_the_more_doubtful_and_the_probability_is_shown():
    records = [record(tags=["sky"], sources={"sky": ["generated-tag"]}) for _ in range(2)]
    index = Index([(0, 0.1)], [(0, 0.9)])
    decided = decision(range(2), [0, 0], probability=[0.75, 0.25])
    _, judged = reviewed(index, [decided], records)
    assert [(own.probability, own.doubt) for own in judged] == [(0.75, -0.75), (0.25, -0.25)]


SCORES = (0.5, 0.9, 0.1, 0.7, 0.3)


def skies(source):
    """Regions of five scores, and records whose one tag has that source."""
    index = Index(*([(0, score)] for score in SCORES))
    return index, [record(tags=["sky"], sources={"sky": [source]}) for _ in range(5)]


def test_of_more_than_fit_those_in_the_greatest_doubt_are_judged(monkeypatch):
    index, records = skies("generated-tag")
    monkeypatch.setattr(doubtful_tags, "MAX_JUDGED", 3)
    _, judged = reviewed(index, [decision(range(5), [0] * 5, probability=SCORES)], records)
    assert [round(own.score, 2) for own in judged] == [0.5, 0.1, 0.3]


def test_of_kept_tags_those_nearest_to_the_border_are_compared(monkeypatch):
    index, records = skies("parsed")
    monkeypatch.setattr(doubtful_tags, "MAX_KEPT", 2)
    _, judged = reviewed(
        index, [decision(range(5), [0, 0, OUTLIER, 0, 0], probability=SCORES)], records
    )
    assert [(own.state, round(own.score, 2)) for own in judged] == [
        ("kept", 0.5), ("removed", 0.1), ("kept", 0.3),
    ]  # fmt: skip
    _, judged = reviewed(index, [decision(range(5), [0] * 5)], records)
    assert judged == []


def test_what_was_decided_before_is_shown_as_it_now_is():
    one = record(tags=["horse", "sky", "red"])
    verdicts = {"a.jpg": {"horse": "keep", "sky": "remove", "red": "keep", "boat": "keep"}}
    index = Index([(0, 0.125), (1, 0.5)])
    _, judged = reviewed(index, [decision([0], [OUTLIER])], [one], verdicts)
    assert [(own.tag, own.state, own.reason, own.verdict) for own in judged] == [
        ("horse", "kept", None, "keep"),
        ("sky", "removed", "decision", "remove"),
        ("red", "kept", None, "keep"),
    ]


@pytest.fixture
def clean(clean, photo_records):
    """Cleans records of which two tags were added, one of these without a region."""
    for row in photo_records:
        row["sources"] |= {"sky": ["generated-tag"], "red": ["generated-tag"]}
        row["captions"] = [f"Photo {row['id']}"]
    return partial(clean, stdin=lines(photo_records))


def test_the_page_has_what_was_removed_and_added(clean, tmp_path):
    done = clean("--review", "page.html", "--outliers", 0.3)
    data = page_data(tmp_path / "page.html")
    states = [(data["tags"][one["tag"]]["tag"], one["state"]) for one in data["entries"]]
    removed = [(e["tag"], "removed") for row in done.rows for e in row.get("removed", [])]
    assert sorted(one for one in states if one[1] == "removed") == sorted(removed)
    assert states.count(("red", "added")) == 8
    assert states.count(("sky", "added")) + states.count(("sky", "removed")) == 8
    assert ("horse", "kept") in states and ("red", "kept") not in states
    assert all("box" in one for one in data["entries"] if data["tags"][one["tag"]]["tag"] != "red")
    assert b"page.html: " in done.stderr and b"tags to judge on 8 photos" in done.stderr


def test_at_probability_0_the_page_is_of_what_generate_added(clean, tmp_path):
    done = clean("--review", "page.html", "--min-probability", 0, "-j", 2)
    assert not any("removed" in row for row in done.rows)
    data = page_data(tmp_path / "page.html")
    assert {one["state"] for one in data["entries"]} == {"added"}
    assert len(data["entries"]) == 16


def test_decisions_made_in_a_browser_come_back_to_clean(clean, browser, tmp_path):
    before = clean("--outliers", 0.3, "--review", "page.html").rows
    browser.open(tmp_path / "page.html")
    entries = [
        (data["records"][one["record"]]["image"], data["tags"][one["tag"]]["tag"], one["state"])
        for data in [page_data(tmp_path / "page.html")]
        for one in data["entries"]
    ]
    # Refuses all that was done on the page.
    browser.press(*"r" * len(entries))
    browser.value("document.getElementById('save').click()")
    saved = tmp_path / "decisions.jsonl"
    # A browser makes an empty file before it has the content.
    while not saved.exists() or saved.read_bytes().count(b"\n") < len(entries):
        browser.value("0")
    done = clean("--outliers", 0.3, "--decisions", "decisions.jsonl")
    after = {row["image"]: row for row in done.rows}
    assert f"{len(entries)} of {len(entries)}" in browser.value("progress.value")
    for image, tag, state in entries:
        assert (tag in after[image]["tags"]) == (state == "removed")
        reasons = {e["tag"]: e["reason"] for e in after[image].get("removed", [])}
        assert reasons.get(tag) == (None if state == "removed" else "decision")
    decided = {(image, tag) for image, tag, _ in entries}
    for row in before:
        for tag in row["tags"]:
            assert (row["image"], tag) in decided or tag in after[row["image"]]["tags"]


def test_standard_output_takes_the_page(ramctl, engine_bundle, photo_records, tmp_path):
    words = ["clean", "--model", engine_bundle, "-o", "out.jsonl", "--review", "/dev/stdout"]
    done = ramctl.process(*words, stdin=lines(photo_records))
    assert done.returncode == 0, done.messages
    assert done.stdout.startswith(b"<!doctype html>") and done.stdout.endswith(b"</html>")
    assert (tmp_path / "out.jsonl").exists()
