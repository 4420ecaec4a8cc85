"""Two processes against one process with the doubled batch."""

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ramctl.checkpoints.bundle import Bundle
from tests.command import Done, Ramctl
from tests.training.conftest import write_records


def start_two(words: list[object], folder: Path, **environment: str) -> list[Any]:
    """`ramctl train` in two processes, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        Ramctl(folder).start(*words, RANK=rank, LOCAL_RANK=rank, **world, **environment)
        for rank in "01"
    ]


def in_two_processes(words: list[object], folder: Path, **environment: str) -> Done:
    """A whole run in two processes."""
    runs = start_two(words, folder, **environment)
    said = b"".join(run.communicate()[1] for run in runs)
    return Done(max((run.returncode for run in runs), key=abs), b"", said)


@pytest.mark.parametrize("frozen", [False, True], ids=["whole model", "kept features"])
def test_two_processes_equal_one_with_the_doubled_batch(
    train, parsed, tiny_options, tmp_path, frozen
):
    # Three photos a rank: the last step of an epoch is uneven, and one rank has a caption less.
    common = [
        parsed, "--steps", 4, "--device", "cpu",
        "--set", f"training.backbone_lr_factor={0.0 if frozen else 1.0}",
        "--set", "training.eps=1e-3",
    ]  # fmt: skip
    one = train(*common, "--out", "one", "--events", "one.jsonl", "--set", "training.batch_size=6")
    assert one.returncode == 0, one.messages
    arguments = [*common, "--out", "two", "--set", "training.batch_size=3"]
    two = in_two_processes(["train", *arguments, "--events", "two.jsonl", *tiny_options], tmp_path)
    assert two.returncode == 0, two.messages
    assert two.messages.count("wrote two") == 1
    logs = [(tmp_path / f"{name}.jsonl").read_text().splitlines() for name in ("one", "two")]
    for event, other in zip(*(map(json.loads, lines) for lines in logs), strict=True):
        if event["event"] == "step":
            assert other["photos"] == event["photos"]
            assert other["losses"] == pytest.approx(event["losses"], rel=1e-5, abs=1e-5)
    a, b = (Bundle.open(tmp_path / name).tensors() for name in ("one", "two"))
    for name, value in a.items():
        difference = np.abs(value.astype(np.float64) - b[name].astype(np.float64)).max(initial=0)
        # Matrices are stored in fp16: its own step is the tolerance there.
        step = 1e-5 if value.dtype == np.float32 else 1e-3 * np.abs(value).max(initial=0) + 1e-5
        assert difference <= step, f"{name}: {difference}"


def test_what_any_process_rejects_or_validates_counts(train, parsed, tiny_options, tmp_path):
    records = [json.loads(line) for line in parsed.read_text().splitlines()]
    lost = [{**records[0], "image": f"lost-{n}.jpg"} for n in range(4)]
    path = write_records(tmp_path / "in.jsonl", [*records, *lost])
    val = write_records(tmp_path / "val.jsonl", [*records[:5], lost[0]])
    common = [
        path, "--val", val, "--steps", 6, "--val-every", 2, "--device", "cpu",
        "--set", "training.eps=1e-3", "--set", "training.augment.flip=0",
    ]  # fmt: skip
    options = ["--out", "one", "--events", "one.jsonl", "--rejects", "one.rejects"]
    one = train(*common, *options, "--set", "training.batch_size=6")
    assert one.returncode == 3, one.messages
    options = ["--out", "two", "--events", "two.jsonl", "--rejects", "two.rejects"]
    two = in_two_processes(
        ["train", *common, *options, "--set", "training.batch_size=3", *tiny_options], tmp_path
    )
    assert two.returncode == 0, two.messages  # torchrun would take 3 for a failure
    rejects = [
        {json.loads(line)["record"]["image"] for line in (tmp_path / name).open()}
        for name in ("one.rejects", "two.rejects")
    ]
    assert rejects[0] == rejects[1] == {row["image"] for row in lost}
    assert "5 rejected" in one.messages and "5 rejected" in two.messages
    events = [
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("one.jsonl", "two.jsonl")
    ]
    measured = [[e for e in own if e["event"] == "validation"] for own in events]
    assert [e["step"] for e in measured[0]][:1] == [2] and len(measured[0]) >= 2
    for one_event, two_event in zip(*measured, strict=True):
        assert one_event["photos"] == two_event["photos"] == 5
        assert two_event["map"] == pytest.approx(one_event["map"], abs=0.02)


def test_several_processes_refuse_records_from_a_pipe(tiny_options, tmp_path):
    done = in_two_processes(["train", "-", "--out", "x", "--steps", 1, *tiny_options], tmp_path)
    assert done.returncode != 0
    assert "several processes cannot share stdin" in done.messages


@pytest.mark.slow
def test_checkpointing_of_swin_in_two_processes_equals_one_without(
    command, parsed, swin_options, tmp_path
):
    # The tag encoder's layers are tied to the tag decoder's, and a pass may have no caption.
    common = [parsed, "--steps", 3, "--device", "cpu", "--dtype", "fp32", *swin_options]
    one = command("train", *common, "--out", "one", "--events", "one.jsonl",
                  "--set", "training.batch_size=6")  # fmt: skip
    assert one.returncode == 0, one.messages
    changes = ["--set", "training.batch_size=3", "--set", "training.checkpointing=true"]
    two = in_two_processes(
        ["train", *common, "--out", "two", "--events", "two.jsonl", *changes], tmp_path
    )
    assert two.returncode == 0, two.messages
    logs = [(tmp_path / f"{name}.jsonl").read_text().splitlines() for name in ("one", "two")]
    for event, other in zip(*(map(json.loads, lines) for lines in logs), strict=True):
        if event["event"] == "step":
            assert other["losses"] == pytest.approx(event["losses"], rel=1e-5, abs=1e-5)
