"""Every command, killed before each step that it makes on the disk, is as good as never killed."""

import gzip
import json
import os
import shutil
from pathlib import Path

import pytest

from ramctl.checkpoints.bundle import Bundle, BundleWriter
from ramctl.records.files import write_atomic
from tests.faults.crashes import KILLED, Work, crash_matrix, resumed_by, run, some_of
from tests.faults.streams import GOOD, LINES, collection, stream, with_lines
from tests.support import DATA, gallery_names

PARSE = ["parse", "in.jsonl", "-o", "out", "--rejects", "rejects", "-b1"]


def changed(folder: Path, work: Work = stream()) -> None:  # noqa: B008
    """A finished run of which an input was changed, one mended, one added, and one is bad now."""
    with_lines(*LINES, GOOD[0])(folder)
    assert run(folder, work)[0] == 3
    again = [LINES[0], LINES[1], '{"captions":["a green boat"]}', '{"captions":["a dog"]}']
    with_lines(*again, LINES[4], "{worse", GOOD[1])(folder)


def placed(name: str) -> list[str]:
    return [f"fsync {name}", f"os.rename {name}", "fsync run"]


BEGUN = placed("..out.state.jsonl.ramctl-part")
COPIED = [
    f"{step} {name}.part.kept" for name in ("out", "rejects") for step in ("fsync", "os.rename")
]
COMPACTED = [
    *COPIED[::2],
    *placed("..out.state.jsonl.kept.ramctl-part"),
]  # the state after its outputs
for name in ("out.part.kept", "rejects.part.kept", ".out.state.jsonl.kept"):
    COMPACTED += [f"os.rename {name}", "fsync run"]


@pytest.mark.parametrize(
    ("again", "before"), [(False, BEGUN), (True, COPIED + COMPACTED)], ids=["first", "resumed"]
)
def test_files_are_on_the_disk_before_they_have_their_names_and_then_their_folder(
    again, before, folder
):
    if again:
        changed(folder)
    else:
        with_lines(*LINES)(folder)
    _, steps, err = run(folder, stream(resume=again))
    steps = [step for step in steps if step.startswith(("fsync", "os.rename"))]
    named = ["fsync .out.state.jsonl", *placed("out.part"), *placed("rejects.part")]
    assert steps == before + named, err


@pytest.fixture
def synced(monkeypatch) -> list[str]:
    """The names under which files and folders were when they were put on the disk, in order."""
    names: list[str] = []
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        names.append(str(Path(f"/dev/fd/{descriptor}").readlink()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return names


def test_all_of_a_bundle_is_on_the_disk_before_it_has_its_name(tiny_bundle, synced, tmp_path):
    with BundleWriter(tmp_path / "model") as writer:
        writer.copy_files(Bundle.open(tiny_bundle))
    inside = {str(path.relative_to(tmp_path / "model")) for path in writer.target.rglob("*")}
    unnamed = tmp_path / ".model.ramctl-new"
    assert set(synced[:-1]) == {str(unnamed), *(str(unnamed / name) for name in inside)}
    assert synced[-1] == str(tmp_path)


def test_a_file_that_is_replaced_is_on_the_disk_before_it_has_its_name(synced, tmp_path):
    write_atomic(tmp_path / "labels.jsonl", b"{}")
    assert synced == [str(tmp_path / ".labels.jsonl.ramctl-part"), str(tmp_path)]


def test_a_first_run(tmp_path):
    work, again = stream(stats=Path("stats")), resumed_by(stream(stats=Path("stats"), resume=True))
    n = crash_matrix(tmp_path / "run", with_lines(*LINES), work, again, ignored=["stats"])
    assert n > 15


@pytest.mark.parametrize("options", [{}, {"retry_rejects": True}], ids=["resume", "retry"])
def test_a_resumed_run_with_changed_inputs(options, tmp_path):
    work = stream(resume=True, **options)
    assert crash_matrix(tmp_path / "run", changed, work, resumed_by(work)) > 15
    head, *lines = (tmp_path / "run" / "out").read_text().splitlines()
    tags = [json.loads(line)["tags"] for line in lines]
    assert head == "[head]"
    assert tags == [["horse"], ["red", "house"], ["green", "boat"], ["dog"], ["boat"]]
    rejects = (tmp_path / "run" / "rejects").read_text().splitlines()
    assert [json.loads(line)["line"] for line in rejects] == [2, 6]


def test_a_first_run_to_compressed_files(tmp_path):
    work, again = stream(end=".gz"), resumed_by(stream(end=".gz", resume=True))
    assert crash_matrix(tmp_path / "run", with_lines(*LINES), work, again) > 20
    packed = (tmp_path / "run" / "out.gz").read_bytes()
    assert gzip.decompress(packed).startswith(b'[head]\n{"captions":["a horse"],"tags":["horse"]}')


@pytest.mark.parametrize("options", [{}, {"retry_rejects": True}], ids=["resume", "retry"])
def test_a_resumed_run_to_compressed_files_with_changed_inputs(options, tmp_path):
    work = stream(end=".gz", resume=True, **options)

    def prepare(folder: Path) -> None:
        changed(folder, stream(end=".gz"))

    assert crash_matrix(tmp_path / "run", prepare, work, resumed_by(work)) > 20
    run(tmp_path / "run", stream(resume=True, **options))
    folder = tmp_path / "run"
    changed(folder)
    run(folder, stream(resume=True, **options))
    for name in ("out", "rejects"):
        packed, plain = (folder / f"{name}.gz").read_bytes(), (folder / name).read_bytes()
        assert gzip.decompress(packed) == plain


def test_what_a_crash_left_of_a_compressed_file_is_never_taken_for_its_content(folder):
    """It died while it packed; the next run drops lines from the rejects alone."""
    with_lines(*LINES)(folder)
    work = stream(end=".gz")
    _, steps, _ = run(folder, work)
    expected = (folder / "out.gz").read_bytes()
    for path in folder.glob("*.*"):
        path.unlink()
    with_lines(*LINES)(folder)
    at = steps.index("open out.gz.part.kept") + 1
    assert run(folder, work, crash_before=at)[0] == KILLED
    assert (folder / "out.gz.part.kept").exists()
    with_lines(LINES[0], "{worse", *LINES[2:])(folder)
    assert run(folder, stream(end=".gz", resume=True))[0] == 3
    assert (folder / "out.gz").read_bytes() == expected
    assert b"worse" in gzip.decompress((folder / "rejects.gz").read_bytes())


def test_photos_that_were_renamed_and_deleted(tmp_path):
    def first(folder: Path) -> None:
        for name in ("boat", "dog", "horse"):
            (folder / f"{name}.jpg").write_text(name)
        assert run(folder, collection)[0] == 0
        (folder / "boat.jpg").rename(folder / "old.jpg")
        (folder / "dog.jpg").unlink()
        (folder / "new.jpg").write_text("house")

    assert crash_matrix(tmp_path / "run", first, collection, resumed_by(collection)) > 15
    rows = map(json.loads, (tmp_path / "run" / "out").read_text().splitlines())
    tags = {row["image"]: (row["tags"], row["captions"]) for row in rows}
    assert list(tags) == ["horse.jpg", "new.jpg", "old.jpg"]
    assert tags["old.jpg"] == (["boat"], ["a boat"])


def test_a_resumed_run_whose_first_line_goes(tmp_path):
    work = stream(resume=True, header=b"")

    def first_changed(folder: Path) -> None:
        with_lines(*GOOD)(folder)
        assert run(folder, stream(header=b""))[0] == 0
        with_lines('{"captions":["a dog"]}', *GOOD[1:])(folder)

    assert crash_matrix(tmp_path / "run", first_changed, work, resumed_by(work)) > 10
    lines = [json.loads(line) for line in (tmp_path / "run" / "out").read_text().splitlines()]
    assert [line["tags"] for line in lines] == [["boat"], ["red", "house"], ["dog"]]


def test_a_rejects_file_that_comes_later(tmp_path):
    def first(folder: Path) -> None:
        with_lines(*LINES)(folder)
        assert run(folder, stream(rejects=False))[0] == 3

    work = stream(resume=True)
    assert crash_matrix(tmp_path / "run", first, work, resumed_by(work)) > 8
    rejects = (tmp_path / "run" / "rejects").read_text().splitlines()
    assert [json.loads(line)["line"] for line in rejects] == [2, 4]


def test_a_mending_that_is_killed_is_mended(folder, tmp_path):
    """Killed while output and state were exchanged, and again at each step of what mends that."""
    work = stream(resume=True)
    changed(folder)
    shutil.copytree(folder, tmp_path / "before")
    _, steps, _ = run(folder, work)
    whole = [(folder / name).read_bytes() for name in ("out", "rejects")]
    commit = steps.index("os.rename out.part.kept")
    for first in range(commit - 1, commit + 5):
        for second in range(12):  # what was begun is mended before anything else
            shutil.rmtree(folder)
            shutil.copytree(tmp_path / "before", folder)
            run(folder, work, crash_before=first)
            status, _, err = run(folder, work, crash_before=second)
            was_killed = status == KILLED
            if was_killed:
                status, _, err = run(folder, work)
            assert status == 3, err
            assert [(folder / name).read_bytes() for name in ("out", "rejects")] == whole
            if not was_killed:  # it had no more steps
                break


@pytest.mark.slow
def test_a_first_run_and_a_resumed_one_of_parse(tmp_path):
    again = resumed_by([*PARSE, "--resume"])
    assert crash_matrix(tmp_path / "run", with_lines(*LINES), PARSE, again) > 15
    words, again = [*PARSE, "--resume", "--retry-rejects"], tmp_path / "again"
    assert crash_matrix(again, lambda made: changed(made, PARSE), words, resumed_by(words)) > 15


def photos(folder: Path) -> None:
    for name in ("steps", "horses"):
        shutil.copy2(DATA / "photos" / f"{name}.jpg", folder / f"{name}.jpg")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")


@pytest.mark.slow
def test_tag(tiny_bundle, tmp_path):
    words = ["tag", "--model", tiny_bundle, "-R", ".", "-f", "csv", "-b1", "-j1", "-o", "out"]
    words += ["--rejects", "rejects"]
    again = resumed_by([*words, "--resume"])
    assert crash_matrix(tmp_path / "run", photos, words, again, every=4) > 15


def tagged_photos(folder: Path) -> None:
    photos(folder)
    rows = [{"image": f"{name}.jpg", "tags": ["sky"]} for name in ("horses", "steps")]
    with_lines(*map(json.dumps, rows))(folder)


def test_export(tmp_path):
    words = ["export", "in.jsonl", "--xmp", "--txt", "--gallery", "page.html"]
    again = resumed_by(words)
    assert crash_matrix(tmp_path / "run", tagged_photos, words, again, every=3) > 15
    assert gallery_names(tmp_path / "run" / "page.html") == ["horses.jpg", "steps.jpg"]


def records(folder: Path) -> None:
    lines = (DATA / "captions.jsonl").read_text().splitlines()[:3]
    rows = [{**json.loads(line), "tags": ["horse", "field"]} for line in lines]
    rows.insert(1, {"image": "no-such.jpg", "tags": ["horse"]})
    with_lines(*map(json.dumps, rows))(folder)


def captioned(folder: Path) -> None:
    """All captions of the data as records with tags."""
    lines = map(json.loads, (DATA / "captions.jsonl").read_text().splitlines())
    with_lines(*(json.dumps({**line, "tags": ["horse", "field"]}) for line in lines))(folder)


@pytest.mark.slow
def test_the_data_engine(tiny_bundle, tmp_path):
    words = ["generate", "in.jsonl", "--model", tiny_bundle, "--root", DATA, "-b1", "-o", "out"]
    words += ["--rejects", "rejects"]
    again = resumed_by([*words, "--resume"])
    assert crash_matrix(tmp_path / "run", records, words, again, every=6) > 15


CAPTIONS = [DATA / "captions.jsonl"] * 5  # as often as a label must be named


@pytest.mark.parametrize(
    "words",
    [
        ["eval", DATA / "truth.jsonl", "--truth", DATA / "truth.jsonl", "-o", "out"],
        pytest.param(
            ["parse", *CAPTIONS, "--build-labels", "labels", "--review", "review"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["eval", "labels"],
)
def test_commands_that_are_run_again(words, tmp_path):
    """They have nothing to resume: what they left must not stand in the way of the next run."""
    assert crash_matrix(tmp_path / "run", lambda _: None, words, resumed_by(words), every=3) > 3


@pytest.mark.slow
def test_a_bundle_is_the_old_or_the_new_one(tiny_bundle, folder):
    """Each step of `convert` leaves a whole bundle under the name."""
    shutil.copytree(tiny_bundle, folder / "model")
    words = ["convert", "model", "--to", "onnx"]
    code, steps, err = run(folder, words)
    assert code == 0, err
    for number, step in some_of(steps, 6):
        assert run(folder, words, crash_before=number)[0] == KILLED
        assert Bundle.open(folder / "model", verify=True), step
    assert run(folder, words)[0] == 0
    assert [path.name for path in folder.iterdir()] == ["model"]


@pytest.mark.slow
def test_train(tmp_path):
    words = ["train", "in.jsonl", "--root", DATA, "--preset", "tiny", "--steps", "2"]
    words += ["--save-every", "1", "-j0", "--out", "model"]

    def again(folder: Path) -> tuple[int, str]:
        status, err = resumed_by([*words, "--resume"])(folder)
        if "--restart" in err:  # killed before there was anything to continue
            status, err = resumed_by([*words, "--restart"])(folder)
        return status, err

    n = crash_matrix(
        tmp_path / "run", captioned, words, again,
        ignored=["bundle.json", "README.md"], every=25,  # these hold the command lines
    )  # fmt: skip
    assert n > 30
