"""Promises of the README that no other test keeps: photos stay as they are, nothing is fetched."""

import shutil

import pytest

from tests.support import DATA

# Ends a command that looks up a machine's name or opens a connection to one.
ALONE = """
import sys

def refuse(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        raise SystemExit("reached out: " + event)
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        raise SystemExit("reached out: " + str(arguments[1]))

sys.addaudithook(refuse)
"""


def test_photos_stay_as_they_are_and_nothing_is_fetched(tmp_path, ramctl):
    for name in ("horses", "steps"):
        shutil.copy2(DATA / "photos" / f"{name}.jpg", tmp_path)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    for _ in range(2):  # the second time there are sidecars
        for words in (
            ["tag", "-R", ".", "-o", "tags.jsonl"],
            ["export", "tags.jsonl", "--xmp", "--txt", "--gallery", "page.html"],
        ):
            done = ramctl.process(*words, before=ALONE)
            assert done.returncode == 0, done.stderr
        assert len((tmp_path / "tags.jsonl").read_bytes().splitlines()) == 2
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before


@pytest.mark.slow
def test_captions_are_parsed_without_a_connection(ramctl):
    done = ramctl.process(
        "parse", "-q", stdin=b'{"captions":["a horse"]}\n', fresh=True, before=ALONE
    )
    assert done.returncode == 0, done.stderr
    assert done.rows[0]["tags"] == ["horse"]
