"""TensorBoard files, runs of W&B, speed in the events, and compilation where there is none."""

import importlib.util
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ramctl.model.config import load_preset
from ramctl.model.ram import RAM
from ramctl.training.distributed import CompiledParts
from ramctl.training.logs import EventLogs, ValidationEvent, WandbRun
from ramctl.training.plan import WorkFolder
from tests.training.conftest import read_rows, steps_of

CURVES = {
    "loss/total": lambda step: step["loss"],
    "loss/caption": lambda step: step["losses"]["caption"],
    "training/learning_rate": lambda step: step["lr"],
    "training/gradient_norm": lambda step: step["grad_norm"],
}


def test_tensorboard_files_hold_what_the_events_tell(train, parsed, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(
        parsed, "--out", "x", "--epochs", 3, "--set", "training.batch_size=4", "--val", parsed,
        "--events", "e.jsonl", "--tensorboard", "board",
    )  # fmt: skip
    board = accumulator.EventAccumulator(str(tmp_path / "board")).Reload()
    steps = steps_of("e.jsonl")
    assert len(steps) == 6
    for tag, value in CURVES.items():
        points = [(point.step, point.value) for point in board.Scalars(tag)]
        expected = [(step["step"], pytest.approx(value(step), rel=1e-5)) for step in steps]
        assert points == expected, tag
    assert all(point.value > 0 for point in board.Scalars("speed/images_per_second"))
    assert all(0 <= point.value <= 1 for point in board.Scalars("speed/data_wait_share"))
    assert [point.step for point in board.Scalars("validation/mAP")] == [2, 4]
    assert all(step["rate_img_s"] > 0 and 0 <= step["wait_share"] <= 1 for step in steps)


def test_a_resumed_run_goes_on_in_its_tensorboard_files(train, command, parsed, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    options = ["--events", "e.jsonl", "--tensorboard", "board"]
    train(parsed, "--out", "x", "--steps", 3, "--max-time", "0s", *options, code=4)
    command("train", "--out", "x", "--resume", "--threads", 1, *options)
    board = accumulator.EventAccumulator(str(tmp_path / "board")).Reload()
    assert [point.step for point in board.Scalars("loss/total")] == [1, 2, 3]
    assert [step["step"] for step in steps_of("e.jsonl")] == [1, 2, 3]


@pytest.mark.parametrize("extra", ["tensorboard", "wandb"])
def test_without_the_extra_a_log_is_refused_before_anything_is_done(
    train, parsed, tmp_path, monkeypatch, extra
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "ramctl.training.logs.find_spec", lambda name: None if name == extra else find(name)
    )
    before = sorted(tmp_path.iterdir())
    done = train(parsed, "--out", "x", "--steps", 1, f"--{extra}", "board", code=1)
    assert (
        done.messages == f"ramctl train: --{extra} needs the extra: pip install 'ramctl[{extra}]'\n"
    )
    assert sorted(tmp_path.iterdir()) == before


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of an offline run: LevelDB's log format behind a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    data, place, parts = path.read_bytes(), 7, []
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # what is left of a block is padding
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        parts.append(data[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(b"".join(parts))
            parts = []


def wandb_curves(records: list[Any]) -> dict[str, dict[int, float]]:
    """Each curve's values by step."""
    curves: dict[str, dict[int, float]] = {}
    for record in records:
        found = {(*item.nested_key, item.key)[0]: item.value_json for item in record.history.item}
        for name, value in found.items():
            curves.setdefault(name, {})[int(found["_step"])] = json.loads(value)
    return curves


def test_wandb_has_the_curves_and_settings_of_a_run(ramctl, parsed, tiny_options, tmp_path):
    pytest.importorskip("wandb", reason="needs the extra [wandb]")
    done = ramctl.process(
        "train", parsed, "--out", "x", "--steps", 3, "--val", parsed, "--val-every", 2,
        "--wandb", "photos", "--events", "e.jsonl", *tiny_options,
        WANDB_MODE="offline", WANDB_DIR=str(tmp_path), WANDB_ENTITY="lab",
    )  # fmt: skip
    assert done.returncode == 0, done.messages
    assert done.stdout == b""
    assert all(line.startswith("ramctl train: ") for line in done.messages.splitlines())
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    records = list(wandb_records(path))
    run = next(record.run for record in records if record.HasField("run"))
    assert (run.entity, run.project, run.display_name) == ("lab", "photos", "x")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["preset"]["name"] == "tiny" and config["preset"]["training"]["steps"] == 3
    assert "--wandb photos" in config["commands"][0]
    curves, steps = wandb_curves(records), steps_of(tmp_path / "e.jsonl")
    assert [step["step"] for step in steps] == [1, 2, 3]
    for name, value in CURVES.items():
        assert curves[name] == {step["step"]: value(step) for step in steps}
    events = read_rows(tmp_path / "e.jsonl")
    validated = {event["step"]: event["map"] for event in events if event["event"] == "validation"}
    assert curves["validation/mAP"] == validated and 2 in validated


def test_a_resumed_run_goes_on_as_the_same_run_of_wandb(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="needs the extra [wandb]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    work = WorkFolder(tmp_path / "x")
    work.path.mkdir()
    for resumed_at, values in ((None, {1: 0.5, 2: 0.25}), (1, {2: 0.25, 3: 0.125})):
        run = WandbRun("photos", "x", work.wandb_id(), {})
        with EventLogs(wandb=run, resumed_at=resumed_at) as log:
            for step, value in values.items():
                log.write(ValidationEvent(step, value, 1, value, 1, 1))
    wandb.teardown()  # as a process does in the end: what is buffered comes to the disk
    paths = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(paths) == 2 and {path.name for path in paths} == {f"run-{work.wandb_id()}.wandb"}
    curves = wandb_curves([record for path in paths for record in wandb_records(path)])
    assert curves["validation/mAP"] == {1: 0.5, 2: 0.25, 3: 0.125}


@pytest.mark.slow
def test_without_a_compiler_compile_says_so_and_trains_as_ever(
    ramctl, train, parsed, tiny_options, tmp_path
):
    arguments = [parsed, "--steps", 2, *tiny_options]
    done = ramctl.process(
        "train", *arguments, "--out", "one", "--compile", fresh=True,
        CXX="/nowhere/c++", TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"),
    )  # fmt: skip
    assert done.returncode == 0, done.messages
    (line,) = [line for line in done.messages.splitlines() if "--compile" in line]
    assert "does not work here, continuing without it" in line and "C++ compiler" in line
    train(*arguments, "--out", "two")
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


@pytest.fixture
def model():
    preset = load_preset("tiny")
    torch.manual_seed(0)
    return RAM(preset.model, image_size=64, n_labels=5, vocabulary=20).eval()


def test_compiled_parts_compute_the_same_and_can_be_switched_off(model, monkeypatch):
    compiled = []

    def record(function, **options):
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, "compile", record)
    names, photos = list(model.state_dict()), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(photos).tag_logits
        parts = CompiledParts(model)
        assert len(compiled) == 3 and list(model.state_dict()) == names
        assert torch.equal(model(photos).tag_logits, expected)
    with parts.off():
        assert model.encoder._compiled_call_impl is None
    assert model.encoder._compiled_call_impl is not None


@pytest.mark.slow
def test_a_compiled_tag_decoder_has_the_gradients_of_the_plain_one(model):
    from ramctl.training.distributed import why_not_compiled

    if reason := why_not_compiled(torch.device("cpu")):
        pytest.skip(f"no compiler: {reason}")
    tokens, rows = torch.randn(2, 4, 32), model.labels()

    def gradient() -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        queries = model.tag_decoder.prepare(model.label_queries(rows[:, :32].detach())[None])
        states = model.tag_decoder(queries, model.tag_decoder.contexts(tokens))
        states.square().sum().backward()
        return states.detach(), model.label_queries.projection.weight.grad.clone()

    plain = gradient()
    model.tag_decoder.compile()
    for got, expected in zip(gradient(), plain, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
