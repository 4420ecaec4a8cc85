"""scripts/bench/soak.py at toy size: it counts what comes out and reads what runs."""

import os
import signal

import guards
import pytest
import soak

from ramctl.photos import decoding, limits
from ramctl.records import files, jsonl
from tests.conftest import REPOSITORY


@pytest.mark.slow
@pytest.mark.parametrize("what", ["parse", "tag"])
def test_every_record_of_a_short_run_is_accounted_for(what, monkeypatch, capsys):
    files = [str(REPOSITORY / "tests" / "data" / "captions.jsonl")] if what == "parse" else []
    monkeypatch.setattr("sys.argv", ["soak.py", what, "--records", "120", *files])
    assert soak.main() == 0
    assert f"{what}, 120 records, 0 problems" in capsys.readouterr().out


@pytest.fixture
def handlers():
    """The signal handlers of this process, as they were."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["parse", "tag"])
def test_a_soak_goes_on_where_its_last_piece_ended(handlers, what, tmp_path, monkeypatch, capsys):
    words = ["soak.py", what, "--records", "60", "--folder", str(tmp_path / "soak")]
    monkeypatch.setattr("sys.argv", [*words, "--max-time", "0s"])
    assert soak.main() == soak.EXIT_LEFT
    assert "records are left" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", words)
    assert soak.main() == 0
    assert f"{what}, 60 records, 0 problems" in capsys.readouterr().out


def test_each_guard_that_guards_py_takes_away_is_there(monkeypatch):
    names = [
        (os, "fsync"), (files, "held"), (jsonl, "bounded_lines"), (jsonl, "require_writable"),
        (decoding, "read_photo"), (decoding, "in_time"), (limits, "room_for"),
    ]  # fmt: skip
    before = [getattr(module, name) for module, name in names]
    for (module, name), own in zip(names, before, strict=True):
        monkeypatch.setattr(module, name, own)  # put back afterwards
    guards.remove_guards()
    for (module, name), own in zip(names, before, strict=True):
        assert getattr(module, name) is not own, name


def test_a_lost_a_doubled_and_a_changed_record_are_noticed():
    def wrong(names):
        return soak._accounted(iter(names), 3, "{}.jpg".format)

    assert wrong(["0.jpg", "1.jpg", "2.jpg"]) == []
    assert wrong(["0.jpg", "1.jpg"]) == ["2 records out of 3"]
    assert wrong(["0.jpg", "0.jpg", "1.jpg"]) == ["record 2 is '0.jpg', not '1.jpg'"]
    assert wrong(["0.jpg", "2.jpg", "1.jpg"]) == ["record 2 is '2.jpg', not '1.jpg'"]


def test_growth_is_that_of_a_line_through_the_later_half():
    start = [(n, 100.0 * n, 5) for n in range(10)]
    later = [(10 + n, 1000.0 + 2 * n, 5 + n) for n in range(10)]
    memory, descriptors = soak.Readings(start + later).growth()
    assert (memory, descriptors) == pytest.approx((18, 9))
