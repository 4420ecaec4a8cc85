"""Training that ends too early, whatever ends it: one line, and `--resume` as if nothing was."""

import os
import signal

import torch

from ramctl.training.losses import TrainingTask
from tests.faults.test_workers import workers_of
from tests.training.conftest import steps_of
from tests.training.test_train_command import assert_same_weights, start


def test_memory_that_runs_out_is_one_line_and_the_run_goes_on_from_its_checkpoint(
    train, parsed, tmp_path, monkeypatch
):
    monkeypatch.setattr("ramctl.training.train.SAVE_EVERY_S", 0.0)
    arguments = [parsed, "--steps", 4, "--set", "training.batch_size=8"]
    train(*arguments, "--out", "whole")
    forward, calls = TrainingTask.forward, []

    def full(self, batch):
        calls.append(1)
        if len(calls) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nGPU 0 has")
        return forward(self, batch)

    monkeypatch.setattr(TrainingTask, "forward", full)
    failed = train(*arguments, "--out", "again", "--events", "e.jsonl", code=1)
    assert failed.messages.splitlines()[-1].startswith("ramctl train: out of memory: CUDA")
    resumed = train(*arguments, "--out", "again", "--resume", "--events", "e.jsonl")
    assert [event["step"] for event in steps_of("e.jsonl")] == [1, 2, 3, 4]
    assert "continuing after step 3 of 4" in resumed.messages
    assert_same_weights(tmp_path / "whole", tmp_path / "again")


def test_a_killed_reader_of_photos_is_one_line(parsed, tiny_options, tmp_path):
    arguments = [parsed, "--steps", 5000, "--out", "x", "-j", 1, *tiny_options]
    process = start(arguments, tmp_path / "x.work")
    os.kill(workers_of(process)[-1], signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 1
    last = errors.decode().splitlines()[-1]
    assert last.startswith("ramctl train: a process that reads photos died (")
    assert last.endswith("continue with --resume, with a lower -j")
    assert (tmp_path / "x.work" / "last.pt").is_file()
