"""The weights of the evidence of classes, learnt on judged photos. N photos, L labels."""

import numpy as np
import torch

from ramctl.inference.calibration import ROUNDS, Flags
from ramctl.inference.class_evidence import MIN_MASS, ClassEvidence
from ramctl.inference.log_odds import Floats, log_odds_of


def fit_evidence(
    evidence: ClassEvidence, log_odds: Floats, masses: Floats, right: Flags, counts: Flags
) -> ClassEvidence:
    """The evidence with the likeliest weights, for log-odds (N, L) of curves that saw other photos.

    `masses` are (N, n). `counts` (N, L): a label's truth is known.
    """
    photos, places = np.nonzero((masses > MIN_MASS) & counts[:, evidence.labels])
    labels = evidence.labels[places]
    columns = (log_odds[photos, labels], log_odds_of(masses[photos, places]), right[photos, labels])
    curve, mass, is_right = (torch.from_numpy(np.asarray(x, np.float64)) for x in columns)
    weights = torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def cost() -> torch.Tensor:
        optimiser.zero_grad()
        x, y = curve + weights[0], weights[1] * mass + weights[2]
        either = torch.logaddexp(torch.logaddexp(x, y), x + y)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(either, is_right)
        loss.backward()
        return loss.detach()

    optimiser.step(cost)
    a, b, c = weights.detach().numpy().round(4).tolist()
    return evidence._replace(weights=(a, b, c))
