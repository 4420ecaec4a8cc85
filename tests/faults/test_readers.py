"""A reader that leaves, at once or after a line: the command ends by that, without a word.

And standard streams that are closed, or files on a full disk.
"""

import os
import subprocess
import sys
from threading import Thread

import pytest

from tests.faults.test_crashes import DATA

TRUTH = DATA / "truth.jsonl"
FULL = b"standard output: No space left on device\n"


def test_a_reader_that_leaves_after_a_line_ends_a_run_over_an_endless_input(ramctl):
    run = ramctl.start("export", "-", "-f", "text")
    lines = b'{"image":"a.jpg","tags":["sky"]}\n' * 1000

    def feed() -> None:
        try:
            while True:
                run.stdin.write(lines)
        except OSError:  # it has ended
            pass

    feeder = Thread(target=feed, daemon=True)
    feeder.start()
    assert run.stdout.readline() == b"a.jpg\tsky\n"
    run.stdout.close()
    assert run.wait(60) == 141
    feeder.join(60)
    assert run.stderr.read() == b""


@pytest.mark.parametrize(
    "words",
    [
        ["eval", TRUTH, "--truth", TRUTH, "-q"], ["doctor"], ["tag", "--help"],
        ["tag", "-h"], ["--help"], ["-h"], ["--version"],
    ],
    ids=["eval", "doctor", "a help", "a short help", "the help", "the short help", "the version"],
)  # fmt: skip
def test_a_reader_that_is_not_there_ends_whatever_is_printed(words, ramctl):
    read_end, write_end = os.pipe()
    os.close(read_end)  # before anything starts
    run = ramctl.start(*words, stdout=write_end)
    os.close(write_end)
    _, err = run.communicate()
    assert (run.returncode, err) == (141, b"")


def redirected(redirection: str, *words: object) -> subprocess.CompletedProcess:
    """What becomes of a command with its streams redirected by a shell."""
    return subprocess.run(
        ["sh", "-c", f'exec "$0" -m ramctl "$@" {redirection}', sys.executable, *map(str, words)],
        capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": str(DATA.parent.parent), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&- <&-"])
def test_messages_that_cannot_be_written_end_no_run(redirection, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"image":"a.jpg","tags":["sky"]}\n{oops\n')
    done = redirected(redirection, "export", tmp_path / "in.jsonl", "-f", "text")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"a.jpg\tsky\n", b"")


@pytest.mark.parametrize(
    ("redirection", "words", "said"),
    [
        (">&-", ["eval", TRUTH, "--truth", TRUTH, "-q"], b"standard output: Bad file descriptor\n"),
        (">/dev/full", ["eval", TRUTH, "--truth", TRUTH, "-q"], FULL),
        (">/dev/full", ["parse", DATA / "captions.jsonl", "-q"], FULL),
        (">&-", ["doctor"], b"standard output: Bad file descriptor\n"),
        ("<&-", ["export", "-f", "text", "-"], b"Bad file descriptor\n"),
    ],
    ids=["eval", "eval, full", "parse, full", "doctor", "export"],
)
def test_streams_that_are_closed_or_full_are_named(redirection, words, said):
    done = redirected(redirection, *words)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"ramctl %s: %s" % (words[0].encode(), said)
