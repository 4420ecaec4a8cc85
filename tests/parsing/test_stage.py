"""Records through the parse stage: tags, kinds, sources, counts, the authors' form."""

import json
from pathlib import Path

import pytest

from ramctl.errors import RecordProblem, RunProblem
from ramctl.parsing.stage import BATCH, MAX_CAPTION, ParseStage, build_label_file, ram_encoder
from ramctl.records.labels import Label, Labels
from ramctl.records.record import Record
from ramctl.records.report import Rejects, Report

LABELS = Labels([
    Label("ride", "action"), Label("dog", "object", synonyms=("puppy",)),
    Label("Dusk", "attribute"), Label("dog", "scene"),
])  # fmt: skip


def records(rows) -> list[Record]:
    return [Record(fields, "in.jsonl", line, Path()) for line, fields in enumerate(rows, 1)]


def outcomes(*rows, **options):
    stage = ParseStage(**options)
    return [outcome for batch in stage(iter([records(rows)])) for outcome in batch], stage.stats


def test_each_record_has_the_tags_of_its_own_captions():
    rows = [{"captions": ["a dog", "a cat on a dog"]}, {"captions": []}, {"caption": "a horse"}]
    (first, second, third), stats = outcomes(*rows)
    assert first["tags"] == ["dog", "cat"]
    assert first["caption_tags"] == [["dog"], ["cat", "dog"]]
    assert (second["tags"], third["tags"]) == ([], ["horse"])
    assert stats == {
        "images": 3, "captions": 3, "tags": 3, "distinct_tags": 3, "common_tags": 3,
        "tags_per_image": 1.0,
    }  # fmt: skip


def test_given_tags_stay_without_captions_and_on_request():
    given = {"tags": ["barn", "dog"], "kinds": {"barn": "object"}}
    (alone,), _ = outcomes(given.copy())
    assert (alone["tags"], alone["caption_tags"]) == (["barn", "dog"], [])
    assert alone["kinds"] == {"barn": "object", "dog": "object"}
    assert alone["sources"] == {"barn": ["human"], "dog": ["human"]}
    (replaced,), _ = outcomes({**given, "caption": "a dog"})
    assert (replaced["tags"], replaced["sources"]) == (["dog"], {"dog": ["parsed"]})
    (kept,), _ = outcomes({**given, "caption": "a dog"}, keep_tags=True)
    assert kept["sources"] == {"dog": ["parsed", "human"], "barn": ["human"]}


def test_a_given_tag_has_the_kind_of_its_label():
    (found,), _ = outcomes({"tags": ["dusk", "tennis"]}, labels=LABELS)
    assert found["kinds"] == {"dusk": "attribute", "tennis": "action"}
    (found,), _ = outcomes({"tags": ["dusk"]})
    assert found["kinds"] == {"dusk": "scene"}


def test_scores_are_kept_for_tags_that_are_there():
    (found,), _ = outcomes({"caption": "a dog", "scores": {"cat": 0.2, "dog": 0.9}})
    assert found["scores"] == {"dog": 0.9}


def test_evidence_names_the_caption():
    (found,), _ = outcomes({"captions": ["a cat", "two Dogs"]}, explain=True)
    assert found["explain"]["dog"] == [{"caption": 1, "words": "Dogs", "rule": "noun"}]


def test_problems_stay_in_their_place():
    rows = [{}, {"caption": "a" * (MAX_CAPTION + 1)}, {"caption": "a dog"}]
    found, stats = outcomes(*rows)
    assert [getattr(outcome, "code", "") for outcome in found] == [
        "missing_field", "too_large", "",
    ]  # fmt: skip
    assert found[2]["tags"] == ["dog"]
    assert stats["images"] == 1
    (found,), _ = outcomes({"caption": "a dog"}, needs_image=True)
    assert isinstance(found, RecordProblem)


def test_the_authors_form_has_sorted_ids():
    encode = ram_encoder(LABELS)
    fields = {
        "image": "a.jpg", "captions": ["x"], "tags": ["puppy", "ride", "dog", "zebra"],
        "caption_tags": [["puppy"], ["ride", "zebra"]],
    }  # fmt: skip
    first = encode(fields)
    assert json.loads(first) == {
        "image_path": "a.jpg", "caption": ["x"], "union_label_id": [0, 1, 3],
        "parse_label_id": [[1], [0]],
    }  # fmt: skip
    assert encode(fields) == b",\n" + first


def test_a_label_file_counts_its_records_once(tmp_path):
    rows = [{"caption": f"a dog and {i} cats"} for i in range(BATCH + 10)]
    report = Report("parse", quiet=True)
    build_label_file(records([*rows, {}]), Rejects(report, None), tmp_path / "l.jsonl")
    labels = Labels.read(tmp_path / "l.jsonl")
    assert (report.n_in, report.n_out) == (BATCH + 11, BATCH + 10)
    assert report.rejects == {"missing_field": 1}
    assert report.extra["labels"] == len(labels) == 2
    assert report.extra["strings"] == 2 + sum(len(label.synonyms) for label in labels)
    assert labels[0].count == BATCH + 10
    with pytest.raises(RunProblem, match="no tags in the input"):
        build_label_file(
            records([{"caption": "of the"}]), Rejects(report, None), tmp_path / "l.jsonl"
        )
    with pytest.raises(RunProblem, match=r"in.jsonl:1: .*--strict"):
        build_label_file(records([{}]), Rejects(report, None, strict=True), tmp_path / "l.jsonl")
