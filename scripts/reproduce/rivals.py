"""Taggers that need no weights but the embedded model's: what its backbone alone knows.

`probe`: logistic regression on its pooled features, trained on the evaluation photos themselves,
four fifths of them for the other fifth: a supervised peer, never a model of ours. `imagenet`: what
its classifier of ImageNet's classes says, by their names. N photos, C channels, K classes.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ramctl.checkpoints.bundle import Bundle
from ramctl.checkpoints.load import load_model
from ramctl.evaluation.metrics import POSITIVE, UNKNOWN
from ramctl.labels import normalise
from ramctl.model.preprocess import Preprocess
from ramctl.photos.decoding import record_photo
from ramctl.pretrained.packages import class_names
from ramctl.records.inputs import read_inputs
from ramctl.records.record import Record

FOLDS = 5
AT_ONCE = 8
STEPS = 60
# Of 0.003, 0.01, 0.03 and 0.1 the best for the probe on flickr8k-dev (mAP 0.267 to 0.270).
PENALTY = 0.03


def pooled(records: Path, model: Path, keep: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of a set's photos, their pooled features (N, C) and ImageNet probabilities (N, K)."""
    if not keep.exists():
        bundle = Bundle.open(model)
        network = load_model(bundle, captioning=False).eval()
        preprocess = Preprocess(bundle.preprocess)
        found = [r for r in read_inputs((str(records),), None, "tag") if isinstance(r, Record)]
        features, classes = [], []
        assert network.prior is not None  # in the embedded model
        with torch.inference_mode():
            for start in range(0, len(found), AT_ONCE):
                photos = [record_photo(record) for record in found[start : start + AT_ONCE]]
                batch = torch.from_numpy(np.stack([preprocess(photo) for photo in photos]))
                tokens = network.encoder(batch)
                features.append(tokens.mean(1).numpy())
                classes.append(network.prior.class_logits(tokens).softmax(-1).numpy())
        keep.parent.mkdir(parents=True, exist_ok=True)
        names = np.array([record.fields["image"] for record in found])
        np.savez(keep, names=names, features=np.concatenate(features), of=np.concatenate(classes))
    stored = np.load(keep)
    return stored["names"].tolist(), stored["features"], stored["of"]


def out_of_fold(features: np.ndarray, truth: np.ndarray, penalty: float = PENALTY) -> np.ndarray:
    """Probabilities (N, K) of each photo by a linear layer that the other four fifths trained."""
    fold = np.random.default_rng(0).permutation(len(features)) % FOLDS
    scores = np.empty(truth.shape)
    for part in range(FOLDS):
        theirs = fold == part
        scores[theirs] = _fit(features[~theirs], truth[~theirs], features[theirs], penalty)
    return scores


def _fit(features: np.ndarray, truth: np.ndarray, others: np.ndarray, penalty: float) -> np.ndarray:
    mean, spread = features.mean(0), features.std(0) + 1e-3
    x, z = (torch.from_numpy((part - mean) / spread).float() for part in (features, others))
    y = torch.from_numpy(truth == POSITIVE).float()
    known = torch.from_numpy(truth != UNKNOWN).float()
    layer = torch.nn.Linear(x.shape[1], y.shape[1])
    share = ((y * known).sum(0) + 0.5) / (known.sum(0) + 1)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(share.logit())
    optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = loss_of(layer(x), y, weight=known, reduction="sum") / len(x)
        loss = loss + penalty * layer.weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.inference_mode():
        found: np.ndarray = layer(z).sigmoid().numpy()
    return found


def by_names(
    probabilities: np.ndarray, words: Mapping[str, Sequence[str]]
) -> dict[str, np.ndarray]:
    """Probability (N,) of each class that ImageNet names by one of its words, or as a kind of it.

    A kind ends in the word: a sports car is a car. The probabilities of all kinds are added.
    """
    names = [[normalise(part) for part in name.split(",")] for name in class_names()]
    found = {}
    for name, own in words.items():
        wanted = [re.compile(rf"(^|.* ){re.escape(normalise(word))}$") for word in own]
        kinds = [
            number
            for number, parts in enumerate(names)
            if any(pattern.match(part.strip()) for part in parts for pattern in wanted)
        ]
        if kinds:
            found[name] = probabilities[:, kinds].sum(1)
    return found


def lines(names: Sequence[str], classes: Sequence[str], scores: np.ndarray) -> Iterator[str]:
    """Dense records of scores (N, K)."""
    for number, (image, row) in enumerate(zip(names, scores.tolist(), strict=True)):
        first = {} if number else {"label_names": list(classes)}
        yield (
            json.dumps({"image": image, "dense": [float(f"{s:.6g}") for s in row], **first}) + "\n"
        )
