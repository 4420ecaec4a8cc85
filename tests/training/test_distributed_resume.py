"""Runs that are stopped and go on at another number of processes, and other people's shards."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from tests.command import Done, Ramctl
from tests.conftest import REPOSITORY
from tests.training.conftest import DATA, training_records, write_records
from tests.training.test_distributed import in_two_processes, start_two
from tests.training.test_train_command import assert_same_weights

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
    *("--nproc-per-node", "2", "-m", "ramctl", "train"),
]


def wait_until_saved(run, folder: Path) -> None:
    while run.poll() is None and not list(folder.glob("*.work/checkpoints/step-*.pt")):
        time.sleep(0.005)


def terminated_by_torchrun(arguments: list[object], folder: Path) -> None:
    """Start a run by torchrun in a shell, and ask it to end once it has saved."""
    words = [*TORCHRUN, *map(str, arguments)]
    shell = subprocess.Popen(
        ["/bin/sh", "-c", '"$@" & echo $! >pid; wait $!; echo $? >code', "sh", *words],
        cwd=folder, stderr=subprocess.PIPE, env=ENVIRONMENT,
    )  # fmt: skip
    wait_until_saved(shell, folder)
    os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
    _, errors = shell.communicate(timeout=120)
    assert b"continue with --resume" in errors, errors.decode()
    assert (folder / "code").read_text() == "1\n"  # how torchrun ends when it is stopped


def terminated(arguments: list[object], folder: Path) -> None:
    """Start a run in one process, and ask it to end once it has saved."""
    run = Ramctl(folder).start("train", *arguments)
    wait_until_saved(run, folder)
    run.terminate()
    _, errors = run.communicate()
    assert b"continue with --resume" in errors and run.returncode == -signal.SIGTERM


def in_one_process(words: list[object], folder: Path) -> Done:
    return Ramctl(folder)(*words)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"),
    [(terminated, in_two_processes), (terminated_by_torchrun, in_one_process)],
    ids=["1 to 2 processes", "2 to 1 processes"],
)
def test_a_terminated_run_goes_on_at_another_number_of_processes(
    parsed, tiny_options, tmp_path, before, after
):
    epochs = 40
    common = ["--device", "cpu", "--events", "e.jsonl", *tiny_options[-2:]]
    arguments = [
        parsed, "--out", "x", "--epochs", epochs, "--save-every", 5, *tiny_options[:-2], *common,
        "--set", "training.batch_size=3", "--set", "training.backbone_lr_factor=0",
    ]  # fmt: skip
    before(arguments, tmp_path)
    stopped = len((tmp_path / "e.jsonl").read_text().splitlines())
    done = after(["train", "--out", "x", "--resume", *common], tmp_path)
    assert done.returncode == 0, done.messages
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


def write_shards(folder: Path, n_shards: int) -> list[dict]:
    """Records whose photos are in that many archives, but for each second one, which is a file."""
    rows = training_records()
    for number in range(n_shards):
        with tarfile.open(folder / f"shard-000{number}.tar", "w") as shard:
            for row in rows[::2][number::n_shards]:
                name = row["image"].split("/")[-1]
                shard.add(DATA / row["image"], name)
                row["image"] = f"{folder}/shard-000{number}.tar#{name}"
    for row in rows[1::2]:
        row["image"] = str(DATA / row["image"])
    return rows


@pytest.mark.slow
def test_two_killed_processes_resume_to_the_same_weights_bit_for_bit(tiny_options, tmp_path):
    records = write_records(tmp_path / "shards.jsonl", write_shards(tmp_path, 3))
    arguments = [
        records, "--steps", 25, "--save-every", 2, "--device", "cpu", *tiny_options,
        "--set", "training.batch_size=1", "--set", "training.accumulation=2",
        "--set", "training.ema=0.9", "-j", 1,
        "--set", "model.tag_decoder.dropout=0.1", "--set", "training.shuffled_shards=2",
    ]  # fmt: skip
    whole = in_two_processes(["train", *arguments, "--out", "whole"], tmp_path)
    assert whole.returncode == 0, whole.messages
    (tmp_path / "two").mkdir()
    runs = start_two(["train", *arguments, "--out", tmp_path / "two" / "killed"], tmp_path)
    wait_until_saved(runs[0], tmp_path / "two")
    for run in runs:
        run.kill()
        run.communicate()
    resumed = in_two_processes(
        ["train", "--out", "two/killed", "--resume", "--device", "cpu", "-j", 0], tmp_path
    )
    assert resumed.returncode == 0, resumed.messages
    assert "continuing after step" in resumed.messages
    assert_same_weights(tmp_path / "whole", tmp_path / "two" / "killed")


def test_photos_in_shards_and_in_files_train_alike(train, tmp_path):
    rows, mixed = training_records(), write_shards(tmp_path, 1)
    options = ["--steps", 3, "--set", "training.batch_size=4"]
    one = train(write_records(tmp_path / "files.jsonl", rows), "--out", "one", *options)
    shards = write_records(tmp_path / "shards.jsonl", mixed)
    two = train(shards, "--out", "two", "-j", 2, *options)
    assert (one.returncode, two.returncode) == (0, 0), two.messages
    assert_same_weights(tmp_path / "one", tmp_path / "two")
