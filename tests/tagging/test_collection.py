"""`tag --resume` on a collection whose folder has several names, and what `--stats` tells."""

import json
from pathlib import Path

from ramctl.checkpoints.bundle import Bundle


def test_statistics_name_the_model_and_all_that_its_tags_depend_on(tag, colours):
    stats = []
    for words in ([], ["--threshold", "0.3"]):
        assert tag("red.png", "--stats", "stats.json", *words).returncode == 0
        stats.append(json.loads(Path("stats.json").read_text()))
    assert stats[0]["model"] == str(colours)
    assert stats[0]["versions"].keys() >= {"ramctl", "python", "onnxruntime"}
    first, second = (one["fingerprint"] for one in stats)
    assert first["model"] == Bundle.open(colours).fingerprint
    assert {name for name in first if first[name] != second[name]} == {"thresholds"}
