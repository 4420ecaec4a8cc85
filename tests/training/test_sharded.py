"""Weights that are spread over two processes, against two that have each a copy of all."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch

from ramctl.checkpoints.bundle import Bundle
from ramctl.records.report import Report
from ramctl.training.plan import TrainOptions, WorkFolder, open_plan
from tests.training.conftest import DATA, SMALL_SWIN, training_records, write_records
from tests.training.test_distributed import ENVIRONMENT, torchrun
from tests.training.two_processes import Run

LAUNCH = [
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    *("-m", "tests.training.two_processes"),
]
EXACT = 2e-6  # sums in another order, after six steps of AdamW with eps 1e-3


def some_captions():
    """Two of eight photos have a caption: some passes have none, in one process or in both."""
    records = training_records()
    for row in records[2:]:
        del row["captions"], row["caption_tags"]
    return records


@pytest.fixture(scope="module")
def results(tmp_path_factory, tiny_bundle):
    """What the runs left, by name."""
    folder = tmp_path_factory.mktemp("sharded")
    (folder / "swin.toml").write_text(SMALL_SWIN)
    records = write_records(folder / "in.jsonl", some_captions())
    common = (
        "training.batch_size=1", "training.accumulation=2", "training.ema=0.5",
        "training.eps=1e-3", "training.clip_norm=1.0",
    )  # fmt: skip
    changes = {
        "swin": (),
        "frozen": ("training.frozen_stages=2", "training.checkpointing=true"),
    }
    for name, overrides in changes.items():
        options = TrainOptions(
            inputs=(str(records),), out=folder / name, preset=str(folder / "swin.toml"),
            root=str(DATA), text=str(tiny_bundle / "text"), steps=6,
            overrides=(*common, *overrides),
        )  # fmt: skip
        open_plan(options, WorkFolder(options.out), Report("train", quiet=True))
    runs = [
        Run("copies", "swin", "copies", 6, shard=False),
        Run("spread", "swin", "spread", 6, shard=True),
        Run("copies-3", "swin", "copies-3", 3, shard=False),
        Run("spread-3", "swin", "spread-3", 3, shard=True),
        Run("spread-6", "swin", "spread-3", 6, shard=True),
        Run("from-copies", "swin", "copies-3", 6, shard=True),
        Run("alone", "swin", "spread", 6, shard=False, alone=True),
        Run("fp16-copies", "swin", "fp16-copies", 3, shard=False, dtype="fp16"),
        Run("fp16-spread", "swin", "fp16-spread", 3, shard=True, dtype="fp16"),
        Run("frozen-copies", "frozen", "frozen-copies", 4, shard=False),
        Run("frozen-spread", "frozen", "frozen-spread", 4, shard=True),
    ]
    (folder / "runs.json").write_text(json.dumps([asdict(run) for run in runs]))
    done = subprocess.run(
        [*LAUNCH, "runs.json"], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True,
        timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    yield {
        run.name: torch.load(folder / f"{run.name}.pt", weights_only=True)
        | json.loads((folder / f"{run.name}.json").read_text())
        for run in runs
    }
    shutil.rmtree(folder)


def tensors(value, name="") -> dict[str, object]:
    """All that a state holds, by the way to it."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, own in items for k, v in tensors(own, f"{name}.{key}").items()}
    return {name: value}


def assert_close(state, other, tolerance: float) -> None:
    a, b = tensors(state), tensors(other)
    assert a.keys() == b.keys()
    for name, value in a.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(b[name], value, rtol=0, atol=tolerance, msg=name)
        else:
            assert b[name] == value, name


@pytest.mark.slow
def test_spread_weights_learn_what_copies_learn(results):
    copies, spread = results["copies"], results["spread"]
    assert_close(copies["state"], spread["state"], EXACT)
    assert_close(copies["final"], spread["final"], EXACT)
    for name, value in spread["final"].items():  # a bundle gets the averaged weights
        averaged = spread["state"]["averaged"].get(name)
        assert averaged is None or torch.equal(value, averaged)
    losses = [event["losses"]["caption"] for event in copies["events"]]
    assert 0.0 in losses and max(losses) > 1  # steps with captions and without
    for one, two in zip(copies["events"], spread["events"], strict=True):
        assert one["grad_norm"] > 1  # is clipped
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-6)
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-6)


@pytest.mark.slow
def test_each_process_keeps_half_of_everything(results):
    whole = results["copies"]["kept"][0]
    first, second = results["spread"]["kept"]
    for part, number in whole.items():
        assert first[part] + second[part] == number
        assert first[part] <= 0.502 * number  # odd numbers of rows


@pytest.mark.slow
def test_spread_runs_resume_bit_for_bit_with_and_without_being_spread(results):
    spread = results["spread"]["state"]
    assert results["spread-3"]["state"]["step"] == 3
    assert_close(spread, results["spread-6"]["state"], 0)
    assert_close(results["copies-3"]["state"], results["from-copies"]["begun"], 0)
    assert_close(spread, results["from-copies"]["state"], EXACT)
    assert_close(spread, results["alone"]["begun"], 0)


@pytest.mark.slow
def test_fp16_skips_a_step_in_all_processes(results):
    copies, spread = results["fp16-copies"], results["fp16-spread"]
    assert [event["skipped"] for event in spread["events"]] == [True, False, False]
    assert spread["state"]["scaler"] == copies["state"]["scaler"]
    # Gradients are added in fp32, of activations that fp16 rounds to one part in a thousand.
    assert_close(copies["state"]["model"], spread["state"]["model"], 1e-4)


@pytest.mark.slow
def test_frozen_parts_stay_and_the_others_learn_the_same(results):
    copies, spread = results["frozen-copies"], results["frozen-spread"]
    assert_close(copies["state"], spread["state"], EXACT)
    before, after = results["copies-3"]["begun"]["model"], spread["state"]["model"]
    for name, value in before.items():
        is_frozen = name.startswith(tuple(f"encoder.backbone.layers.{i}." for i in (0, 1)))
        if is_frozen or name.startswith("encoder.backbone.layers.3."):
            assert torch.equal(value, after[name]) == (is_frozen or not value.numel()), name


@pytest.mark.slow
def test_the_command_writes_the_same_bundle(parsed, tiny_options, tmp_path):
    # The preset's scales are single numbers; the best model is kept on the way.
    common = [
        parsed, "--val", parsed, "--epochs", 2, "--keep", "best", "--device", "cpu",
        "--set", "training.batch_size=2", "--set", "training.eps=1e-3", *tiny_options,
    ]  # fmt: skip
    for name, option in (("copies", []), ("spread", ["--shard-model"])):
        done = torchrun([*common, "--out", name, *option, "--events", f"{name}.jsonl"], tmp_path)
        assert done.returncode == 0, done.stderr
    copies, spread = (Bundle.open(tmp_path / name) for name in ("copies", "spread"))
    assert spread.meta["provenance"]["measured"] == copies.meta["provenance"]["measured"]
    stored = spread.tensors()
    for name, value in copies.tensors().items():
        assert stored[name].shape == value.shape and stored[name].dtype == value.dtype
        # Rounded to fp16, whose step is 1e-3 of a number.
        np.testing.assert_allclose(
            stored[name].astype(np.float64), value.astype(np.float64), rtol=1e-3, atol=EXACT
        )


def test_one_process_has_nobody_to_spread_a_model_over(train, parsed, tmp_path):
    before = sorted(tmp_path.iterdir())
    done = train(parsed, "--out", "x", "--steps", 1, "--shard-model")
    assert done.returncode == 2
    assert "start several by torchrun" in done.stderr
    assert sorted(tmp_path.iterdir()) == before
