#!/usr/bin/env python3
"""Write how often photos of all kinds show each label of mini, for `ramctl clean`.

    ramctl tag --dense judged_dev.jsonl judged_other.jsonl | scripts/mini/rates.py

The mean of the calibrated probabilities of the photos on stdin, as log-odds in half precision; NaN
for labels without a calibration and those that are no things or scenes. A tag of a caption is
judged by how much likelier its photo makes it.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("numpy")

import numpy as np

from ramctl.checkpoints.bundle import Bundle, embedded_bundle
from ramctl.data_engine.probabilities import RATES
from ramctl.inference.calibration import Calibration
from ramctl.inference.fitting import THINGS
from ramctl.inference.log_odds import log_odds_of, sigmoid


def main() -> None:
    scores = np.array([json.loads(line)["dense"] for line in sys.stdin])
    bundle = Bundle.open(embedded_bundle())
    calibration = Calibration.from_bundle(bundle)
    rates = log_odds_of(sigmoid(calibration.log_odds(log_odds_of(scores))).mean(0))
    is_thing = [label.kind in THINGS for label in bundle.labels]
    np.save(RATES, np.where(is_thing, rates, np.nan).astype(np.float16))


if __name__ == "__main__":
    main()
