"""What each number format changes of the authors' recorded probabilities and decisions."""

import numpy as np
import pytest
import torch

from ramctl.inference.log_odds import score_logits
from ramctl.inference.torch_engine import TorchEngine
from ramctl.inference.vocabulary import label_rows
from ramctl.model.device import Runtime
from tests.parity.conftest import FILES

pytestmark = pytest.mark.shared

# By how much a probability may change, and how many decisions at the authors' thresholds: one more
# than seen (bf16: 0, 1 and 1 of 72, 72 and 10,287), as processors round in
# different orders.
BOUNDS = {"fp32": (1e-5, 0), "fp16": (0.01, 1), "bf16": (0.06, 2)}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", FILES)
def test_probabilities_and_decisions_stay_near_the_authors(convert, load_recorded, architecture):
    recorded = load_recorded(architecture)
    facts, io = recorded.facts, recorded.io
    bundle, _ = convert(architecture)
    labels, photos = label_rows(bundle), io["image"].numpy()
    expected = io["eval.logits"].double().sigmoid().numpy()
    decided = np.zeros(expected.shape, bool)
    for row, ids in enumerate(facts["decisions"]["class_threshold"]):
        decided[row, ids] = True
    for name, (most_moved, most_changed) in BOUNDS.items():
        runtime = Runtime(torch.device("cpu"), name)
        engine = TorchEngine.open(bundle, runtime, labels=labels, fold=True)
        # fp16 is a format of GPUs: here torch's own products stand for theirs, because oneDNN's
        # differ from processor to processor (0.0075 without AVX-512 FP16, 0.0103 with it).
        with torch.backends.mkldnn.flags(enabled=name != "fp16"):
            scores = score_logits(engine.logits(engine.encode(photos)))
        changed = ((scores > io["class_threshold"].numpy()) != decided).sum()
        assert np.abs(scores - expected).max() < most_moved, name
        assert changed <= most_changed, name
