"""A disk that is full at one kind of file after the other: its name is told, and nothing is lost.

A limit to the size of files stands for the disk: each kind has its own size.
"""

import json
import shutil
import tempfile
from pathlib import Path

import pytest

from ramctl.checkpoints.bundle import Bundle
from tests.faults.crashes import KILLED, contents, run
from tests.faults.streams import GOOD, LINES, stream, with_lines
from tests.faults.test_crashes import DATA, captioned, tagged_photos

FULL = "File too large"
LONG = ',"mine":"' + "x" * 1500 + '"}'


def spoilt_and_mended(
    folder: Path, words: list[object], most_bytes: int, *, again: list[object] | None = None
) -> tuple[str, bool]:
    """The last line of a run on a full disk, and whether what follows it makes up for it.

    The folder is as before, then as an undisturbed run leaves it.
    """
    before = folder.with_name("before")
    shutil.copytree(folder, before)
    status, _, err = run(folder, words, most_bytes=most_bytes)
    last = err.splitlines()[-1]
    assert status == 1 and "internal error" not in err, err
    done, _, err = run(folder, [*words, "--resume"] if again is None else again)
    assert done in (0, 3), err
    left = contents(folder)
    shutil.rmtree(folder)
    before.rename(folder)
    status, _, err = run(folder, words)
    assert status == done, err
    return last, left == contents(folder)


@pytest.mark.parametrize(
    ("lines", "most_bytes", "named"),
    [
        (LINES, 0, ".out.state.jsonl"),  # not even the line of a lock
        (LINES, 150, ".out.state.jsonl"),
        (LINES, 1000, ".out.state.jsonl"),
        ([GOOD[0][:-1] + LONG, *LINES], 1500, "out.part"),
        (["{oops" + LONG, *LINES], 1500, "rejects.part"),
    ],
)
def test_output_rejects_and_state(lines, most_bytes, named, folder):
    with_lines(*lines * 3)(folder)
    status, _, err = run(folder, stream(), most_bytes=most_bytes)
    assert (status, err) == (1, f"ramctl test: {named}: {FULL}\n")
    if (state := folder / ".out.state.jsonl").exists():
        assert state.read_bytes().endswith(b"\n")  # no half line, to which another is appended
    assert run(folder, stream(resume=True))[0] == 3
    resumed = contents(folder)
    assert run(folder, stream())[0] == 3
    assert resumed == contents(folder)


@pytest.mark.parametrize(
    ("option", "most_bytes", "named"),
    [
        (["--xmp"], 600, "horses.jpg.xmp"),
        (["--gallery", "page.html"], 3000, "page.html"),
        (["--gallery", "page.html"], 15_000, "page.html"),
    ],
)
def test_sidecars_and_galleries(option, most_bytes, named, folder):
    """The photos that follow a sidecar that could not be written are no rejects: they wait."""
    tagged_photos(folder)
    words = ["export", "in.jsonl", *option]
    last, is_whole = spoilt_and_mended(folder, words, most_bytes, again=words)
    assert last.startswith("ramctl export: ") and last.endswith(f"{named}: {FULL}")
    assert is_whole


@pytest.mark.parametrize(
    ("words", "most_bytes", "named"),
    [
        (["eval", DATA / "truth.jsonl", "--truth", DATA / "truth.jsonl", "-o", "out"], 100, "out"),
        (["convert", "model", "--to", "onnx", "--out", "new"], 50_000, "new"),
    ],
    ids=["figures", "bundle"],
)
def test_what_is_written_at_once(words, most_bytes, named, tiny_bundle, folder):
    shutil.copytree(tiny_bundle, folder / "model")
    last, is_whole = spoilt_and_mended(folder, words, most_bytes, again=words)
    assert (last.split(": ", 1)[1], is_whole) == (f"{named}: {FULL}", True)


@pytest.mark.parametrize(
    "words",
    [["export", "in.jsonl", "-f", "coco", "-o", "out"],
     ["clean", "in.jsonl", "-o", "out"]],
    ids=["coco", "clean"],
)  # fmt: skip
def test_temporary_files(words, folder, monkeypatch):
    tagged_photos(folder)
    row = json.loads((folder / "in.jsonl").read_text().splitlines()[0])
    row["mine"] = "x" * 3000
    row["tags"] = [f"tag {i}" for i in range(500)]
    (folder / "in.jsonl").write_text(json.dumps(row) + "\n")
    status, _, err = run(folder, words, most_bytes=2000)
    assert (status, err.splitlines()[-1]) == (
        1,
        f"ramctl {words[0]}: {tempfile.gettempdir()}: {FULL}",
    )


def test_standard_output_that_is_written_at_once(ramctl):
    with Path("/dev/full").open("wb") as full:
        run = ramctl.start("doctor", stdout=full)
        err = run.communicate()[1].decode()
    assert (run.returncode, err) == (1, "ramctl doctor: standard output: No space left on device\n")


def test_word_pieces_checkpoints_and_bundles_of_train(tiny_bundle, folder):
    captioned(folder)
    words = ["train", "in.jsonl", "--root", DATA, "--preset", "tiny", "--steps", "2", "-j0"]
    words += ["--text", tiny_bundle / "text", "--save-every", "1", "--out", "model", "--resume"]
    for most_bytes, named in (
        (6500, "model.work/tokenizer.json"),
        (200_000, "model.work/checkpoints/step-00000001.pt"),
    ):
        status, _, err = run(folder, words, most_bytes=most_bytes)
        last = err.splitlines()[-1]
        assert (status, FULL in last) == (1, True) and last.startswith(f"ramctl train: {named}")
    assert run(folder, words, crash_before="os.mkdir .model.ramctl-new")[0] == KILLED
    for most_bytes in (50_000, 300_000):  # less than the weights, and than the graph
        status, _, err = run(folder, words, most_bytes=most_bytes)
        assert (status, err.splitlines()[-1]) == (1, f"ramctl train: model: {FULL}")
        assert not (folder / ".model.new").exists()
    status, _, err = run(folder, words)
    assert status == 0 and "continuing after step 2 of 2" in err
    assert Bundle.open(folder / "model", verify=True).has("model.onnx")
