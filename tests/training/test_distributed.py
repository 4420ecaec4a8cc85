"""Two processes against one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ramctl.checkpoints.bundle import Bundle
from tests.command import Done, Ramctl
from tests.conftest import REPOSITORY
from tests.support import read_rows, write_records
from tests.training.conftest import settings, steps_of

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
    *("--nproc-per-node", "2", "-m", "ramctl", "train"),
]


def in_two_processes(words: list[object], folder: Path) -> Done:
    """`ramctl train` in two processes, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    runs = [Ramctl(folder).start(*words, RANK=rank, LOCAL_RANK=rank, **world) for rank in "01"]
    printed = b"".join(run.communicate()[1] for run in runs)
    return Done(max((run.returncode for run in runs), key=abs), b"", printed)


def test_two_processes_equal_one_with_the_doubled_batch(train, parsed, tiny_options, tmp_path):
    # Three photos a rank: the last step of an epoch is uneven, and one rank has a caption less.
    records = read_rows(parsed)
    lost = [{**records[0], "image": f"lost-{n}.jpg"} for n in range(4)]
    path = write_records(tmp_path / "in.jsonl", [*records, *lost])
    val = write_records(tmp_path / "val.jsonl", [*records[:5], lost[0]])
    changes = settings("training.steps=6", "training.eps=1e-3", "training.augment.flip=0")
    common = [path, "--val", val, "--device", "cpu", *changes]
    options = ["--out", "one", "--events", "one.jsonl", "--rejects", "one.rejects"]
    train(*common, *options, *settings("training.batch_size=6"), code=3)
    options = ["--out", "two", "--events", "two.jsonl", "--rejects", "two.rejects"]
    options += settings("training.batch_size=3")
    two = in_two_processes(["train", *common, *options, *tiny_options], tmp_path)
    assert two.returncode == 0, two.messages  # torchrun would take 3 for a failure
    assert two.messages.count("wrote two") == 1 and "5 rejected" in two.messages
    for name in ("one.rejects", "two.rejects"):
        assert {row["record"]["image"] for row in read_rows(name)} == {r["image"] for r in lost}
    for event, other in zip(*map(read_rows, ("one.jsonl", "two.jsonl")), strict=True):
        assert (other["event"], other["photos"]) == (event["event"], event["photos"])
        if event["event"] == "validation":
            assert other["map"] == pytest.approx(event["map"], abs=0.02)
        else:
            assert other["losses"] == pytest.approx(event["losses"], rel=1e-5, abs=1e-5)
    a, b = (Bundle.open(tmp_path / name).tensors() for name in ("one", "two"))
    for name, value in a.items():
        difference = np.abs(value.astype(np.float64) - b[name].astype(np.float64)).max(initial=0)
        # Matrices are stored in fp16: its own step is the tolerance there.
        step = 1e-5 if value.dtype == np.float32 else 1e-3 * np.abs(value).max(initial=0) + 1e-5
        assert difference <= step, f"{name}: {difference}"


@pytest.mark.slow
def test_torchrun_trains_a_swin_whose_parts_share_weights_as_one_process_does(
    command, parsed, swin_options, tmp_path
):
    # The tag encoder's layers are tied to the tag decoder's, and a pass may have no caption.
    changes = settings("training.steps=3", "training.precision=fp32")
    common = [parsed, "--device", "cpu", *changes, *swin_options]
    larger = settings("training.batch_size=6")
    command("train", *common, "--out", "one", "--events", "one.jsonl", *larger)
    words = [*TORCHRUN, *common, "--out", "two", "--events", "two.jsonl"]
    words += settings("training.batch_size=1", "training.accumulation=3")
    done = subprocess.run(
        [*map(str, words)], cwd=tmp_path, capture_output=True, env=ENVIRONMENT, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    for event, other in zip(steps_of("one.jsonl"), steps_of("two.jsonl"), strict=True):
        assert other["losses"] == pytest.approx(event["losses"], rel=1e-5, abs=1e-5)
