"""Training that ends too early, whatever ends it: one line, and `--resume` as if nothing was."""

import os
import signal

import pytest
import torch

from ramctl.training.checkpoint import list_checkpoints
from ramctl.training.objectives import TrainingTask
from tests.faults.test_workers import workers_of
from tests.training.conftest import steps_of
from tests.training.test_train_command import assert_same_weights, start

DEAD = "a process that reads photos died (DataLoader worker"
HIDING = RuntimeError("unexpected pos 346304 vs 346192")  # a checkpoint that was being written
HIDING.__context__ = RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")


def test_memory_runs_out_and_the_last_checkpoint_is_damaged(train, parsed, tmp_path, monkeypatch):
    monkeypatch.setattr("ramctl.training.loop.SAVE_EVERY_S", 0.0)
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
    assert failed.messages.splitlines()[-1] == (
        "ramctl train: cpu: out of memory; start again with a smaller training.batch_size"
    )
    _, newest = list_checkpoints(tmp_path / "again.work" / "checkpoints")
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    resumed = train(*arguments, "--out", "again", "--resume", "--events", "e.jsonl")
    assert [event["step"] for event in steps_of("e.jsonl")] == [1, 2, 3, 3, 4]
    named = f"{newest.relative_to(tmp_path)}: damaged, not used"
    assert named in resumed.messages and "continuing after step 2 of 4" in resumed.messages
    assert_same_weights(tmp_path / "whole", tmp_path / "again")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("DataLoader worker (pid 1) exited."), DEAD),
        (ConnectionResetError("reset"), DEAD),
        (EOFError(), DEAD),
        (HIDING, DEAD),
        (ConnectionResetError("Caught an error in DataLoader worker process 0"), "Caught an error"),
    ],
    ids=["told by torch", "reset", "closed", "hidden", "an error of its own"],
)
def test_a_dead_reader_is_one_line_however_it_is_noticed(error, told, train, parsed, monkeypatch):
    def failing(*_, **__):
        raise error
        yield

    monkeypatch.setattr("ramctl.training.data.batches.DataLoader", failing)
    failed = train(parsed, "--steps", 1, "--out", "x", "-j", 1, code=1)
    assert failed.messages.splitlines()[-1].startswith(f"ramctl train: {told}")


def test_a_killed_reader_of_photos_is_one_line(parsed, tiny_options, tmp_path):
    arguments = [parsed, "--steps", 5000, "--out", "x", "-j", 1, *tiny_options]
    process = start(arguments, tmp_path / "x.work")
    os.kill(workers_of(process)[-1], signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 1
    last = errors.decode().splitlines()[-1]
    assert last.startswith(f"ramctl train: {DEAD} (pid")
    assert last.endswith("continue with --resume, with a lower -j")
    assert list_checkpoints(tmp_path / "x.work" / "checkpoints")
