"""The manners that every record command has: streams, order, rejects, exit codes, signals."""

import json
import os
import re
import signal
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pytest

from tests.command import ONE_BY_ONE, Ramctl
from tests.support import DATA, wait_for

COMMANDS = ["caption", "parse", "generate", "clean", "tag", "import"]

pytestmark = pytest.mark.usefixtures("captioner")


def arguments_of(command: str, bundle: Path) -> list[str]:
    if command == "parse":
        return ["parse"]
    if command == "import":
        return ["import", "--root", str(DATA)]
    if command == "caption":
        return ["caption", "--model", "m", "--root", str(DATA)]
    return [command, "--model", str(bundle), "--root", str(DATA)]


def input_lines() -> list[bytes]:
    """Eight good records with fields of other people, a blank line and two bad ones."""
    lines = []
    for number, line in enumerate((DATA / "captions.jsonl").read_bytes().splitlines()):
        row = {"id": number, **json.loads(line), "mine": {"ä": [1, None, "x\u2028y"]}}
        row["tags"] = ["horse", "field"]
        lines.append(json.dumps(row, ensure_ascii=False).encode())
    return [*lines[:3], b"{oops", b"", *lines[3:6], b'"a string"', *lines[6:]]


def wait_until_read(process) -> None:
    """Return when a command has taken all that was written to it: its loop runs by then."""

    def is_read() -> bool:
        assert process.poll() is None
        return not int.from_bytes(ioctl(process.stdin, termios.FIONREAD, bytes(4)), sys.byteorder)

    wait_for(is_read)


@pytest.fixture(scope="module", params=COMMANDS)
def command(request) -> str:
    return request.param


@pytest.fixture
def resumed(command) -> str:
    """A command that has --resume; clean starts again."""
    if command == "clean":
        pytest.skip("needs --resume")
    return command


@pytest.fixture(scope="module")
def ordinary(command, tiny_bundle, captioner, tmp_path_factory):
    """One run over good and bad lines: (finished process, its rejects)."""
    folder = tmp_path_factory.mktemp(f"contract-{command}")
    (folder / "in.jsonl").write_bytes(b"\n".join(input_lines()) + b"\n")
    words = [*arguments_of(command, tiny_bundle), "in.jsonl", "--rejects", "rejects.jsonl"]
    return Ramctl(folder)(*words), folder


def test_every_line_comes_out_in_order_or_is_rejected(ordinary):
    done, folder = ordinary
    ids = [json.loads(line)["id"] for line in done.stdout.splitlines()]
    rejects = [json.loads(line) for line in (folder / "rejects.jsonl").read_bytes().splitlines()]
    assert ids == list(range(8))
    assert [(r["line"], r["code"]) for r in rejects] == [(4, "bad_json"), (9, "bad_json")]
    assert {r["source"] for r in rejects} == {"in.jsonl"}
    assert done.returncode == 3


def test_unknown_fields_are_untouched_and_in_place(ordinary):
    done, _ = ordinary
    good = [line for line in input_lines() if line.startswith(b'{"id')]
    for line, given in zip(done.stdout.splitlines(), good, strict=True):
        row = json.loads(line)
        assert row["mine"] == json.loads(given)["mine"]
        assert "x\u2028y".encode() in line
        assert next(iter(row)) == "id"


def test_stderr_names_each_reject_in_plain_lines_and_ends_with_the_summary(ordinary, command):
    assert not {"\x1b", "\r"} & set(ordinary[0].messages)
    lines = ordinary[0].messages.splitlines()
    assert any("in.jsonl:4: bad JSON" in line for line in lines)
    tokens = r"\d+ tokens in, \d+ tokens out, " if command == "caption" else ""
    counts = rf"ramctl {command}: 10 in, 8 out, 2 rejected, {tokens}[\d.]+ s, "
    assert re.match(counts, lines[-1])


def test_the_same_input_gives_the_same_bytes_with_more_workers(ordinary, command, tiny_bundle):
    done, folder = ordinary
    jobs = [] if command in ("import", "clean") else ["-j2"]
    again = Ramctl(folder)(*arguments_of(command, tiny_bundle), "in.jsonl", *jobs)
    assert again.stdout == done.stdout


@pytest.mark.parametrize("command", ["parse"])
def test_strict_fails_with_one_line(command, tiny_bundle, ramctl):
    done = ramctl(*arguments_of(command, tiny_bundle), "-", "--strict", "-q", stdin=b"{oops\n")
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"-:1: bad JSON" in done.stderr


def test_a_missing_input_is_one_line(command, tiny_bundle, ramctl):
    done = ramctl(*arguments_of(command, tiny_bundle), "nowhere.jsonl")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"nowhere.jsonl: no such file" in done.stderr


def test_a_reader_who_left_is_no_error_message(command, tiny_bundle, ramctl):
    read_end, write_end = os.pipe()
    os.close(read_end)
    quiet = [] if command == "import" else ["-q"]
    process = ramctl.start(*arguments_of(command, tiny_bundle), "-", *quiet, stdout=write_end)
    os.close(write_end)
    _, err = process.communicate(b"\n".join(input_lines()[:3]) + b"\n")
    assert (process.returncode, err) == (141, b"")


def test_an_interrupted_run_can_be_resumed(resumed, tiny_bundle, ordinary, tmp_path, ramctl):
    """SIGINT while the command waits for more input: complete lines, the signal's own status."""
    command = resumed
    arguments = [*arguments_of(command, tiny_bundle), "-", "-o", "out.jsonl"]
    arguments += ["-j1"] if command == "caption" else []
    process = ramctl.start(*arguments, before=ONE_BY_ONE)
    lines = [line for line in input_lines() if line.startswith(b'{"id')]
    process.stdin.write(b"\n".join(lines[:4]) + b"\n")
    process.stdin.flush()
    part = tmp_path / "out.jsonl.part"
    wait_for(lambda: part.exists() and part.stat().st_size)
    wait_until_read(process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == -signal.SIGINT
    assert b"Traceback" not in err
    last = err.decode().splitlines()[-1]
    assert last.startswith(f"ramctl {command}: interrupted: ") and "--resume" in last
    assert not (tmp_path / "out.jsonl").exists()
    again = ramctl(*arguments, "--resume", stdin=b"\n".join(lines) + b"\n")
    assert again.returncode == 0
    assert (tmp_path / "out.jsonl").read_bytes() == ordinary[0].stdout


def test_an_interrupted_run_that_cannot_be_resumed_does_not_say_that_it_can(
    command, tiny_bundle, ramctl
):
    arguments = [*arguments_of(command, tiny_bundle), "-", "--rejects", "-"]
    arguments += ["-j1"] if command == "caption" else []
    process = ramctl.start(*arguments, before=ONE_BY_ONE)
    process.stdin.write(b"{oops\n")
    process.stdin.flush()
    wait_until_read(process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == -signal.SIGTERM
    assert err.decode().splitlines()[-1] == f"ramctl {command}: terminated"


def test_a_second_run_with_resume_tries_rejects_again(resumed, tiny_bundle, ordinary):
    _, folder = ordinary
    arguments = [*arguments_of(resumed, tiny_bundle), "in.jsonl", "-o", "out.jsonl", "--resume"]
    first, second = Ramctl(folder)(*arguments), Ramctl(folder)(*arguments)
    assert (first.returncode, second.returncode) == (3, 3)
    assert b": 2 in, 0 out, 2 rejected, 8 done before" in second.stderr
    assert (folder / "out.jsonl").read_bytes() == ordinary[0].stdout
