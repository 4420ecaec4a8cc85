"""`tag --resume` on a collection whose folder has several names, and what `--stats` tells."""

import json
import shutil
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


def test_a_folder_by_another_name_is_not_tagged_twice(tag):
    shutil.copytree("sub", "all/sub")
    tag("-R", "all", "-o", "all/tags.jsonl", "--resume", "--rejects", "rejects")
    before = Path("all/tags.jsonl").read_bytes()
    Path("link").symlink_to("all")
    words = ["-o", Path("all/tags.jsonl").absolute(), "--resume", "--rejects", "rejects"]
    for name in ("link", Path("all").absolute(), "sub/../all"):
        done = tag("-R", name, *words)
        assert b"ramctl tag: 0 in, 0 out" in done.stderr
        assert Path(words[1]).read_bytes() == before
    # A photo that was moved, or copied with its time, is another one.
    shutil.copytree("sub", "other/sub", copy_function=shutil.copy2)
    assert b"ramctl tag: 0 in" not in tag("-R", "other", *words).stderr
