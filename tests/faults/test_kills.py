"""Commands that are killed at any moment, by kill -9 or SIGTERM, and resumed.

Once each; RAMCTL_KILLS=20 does it twenty times, and RAMCTL_KILLS_SEED=1 at other moments.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from inspect import isfunction
from pathlib import Path

import pytest

from tests.faults.crashes import Work, contents, run
from tests.faults.streams import LINES, stream, with_lines
from tests.faults.test_crashes import DATA, PARSE, captioned, photos, records

KILLS = int(os.environ.get("RAMCTL_KILLS", "1"))
SEED = int(os.environ.get("RAMCTL_KILLS_SEED", "0"))
SIGNALS = (signal.SIGKILL, signal.SIGTERM)


def killed_and_resumed(
    folder: Path,
    words: Work,
    again: Work | Callable[[Path], Work],
    *ignored: str,
    final: Sequence[str] = (),
) -> None:
    """Kill at random moments of a run; each time what is resumed equals an undisturbed run.

    `again` may tell from what is left what to run next. Of the files with `final` names a killed
    run leaves none that is not whole.
    """
    before = folder.with_name("before")
    shutil.copytree(folder, before)
    started = time.monotonic()
    code, _, err = run(folder, words)
    seconds = time.monotonic() - started
    assert code in (0, 3), err
    whole, draw = contents(folder, ignored=ignored), random.Random(SEED)
    for _ in range(KILLS):
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        moment, signum = draw.uniform(0, seconds), draw.choice(SIGNALS)
        status, _, err = run(folder, words, kill_after_s=moment, signum=signum)
        where = f"{signum.name} after {moment:.3f} of {seconds:.3f} s"
        assert status in (-signum, 128 + signum, code) and "Traceback" not in err, (where, err)
        left = contents(folder, ignored=ignored)
        assert all(left[name] == whole[name] for name in final if name in left), where
        status, _, err = run(folder, again(folder) if isfunction(again) else again)
        assert status == code, (where, err)
        assert contents(folder, ignored=ignored) == whole, where


def test_the_loop_of_all_record_commands(folder):
    with_lines(*LINES * 300)(folder)
    killed_and_resumed(folder, stream(), stream(resume=True))


@pytest.mark.parametrize("jobs", [1, 2])
def test_parse(jobs, folder):
    with_lines(*LINES * 20)(folder)
    words = [*PARSE, f"-j{jobs}"]
    killed_and_resumed(folder, words, [*words, "--resume"])


def test_tag(tiny_bundle, folder):
    photos(folder)
    words = ["tag", "--model", tiny_bundle, "-R", ".", "-b1", "-j1", "-o", "out"]
    words += ["--rejects", "rejects"]
    killed_and_resumed(folder, words, [*words, "--resume"], "*.part")


def test_the_data_engine(tiny_bundle, folder):
    records(folder)
    words = ["generate", "in.jsonl", "--model", tiny_bundle, "--root", DATA, "-b1", "-o", "out"]
    words += ["--rejects", "rejects"]
    killed_and_resumed(folder, words, [*words, "--resume"])


@pytest.mark.parametrize("command", ["train", "finetune"])
def test_training(command, tiny_bundle, folder):
    captioned(folder)
    words = [command, "in.jsonl", "--root", DATA, "--steps", "3", "-j0", "--save-every", "1"]
    words += ["--out", "model"]
    if command == "train":
        words += ["--preset", "tiny", "--text", tiny_bundle / "text"]
    else:
        words += ["--model", tiny_bundle]

    def again(folder: Path) -> list[object]:
        work = folder / "model.work"
        begun = (work / "run.json").exists() or not work.exists()
        return [*words, "--resume" if begun else "--restart"]

    killed_and_resumed(folder, words, again, "bundle.json", "README.md")  # hold command lines


def test_eval(folder):
    words = ["eval", DATA / "truth.jsonl", "--truth", DATA / "truth.jsonl", "--ci", "-o", "out"]
    words += ["--report", "classes.csv", "--calibrate", "thresholds"]
    killed_and_resumed(folder, words, words, final=["out", "classes.csv", "thresholds"])


def test_convert(tiny_bundle, folder):
    from ramctl.checkpoints.bundle import Bundle

    shutil.copytree(tiny_bundle, folder / "old")
    words = ["convert", "old", "--to", "onnx", "--out", "new"]

    def again(folder: Path) -> list[object]:
        if (folder / "new").exists():
            Bundle.open(folder / "new", verify=True)
        return words

    killed_and_resumed(folder, words, again)
