"""The torch engine: devices, number formats, memory, long lists of words."""

import numpy as np
import pytest
import torch

from ramctl.checkpoints.bundle import Bundle
from ramctl.errors import RunProblem, UsageProblem
from ramctl.inference import onnx_engine, torch_engine
from ramctl.inference.onnx_engine import OnnxEngine
from ramctl.inference.torch_engine import TorchEngine, photos_that_fit
from ramctl.inference.vocabulary import label_rows, open_vocabulary
from ramctl.model import ram
from ramctl.model.device import Runtime, choose_device, number_format
from tests.support import TAGS, fits
from tests.training.conftest import DATA, command, parsed, tiny_options, train

__all__ = ["command", "parsed", "tiny_options", "train"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_is_known_and_there():
    assert choose_device("auto").type in ("cpu", "mps")
    with pytest.raises(UsageProblem, match="not a device such as"):
        choose_device("gpu0")
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


def test_a_gpu_takes_as_many_photos_as_half_of_its_free_memory_holds(monkeypatch):
    assert photos_that_fit(torch.device("cpu"), 384, 4) == 4
    for free, size, expected in ((80e9, 384, 64), (4e9, 384, 12), (1e6, 384, 1), (4e9, 224, 36)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 80e9))
        assert photos_that_fit(torch.device("cuda"), size, 1) == expected


@pytest.fixture
def engine(tiny_bundle):
    bundle = Bundle.open(tiny_bundle)
    return TorchEngine.open(bundle, Runtime.choose("cpu"), labels=label_rows(bundle), fold=True)


@pytest.fixture
def limit(engine):
    """Lets the model raise what torch raises on a full GPU for more photos than `most`."""
    encode, sizes = engine.model.encoder.forward, []

    def set_limit(most):
        def size(photos):
            sizes.append(len(photos))
            return len(photos)

        engine.model.encoder.forward = fits(encode, most, size)
        return sizes

    return set_limit


def test_the_batch_is_halved_until_it_fits_and_stays_so(engine, limit):
    photos = np.random.default_rng(0).normal(size=(8, 3, 64, 64)).astype(np.float32)
    expected = engine.logits(engine.encode(photos))
    sizes, said = limit(3), []
    engine.notify = said.append
    for _ in range(2):
        np.testing.assert_allclose(engine.logits(engine.encode(photos)), expected, atol=1e-5)
    assert sizes == [8, 4, *[2] * 4, *[2] * 4]
    assert said == [
        "cpu: out of memory with 8 photos, going on with 4",
        "cpu: out of memory with 4 photos, going on with 2",
    ]
    limit(0)
    with pytest.raises(RunProblem, match="not enough memory for one photo"):
        engine.encode(photos)


def test_both_engines_score_so_many_words_at_once_with_the_same_logits(tiny_bundle, monkeypatch):
    bundle, seen = Bundle.open(tiny_bundle), []
    photos = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    words = [f"{one} {other}" for one in TAGS for other in TAGS]
    labels, prepare = open_vocabulary(bundle, words).labels, ram.RAM.prepare_labels

    def noted(model, rows):
        seen.append(len(rows))
        return prepare(model, rows)

    def logits_of(engine):
        return engine.logits(engine.encode(photos))

    def opened():
        torch = TorchEngine.open(bundle, Runtime.choose("cpu"), labels=labels)
        return torch, OnnxEngine(bundle, labels)

    expected = logits_of(opened()[0])
    monkeypatch.setattr(onnx_engine, "ROWS_AT_ONCE", 40)
    monkeypatch.setattr(torch_engine, "MAX_PREPARED", 40)
    monkeypatch.setattr(ram, "ROWS_AT_ONCE", 80)  # of two photos
    monkeypatch.setattr(ram.RAM, "prepare_labels", noted)
    for engine in opened():
        np.testing.assert_allclose(logits_of(engine), expected, atol=1e-4)
    assert seen == [40, 40, 20] and expected.shape == (2, 100)


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.gpu
@GPU
# TF32, in which cuDNN multiplies by itself, has the mantissa of fp16.
@pytest.mark.parametrize(("dtype", "bound"), [("fp32", 0.02), ("fp16", 0.02), ("bf16", 0.06)])
def test_a_gpu_gives_the_scores_of_the_cpu(dtype, bound, ramctl):
    photos = sorted((DATA / "photos").glob("*.jpg"))
    common = ["tag", "--dense", *photos]
    cpu, gpu = (
        np.array([row["dense"] for row in ramctl(*common, *more).rows])
        for more in (["--device", "cpu"], ["--device", "cuda:0", "--dtype", dtype])
    )
    assert len(gpu) == len(photos) and np.abs(cpu - gpu).max() < bound


@pytest.mark.gpu
@GPU
def test_a_model_is_trained_on_a_gpu(train, parsed, ramctl, tmp_path):
    done = train(
        parsed, "--set", "training.steps=3", "--device", "cuda:0", "--out", tmp_path / "model"
    )
    assert done.returncode == 0, done.messages
    photo = DATA / "photos" / "kite.jpg"
    tagged = ramctl("tag", "--model", tmp_path / "model", "--device", "cuda:0", photo)
    assert tagged.returncode == 0, tagged.messages
