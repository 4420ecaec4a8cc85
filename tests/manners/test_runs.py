"""The manners that every command has: streams, order, rejects, exit codes, signals."""

import json
import os
import re
import shutil
import signal
import sys
import termios
from fcntl import ioctl
from pathlib import Path
from threading import Thread
from unittest.mock import Mock

import pytest

from tests.command import ONE_BY_ONE
from tests.support import DATA, read_rows, wait_for

COMMANDS = {
    "caption": ["caption", "--model", "m", "--root", DATA],
    "parse": ["parse"],
    "generate": ["generate", "--root", DATA],
    "clean": ["clean", "--root", DATA],
    "tag": ["tag", "--root", DATA],
    "import": ["import", "--root", DATA],
}
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
# No HOME, and no entry of the user's in the password file.
HOMELESS = """
import os, pwd
os.environ.pop("HOME", None)
def no_entry(uid):
    raise KeyError(uid)
pwd.getpwuid = no_entry
"""


def input_lines() -> list[bytes]:
    """Eight good records with fields of other people, a blank line and two bad ones."""
    lines = []
    for number, line in enumerate((DATA / "captions.jsonl").read_bytes().splitlines()):
        row = {"id": number, **json.loads(line), "mine": {"ä": [1, None, "x\u2028y"]}}
        row["tags"] = ["horse", "field"]
        lines.append(json.dumps(row, ensure_ascii=False).encode())
    return [*lines[:3], b"{oops", b"", *lines[3:6], b'"a string"', *lines[6:]]


GOOD = [line for line in input_lines() if line.startswith(b'{"id')]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_line_comes_out_in_order_as_it_was_or_is_rejected(
    command, tiny_bundle, captioner, tmp_path, ramctl
):
    words = [*COMMANDS[command]]
    words += ["--model", tiny_bundle] if command in ("generate", "clean", "tag") else []
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(input_lines()) + b"\n")
    done = ramctl(*words, "in.jsonl", "--rejects", "rejects")
    for line, given in zip(done.stdout.splitlines(), GOOD, strict=True):
        row, before = json.loads(line), json.loads(given)
        assert (row["id"], row["mine"]) == (before["id"], before["mine"])
        assert "x\u2028y".encode() in line and next(iter(row)) == "id"
    rejects = read_rows(tmp_path / "rejects")
    assert [(row["source"], row["line"]) for row in rejects] == [("in.jsonl", 4), ("in.jsonl", 9)]
    assert {row["code"] for row in rejects} == {"bad_json"}
    assert done.returncode == 3 and not {"\x1b", "\r"} & set(done.messages)
    lines = done.messages.splitlines()
    assert any("in.jsonl:4: bad JSON" in line for line in lines)
    tokens = r"\d+ tokens in, \d+ tokens out, " if command == "caption" else ""
    counts = rf"ramctl {command}: 10 in, 8 out, 2 rejected, {tokens}[\d.]+ s, "
    assert re.match(counts, lines[-1])
    if command not in ("import", "clean"):
        assert ramctl(*words, "in.jsonl", "-j2").stdout == done.stdout


ROW = b'{"image":"a.jpg","tags":["dog"],"captions":["a dog"]}\n'


@pytest.mark.parametrize(
    ("words", "stdin", "code", "said"),
    [
        ("export -f jsonl", ROW, 0, "ramctl export: 1 in, 1 out, 0 rejected, "),
        ("export -f jsonl -q -o -", ROW, 0, None),
        ("parse - --strict -q", b"{oops\n", 1, "ramctl parse: -:1: bad JSON"),
        ("parse -o none/out", ROW, 1, "ramctl parse: none/out: No such file or directory"),
        ("tag --model none a.jpg", b"", 2, "ramctl tag: "),
        ("tag --threshold 2 a.jpg", b"", 2, "ramctl tag: "),
        ("parse -q", b"{oops\n", 3, None),
        ("tag -q no.jpg", b"", 3, None),
    ],
)
def test_how_a_run_ends_is_told_by_its_exit_code(words, stdin, code, said, tmp_path, ramctl):
    done = ramctl(*words.split(), stdin=stdin)
    assert done.returncode == code, done.messages
    assert done.messages.count("\n") == bool(said) and done.messages.startswith(said or "")
    assert done.stdout == (ROW if code == 0 else b"") and not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory: no memory is left (smaller batches"),
        (MemoryError("Unable to allocate 9 TiB\nfor an array"), "out of memory: Unable to"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out"), "out of memory: CUDA out"),
        (KeyError("x"), "internal error: KeyError: 'x' (RAMCTL_TRACEBACK=1 shows where)"),
        (PermissionError(13, "Permission denied", "a"), "a: Permission denied"),
    ],
)
def test_an_unexpected_failure_is_one_line(error, said, monkeypatch, ramctl):
    monkeypatch.setattr("ramctl.parsing.parse_run.run", Mock(side_effect=error))
    done = ramctl("parse", "-o", "out")
    assert (done.returncode, done.messages.count("\n")) == (1, 1)
    assert done.messages.startswith(f"ramctl parse: {said}")
    assert "Traceback" in ramctl("parse", "-o", "out", RAMCTL_TRACEBACK="1").messages


def test_a_reader_that_leaves_after_a_line_ends_a_run_over_an_endless_input(ramctl):
    run = ramctl.start("export", "-", "-f", "text")

    def feed() -> None:
        try:
            while True:
                run.stdin.write(ROW * 1000)
        except OSError:  # it has ended
            pass

    feeder = Thread(target=feed, daemon=True)
    feeder.start()
    assert run.stdout.readline() == b"a.jpg\tdog\n"
    run.stdout.close()
    assert run.wait(60) == 141
    feeder.join(60)
    assert run.stderr.read() == b""


@pytest.mark.parametrize("words", [["doctor"], ["--version"]])
def test_a_reader_that_is_not_there_ends_whatever_is_printed(words, ramctl):
    read_end, write_end = os.pipe()
    os.close(read_end)  # before anything starts
    run = ramctl.start(*words, stdout=write_end)
    os.close(write_end)
    _, err = run.communicate()
    assert (run.returncode, err) == (141, b"")


def wait_until_read(process) -> None:
    """Return when a command has taken all that was written to it: its loop runs by then."""

    def is_read() -> bool:
        assert process.poll() is None
        return not int.from_bytes(ioctl(process.stdin, termios.FIONREAD, bytes(4)), sys.byteorder)

    wait_for(is_read)


@pytest.mark.parametrize("command", ["caption", "parse", "tag"])
def test_an_interrupted_run_can_be_resumed(command, captioner, tmp_path, ramctl):
    """SIGINT while the command waits for more input: complete lines, the signal's own status."""
    jobs = ["-j1"] if command == "caption" else []
    words = [*COMMANDS[command], "-", "-o", "out.jsonl", *jobs]
    process = ramctl.start(*words, before=ONE_BY_ONE)
    process.stdin.write(b"\n".join(GOOD[:4]) + b"\n")
    process.stdin.flush()
    part = tmp_path / "out.jsonl.part"
    wait_for(lambda: part.exists() and part.stat().st_size)
    wait_until_read(process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == -signal.SIGINT and b"Traceback" not in err
    last = err.decode().splitlines()[-1]
    assert last.startswith(f"ramctl {command}: interrupted: ") and "--resume" in last
    assert not (tmp_path / "out.jsonl").exists()
    again = ramctl(*words, "--resume", stdin=b"\n".join(GOOD) + b"\n")
    assert again.returncode == 0 and " done before" in again.messages
    whole = ramctl(*COMMANDS[command], "-", stdin=b"\n".join(GOOD) + b"\n")
    assert (tmp_path / "out.jsonl").read_bytes() == whole.stdout


def test_a_run_that_cannot_be_resumed_does_not_say_that_it_can(ramctl):
    process = ramctl.start("parse", "-", "--rejects", "-", before=ONE_BY_ONE)
    process.stdin.write(b"{oops\n")
    process.stdin.flush()
    wait_until_read(process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == -signal.SIGTERM
    assert err.decode().splitlines()[-1] == "ramctl parse: terminated"


def test_photos_stay_as_they_are_and_nothing_is_fetched(tmp_path, ramctl):
    for name in ("horses", "steps"):
        shutil.copy2(DATA / "photos" / f"{name}.jpg", tmp_path)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    for _ in range(2):  # the second time there are sidecars
        for words in (
            ["tag", "-R", ".", "-o", "tags.jsonl"],
            ["export", "tags.jsonl", "--xmp", "--txt", "--gallery", "page.html"],
            ["parse", DATA / "captions.jsonl"],
        ):
            done = ramctl.process(*words, before=ALONE)
            assert done.returncode == 0, done.stderr
        assert len((tmp_path / "tags.jsonl").read_bytes().splitlines()) == 2
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before


def test_no_home_is_needed_and_what_needs_one_names_the_variables(ramctl, monkeypatch):
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "RAMCTL_MODELS"):
        monkeypatch.delenv(name, raising=False)
    for words in (["tag", "-q", "-j1", next(Path(DATA / "photos").glob("*.jpg"))], ["doctor"]):
        done = ramctl.process(*words, before=HOMELESS)
        assert (done.returncode, done.messages) == (0, "")
    done = ramctl.process("tag", "--model", "nothere", "a.jpg", before=HOMELESS)
    assert (done.returncode, done.messages.count("\n")) == (1, 1)
    assert done.messages.endswith("no home folder: set HOME, or XDG_DATA_HOME to a folder\n")
