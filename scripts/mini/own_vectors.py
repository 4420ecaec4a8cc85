#!/usr/bin/env python3
"""Write a bundle whose labels have learnt their own vectors once more, on whole photos.

    scripts/mini/own_vectors.py --model MODEL --out OUT --root PHOTOS --size S \
        --distill scores:FILE... -- RECORDS...

Training asks for some labels at a time, of crops, and captions leave most of a photo out. Here the
tagger stays as it is, all labels are asked for at each step, and what nobody names is taught by a
second opinion: a linear layer on mean and maximum of the tokens, which has learnt what the tagger
was taught and, of what nobody names, what the tagger thinks. What is written gives a mean of the
old and the new logits, by other own vectors and a smaller part of what texts notify: a model of the
same size. N photos, C channels, L labels, R width of the own vectors.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("torch")

import torch
from average import write_with
from linear import Plan, Taught, photos_of, read_notes, read_teachers, train_layer
from safetensors.torch import load_file
from torch import Tensor

from ramctl.checkpoints.bundle import WEIGHTS, Bundle
from ramctl.checkpoints.load import load_model
from ramctl.decide.calibration import Calibration
from ramctl.device import set_up_cpu
from ramctl.training.data.targets import Annotation
from ramctl.training.data.teachers import scores_teachers

# Of the tagger's opinion in the targets of the second. On development photos (mAP of the layer by
# judged photos, and by captions of flickr8k-dev): 0: 0.404; 0.7: 0.430 and 0.387; 1: 0.429 and
# 0.376. The tagger itself: 0.415 and 0.359.
OPINION = 0.7
# Of what a label's text says, beside the own vectors: 0: 0.426 and 0.378; 0.3: 0.429 and 0.384;
# 0.5: 0.429 and 0.388; 1: 0.420 and 0.382.
TEXT = 0.5
# Parameters that what a text says is a multiple of.
SCALED = ("prior.scale", "prior.class_scale", "prior.offset", "tag_decoder.shared_head.weight",
          "tag_decoder.shared_head.bias")  # fmt: skip
SECOND = Plan(epochs=5, batch=128, lr=5e-4, dropout=0.3)
# Of the new logits in what is written. On the same photos (mAP as above, mean AUC of labels):
# 0: 0.415, 0.359, 0.883; 0.5: 0.425, 0.372, 0.884; 0.7: 0.427, 0.377, 0.883; 1: 0.425, 0.380, 0.869
# (rare labels rank worse).
NEW = 0.7
OWN = Plan(epochs=6, batch=128, lr=5e-4, dropout=0.3)
NAMED = 0.99  # a target above it is what somebody said


class Seen(NamedTuple):
    """The features and scores of the photos by the tagger."""

    tokens: Tensor  # (N, 2 C) their mean and maximum
    text: Tensor  # (N, L) logits: what the labels' texts say
    total: Tensor  # (N, L) logits, without what thresholds were calibrated to


def look(bundle: Bundle, notes: Sequence[Annotation], size: int) -> Seen:
    """The photos, `size` pixels wide and high, by the tagger."""
    model = load_model(bundle, captioning=False)
    torch.nn.Module.to(model, memory_format=torch.channels_last)  # type: ignore[call-overload]
    labels = model.prepare_labels(model.labels())
    shifts = calibrated(bundle)
    parts = []
    with torch.inference_mode():
        for batch in photos_of(notes, replace(bundle.preprocess, size=size)):
            tokens = model.encoder(batch)
            logits = model.tag_logits(model.encode(tokens), labels)
            pooled = torch.cat([tokens.mean(1), tokens.amax(1)], 1)
            parts.append(Seen(pooled, logits.text, logits.total - shifts))
    return Seen(*(torch.cat(some).clone() for some in zip(*parts, strict=True)))


def calibrated(bundle: Bundle) -> Tensor | float:
    """The part of the biases (L,) that comes from calibrated thresholds."""
    calibration = Calibration.if_known(bundle)
    return 0.0 if calibration is None else torch.from_numpy(calibration.shifts).float()


def softened(taught: Taught, opinion: Tensor, fraction: float) -> Taught:
    """The targets, with an opinion (N, L) where nobody names a label."""
    is_named = taught.wanted > NAMED
    wanted = taught.wanted.where(
        is_named, ((1 - fraction) * taught.wanted + fraction * opinion).half()
    )
    return Taught(wanted, taught.weights.where(is_named, taught.weights.clamp(min=fraction)))


def standard(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features of mean 0 and deviation 1, and what was taken away: mean and deviation."""
    spread, mean = torch.std_mean(features, 0)
    spread += 1e-3
    return (features - mean) / spread, mean, spread


def in_fewer(weight: Tensor, features: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """A layer (L, C) as a product (L, R) (R, C) that keeps its logits of the features best."""
    variance = (features.t() @ features / len(features)).double()
    values, vectors = torch.linalg.eigh(variance + 1e-4 * torch.eye(len(variance)))
    root = vectors * values.sqrt() @ vectors.t()
    back = vectors / values.sqrt() @ vectors.t()
    left, sizes, right = torch.linalg.svd(weight.double() @ root, full_matrices=False)
    sizes = sizes[:width].sqrt()  # half to each side
    return (left[:, :width] * sizes).float(), (sizes[:, None] * right[:width] @ back).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--model", "--out", "--root"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--size", type=int, required=True, help="pixels of the photos' sides")
    parser.add_argument("--distill", action="append", default=[], metavar="scores:FILE")
    parser.add_argument("records", type=Path, nargs="+")
    args = parser.parse_args()
    torch.manual_seed(0)
    set_up_cpu(None)
    bundle = Bundle.open(args.model)
    notes = [note for path in args.records for note in read_notes(path, args.root)]
    seen = look(bundle, notes, args.size)
    teachers = read_teachers(scores_teachers(args.distill), bundle.labels, notes)
    taught = Taught.of(notes, bundle.labels, bundle.preset.training, teachers)
    tokens, _, _ = standard(seen.tokens)
    second = train_layer(tokens, softened(taught, seen.total.sigmoid(), OPINION), SECOND)
    with torch.inference_mode():
        opinion = second(tokens).sigmoid().clone()
    pooled, mean, spread = standard(seen.tokens[:, : seen.tokens.shape[1] // 2])
    own = train_layer(pooled, softened(taught, opinion, 1.0), OWN, beside=TEXT * seen.text)
    tensors = load_file(bundle.path / WEIGHTS)
    was = {name: value.float() for name, value in tensors.items() if value.is_floating_point()}
    with torch.no_grad():
        # Of pooled features from which only their mean is taken away.
        old = was["labels.own"] @ was["prior.own_projection.weight"]
        offset = was["labels.own"] @ was["prior.own_projection.bias"] + old @ mean
        offset += was["labels.bias"][:, 0] - calibrated(bundle)
        weight = NEW * own.weight / spread + (1 - NEW) * old
        vectors, projection = in_fewer(weight, pooled * spread, was["labels.own"].shape[1])
        learnt = {
            "labels.own": vectors,
            "labels.bias": (NEW * own.bias + (1 - NEW) * offset)[:, None],
            "prior.own_projection.weight": projection,
            "prior.own_projection.bias": -projection @ mean,
        }
        learnt |= {name: (NEW * TEXT + 1 - NEW) * was[name] for name in SCALED}
    for name, value in learnt.items():
        tensors[name] = value.to(tensors[name].dtype).contiguous()
    write_with(bundle, tensors, args.out)


if __name__ == "__main__":
    main()
