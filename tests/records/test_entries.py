"""What the entries of a resume state cost, and that each is found once, in order."""

import json

import pytest
from ramctl.records.state import ResumeState

from ramctl.errors import RunProblem
from tests.support import traced

N = 20_000


def state_of(path, keys):
    state = ResumeState(path, "test", {})
    state.start()
    for place, key in enumerate(keys, 1):
        state.add(key, "stamp", place)
    state.flush()
    return state


def loaded(path, n_bytes=N):
    """The state as another run finds it, whose output has so many bytes."""
    state = ResumeState(path, "test", {})
    state.load(n_bytes)
    return state


def test_an_entry_takes_few_bytes_of_memory(tmp_path):
    state_of(tmp_path / "state", [f"/photos/of/a/folder/{place}.jpg" for place in range(N)])
    loaded(tmp_path / "state")  # what is imported then does not count
    again, n_bytes, _ = traced(lambda: loaded(tmp_path / "state"))
    assert n_bytes / N < 40
    assert again.take("/photos/of/a/folder/7.jpg").row == 7


def test_the_entries_of_one_key_are_found_in_their_order(tmp_path):
    state_of(tmp_path / "state", ["a.jpg"] * 300 + ["b.jpg"])
    again = loaded(tmp_path / "state")
    assert [again.take("a.jpg").row for _ in range(300)] == list(range(300))
    assert again.take("a.jpg") is None
    assert again.take("b.jpg").row == 300


def test_many_entries_of_one_key_are_found_as_fast_as_those_of_many(tmp_path):
    """A list may name one photo in each line."""

    def steps(keys):
        state_of(tmp_path / "state", keys)
        again, counts = loaded(tmp_path / "state"), []
        again._rows.set_progress_handler(lambda: counts.append(1), 100)
        assert all(again.take(key) for key in keys)
        return len(counts)

    assert steps(["a.jpg"] * 2000) < 3 * steps([f"{place}.jpg" for place in range(2000)])


def test_a_full_disk_of_the_temporary_file_is_one_line(tmp_path):
    state_of(tmp_path / "state", "a")
    again = loaded(tmp_path / "state")
    again._sql("PRAGMA max_page_count = 1")
    with pytest.raises(RunProblem, match=r"\$TMPDIR names its folder.*full"):
        for place in range(9999):
            again.add(f"{place}.jpg", "stamp", place)


def test_what_the_output_has_lost_is_not_done(tmp_path):
    state_of(tmp_path / "state", "aaa")
    cut = loaded(tmp_path / "state", 2)
    taken = [cut.take("a") for _ in range(3)]
    assert (cut.end, [entry and entry.row for entry in taken]) == (2, [0, 1, None])


@pytest.mark.parametrize("line", ['{"key":"b","end":"x"}', '{"key":"b","end":1}'])
def test_a_line_that_is_none_of_a_state_is_named(line, tmp_path):
    state_of(tmp_path / "state", ["a"])
    with (tmp_path / "state").open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(RunProblem, match="state: line 3 is not a valid entry"):
        loaded(tmp_path / "state")


def test_what_follows_a_torn_line_does_not_count(tmp_path):
    path = tmp_path / "state"
    state_of(path, map(str, range(20)))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:9], b'{"key":\n', *lines[9:]]))
    again = loaded(path)
    assert (again.end, again.take("8")) == (8, None)
    assert path.read_bytes() == b"".join(lines[:9])
    again.add("new", "stamp", 9)
    again.flush()
    assert path.read_bytes().count(b"\n") == 10


def test_entries_that_were_dropped_go_and_later_ones_move(tmp_path):
    state = ResumeState(tmp_path / "state", "test", {})
    state.start()
    for key, end in (("a", 10), ("b", 14), ("c", 25), ("d", 30)):
        state.add(key, "s", end)
    state.flush()
    again = loaded(tmp_path / "state", 30)
    again.drop(again.take("b"))
    again.add("c", "t", 37, drops=again.take("c"))
    again.flush()
    assert list(again.stale()) == [(10, 14), (14, 25)]
    third = loaded(tmp_path / "state", 37)
    assert list(third.stale()) == [(10, 14), (14, 25)]
    assert (third.take("c").stamp, third.take("b")) == ("t", None)
    third.compact()
    lines = (tmp_path / "state.kept").read_bytes().splitlines()[1:]
    rows = [json.loads(line) for line in lines]
    assert [(row["key"], row["end"]) for row in rows] == [("a", 10), ("d", 15), ("c", 22)]
