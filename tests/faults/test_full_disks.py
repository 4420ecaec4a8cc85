"""A disk that is full: the file is named, and `--resume` makes up for it.

A limit to the size of files stands for the disk: each kind has its own size.
"""

import json
import shutil
from pathlib import Path

import pytest

from tests.faults.crashes import contents, run
from tests.faults.streams import GOOD, LINES, stream, with_lines
from tests.support import DATA

FULL = "File too large"
LONG = ',"mine":"' + "x" * 1500 + '"}'


@pytest.mark.parametrize(
    ("lines", "most_bytes", "named"),
    [
        (LINES, 0, "out"),
        ([GOOD[0][:-1] + LONG, *LINES], 1500, "out"),
        (["{oops" + LONG, *LINES], 1500, "rejects"),
    ],
)
def test_output_rejects_and_state(lines, most_bytes, named, folder):
    with_lines(*lines * 3)(folder)
    status, _, err = run(folder, stream(), most_bytes=most_bytes)
    assert (status, err) == (1, f"ramctl test: {named}: {FULL}\n")
    assert run(folder, stream(resume=True))[0] == 3
    resumed = contents(folder)
    assert run(folder, stream())[0] == 3
    assert resumed == contents(folder)


@pytest.mark.parametrize(
    ("words", "most_bytes", "named"),
    [
        (["export", "in.jsonl", "--xmp"], 600, "horses.jpg.xmp"),
        (["export", "in.jsonl", "--gallery", "page.html"], 3000, "page.html"),
        (["eval", DATA / "truth.jsonl", "--truth", DATA / "truth.jsonl", "-o", "out"], 100, "out"),
    ],
)
def test_a_file_that_is_written_at_once_is_whole_or_not_there(words, most_bytes, named, folder):
    shutil.copy(DATA / "photos" / "horses.jpg", folder)
    with_lines(json.dumps({"image": "horses.jpg", "tags": ["sky"]}))(folder)
    status, _, err = run(folder, words, most_bytes=most_bytes)
    assert status == 1
    assert err.splitlines()[-1].endswith(f"{named}: {FULL}") and "internal error" not in err
    assert not (folder / named).exists()
    assert run(folder, words)[0] == 0


def test_a_read_only_folder_is_named(folder):
    (folder / "shut").mkdir(mode=0o555)
    with_lines(GOOD[0])(folder)
    status, _, err = run(folder, ["parse", "in.jsonl", "-o", "shut/out"], is_powerless=True)
    assert (status, err) == (1, "ramctl parse: shut/out: Permission denied\n")


@pytest.mark.parametrize("words", [["doctor"], ["parse", "-q", DATA / "captions.jsonl"]])
def test_standard_output(words, ramctl):
    with Path("/dev/full").open("wb") as full:
        run = ramctl.start(*words, stdout=full)
        err = run.communicate()[1].decode()
    said = f"ramctl {words[0]}: standard output: No space left on device\n"
    assert (run.returncode, err) == (1, said)
