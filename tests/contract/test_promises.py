"""Promises of the README that no other test keeps: photos stay as they are, nothing is fetched."""

import json
import shutil
import subprocess
import sys

from tests.conftest import REPOSITORY
from tests.contract.test_records import environment

DATA = REPOSITORY / "tests" / "data"
# Ends a command that looks up a machine's name or opens a connection to one.
ALONE = """
import sys

def refuse(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        raise SystemExit("reached out: " + event)
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        raise SystemExit("reached out: " + str(arguments[1]))

sys.addaudithook(refuse)
from ramctl.cli import main
main(sys.argv[1:])
"""


def test_photos_stay_as_they_are_and_nothing_is_fetched(tmp_path):
    for name in ("horses", "steps"):
        shutil.copy2(DATA / "photos" / f"{name}.jpg", tmp_path)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    words = ["tag", "-R", ".", "--xmp", "--txt", "--gallery", "page.html", "-o", "tags.jsonl"]
    for _ in range(2):  # the second time there are sidecars
        done = subprocess.run(
            [sys.executable, "-c", ALONE, *words],
            cwd=tmp_path, env=environment(), capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len((tmp_path / "tags.jsonl").read_bytes().splitlines()) == 2
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before


def test_captions_are_parsed_without_a_connection(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", ALONE, "parse", "-q"],
        input=b'{"captions":["a horse"]}\n', env=environment(), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tags"] == ["horse"]
