"""The measures of scripts/reproduce/table5.mk."""

import argparse

import pytest

from ramctl.labels import Label, LabelSystem
from tests.conftest import REPOSITORY
from tests.data_engine.conftest import lines


@pytest.fixture
def table5(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts" / "reproduce"))
    import table5

    return table5


def test_the_caption_that_a_tag_came_from_does_not_confirm_it(table5, tmp_path):
    tags = ["dog", "lawn", "man", "cat", "boat"]
    others = [Label("run", "action")]
    LabelSystem([Label(tag) for tag in tags] + others).write(tmp_path / "labels.jsonl")
    captions = ["A dog on a lawn .", "A man with his dog .", "A man ."]
    before = {
        "image": "a.jpg",
        "captions": captions[:1],
        "tags": [*tags, "run", "unheard of"],
        "sources": {"dog": ["parsed"], "lawn": ["parsed"], "man": ["generated-tag"],
                    "cat": ["generated-tag"], "boat": ["generated-caption"],
                    "run": ["parsed"], "unheard of": ["parsed"]},
    }  # fmt: skip
    after = before | {"tags": ["dog", "man", "cat", "run"]}
    files = {"captions": {"image": "a.jpg", "captions": captions}, "before": before, "after": after}
    for name, row in files.items():
        (tmp_path / name).write_bytes(lines([row]))
    options = argparse.Namespace(labels=tmp_path / "labels.jsonl")
    vars(options).update({name: tmp_path / name for name in files})
    assert table5.confirmed(options).splitlines()[2:] == [
        "| generated | kept | 2 | 50.0% |",
        "| generated | removed | 1 | 0.0% |",
        "| given | kept | 1 | 100.0% |",
        "| given | removed | 1 | 0.0% |",
    ]
