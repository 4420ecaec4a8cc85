"""What a step and a run of many records keep in memory."""

import json
import tracemalloc

import pytest
import torch

from ramctl.model.config import load_preset
from ramctl.model.ram import RAM
from ramctl.training.data.record_file import RecordFile, Source
from ramctl.training.data.record_scan import scan_records
from ramctl.training.objectives.task import Counts, TrainingTask
from tests.training.test_objective import N_LABELS, VOCABULARY, make_batch


def swin_task(small_swin) -> TrainingTask:
    changes = ["model.tag_decoder.dropout=0.1", "model.captioning.dropout=0.1"]
    changes += ["model.encoder.options.drop_path_rate=0.3", "training.distill=[]"]
    preset = load_preset(str(small_swin), changes)
    torch.manual_seed(0)
    model = RAM(
        preset.model, image_size=preset.preprocess.size, n_labels=N_LABELS, vocabulary=VOCABULARY
    )
    model.labels.set_text(torch.nn.functional.normalize(torch.randn(N_LABELS, 32), dim=1))
    return TrainingTask(model, preset.training).train()


def gradients(task: TrainingTask) -> tuple[dict[str, torch.Tensor], int]:
    """The gradient of one batch of photos, and the bytes kept for it."""
    batch = make_batch(3, photos=torch.randn(3, 3, 64, 64, generator=torch.manual_seed(3)))
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(4)
    task.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        sums = task(batch)
    counts = task.counts(batch)
    task.reduce(sums, Counts(counts, counts, 1, 1)).backward()
    found = {n: p.grad.clone() for n, p in task.named_parameters() if p.grad is not None}
    return found, sum(kept.values())


def test_checkpointing_gives_the_same_gradients_for_less_memory(small_swin):
    task = swin_task(small_swin)
    whole, kept = gradients(task)
    task.model.recompute_activations()
    again, kept_again = gradients(task)
    assert whole.keys() == again.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-5, atol=1e-7, msg=name)
    assert kept_again < kept / 2


@pytest.mark.slow
def test_a_record_costs_eighteen_bytes_however_long_it_is(tmp_path):
    records = RecordFile([Source(tmp_path / "x.jsonl", "x.jsonl", tmp_path)])
    tracemalloc.start()
    for number in range(1_000_000):
        records.add(0, 10**12 + number, 10**6, number)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(records) == 1_000_000
    assert used < 20 * 1_000_000  # arrays grow ahead by a sixteenth


@pytest.mark.slow
def test_the_scan_keeps_offsets_and_not_records(tmp_path):
    line = {"image": "photos/%d.jpg", "tags": ["dog", "red"], "captions": ["a red dog " * 20]}
    text = json.dumps(line) + "\n"

    def kept(n: int) -> int:
        path = tmp_path / f"{n}.jsonl"
        path.write_text("".join(text % i for i in range(n)))
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / "0.jpg").touch()
        tracemalloc.start()
        source = Source(path, path.name, tmp_path)
        found = scan_records([source], lambda r: pytest.fail(str(r)), "train", hold_out=True)
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(found.records) == n
        return used

    assert (kept(30_000) - kept(10_000)) / 20_000 < 32
