"""Runs that are stopped and go on at another number of processes, and other people's shards."""

import json
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from itertools import pairwise

import pytest

from tests.training.conftest import DATA, training_records, write_records
from tests.training.test_distributed import ENVIRONMENT, TORCHRUN
from tests.training.test_train_command import assert_same_weights


def start_and_terminate(launcher: list[str], arguments: list[object], folder) -> int:
    """Start a run in a shell, ask it to end once it has saved, and return what the shell saw."""
    words = [*launcher, *map(str, arguments)]
    shell = subprocess.Popen(
        ["/bin/sh", "-c", '"$@" & echo $! >pid; wait $!; echo $? >code', "sh", *words],
        cwd=folder, stderr=subprocess.PIPE, env=ENVIRONMENT,
    )  # fmt: skip
    while shell.poll() is None and not list(folder.glob("x.work/checkpoints/step-*.pt")):
        time.sleep(0.005)
    subprocess.run(["kill", f"-{signal.SIGTERM}", (folder / "pid").read_text().strip()], check=True)
    _, errors = shell.communicate(timeout=120)
    assert b"continue with --resume" in errors, errors.decode()
    return int((folder / "code").read_text())


ONE = [sys.executable, "-m", "ramctl", "train"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "code"),
    [(ONE, TORCHRUN, 143), (TORCHRUN, ONE, 1)],  # torchrun itself ends with 1 when it is stopped
    ids=["1 to 2 processes", "2 to 1 processes"],
)
def test_a_terminated_run_goes_on_at_another_number_of_processes(
    parsed, tiny_options, tmp_path, before, after, code
):
    epochs = 120
    common = ["--device", "cpu", "--events", "e.jsonl", *tiny_options[-2:]]
    arguments = [
        parsed, "--out", "x", "--epochs", epochs, "--save-every", 5, *tiny_options[:-2], *common,
        "--set", "training.batch_size=3", "--set", "training.backbone_lr_factor=0",
    ]  # fmt: skip
    assert start_and_terminate(before, arguments, tmp_path) == code
    stopped = len((tmp_path / "e.jsonl").read_text().splitlines())
    done = subprocess.run(
        [*after, *map(str, ["--out", "x", "--resume", *common])],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert len(events) > stopped
    photos: Counter[int] = Counter()
    for event in events:
        if event["event"] == "step":
            photos[event["epoch"]] += event["photos"]
    assert photos == dict.fromkeys(range(epochs), 8)
    assert events[-1]["event"] == "checkpoint"
    rates = [event["lr"] for event in events if event["event"] == "step"]
    # The cosine goes on where it was: no jump at the change, and it ends at its floor.
    assert max(abs(a - b) for a, b in pairwise(rates[20:])) < 2e-4
    assert rates[-1] < 1.2e-5


def test_photos_in_shards_and_in_files_train_alike(train, tmp_path):
    rows = training_records()
    with tarfile.open(tmp_path / "shard-0000.tar", "w") as shard:
        for row in rows[::2]:
            shard.add(DATA / row["image"], row["image"].split("/")[-1])
    mixed = [{**row, "image": str(DATA / row["image"])} for row in rows]
    for row in mixed[::2]:
        row["image"] = f"{tmp_path}/shard-0000.tar#{row['image'].split('/')[-1]}"
    options = ["--steps", 3, "--set", "training.batch_size=4"]
    one = train(write_records(tmp_path / "files.jsonl", rows), "--out", "one", *options)
    shards = write_records(tmp_path / "shards.jsonl", mixed)
    two = train(shards, "--out", "two", "-j", 2, *options)
    assert (one.returncode, two.returncode) == (0, 0), two.stderr
    assert_same_weights(tmp_path / "one", tmp_path / "two")
