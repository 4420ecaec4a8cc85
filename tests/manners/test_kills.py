"""A run that is killed, wherever, and resumed is as one that never was; two at once are refused."""

import json
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.command import ONE_BY_ONE, Ramctl
from tests.manners.steps import KILLED
from tests.support import DATA, wait_for

LINES = [
    '{"captions":["a horse"]}', "{oops", '{"captions":["a boat"]}', '{"none":1}',
    '{"captions":["a red house"]}',
]  # fmt: skip
CHANGED = [
    *LINES[:2], '{"captions":["a green boat"]}', '{"captions":["a dog"]}', LINES[4], "{worse",
    LINES[2],
]  # fmt: skip
PARSE = ["parse", "in.jsonl", "-j1", "-o", "out", "--rejects", "rejects"]
TAG = ["tag", "-R", ".", "-f", "csv", "-j1", "-o", "out", "--rejects", "rejects"]
FULL = "File too large"
LONG = ',"mine":"' + "x" * 1500 + '"}'


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder for the runs of a test, beside which it keeps what is no part of them."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def write_lines(folder: Path, *lines: str) -> None:
    (folder / "in.jsonl").write_text("".join(line + "\n" for line in lines))


def killed(folder: Path, words, number: int) -> tuple[int, list[str]]:
    """The exit status of a run that dies before a step, and the steps before that one."""
    log = folder.with_name("steps")
    dying = f"from tests.manners.steps import die_before; die_before({number}, {str(log)!r})"
    status = Ramctl(folder).process(*words, before=dying).returncode
    return status, log.read_text().splitlines()


def contents(folder: Path, *, in_order: bool = True) -> dict[str, object]:
    """What is in a folder, without the content of states, which hold places and times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = b"" if path.suffix == ".done" else path.read_bytes()
        found[path.name] = content if in_order else sorted(content.splitlines())
    return found


def first_run(folder: Path) -> list[str]:
    write_lines(folder, *LINES)
    return PARSE


def changed_run(folder: Path) -> list[str]:
    """An input was changed, one mended, two added, and one is bad now."""
    write_lines(folder, *LINES, LINES[0])
    assert Ramctl(folder)(*PARSE).returncode == 3
    write_lines(folder, *CHANGED)
    return [*PARSE, "--resume"]


def photos(folder: Path) -> list[str]:
    for name in ("steps", "horses"):
        shutil.copy2(DATA / "photos" / f"{name}.jpg", folder / f"{name}.jpg")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return TAG


@pytest.mark.parametrize("prepare", [first_run, changed_run, photos])
def test_a_run_that_is_killed_before_any_step_and_resumed_is_as_never_killed(prepare, folder):
    words, form = prepare(folder), {"in_order": prepare is not changed_run}
    template = shutil.copytree(folder, folder.with_name("template"))
    code, steps = killed(folder, words, -1)
    assert code == 3 and len(steps) > 4
    whole = contents(folder, **form)
    numbers = range(len(steps))
    if prepare is photos:  # slow: some, and the last, in which what was made gets its names
        numbers = sorted({*random.sample(numbers, 4), *numbers[-4:]})
    for number in numbers:
        shutil.rmtree(folder)
        shutil.copytree(template, folder)
        where = f"killed before step {number}, {steps[number]}, after {steps[:number]}"
        assert killed(folder, words, number)[0] == KILLED, where
        assert Ramctl(folder)(*words, "--resume").returncode == code, where
        assert contents(folder, **form) == whole, where


def test_what_is_stale_goes_and_files_are_on_the_disk_before_they_have_their_names(folder):
    _, steps = killed(folder, changed_run(folder), -1)
    copy = ".out.part.ramctl-part"
    assert [step for step in steps if step.startswith(("fsync", "os.rename"))] == [
        f"fsync {copy}", f"os.rename {copy}",  # to append to
        f"fsync {copy}", f"os.rename {copy}",  # without the lines of changed inputs
        "fsync .out.done", "fsync out.part", "os.rename out.part",
    ]  # fmt: skip
    tags = [json.loads(line)["tags"] for line in (folder / "out").read_text().splitlines()]
    assert tags == [["horse"], ["red", "house"], ["green", "boat"], ["dog"], ["boat"]]
    rejects = (folder / "rejects").read_text().splitlines()
    assert [json.loads(line)["line"] for line in rejects] == [2, 6]


@pytest.mark.parametrize(
    ("lines", "most_bytes", "named"),
    [
        (LINES, 0, "out"),
        ([LINES[0][:-1] + LONG, *LINES], 1500, "out"),
        (["{oops" + LONG, *LINES], 1500, "rejects"),
    ],
)
def test_a_disk_that_is_full_is_named_and_resume_makes_up_for_it(lines, most_bytes, named, folder):
    write_lines(folder, *lines * 3)
    full = f"from tests.manners.steps import fill_disk; fill_disk({most_bytes})"
    done = Ramctl(folder).process(*PARSE, "-q", before=full)
    assert (done.returncode, done.messages) == (1, f"ramctl parse: {named}: {FULL}\n")
    assert Ramctl(folder)(*PARSE, "--resume").returncode == 3
    resumed = contents(folder)
    assert Ramctl(folder)(*PARSE).returncode == 3
    assert resumed == contents(folder)


@pytest.mark.parametrize(
    ("words", "most_bytes", "named"),
    [
        (["export", "in.jsonl", "--xmp"], 600, "horses.jpg.xmp"),
        (["export", "in.jsonl", "--gallery", "page.html"], 3000, "page.html"),
        (["eval", DATA / "truth.jsonl", "--truth", DATA / "truth.jsonl", "-o", "out"], 100, "out"),
    ],
)
def test_a_file_that_is_written_at_once_is_whole_or_not_there(words, most_bytes, named, folder):
    shutil.copy(DATA / "photos" / "horses.jpg", folder)
    write_lines(folder, '{"image":"horses.jpg","tags":["sky"]}')
    before = contents(folder)
    full = f"from tests.manners.steps import fill_disk; fill_disk({most_bytes})"
    done = Ramctl(folder).process(*words, before=full)
    assert done.returncode == 1 and done.messages.endswith(f"{named}: {FULL}\n")
    assert contents(folder) == before
    assert Ramctl(folder)(*words).returncode == 0


def test_standard_output_that_is_full_is_named(ramctl):
    for words in (["doctor"], ["export", "-f", "jsonl", DATA / "truth.jsonl"]):
        with Path("/dev/full").open("wb") as full:
            run = ramctl.start(*words, stdout=full)
            err = run.communicate()[1].decode()
        said = f"ramctl {words[0]}: standard output: No space left on device\n"
        assert (run.returncode, err) == (1, said)


def parse_waiting(ramctl, folder: Path, jobs: str):
    """A run that has written some of 40 lines and waits for more."""
    run = ramctl.start("parse", "-", "-o", "out", jobs, before=ONE_BY_ONE)
    run.stdin.write(b'{"captions":["a horse in a field near a house by the river"]}\n' * 40)
    run.stdin.flush()
    state = folder / ".out.done"
    # The first two are not done by workers.
    wait_for(lambda: state.exists() and state.read_bytes().count(b"\n") > 4)
    return run


def test_a_second_run_is_refused_and_the_first_goes_on(tmp_path, ramctl):
    first = parse_waiting(ramctl, tmp_path, "-j1")
    second = ramctl("parse", DATA / "captions.jsonl", "-o", "out")
    assert second.returncode == 1
    assert second.messages == "ramctl parse: out: locked; another run is in progress\n"
    first.communicate(b'{"captions":["a boat"]}\n')
    assert first.returncode == 0
    assert (tmp_path / "out").read_bytes().count(b"\n") == 41
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.done", "out"]


def test_the_lock_of_a_killed_run_is_free_and_its_workers_end(tmp_path, ramctl):
    first = parse_waiting(ramctl, tmp_path, "-j2")
    first.kill()
    assert first.stderr.read() == b""  # its end comes when the last worker has gone
    assert ramctl("parse", DATA / "captions.jsonl", "-o", "out").returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.done", "out"]


def test_killed_workers_end_the_run_in_one_line(tmp_path, ramctl):
    """It waited for the answer of the dead ones, for ever."""
    run = parse_waiting(ramctl, tmp_path, "-j2")
    workers = subprocess.check_output(["ps", "-o", "pid=", "--ppid", str(run.pid)])
    for worker in workers.split():  # one alone may be idle, and not be missed
        os.kill(int(worker), signal.SIGKILL)
    _, err = run.communicate(b'{"captions":["a boat"]}\n' * 20, timeout=60)
    assert (run.returncode, err.count(b"\n")) == (1, 1)
    assert err.startswith(b"ramctl parse: a worker process was killed; ")
