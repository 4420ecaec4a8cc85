"""What `--resume` does with inputs that are done, were rejected, have changed or are gone."""

import pytest

from ramctl.errors import RunProblem, UsageProblem
from ramctl.records.stream import DOCUMENT, Format
from tests.records.test_stream import crash_at, run
from tests.support import read_rows

HEAD = b'["head"]\n'
OTHER = {"oops": b"{oops", "bad": b'{"bad":1}'}


def lines_of(words: str) -> list[bytes]:
    """`1` is a record of that number, `oops` a broken line, `bad` a record that is rejected."""
    return [OTHER.get(word, b'{"a":%s}' % word.encode()) for word in words.split()]


def run_on(folder, words, **options):
    """A run over such lines that is killed before the number with a `!`, where there is one."""
    crashing = [word for word in words.split() if word.endswith("!")]
    options |= {"form": Format(HEAD)} | options
    lines = lines_of(words.replace("!", ""))
    if not crashing:
        return run(folder, lines, **options)
    with pytest.raises(OSError, match="power cut"):
        run(folder, lines, do=crash_at(int(crashing[0][:-1])), **options)
    return None


def numbers(folder) -> list[int]:
    head, *rows = read_rows(folder / "out")
    assert head == ["head"]
    return [row["a"] for row in rows]


# The inputs of a run and of those that continue it; what is in the output and how many of them
# were there before the last run; the lines of the rejects.
RULES = {
    "nothing is new": (["1 oops 2 bad 3"] * 2, [1, 2, 3], 3, [2, 4]),
    "a reject is mended": (["1 bad 3", "1 2 3"], [1, 3, 2], 2, []),
    "a record is a reject now": (["1 2 3", "1 oops bad"], [1], 1, [2, 3]),
    "one is changed": (["1 2 3", "7 2 3"], [2, 3, 7], 2, []),
    "the last are gone": (["1 2 2", "1"], [1], 1, []),
    "doubles": (["2 2 3", "2 2 2"], [2, 2, 2], 2, []),
    # Records are known by their places: what moved up is done anew, and its old line goes.
    "one is taken out": (
        ["0 bad 2 3 bad", "0 2 3! bad", "0 2 3 bad", "0 2 3 bad"], [0, 2, 3], 3, [4],
    ),
    "changed again and again": (["1 2 3", "7 2 3 8", "7 2 9 8"], [2, 7, 8, 9], 3, []),
    "all changed": (["1 2 3", "7 2 3 8", "4 5 6 bad"], [4, 5, 6], 0, [4]),
    "stopped again and again": (["1 2", "7 8! 9", "7 8 9!", "7 8 9"], [7, 8, 9], 2, []),
    "never begun": (["1! 2", "1 2"], [1, 2], 0, []),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_a_continued_run_is_as_if_it_were_new(rule, tmp_path):
    (first, *others), expected, n_skipped, rejected = RULES[rule]
    run_on(tmp_path, first)
    for words in others:
        report = run_on(tmp_path, words, resume=True)
    assert (numbers(tmp_path), report.n_skipped) == (expected, n_skipped)
    assert report.n_in + report.n_skipped == len(others[-1].split())
    assert [row["line"] for row in read_rows(tmp_path / "rejects")] == rejected
    assert (f", {n_skipped} done before" in report.summary()) == bool(n_skipped)
    assert {path.name for path in tmp_path.iterdir()} == {"out", ".out.done", "rejects"}


def test_what_is_done_is_not_written_again(tmp_path):
    run_on(tmp_path, "1 bad")
    before = (tmp_path / "out").stat()
    assert run_on(tmp_path, "1 bad", resume=True).exit_code == 3
    after = (tmp_path / "out").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_blocks_that_a_power_cut_has_lost_are_done_again(tmp_path):
    words = " ".join(map(str, range(30)))
    run_on(tmp_path, words.replace("25", "25!"))
    part = tmp_path / "out.part"
    content = part.read_bytes()
    part.write_bytes(content[:300] + bytes(len(content) - 300))
    assert 0 < run_on(tmp_path, words, resume=True).n_skipped < 25
    assert numbers(tmp_path) == [*range(30)]
    (tmp_path / "out").rename(part)
    (tmp_path / ".out.done").write_bytes(bytes(100))  # the list itself
    assert run_on(tmp_path, words, resume=True).n_skipped == 0
    assert numbers(tmp_path) == [*range(30)]


@pytest.mark.parametrize("edit", ["first", "odd", "added", "no list"])
def test_an_output_that_was_edited_is_left_as_it_is(edit, tmp_path):
    """Lines would be taken for other records' lines, and what was added would be cut off."""
    run_on(tmp_path, "1 22 333")
    head, *lines = (tmp_path / "out").read_bytes().splitlines(keepends=True)
    edited = {"first": lines[1:], "odd": lines[::2], "added": [*lines, b'{"mine":1}\n']}
    (tmp_path / "out").write_bytes(b"".join([head, *edited.get(edit, lines)]))
    if edit == "no list":
        (tmp_path / ".out.done").unlink()
    before = (tmp_path / "out").read_bytes()
    with pytest.raises(RunProblem, match="run without --resume to start over"):
        run_on(tmp_path, "1 22 333 4", resume=True)
    assert (tmp_path / "out").read_bytes() == before


def test_another_command_model_or_format_is_noticed(tmp_path):
    run(tmp_path, [b'{"a":1}'], fingerprint={"model": "x", "labels": "l"})
    with pytest.raises(UsageProblem, match="another command"):
        run(tmp_path, [], command="other", resume=True)
    with pytest.raises(UsageProblem, match="another labels, model"):
        run(tmp_path, [], resume=True, fingerprint={"model": "y"})
    (tmp_path / "out").unlink()
    run(tmp_path, [], fingerprint={"model": "x"})  # which leaves nothing that is in the way
    run(tmp_path, [b'{"a":1}'], resume=True, fingerprint={"model": "y"})
    assert (tmp_path / "out").read_bytes() == b'{"a":1,"seen":true}\n'
    with pytest.raises(UsageProblem, match="one document"):
        run(tmp_path, [], resume=True, form=DOCUMENT)
