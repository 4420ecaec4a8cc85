"""What stands where ramctl writes: a folder that was downloaded may hold anything under any name.

The table has every file that a command opens to write, and what ramctl makes of somebody's file,
link or pipe of that name.
"""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from ramctl.checkpoints.bundle import Bundle
from tests.support import DATA

RECORD = {"image": "a.jpg", "captions": ["a boy on steps"], "tags": ["boy"], "scores": {"boy": 0.9}}
MINE = b"mine\n"

# Commands, and what they open to write. `=`: it is replaced, whoever made it, as no other program
# has such names, or as the user has named it to be written. `+`: what is there is added to. `~`: it
# is not opened (browsers have such names).
WRITTEN = {
    "parse in.jsonl -o o.jsonl --rejects r.jsonl --stats s.json": [
        "o.jsonl", "o.jsonl.part", "o.jsonl.part.lock", ".o.jsonl.state.jsonl",
        "=..o.jsonl.state.jsonl.ramctl-part", "r.jsonl", "r.jsonl.part", "r.jsonl.part.lock",
        "=s.json", "=.s.json.ramctl-part", "~s.json.part", "~.o.jsonl.state.jsonl.part",
    ],
    "parse in.jsonl -o o.gz": ["o.gz", "o.gz.part", "=o.gz.part.kept"],
    "parse in.jsonl -o old.jsonl --resume --retry-rejects --rejects r.jsonl": [
        "=old.jsonl.part", "=old.jsonl.part.kept", ".old.jsonl.state.jsonl.kept",
    ],
    "parse in.jsonl --build-labels l.jsonl --review review.tsv": [
        "l.jsonl", "=.l.jsonl.ramctl-part", "l.jsonl.part.lock", "~l.jsonl.part", "=review.tsv",
        "=.review.tsv.ramctl-part", "review.tsv.part.lock",
    ],
    "export in.jsonl --xmp": ["a.jpg.xmp", "=.a.jpg.xmp.ramctl-part", "~a.jpg.xmp.part"],
    "export in.jsonl --xmp --xmp-name stem": ["a.xmp", "=.a.xmp.ramctl-part"],
    "export in.jsonl --txt": ["+a.txt", "=.a.txt.ramctl-part", ".ramctl-txt.jsonl", "~a.txt.part"],
    "export in.jsonl --gallery p.html": [
        "p.html", "=.p.html.ramctl-part", "p.html.part.lock", "+p.html.thumbnails", "~p.html.part",
        "=p.html.thumbnails/{thumbnail}",
    ],
    "export in.jsonl --review p.html": ["p.html", "=.p.html.ramctl-part", "p.html.part.lock"],
    "eval judged.jsonl --truth judged.jsonl -o f.json --report p.csv --calibrate t.jsonl": [
        "=f.json", "=.f.json.ramctl-part", "f.json.part.lock", "=p.csv", "=.p.csv.ramctl-part",
        "p.csv.part.lock", "=t.jsonl", "=.t.jsonl.ramctl-part", "t.jsonl.part.lock",
    ],
    "clean in.jsonl --model {model} -o o.jsonl": [
        "o.jsonl", "o.jsonl.part", "o.jsonl.part.lock", ".o.jsonl.state.jsonl",
    ],
    "train in.jsonl --preset tiny --steps 1 --out m --events e.jsonl --cache c": [
        "m", "m.part.lock", "m.work", "=.m.ramctl-new", "=.m.ramctl-old", "=e.jsonl",
    ],
    "convert {model} --to onnx --out m": ["m", "m.part.lock", "=.m.ramctl-new", "=.m.ramctl-old"],
}  # fmt: skip
OBSTACLES = ["link", "link to nothing", "somebody's", "read-only", "pipe", "folder"]
_SLOW = ("clean", "train", "convert")


def rows():
    """Each obstacle at each name, but pipes that the user has named: a run writes to these."""
    for line, names in WRITTEN.items():
        for marked in names:
            name = marked.lstrip("=+~")
            for obstacle in OBSTACLES:
                if obstacle == "pipe" and name in line.split():
                    continue
                is_variant = obstacle not in ("link", "somebody's")
                is_slow = is_variant or (line.startswith(_SLOW) and obstacle != "link")
                marks = [pytest.mark.slow] if is_slow else []
                yield pytest.param(line, name, marked[:1], obstacle, marks=marks)


def place(obstacle: str, path: Path, outside: Path) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.unlink(missing_ok=True)
    if obstacle == "link":
        path.symlink_to(outside / "thesis.txt")
    elif obstacle == "link to nothing":
        path.symlink_to(outside / "new.txt")
    elif obstacle == "pipe":
        os.mkfifo(path)
    elif obstacle == "folder":
        path.mkdir()
        (path / "letter.txt").write_bytes(MINE)
    else:
        path.write_bytes(MINE)
        path.chmod(0o444 if obstacle == "read-only" else 0o644)


@pytest.fixture
def in_time():
    """A run that waits for a pipe does not wait for ever."""

    def late(*_: object) -> None:
        raise TimeoutError("it waits for a pipe")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize(("line", "name", "mark", "obstacle"), [*rows()], ids=lambda v: str(v)[:40])
def test_nothing_that_is_not_ours_is_written_to(
    line, name, mark, obstacle, tmp_path, tiny_bundle, ramctl
):
    outside, here = tmp_path / "outside", tmp_path / "downloaded"
    outside.mkdir()
    here.mkdir()
    (outside / "thesis.txt").write_bytes(MINE)
    shutil.copy(DATA / "photos" / "steps.jpg", here / "a.jpg")
    (here / "in.jsonl").write_text(json.dumps(RECORD) + "\n")
    judged = (RECORD | {"image": f"{number}.jpg"} for number in range(60))
    (here / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in judged))
    (here / "words.txt").write_text("boy\nsteps\n")
    if "old.jsonl" in line:
        assert ramctl("parse", "in.jsonl", "-o", "old.jsonl", cwd=here).returncode == 0
        (here / "in.jsonl").write_text(json.dumps(RECORD | {"captions": ["a dog"]}) + "\n{bad\n")
    path = here / name
    place(obstacle, path, outside)
    before = path.lstat()
    done = ramctl(*line.format(model=tiny_bundle).split(), cwd=here)

    assert "internal error" not in done.messages, done.messages
    assert [file.name for file in outside.iterdir()] == ["thesis.txt"]
    assert (outside / "thesis.txt").read_bytes() == MINE
    is_ours = mark == "=" or (mark == "+" and obstacle in ("somebody's", "folder"))
    refusal = any(name in message for message in done.messages.splitlines())
    may_pass = is_ours or mark == "~"
    assert may_pass or (done.returncode in (1, 2, 3) and refusal), done.messages
    if obstacle == "folder" and mark != "=":
        assert (path / "letter.txt").read_bytes() == MINE
    if obstacle == "somebody's" and mark == "+":
        assert path.read_bytes().startswith(MINE.strip())
    if not is_ours:
        assert (path.lstat().st_ino, path.lstat().st_size) == (before.st_ino, before.st_size)


@pytest.fixture
def here(tmp_path) -> Path:
    """A folder that was downloaded, beside one with a file of the user's."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "thesis.txt").write_bytes(MINE)
    folder = tmp_path / "downloaded"
    folder.mkdir()
    shutil.copy(DATA / "photos" / "steps.jpg", folder / "a.jpg")
    (folder / "in.jsonl").write_text(json.dumps(RECORD) + "\n")
    return folder


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize("obstacle", ["link", "pipe"])
def test_import_reads_nothing_through_a_link(obstacle, here, ramctl):
    place(obstacle, here / "a.jpg.xmp", here.parent / "outside")
    done = ramctl("import", "a.jpg", "--rejects", "r.jsonl", cwd=here)
    assert (done.returncode, done.stdout) == (3, b""), done.messages
    reject = json.loads((here / "r.jsonl").read_bytes())
    assert (reject["code"], reject["record"]["image"]) == ("bad_sidecar", "a.jpg")
    assert reject["message"].startswith("a.jpg.xmp: not a regular file")


def test_a_photo_is_never_its_own_sidecar(here, ramctl):
    for name, words in (("diary.txt", ["--txt"]), ("a.xmp", ["--xmp", "--xmp-name", "stem"])):
        content = b'<?xpacket?><x xmlns="auto|boy"/>' if name == "a.xmp" else b"dear diary\n"
        (here / name).write_bytes(content)
        record = json.dumps(RECORD | {"image": name}).encode()
        done = ramctl("export", *words, cwd=here, stdin=record)
        assert done.returncode == 3 and name in done.messages
        assert (here / name).read_bytes() == content
    assert (
        "this is the photo itself, not a sidecar"
        in ramctl(
            "export", "--txt", cwd=here, stdin=json.dumps(RECORD | {"image": "diary.txt"}).encode()
        ).messages
    )


def test_a_file_of_thresholds_is_no_label_system_to_replace(here, ramctl):
    line = {"tag": "boat", "threshold": 0.4}
    (here / "kept.jsonl").write_text(json.dumps(line) + "\n")
    done = ramctl("parse", "in.jsonl", "--build-labels", "kept.jsonl", cwd=here)
    assert done.returncode == 2 and "kept.jsonl: exists, but is not a label system" in done.messages
    assert json.loads((here / "kept.jsonl").read_bytes()) == line


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize("obstacle", ["link", "pipe"])
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("m.work/run.json", "train in.jsonl --preset tiny --steps 400 --out m --resume"),
        ("m.work/run.json", "train in.jsonl --preset tiny --steps 400 --out m --restart"),
        ("m.work/checkpoints", "train in.jsonl --preset tiny --steps 400 --out m --resume"),
        ("m.work/features", "train in.jsonl --preset tiny --steps 400 --out m --resume"),
    ],
)
def test_a_work_folder_with_links_or_pipes_in_it_is_refused(
    name, line, obstacle, here, tiny_bundle, ramctl
):
    words = line.format(model=tiny_bundle).split()
    record = json.dumps({"image": "a.jpg", "tags": ["boy", "dog"]}) + "\n"
    (here / "in.jsonl").write_text(record * 2)
    first = [word for word in words if word not in ("--resume", "--restart")]
    time_is_up = ramctl(*first, "--max-time", "0.001", cwd=here)
    assert (here / name).parent.is_dir(), time_is_up.messages
    shutil.rmtree(here / name, ignore_errors=True)
    place(obstacle, here / name, here.parent / "outside")
    if obstacle == "link" and not Path(name).suffix:
        (here / name).unlink()
        (here / name).symlink_to(here.parent / "outside")
    done = ramctl(*words, cwd=here)
    assert done.returncode == 2 and f"{name}: not a regular file" in done.messages, done.messages
    assert [path.name for path in (here.parent / "outside").iterdir()] == ["thesis.txt"]
    assert (here.parent / "outside" / "thesis.txt").read_bytes() == MINE


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize(
    "name", ["bundle.json", "labels.jsonl", "model.onnx", "text/table.safetensors"]
)
def test_a_bundle_is_not_read_through_a_link_or_a_pipe(name, here, tiny_bundle, ramctl):
    shutil.copytree(tiny_bundle, here / "model")
    file = here / "model" / name
    (here.parent / "outside" / "copy").write_bytes(file.read_bytes())
    for make, reason in (
        (lambda: file.symlink_to(here.parent / "outside" / "copy"), "leads outside the bundle"),
        (lambda: os.mkfifo(file), "not a file"),
    ):
        file.unlink()
        make()
        done = ramctl("tag", "a.jpg", "--model", "./model", cwd=here)
        assert done.returncode == 1 and f"{name}: {reason}" in done.messages, done.messages
    file.unlink()
    file.symlink_to(os.path.relpath(here / "elsewhere.bin", file.parent))
    (here / "elsewhere.bin").write_bytes((here.parent / "outside" / "copy").read_bytes())
    assert "leads outside" in ramctl("tag", "a.jpg", "--model", "./model", cwd=here).messages


def test_a_bundle_in_the_cache_of_the_hub_is_links_to_its_blobs(here, tiny_bundle):
    snapshot, blobs = here / "models--x" / "snapshots" / "r1", here / "models--x" / "blobs"
    shutil.copytree(tiny_bundle, snapshot)
    blobs.mkdir()
    for number, file in enumerate([path for path in snapshot.rglob("*") if path.is_file()]):
        file.rename(blobs / str(number))
        file.symlink_to(os.path.relpath(blobs / str(number), file.parent))
    assert Bundle.open(snapshot, verify=True).labels


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("export in.jsonl --xmp", ".a.jpg.xmp.ramctl-part"),
        ("parse in.jsonl -o o.jsonl", "..o.jsonl.state.jsonl.ramctl-part"),
        ("train t.jsonl --preset tiny --steps 1 --out m --events e.jsonl", "e.jsonl"),
    ],
)
def test_what_has_another_name_too_is_not_changed_under_that(line, name, here, ramctl):
    record = json.dumps({"image": "a.jpg", "tags": ["boy", "dog"]}) + "\n"
    (here / "t.jsonl").write_text(record * 2)
    theirs = here.parent / "outside" / "theirs"
    theirs.write_bytes(content := MINE)
    (here / name).hardlink_to(theirs)
    done = ramctl(*line.split(), cwd=here)
    assert done.returncode == 0, done.messages
    assert theirs.read_bytes() == content


@pytest.mark.parametrize("name", ["o.jsonl", "o.jsonl.work", "o.jsonl.part.lock", "s.json"])
def test_a_link_to_itself_is_no_internal_error(name, here, ramctl):
    (here / name).symlink_to(name)
    done = ramctl("parse", "in.jsonl", "-o", "o.jsonl", "--stats", "s.json", cwd=here)
    assert "internal error" not in done.messages
    assert done.returncode == 0 or name in done.messages


def test_a_link_in_the_place_of_the_events_is_refused_before_any_work(here, ramctl):
    (here / "e.jsonl").symlink_to("elsewhere.jsonl")
    words = [
        "train",
        "in.jsonl",
        "--preset",
        "tiny",
        "--steps",
        "1",
        "--out",
        "m",
        "--events",
        "e.jsonl",
    ]
    done = ramctl(*words, cwd=here)
    assert done.returncode == 2 and "e.jsonl: not a regular file" in done.messages
    assert not (here / "m.work").exists()
