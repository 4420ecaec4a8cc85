"""What the data engine is measured beside: a linear probe, and cleanlab's issue scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from kept import Kept
from planted_damage import CLEANED_KINDS
from planted_returned import count_returned
from planted_rules import Scored, deviations, measured, ranks, truth_of

PHOTOS_A_STEP = 64
TOKENS = (49, 1280)  # of the preset mini
SCORERS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


def probe_floor(
    folds: Sequence[Sequence[dict[str, Any]]], root: Path, cache: Path
) -> dict[str, Any]:
    """A linear layer on pooled frozen features, trained on the damaged tags of the other fold.

    What goes is chosen as with `not-predicted`.
    """
    tags, targets = _targets(folds)
    features = [pooled_features(rows, root, cache) for rows in folds]
    scores = [probe_scores(features[1 - i], targets[1 - i], features[i]) for i in (0, 1)]
    scored = [scored_tags(f, s, tags, by_tag=True) for f, s in zip(folds, scores, strict=True)]
    return {
        **measured(scored, ("not-predicted",)),
        "returned": count_returned(folds, scores, tags),
    }


def cleanlab_scores(
    folds: Sequence[Sequence[dict[str, Any]]], scores: Sequence[np.ndarray], names: Sequence[str]
) -> dict[str, Any]:
    """cleanlab's label quality of every tag, out of the model's scores of the other fold's photos.

    Each of its three scores, as they are and with `adjust_pred_probs` (each label's mean confidence
    taken off); the lowest go.
    """
    from cleanlab.internal.multilabel_scorer import ClassLabelScorer, MultilabelScorer

    tags, targets = _targets(folds)
    place = {name: i for i, name in enumerate(names)}
    scores = [own[:, [place[tag] for tag in tags]] for own in scores]
    out = {}
    for scorer in SCORERS:
        for adjust in (False, True):
            score = MultilabelScorer(base_scorer=ClassLabelScorer.from_str(scorer))
            try:
                qualities = [
                    score.get_class_label_quality_scores(
                        labels=y.astype(int), pred_probs=p,
                        base_scorer_kwargs={"adjust_pred_probs": adjust},
                    )
                    for y, p in zip(targets, scores, strict=True)
                ]  # fmt: skip
            except ValueError:
                continue  # not every scorer can be adjusted
            scored = [
                scored_tags(r, q, tags, by_tag=False) for r, q in zip(folds, qualities, strict=True)
            ]
            name = f"{scorer}{', adjusted' if adjust else ''}"
            out[name] = measured(scored, ("not-predicted",))["not-predicted"]
    return out


def scored_tags(
    rows: Sequence[dict[str, Any]], scores: np.ndarray, tags: Sequence[str], *, by_tag: bool
) -> Scored:
    """The cleaned kinds' tags of a fold with their scores (photos, tags).

    Without `by_tag` no rule looks at the mean over their tag.
    """
    place = {tag: i for i, tag in enumerate(tags)}
    truth, score, column = [], [], []
    for row, own in zip(rows, scores, strict=True):
        for tag in row["tags"]:
            if row["kinds"][tag] in CLEANED_KINDS:
                truth.append(truth_of(tag, row["truth"]))
                score.append(own[place[tag]])
                column.append(place[tag])
    n = len(truth)
    scored = Scored(np.array(truth), np.zeros(n), np.ones(n), np.array(score), *np.ones((3, n)))
    columns = np.array(column)
    for tag in np.unique(columns):
        at = np.flatnonzero(columns == tag)
        scored.score_rank[at] = ranks(scored.score[at])
        if by_tag:
            scored.score_share[at] = scored.score[at] / max(scored.score[at].mean(), 1e-9)
            scored.deviations[at] = deviations(scored.score[at])
    return scored


def _targets(folds: Sequence[Sequence[dict[str, Any]]]) -> tuple[list[str], list[np.ndarray]]:
    tags = sorted({tag for rows in folds for row in rows for tag in row["tags"]})
    place = {tag: i for i, tag in enumerate(tags)}
    targets = []
    for rows in folds:
        given = np.zeros((len(rows), len(tags)), np.float32)
        for n, row in enumerate(rows):
            given[n, [place[tag] for tag in row["tags"]]] = 1
        targets.append(given)
    return tags, targets


def pooled_features(rows: Sequence[dict[str, Any]], root: Path, cache: Path) -> np.ndarray:
    """The mean over the encoder's tokens of each photo, out of the cache of `train`."""
    kept = Kept(cache, TOKENS)
    return np.stack([kept(row["image"], root).astype(np.float32).mean(0) for row in rows])


def probe_scores(
    features: np.ndarray, targets: np.ndarray, others: np.ndarray, *, epochs: int = 10
) -> np.ndarray:
    """Probabilities of `others` by a linear layer with the loss of the model's own training."""
    import torch

    from ramctl.training.losses import asymmetric_loss

    torch.manual_seed(0)
    mean, scale = features.mean(0), features.std(0).mean()
    x, z = (torch.from_numpy((f - mean) / scale) for f in (features, others))
    y = torch.from_numpy(targets)
    layer = torch.nn.Linear(x.shape[1], y.shape[1])
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.constant_(layer.bias, -3.0)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=1e-3, weight_decay=0.01)
    n_steps = epochs * -(-len(x) // PHOTOS_A_STEP)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=n_steps)
    for _ in range(epochs):
        for some in torch.randperm(len(x)).split(PHOTOS_A_STEP):
            loss = asymmetric_loss(layer(x[some]), y[some], gamma_neg=2.0, gamma_pos=0.0, clip=0.05)
            optimiser.zero_grad()
            (loss / len(some)).backward()
            optimiser.step()
            schedule.step()
    with torch.inference_mode():
        scores: np.ndarray = layer(z).sigmoid().numpy()
    return scores
