"""A reader that leaves, at once or after a line: the command ends by that, without a word."""

import os
from threading import Thread

import pytest

from tests.support import DATA

TRUTH = DATA / "truth.jsonl"


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
    [["doctor"], ["tag", "--help"], ["--version"]],
    ids=["doctor", "a help", "the version"],
)
def test_a_reader_that_is_not_there_ends_whatever_is_printed(words, ramctl):
    read_end, write_end = os.pipe()
    os.close(read_end)  # before anything starts
    run = ramctl.start(*words, stdout=write_end)
    os.close(write_end)
    _, err = run.communicate()
    assert (run.returncode, err) == (141, b"")
