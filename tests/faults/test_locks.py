"""One run at a time on an output: the second one is refused."""

import errno
import fcntl
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import pytest

from ramctl.errors import RunProblem
from ramctl.records import files
from tests.faults.crashes import workers_of
from tests.support import DATA, wait_for

CAPTIONS, PARSED = str(DATA / "captions.jsonl"), str(DATA / "parse_gold.jsonl")


@pytest.fixture
def lock_elsewhere():
    """Holds the lock of an output as another run would, until the test ends."""
    end = threading.Event()
    threads = []

    def hold(output: Path) -> None:
        is_held = threading.Event()

        def holding() -> None:
            with files.output_lock(output):
                is_held.set()
                end.wait()

        threads.append(threading.Thread(target=holding))
        threads[-1].start()
        assert is_held.wait(10)

    yield hold
    end.set()
    for thread in threads:
        thread.join()


OUTPUTS = [  # the last option names what is written
    ["caption", "--model", "m", str(DATA / "photos" / "steps.jpg"), "-o"],
    ["parse", CAPTIONS, "-o"],
    ["parse", CAPTIONS, "--rejects"],
    ["parse", CAPTIONS, "--build-labels"],
    ["generate", PARSED, "--captions", "0", "-o"],
    ["clean", PARSED, "-o"],
    ["tag", str(DATA / "photos" / "steps.jpg"), "-o"],
    ["eval", CAPTIONS, "--truth", str(DATA / "truth.jsonl"), "-o"],
    ["train", PARSED, "--steps", "1", "--out"],
    ["convert", "mini", "--to", "onnx", "--out"],
]


@pytest.mark.parametrize("arguments", OUTPUTS, ids=lambda words: f"{words[0]} {words[-1]}")
def test_an_output_that_another_run_writes_is_refused(arguments, lock_elsewhere, tmp_path, ramctl):
    lock_elsewhere(tmp_path / "out")
    done = ramctl(*arguments, "out")
    assert done.returncode == 1
    assert "out: locked; another run is in progress" in done.messages
    told = done.messages.splitlines()
    assert [line for line in told if "locked" in line] == told[-1:]
    assert [path.name for path in tmp_path.iterdir()] == ["out.part.lock"]


@pytest.fixture
def first(tmp_path, request, ramctl):
    """A run of `parse -o c.out` that has written a record and waits for the next."""
    jobs = getattr(request, "param", "-j1")
    run = ramctl.start("parse", "-", "-o", "c.out", "-b1", jobs)
    run.stdin.write(b'{"captions":["a horse"]}\n' * 40)
    run.stdin.flush()
    state = tmp_path / ".c.out.state.jsonl"
    wait_for(lambda: state.exists() and state.read_bytes().count(b"\n") > 1)
    yield run
    run.kill()
    run.communicate()


def test_two_runs_at_once_write_one_output_once(first, tmp_path, ramctl):
    second = ramctl("parse", CAPTIONS, "-o", "c.out")
    assert second.returncode == 1
    assert second.messages == "ramctl parse: c.out: locked; another run is in progress\n"
    first.communicate(b'{"captions":["a boat"]}\n')
    assert first.returncode == 0
    assert (tmp_path / "c.out").read_bytes().count(b"\n") == 41
    assert sorted(path.name for path in tmp_path.iterdir()) == [".c.out.state.jsonl", "c.out"]


@pytest.mark.parametrize("first", ["-j2"], indirect=True)
def test_a_killed_run_leaves_no_lock_though_its_workers_may_live_on(first, tmp_path, ramctl):
    workers = workers_of(first)
    assert len(workers) >= 2
    for worker in workers:  # they would end when the parent does
        os.kill(worker, signal.SIGSTOP)
    first.kill()
    first.wait()
    assert (tmp_path / "c.out.part.lock").exists()
    second = ramctl("parse", CAPTIONS, "-o", "c.out")
    for worker in workers:
        with suppress(ProcessLookupError):  # it stopped after its parent was gone, and ended
            os.kill(worker, signal.SIGKILL)
    assert second.returncode == 0, second.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [".c.out.state.jsonl", "c.out"]


def test_a_lock_that_was_given_back_while_it_was_waited_for_is_not_taken_for_the_new_one(tmp_path):
    """The holder removes its file: who has opened that one meanwhile must lock the next."""
    path = files.lock_path(tmp_path / "out")
    old = path.open("w")
    path.unlink()
    with files.output_lock(tmp_path / "out"):
        fcntl.flock(old, fcntl.LOCK_EX | fcntl.LOCK_NB)  # another file: no conflict
        assert files.is_open_alone(path)
    old.close()


def test_the_same_thread_may_lock_again(tmp_path):
    with files.output_lock(tmp_path / "out"):
        with files.output_lock(tmp_path / "out", None):
            pass
        assert files.is_open_alone(files.lock_path(tmp_path / "out"))
    assert not files.lock_path(tmp_path / "out").exists()


def test_where_there_are_no_locks_a_run_says_so_and_goes_on(tmp_path, monkeypatch):
    refusing = Mock(side_effect=OSError(errno.ENOLCK, "No locks available"))
    monkeypatch.setattr(fcntl, "flock", refusing)
    said = []
    with files.output_lock(tmp_path / "out", notify=said.append):
        files.write_atomic(tmp_path / "out", b"content")
    assert len(said) == 1 and "this file system has no locks" in said[0]
    assert (tmp_path / "out").read_bytes() == b"content"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / "lock").write_text("somebody's")
    lock = files.locked(tmp_path / "lock", print)
    with pytest.raises(RunProblem, match="cannot be locked"), lock:
        pass
    assert (tmp_path / "lock").read_text() == "somebody's"


def test_files_replaced_at_once_are_whole(tmp_path):
    """Two runs may write one sidecar: the last one wins, and nobody sees a mixture."""
    contents = [bytes([letter]) * 300_000 for letter in b"abcd"]
    written = [tmp_path / str(number) for number in range(10)]  # the first of each is a new file

    def write(content: bytes) -> None:
        for file in written:
            for _ in range(3):
                files.write_atomic(file, content)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for file in written:
            if file.exists():
                assert file.read_bytes() in contents
    assert sorted(tmp_path.iterdir()) == sorted(written)


def test_a_file_made_between_two_looks_is_no_device(tmp_path, monkeypatch):
    """It would be written to directly, not replaced."""
    (tmp_path / "made").touch()
    looks = [FileNotFoundError(), (tmp_path / "made").stat()]

    def stat(path, **options):
        look = looks.pop(0) if len(looks) > 1 else looks[0]
        if isinstance(look, OSError):
            raise look
        return look

    monkeypatch.setattr(Path, "stat", stat)
    assert not files.is_device(tmp_path / "file")
