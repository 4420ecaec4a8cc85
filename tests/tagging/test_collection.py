"""`tag --resume` on a collection that changes: photos deleted, sidecars taken away."""

import json
import shutil
from pathlib import Path

import pytest

from ramctl.checkpoints.bundle import Bundle
from ramctl.photos.finding import is_gone

RESUMED = ("-o", "tags.jsonl", "--resume")


def records() -> dict[str, dict]:
    rows = [json.loads(line) for line in Path("tags.jsonl").read_bytes().splitlines()]
    assert len({row["image"] for row in rows}) == len(rows)
    return {row["image"]: row for row in rows}


def test_photos_that_are_gone_are_pruned_where_that_is_asked_for(tag):
    arguments = ["-R", ".", *RESUMED, "--rejects", "rejects"]
    tag(*arguments)
    n_before = len(records())
    for name in ("red.png", "broken.jpg"):
        Path(name).unlink()
    tag(*arguments)
    assert len(records()) == n_before and Path("rejects").read_text()
    done = tag(*arguments, "--prune", "--stats", "stats.json")
    assert b"0 in, 0 out, 0 rejected, 3 done before, 2 pruned" in done.stderr
    assert done.returncode == 0
    assert json.loads(Path("stats.json").read_text())["pruned"] == 2
    assert "./red.png" not in records() and len(records()) == n_before - 1
    assert Path("rejects").read_text() == ""
    assert b"3 done before, " in tag(*arguments, "--prune").stderr


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


def test_only_photos_that_are_gone_are_pruned_not_those_that_this_run_leaves_out(tag):
    tag("red.png", "blue.png", *RESUMED)
    Path("red.png").unlink()
    assert b"1 in, 1 out, 0 rejected, 1 pruned" in tag("green.png", *RESUMED, "--prune").stderr
    assert list(records()) == ["blue.png", "green.png"]


def test_photos_that_another_folder_names_are_not_gone(tag):
    output = Path("tags.jsonl").absolute()
    tag("red.png", "blue.png", *RESUMED)
    Path("blue.png").unlink()
    done = tag("-R", ".", "-o", output, "--resume", "--prune", cwd=Path("sub"))
    assert b" 1 pruned" in done.stderr and b'"red.png"' in output.read_bytes()


def test_nothing_is_pruned_where_time_was_up(tag):
    arguments = ["-R", ".", *RESUMED, "--prune"]
    tag(*arguments)
    Path("red.png").rename("scarlet.png")
    done = tag(*arguments, "--max-time", "0s")
    assert done.returncode == 4 and "./red.png" in records()
    assert b"1 in, 1 out, 0 rejected" in tag(*arguments).stderr
    assert "./scarlet.png" in records() and "./red.png" not in records()


def test_a_disk_that_is_not_mounted_prunes_nothing(tag, photos):
    arguments = ["-R", "sub", *RESUMED, "--prune"]
    tag(*arguments)
    before = Path("tags.jsonl").read_bytes()
    Path("sub/white.png").unlink()
    for names in (["sub"], ["nowhere"]):
        done = tag("-R", "red.png", *names, *RESUMED, "--prune")
        assert (done.returncode, b"is the disk mounted?" in done.stderr) == (1, True)
    done = tag("-", *RESUMED, "--prune", stdin=b"")
    assert b"no photo was found, so --prune drops nothing" in done.stderr
    assert Path("tags.jsonl").read_bytes() == before
    shutil.rmtree("sub")
    assert tag("-R", "sub", "red.png", *RESUMED, "--prune").returncode == 1


@pytest.mark.parametrize(
    "arguments", [["-o", "tags.jsonl", "--prune"], [*RESUMED, "--prune", "-f", "text"]]
)
def test_prune_says_what_it_needs(tag, arguments):
    done = tag("red.png", *arguments)
    assert (done.returncode, b"--prune" in done.stderr) == (2, True)


def test_what_is_gone_is_told_from_what_cannot_be_known(photos, tmp_path):
    assert is_gone(str(photos / "red.jpg")) and not is_gone(str(photos / "red.png"))
    assert is_gone("red.png") and not is_gone("red.png", str(photos))
    assert is_gone("bytes:/2EvYg==") and not is_gone("17")
    (photos / "link.png").symlink_to("not mounted")
    assert not is_gone(str(photos / "link.png"))
    shutil.make_archive(str(tmp_path / "shard"), "tar", photos)
    assert not is_gone(f"{tmp_path}/shard.tar#./red.png")
    assert is_gone(f"{tmp_path}/shard.tar#./no.png") and is_gone(f"{tmp_path}/no.tar#./red.png")
    (tmp_path / "bad.tar").write_bytes(b"no archive" * 100)
    assert not is_gone(f"{tmp_path}/bad.tar#./red.png")
