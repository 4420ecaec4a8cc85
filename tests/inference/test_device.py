"""One policy for devices, number formats and memory, whichever command asks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ramctl.checkpoints.bundle import PHOTO_GRAPH, WEIGHTS, Bundle
from ramctl.errors import RunProblem, UsageProblem
from ramctl.inference.onnx_engine import ONNX, TORCH, choose_runtime
from ramctl.inference.torch_engine import TorchEngine, photos_that_fit
from ramctl.inference.vocabulary import label_rows
from ramctl.model.device import Runtime, choose_device, number_format
from ramctl.model.preset import finetuning_preset, load_preset, preset_to_meta
from tests.support import fits


def test_a_name_that_is_no_device_is_wrong_usage():
    with pytest.raises(UsageProblem, match="not a device such as"):
        choose_device("gpu0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_a_problem_of_the_run():
    assert choose_device("auto").type in ("cpu", "mps")
    with pytest.raises(RunProblem, match="torch finds none"):
        choose_device("cuda:1")


def test_auto_is_bf16_only_where_the_processor_has_it_and_the_caller_wants_it():
    cpu = torch.device("cpu")
    assert number_format("auto", cpu) == "fp32"
    has_units = torch.cpu._is_amx_tile_supported()
    assert number_format("auto", cpu, is_training=True) == ("bf16" if has_units else "fp32")
    for asked in ("fp32", "bf16", "fp16"):
        assert number_format(asked, cpu, is_training=True) == asked
    assert Runtime.choose("cpu", "bf16").dtype == "bf16"
    with pytest.raises(UsageProblem, match="fp32, bf16 or fp16"):
        Runtime.choose("cpu", "int8")


@pytest.mark.parametrize(
    ("has_bf16", "tagging", "training"), [(True, "bf16", "bf16"), (False, "fp16", "fp32")]
)
def test_a_gpu_computes_in_what_it_does_well(monkeypatch, has_bf16, tagging, training):
    asked = []

    def is_supported(including_emulation=True):
        asked.append(including_emulation)
        return has_bf16

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    cuda = torch.device("cuda")
    assert number_format("auto", cuda) == tagging
    assert number_format("auto", cuda, is_training=True) == training
    assert asked == [False, False]  # an emulated format is no gain


@pytest.mark.parametrize(
    ("asked", "n_bytes", "gpu", "expected"),
    [
        ({}, 800_000_000, True, TORCH),  # a large model gains by the GPU
        ({}, 800_000_000, False, ONNX),
        ({}, 20_000_000, True, ONNX),  # decoding takes longer than a small one
        ({"device": "cpu"}, 800_000_000, True, ONNX),
        ({"runtime": "onnx"}, 800_000_000, True, ONNX),
        ({"dtype": "int8"}, 800_000_000, True, ONNX),
        ({"device": "cuda"}, 20_000_000, True, TORCH),
        ({"dtype": "fp16"}, 20_000_000, False, TORCH),
        ({"dtype": "bf16", "device": "cpu"}, 20_000_000, False, TORCH),
        ({"runtime": "torch"}, 20_000_000, False, TORCH),
    ],
)
def test_one_rule_chooses_what_runs_a_model(monkeypatch, asked, n_bytes, gpu, expected):
    monkeypatch.setattr("ramctl.inference.onnx_engine.has_gpu", lambda: gpu)
    options = {"runtime": "auto", "device": "auto", "dtype": "auto"} | asked
    files = {PHOTO_GRAPH: {"bytes": 1000}, WEIGHTS: {"bytes": n_bytes}}
    meta = {"files": files, "dtype": "int8"}
    meta |= preset_to_meta(finetuning_preset(load_preset("ram-swin-l")))
    assert choose_runtime(Bundle(Path("x"), meta), **options) == expected


def test_a_gpu_takes_as_many_photos_as_half_of_its_free_memory_holds(monkeypatch):
    assert photos_that_fit(torch.device("cpu"), 384, 4) == 4
    for free, size, expected in ((80e9, 384, 64), (4e9, 384, 12), (1e6, 384, 1), (4e9, 224, 36)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 80e9))
        assert photos_that_fit(torch.device("cuda"), size, 1) == expected


@pytest.fixture
def engine(tiny_bundle):
    bundle = Bundle.open(tiny_bundle)
    return TorchEngine.open(bundle, Runtime.choose("cpu"), labels=label_rows(bundle), fold=True)


def limit(engine, most, sizes):
    """Let the model raise what torch raises on a full GPU for more photos than `most`."""

    def size(photos):
        sizes.append(len(photos))
        return len(photos)

    encoder = engine.model.encoder
    encoder.forward = fits(encoder.forward, most, size)


def test_the_batch_is_halved_until_it_fits_and_stays_so(engine):
    photos = np.random.default_rng(0).normal(size=(8, 3, 64, 64)).astype(np.float32)
    expected = engine.logits(engine.encode(photos))
    sizes, said = [], []
    limit(engine, 3, sizes)
    engine.notify = said.append
    np.testing.assert_allclose(engine.logits(engine.encode(photos)), expected, atol=1e-5)
    np.testing.assert_allclose(engine.logits(engine.encode(photos)), expected, atol=1e-5)
    assert sizes == [8, 4, *[2] * 4, *[2] * 4]
    assert said == [
        "cpu: out of memory with 8 photos, going on with 4",
        "cpu: out of memory with 4 photos, going on with 2",
    ]


def test_a_photo_that_does_not_fit_alone_is_an_error(engine):
    limit(engine, 0, [])
    with pytest.raises(RunProblem, match="not enough memory for one photo"):
        engine.encode(np.zeros((2, 3, 64, 64), np.float32))
