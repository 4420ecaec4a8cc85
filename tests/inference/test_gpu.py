"""On a GPU: tagging gives the scores of the CPU, and training runs."""

import numpy as np
import pytest
import torch

from tests.training.conftest import DATA, command, parsed, tiny_options, train

__all__ = ["command", "parsed", "tiny_options", "train"]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


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


def test_a_model_is_trained_on_a_gpu(train, parsed, ramctl, tmp_path):
    done = train(
        parsed, "--set", "training.steps=3", "--device", "cuda:0", "--out", tmp_path / "model"
    )
    assert done.returncode == 0, done.messages
    photo = DATA / "photos" / "kite.jpg"
    tagged = ramctl("tag", "--model", tmp_path / "model", "--device", "cuda:0", photo)
    assert tagged.returncode == 0, tagged.messages
