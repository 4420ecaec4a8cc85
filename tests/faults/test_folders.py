"""Folders that may not be written to, and folders that vanish while a run writes into them."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from tests.faults.crashes import contents, run
from tests.faults.streams import LINES, stream, with_lines
from tests.faults.test_crashes import DATA, tagged_photos

TRUTH = DATA / "truth.jsonl"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["export", "in.jsonl", "-f", "jsonl", "-o", "shut/out"], "shut/out"),
        (["export", "in.jsonl", "--xmp", "--rejects", "shut/rejects"], "shut/rejects"),
        (["export", "in.jsonl", "--gallery", "shut/page.html"], "shut/page.html"),
        (["eval", TRUTH, "--truth", TRUTH, "-o", "shut/out"], "shut/out"),
        (["eval", TRUTH, "--truth", TRUTH, "--report", "shut/classes"], "shut/classes"),
        (["train", "in.jsonl", "--root", DATA, "--preset", "tiny", "--out", "shut/m"], "shut/m"),
        (["convert", "mini", "--to", "onnx", "--out", "shut/new"], "shut/new"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_read_only_folder_is_named(words, named, folder):
    tagged_photos(folder)
    (folder / "shut").mkdir()
    (folder / "shut").chmod(0o555)
    status, _, err = run(folder, words, is_powerless=True)
    assert status == 1
    assert err.splitlines()[-1] == f"ramctl {words[0]}: {named}: Permission denied"


def test_photos_in_a_read_only_folder_are_rejects_where_they_are_to_have_sidecars(folder, tmp_path):
    tagged_photos(folder)
    folder.chmod(0o555)
    words = ["export", "in.jsonl", "--xmp", "--rejects", "../rejects"]
    status, _, err = run(folder, words, is_powerless=True)
    assert status == 3 and err.count("Permission denied") == 2
    rejects = [json.loads(line) for line in (tmp_path / "rejects").read_text().splitlines()]
    assert [row["code"] for row in rejects] == ["write_failed"] * 2


def vanished_and_back(
    folder: Path, words: list[object] | object, again: object, steps: list[int | str]
) -> None:
    """`outs` is moved away before each of some steps; when it is back, the run is continued."""
    outs, gone, before = folder / "outs", folder.with_name("gone"), folder.with_name("before")
    outs.mkdir()
    shutil.copytree(folder, before)
    code, all_steps, err = run(folder, words)
    assert code in (0, 3), err
    whole = contents(folder)
    for step in steps or range(len(all_steps)):
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        status, _, err = run(folder, words, crash_before=step, accident=partial(outs.rename, gone))
        assert gone.exists(), step
        assert status in (1, code) and "internal error" not in err, (step, err)
        if status == 1:
            assert "outs/" in err.splitlines()[-1] and "No such file" in err.splitlines()[-1]
        shutil.rmtree(outs, ignore_errors=True)  # a new one
        gone.rename(outs)
        status, _, err = run(folder, again)
        assert status == code, (step, err)
        assert contents(folder) == whole, step


def test_a_folder_that_vanishes_at_any_step_is_named_and_the_run_goes_on_when_it_is_back(folder):
    with_lines(*LINES)(folder)
    vanished_and_back(folder, stream(inside="outs"), stream(inside="outs", resume=True), [])


def test_the_folder_of_a_gallery_vanishes(folder):
    tagged_photos(folder)
    words = ["export", "in.jsonl", "--gallery", "outs/page.html"]
    steps = ["open .page.html.ramctl-part", "os.rename .page.html.ramctl-part"]
    vanished_and_back(folder, words, words, steps)


def test_the_work_folder_of_train_vanishes(tiny_bundle, folder):
    (folder / "outs").mkdir()
    with_lines(*[json.dumps({"image": "photos/steps.jpg", "tags": ["a", "b"]})] * 2)(folder)
    words = ["train", "in.jsonl", "--root", DATA, "--preset", "tiny", "--steps", "1", "-j0"]
    words += ["--text", tiny_bundle / "text", "--out", "outs/model"]
    accident = partial((folder / "outs").rename, folder / "gone")
    status, _, err = run(
        folder, words, crash_before="open .labels.jsonl.ramctl-part", accident=accident
    )
    assert status == 1 and "internal error" not in err
    assert "outs/model" in err.splitlines()[-1], err
