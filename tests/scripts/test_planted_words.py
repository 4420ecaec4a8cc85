"""scripts/planted_words.py: what is counted, where clean removes nothing and everything."""

import json

import planted_words
import pytest

from tests.support import DATA


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rules", "fraction"), [(["--threshold", "1"], 1.0), (["--threshold", "0"], 0.0)]
)
def test_planted_things_and_others_are_counted(rules, fraction, capfd, monkeypatch):
    monkeypatch.setattr(planted_words, "MIN_NAMED", 1)
    assert (
        planted_words.main([str(DATA / "captions.jsonl"), "--", "--min-probability", "0", *rules])
        == 0
    )
    counts = json.loads(capfd.readouterr().out)
    assert counts["planted"] == 8 and counts["own"] > 10
    assert (counts["found"], counts["lost"]) == (fraction, fraction)
