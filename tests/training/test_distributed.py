"""Two processes against one, and killed ones that go on."""

import os
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ramctl.checkpoints.bundle import Bundle
from tests.command import Done, Ramctl
from tests.conftest import REPOSITORY
from tests.support import DATA, read_rows, write_records
from tests.training.conftest import settings, steps_of, training_records
from tests.training.test_train_command import SAVE_EACH_STEP, assert_same_weights

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
    *("--nproc-per-node", "2", "-m", "ramctl", "train"),
]


def start_two(words: list[object], folder: Path, before: str = "") -> list[Any]:
    """`ramctl train` in two processes, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        Ramctl(folder).start(*words, RANK=rank, LOCAL_RANK=rank, before=before, **world)
        for rank in "01"
    ]


def in_two_processes(words: list[object], folder: Path) -> Done:
    """A whole run in two processes."""
    runs = start_two(words, folder)
    said = b"".join(run.communicate()[1] for run in runs)
    return Done(max((run.returncode for run in runs), key=abs), b"", said)


def assert_same_steps() -> None:
    """Both runs took the same photos to the same losses."""
    for event, other in zip(steps_of("one.jsonl"), steps_of("two.jsonl"), strict=True):
        assert other["photos"] == event["photos"]
        assert other["losses"] == pytest.approx(event["losses"], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("frozen", [False, True], ids=["whole model", "kept features"])
def test_two_processes_equal_one_with_the_doubled_batch(
    train, parsed, tiny_options, tmp_path, frozen
):
    # Three photos a rank: the last step of an epoch is uneven, and one rank has a caption less.
    rate = f"training.backbone_lr_factor={0.0 if frozen else 1.0}"
    common = [parsed, "--steps", 4, "--device", "cpu", *settings(rate, "training.eps=1e-3")]
    train(*common, "--out", "one", "--events", "one.jsonl", "--set", "training.batch_size=6")
    arguments = [*common, "--out", "two", "--set", "training.batch_size=3"]
    two = in_two_processes(["train", *arguments, "--events", "two.jsonl", *tiny_options], tmp_path)
    assert two.returncode == 0, two.messages
    assert two.messages.count("wrote two") == 1
    assert_same_steps()
    a, b = (Bundle.open(tmp_path / name).tensors() for name in ("one", "two"))
    for name, value in a.items():
        difference = np.abs(value.astype(np.float64) - b[name].astype(np.float64)).max(initial=0)
        # Matrices are stored in fp16: its own step is the tolerance there.
        step = 1e-5 if value.dtype == np.float32 else 1e-3 * np.abs(value).max(initial=0) + 1e-5
        assert difference <= step, f"{name}: {difference}"


def test_what_any_process_rejects_or_validates_counts(train, parsed, tiny_options, tmp_path):
    records = read_rows(parsed)
    lost = [{**records[0], "image": f"lost-{n}.jpg"} for n in range(4)]
    path = write_records(tmp_path / "in.jsonl", [*records, *lost])
    val = write_records(tmp_path / "val.jsonl", [*records[:5], lost[0]])
    common = [
        path, "--val", val, "--steps", 6, "--device", "cpu",
        *settings("training.eps=1e-3", "training.augment.flip=0"),
    ]  # fmt: skip
    options = ["--out", "one", "--events", "one.jsonl", "--rejects", "one.rejects"]
    one = train(*common, *options, "--set", "training.batch_size=6", code=3)
    options = ["--out", "two", "--events", "two.jsonl", "--rejects", "two.rejects"]
    two = in_two_processes(
        ["train", *common, *options, "--set", "training.batch_size=3", *tiny_options], tmp_path
    )
    assert two.returncode == 0, two.messages  # torchrun would take 3 for a failure
    for name in ("one.rejects", "two.rejects"):
        assert {row["record"]["image"] for row in read_rows(name)} == {r["image"] for r in lost}
    assert "5 rejected" in one.messages and "5 rejected" in two.messages
    measured = [
        [event for event in read_rows(name) if event["event"] == "validation"]
        for name in ("one.jsonl", "two.jsonl")
    ]
    assert [e["step"] for e in measured[0]][:1] == [2] and len(measured[0]) >= 2
    for one_event, two_event in zip(*measured, strict=True):
        assert one_event["photos"] == two_event["photos"] == 5
        assert two_event["map"] == pytest.approx(one_event["map"], abs=0.02)


def test_several_processes_refuse_records_from_a_pipe(tiny_options, tmp_path):
    done = in_two_processes(["train", "-", "--out", "x", "--steps", 1, *tiny_options], tmp_path)
    assert done.returncode != 0
    assert "several processes cannot share stdin" in done.messages


@pytest.mark.slow
def test_swin_in_two_processes_equals_one(command, parsed, swin_options, tmp_path):
    # The tag encoder's layers are tied to the tag decoder's, and a pass may have no caption.
    common = [parsed, "--steps", 3, "--device", "cpu", "--dtype", "fp32", *swin_options]
    larger = settings("training.batch_size=6")
    command("train", *common, "--out", "one", "--events", "one.jsonl", *larger)
    changes = settings("training.batch_size=3")
    two = in_two_processes(
        ["train", *common, "--out", "two", "--events", "two.jsonl", *changes], tmp_path
    )
    assert two.returncode == 0, two.messages
    assert_same_steps()


def wait_until_saved(run, folder: Path) -> None:
    while run.poll() is None and not list(folder.glob("*.work/last.pt")):
        time.sleep(0.005)


def write_shards(folder: Path) -> list[dict]:
    """Records whose photos are in an archive, but for each second one, which is a file."""
    rows = training_records()
    with tarfile.open(folder / "shard-0000.tar", "w") as shard:
        for row in rows[::2]:
            name = row["image"].split("/")[-1]
            shard.add(DATA / row["image"], name)
            row["image"] = f"{folder}/shard-0000.tar#{name}"
    for row in rows[1::2]:
        row["image"] = str(DATA / row["image"])
    return rows


@pytest.mark.slow
def test_two_killed_processes_resume_to_the_same_weights_bit_for_bit(
    tiny_options, parsed, tmp_path
):
    records = write_records(tmp_path / "shards.jsonl", write_shards(tmp_path))
    changes = settings(
        "training.batch_size=1", "training.accumulation=2", "model.tag_decoder.dropout=0.1"
    )
    arguments = ["--steps", 25, "--device", "cpu", *tiny_options, "-j", 1, *changes]
    whole = in_two_processes(["train", parsed, *arguments, "--out", "whole"], tmp_path)
    assert whole.returncode == 0, whole.messages
    (tmp_path / "two").mkdir()
    words = ["train", records, *arguments, "--out", tmp_path / "two" / "killed"]
    runs = start_two(words, tmp_path, SAVE_EACH_STEP)
    wait_until_saved(runs[0], tmp_path / "two")
    for run in runs:
        run.kill()
        run.communicate()
    again = [*words, "--resume", "-j", 0]
    alone = Ramctl(tmp_path)(*again)
    assert alone.returncode == 2 and "differs in processes" in alone.messages
    resumed = in_two_processes(again, tmp_path)
    assert resumed.returncode == 0, resumed.messages
    assert "continuing after step" in resumed.messages
    assert_same_weights(tmp_path / "whole", tmp_path / "two" / "killed")


@pytest.mark.slow
def test_torchrun_starts_it_and_ends_with_it(parsed, tiny_options, tmp_path):
    words = [*TORCHRUN, parsed, "--steps", 2, "--device", "cpu", "--out", "x", *tiny_options]
    done = subprocess.run(
        [*map(str, words)], cwd=tmp_path, capture_output=True, env=ENVIRONMENT, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert Bundle.open(tmp_path / "x")
