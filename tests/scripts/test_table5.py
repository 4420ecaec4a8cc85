"""The records of scripts/reproduce/table5.mk."""

import argparse
import json

import pytest

from tests.conftest import REPOSITORY


@pytest.fixture
def table5(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts" / "reproduce"))
    import table5

    return table5


def parsed(number):
    tags = [f"tag{i}" for i in range(40)]
    return {
        "image": f"{number}.jpg",
        "captions": ["what people wrote", "stays"],
        "tags": tags,
        "caption_tags": [tags[:30], tags[20:]],
        "kinds": dict.fromkeys(tags, "object"),
        "sources": {tag: ["parsed"] for tag in tags},
    }


def dropped(table5, path, share):
    options = argparse.Namespace(records=[path], share=share)
    return list(table5.dropped_tags(options))


def test_a_dropped_tag_is_gone_from_every_field_and_the_more_are_dropped_the_fewer_stay(
    table5, tmp_path
):
    path = tmp_path / "parsed.jsonl"
    path.write_text("".join(json.dumps(parsed(number)) + "\n" for number in range(50)))
    whole, half, quarter = (dropped(table5, path, share) for share in (0.0, 0.5, 0.75))
    assert whole == [parsed(number) for number in range(50)]
    assert sum(len(row["tags"]) for row in half) == pytest.approx(1000, abs=70)
    assert sum(len(row["tags"]) for row in quarter) == pytest.approx(500, abs=60)
    for row, fewer in zip(half, quarter, strict=True):
        assert set(fewer["tags"]) < set(row["tags"])
        assert [*row["kinds"]] == [*row["sources"]] == row["tags"]
        assert {tag for own in row["caption_tags"] for tag in own} == set(row["tags"])
        assert row["captions"] == parsed(0)["captions"]
