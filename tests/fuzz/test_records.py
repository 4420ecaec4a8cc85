"""Damaged text files of every kind: records, captions, labels, predictions, settings, decisions."""

import gzip
import io
import json
from pathlib import Path

import orjson
import pytest

from ramctl.classes import Classes, read_map
from ramctl.config import load_defaults
from ramctl.decide.selection import read_tag_list
from ramctl.decide.thresholds import read_thresholds
from ramctl.evaluation.predictions import read_table
from ramctl.evaluation.truth import TruthTable
from ramctl.labels import Label, LabelSystem
from ramctl.parsing.parser import CaptionParser
from ramctl.records.jsonl import dumps, unread_records
from ramctl.records.record import Record
from ramctl.records.report import Rejects, Report
from ramctl.tagger_scores import TaggerScores
from tests.fuzz.damage import damaged, survive
from tests.readers.test_predictions import DATA as PREDICTIONS
from tests.readers.test_readers import FILES, read_any

LABELS = LabelSystem([Label("dog"), Label("cat", synonyms=("kitten",)), Label("run", "action")])
RECORDS = [
    {"image": "a.jpg", "captions": ["A dog .", "a cat"], "tags": ["dog"], "own": [1e300, -0.0]},
    {"image": "b.tar#c.jpg", "caption": "two dogs run", "scores": {"dog": 0.9, "cat": 0.1}},
    {"image": "a.jpg", "dense": [0.1, 0.2, 0.3], "label_names": ["dog", "cat", "run"]},
    {"image": "d.jpg", "tags": ["dog"], "removed": [{"tag": "cat", "reason": "outlier"}],
     "boxes": {"dog": [[0, 0, 1, 1], 0.5]}, "negatives": ["cat"], "uncertain": ["run"]},
]  # fmt: skip
JSONL = [b"".join(map(dumps, RECORDS)), *map(dumps, RECORDS)]


def intake():
    return Rejects(Report("eval", quiet=True), None)


def classes():
    return Classes(LABELS, "classes.txt", {}, LABELS)


def in_file(path: Path, read):
    """A reader of a path as one of its content."""

    def from_bytes(data: bytes) -> None:
        path.write_bytes(data)
        read(path)

    return from_bytes


def test_every_line_gives_one_record_or_one_reject_and_what_is_read_can_be_written():
    def read(data: bytes) -> None:
        items = [make() for make in unread_records(io.BytesIO(data), "-", Path(), "parse")]
        lines = [line for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]
        assert len(items) == len(lines)
        for item in items:
            if isinstance(item, Record):
                again = dumps(item.fields)
                assert orjson.loads(again) is not None

    survive(read, JSONL, "jsonl")


@pytest.mark.parametrize("name", FILES)
def test_caption_files(name, tmp_path):
    path = tmp_path / name
    read = in_file(path, lambda path: list(read_any((str(path),), None, "parse")))
    survive(read, [FILES[name][1].encode()], name)


def read_labels(path: Path) -> None:
    labels = LabelSystem.read(path)
    assert len(labels.tags) == len(labels) and labels.sha256
    for label in labels:
        label.to_json()


def read_scores(path: Path, form: str | None = None) -> None:
    """As `eval` reads the predictions of any system."""
    read_table(str(path), classes(), None, intake(), form=form)


LABEL_LINES = b"".join(dumps(label.to_json()) for label in LABELS)
PACKED = gzip.compress(b'{"tag":"dog"}\n{"tag":"cat","synonyms":["kitten"]}\n')
LISTED = (PREDICTIONS / "ram" / "pred.txt").read_bytes()
THRESHOLDS = b'{"tag":"dog","threshold":0.5}\n{"tag":"kitten","threshold":1}\n'
SETTINGS = b'[common]\nquiet = true\n[tag]\nmodel = "mini"\nthreshold = 0.5\ntop = 3\n'
SMALL = {
    "labels.jsonl": ([LABEL_LINES], read_labels),
    "labels.txt": ([b"dog\ncat\nrun\n"], read_labels),
    "labels.jsonl.gz": ([PACKED], read_labels),
    "thresholds": ([THRESHOLDS, b"0.1\n0.2\n0.3\n"], lambda p: read_thresholds(p, LABELS, 0.5)),
    "map.tsv": ([b"dog\tdog\tpuppy\ncat\tkitten\n"], read_map),
    "tags.txt": ([b"dog\ncat\n"], read_tag_list),
    "scores.jsonl": (JSONL, lambda path: TaggerScores.read(path, "train")),
    "truth.jsonl": (JSONL, lambda path: TruthTable.read(str(path), intake())),
    "predictions.jsonl": (JSONL, read_scores),
    "pred.txt": ([LISTED], read_scores),
    "list.txt": ([LISTED], lambda path: read_scores(path, "list")),
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_small_files(name, tmp_path):
    seeds, read = SMALL[name]
    survive(in_file(tmp_path / name, read), seeds, name)


def test_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(_):
        return load_defaults(
            "tag", {"model", "top"}, {"model", "top"}, (), set, lambda name, value: True
        )

    read = in_file(tmp_path / "ramctl.toml", load)
    survive(read, [SETTINGS], "ramctl.toml")


@pytest.fixture(scope="module")
def parser():
    return CaptionParser.open()


def test_captions_of_any_characters_are_parsed_in_bounded_time(parser):
    captions = [
        "A man in a red shirt rides a brown horse along the beach , no saddle .",
        "фото собаки 犬の写真 🐕 dog #tag @name http://a.b/c IMG_0042.JPG 1girl, masterpiece",
        "the the of of without with and , . ' \" ( ) - -- &amp; \u200b\u202e\u0301",
        "",
        " ",
        "\0",
        "'s",
        "'",
        "``''",
        "&lt;b&gt;dog&lt;/b&gt;",
        "\u2028dog\u2029",
        "a\tdog\n",
    ]

    def read(data: bytes) -> None:
        tags = parser.tags(data.decode("utf-8", "replace"))
        assert all(tag.strip() and tag.isprintable() for tag in tags)

    survive(read, [text.encode() for text in captions], "captions")


def test_a_record_in_and_out_of_the_command_is_neither_lost_nor_doubled(tmp_path, capfdbinary):
    """Through the whole command: what goes in comes out or is a reject, by number."""
    from ramctl.cli import main

    path = tmp_path / "in.jsonl"
    good = [json.dumps({"image": f"{i}.jpg", "captions": ["a dog"]}).encode() for i in range(5)]
    lines = [line.replace(b"\n", b" ") for line in damaged(good, "through", 200)]
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(SystemExit) as ended:
        main(["parse", str(path), "-o", str(tmp_path / "out"), "--rejects", str(tmp_path / "bad")])
    n_out = (tmp_path / "out").read_bytes().count(b"\n")
    n_rejects = (tmp_path / "bad").read_bytes().count(b"\n")
    assert ended.value.code == 3
    assert n_out + n_rejects == sum(bool(line.strip()) for line in lines)
    assert b"\x1b" not in capfdbinary.readouterr().err
