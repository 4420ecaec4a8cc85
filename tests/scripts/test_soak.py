"""scripts/bench/soak.py at toy size: it counts what comes out and reads what runs."""

import pytest
import soak

from tests.conftest import REPOSITORY


@pytest.mark.slow
@pytest.mark.parametrize("what", ["parse", "tag"])
def test_every_record_of_a_short_run_is_accounted_for(what, monkeypatch, capsys):
    files = [str(REPOSITORY / "tests" / "data" / "captions.jsonl")] if what == "parse" else []
    monkeypatch.setattr("sys.argv", ["soak.py", what, "--records", "120", *files])
    assert soak.main() == 0
    assert f"{what}, 120 records, 0 problems" in capsys.readouterr().out


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
