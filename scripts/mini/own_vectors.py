#!/usr/bin/env python3
"""Write a bundle whose labels have learnt their own vectors once more, on whole photos.

    scripts/mini/own_vectors.py --model MODEL --out OUT --root PHOTOS --size S \
        --judged judged.jsonl -- RECORDS...

Training asks for some labels at a time, of crops, and takes silence for absence. Here the tagger
stays as it is, all labels are asked for at each step, and a caption's silence is as much evidence
against a label as captions name it where it is there. How often they do comes from the tagger's
probabilities, which judged photos calibrate. What captions name first is learnt as a choice among
all things. What is written gives a mean of the old and the new logits, by other own vectors and a
smaller part of what texts notify: a model of the same size. N photos, C channels, L labels, R width
of the own vectors.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("torch")

import numpy as np
import torch
from average import write_with
from mentions import Mentions, choice_loss, unlabelled_loss
from safetensors.torch import load_file
from torch import Tensor

from ramctl.checkpoints.bundle import WEIGHTS, Bundle
from ramctl.checkpoints.load import load_model
from ramctl.inference.calibration import Curves, fit_curves
from ramctl.model.device import set_up_cpu
from ramctl.model.preprocess import PreprocessConfig
from ramctl.records.inputs import read_inputs
from ramctl.records.labels import Labels
from ramctl.records.parallel import chunks
from ramctl.records.record import Record
from ramctl.training.annotations import Annotation, read_annotation
from ramctl.training.augmentation import UNCHANGED, TrainingPhoto

# Of what a label's text says, beside the own vectors, and of the new logits in what is written.
TEXT, NEW = 0.5, 0.7
# Weights of the tagger's opinion of what nobody names, and of the choice of the first thing.
OPINION, CHOICE = 0.3, 3.0
EPOCHS, BATCH, LR, DROPOUT, WEIGHT_DECAY = 6, 128, 5e-4, 0.3, 0.05
AT_ONCE = 8  # photos: a larger batch leaves the processor's cache
# Parameters that what a text says is a multiple of.
SCALED = ("prior.scale", "prior.class_scale", "prior.offset", "tag_decoder.shared_head.weight",
          "tag_decoder.shared_head.bias")  # fmt: skip


class Seen(NamedTuple):
    """The features and scores of the photos by the tagger."""

    pooled: Tensor  # (N, C) the mean of their tokens
    text: Tensor  # (N, L) logits: what the labels' texts say
    total: Tensor  # (N, L) logits


def read_notes(path: Path, root: Path) -> list[Annotation]:
    """The annotations of records."""
    items = read_inputs([str(path)], str(root), "mini")
    return [read_annotation(item.fields) for item in items if isinstance(item, Record)]


def photos_of(
    notes: Sequence[Annotation], root: Path, preprocess: PreprocessConfig
) -> Iterator[Tensor]:
    """The whole photos (B, 3, S, S), a few at once."""
    photo, random = TrainingPhoto(preprocess, UNCHANGED), np.random.default_rng(0)
    for some in chunks(notes, AT_ONCE):
        batch = torch.from_numpy(np.stack([photo(note.image, root, random) for note in some]))
        yield batch.contiguous(memory_format=torch.channels_last)


def look(bundle: Bundle, notes: Sequence[Annotation], root: Path, size: int) -> Seen:
    """The photos, `size` pixels wide and high, by the tagger."""
    model = load_model(bundle, captioning=False)
    torch.nn.Module.to(model, memory_format=torch.channels_last)  # type: ignore[call-overload]
    labels = model.prepare_labels(model.labels())
    parts = []
    with torch.inference_mode():
        for batch in photos_of(notes, root, replace(bundle.preprocess, size=size)):
            tokens = model.encoder(batch)
            logits = model.tag_logits(model.encode(tokens), labels)
            parts.append(Seen(tokens.mean(1), logits.text, logits.total))
    return Seen(*(torch.cat(some).clone() for some in zip(*parts, strict=True)))


def curves_by(judged: Seen, notes: Sequence[Annotation], labels: Labels) -> Curves:
    """The curves of the tagger's logits on judged photos."""
    right = np.zeros(judged.total.shape, bool)
    for row, note in zip(right, notes, strict=True):
        row[[i for tag in note.tags for i in labels.ids(tag)]] = True
    return fit_curves(judged.total.double().numpy(), right, np.ones_like(right))


def learn(seen: Seen, pooled: Tensor, mentions: Mentions) -> torch.nn.Linear:
    """A layer from features (N, C) to logits (N, L), which a part of the texts' is added to."""
    layer = torch.nn.Linear(pooled.shape[1], seen.text.shape[1])
    opinion, beside = seen.total.sigmoid(), TEXT * seen.text
    usual = opinion.mean(0).clamp(1e-4, 0.9).logit()
    with torch.no_grad():
        layer.weight.mul_(0.1)
        layer.bias.copy_(usual - beside.mean(0))
    things = mentions.things
    popular = mentions.fractions.float().sum(0) + 0.1
    slope = torch.nn.Parameter(torch.ones(()))
    biases = torch.nn.Parameter((popular / popular.sum()).log() - usual[things])
    groups: list[dict[str, Any]] = [
        {"params": list(layer.parameters())}, {"params": [slope, biases], "weight_decay": 0.0}
    ]  # fmt: skip
    n_steps = EPOCHS * (len(pooled) // BATCH)
    optimiser = torch.optim.AdamW(groups, lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LR, total_steps=n_steps, pct_start=0.1
    )
    for _ in range(EPOCHS):
        for some in torch.randperm(len(pooled))[: len(pooled) // BATCH * BATCH].split(BATCH):
            part = mentions.at(some)
            logits = layer(torch.nn.functional.dropout(pooled[some], DROPOUT)) + beside[some]
            loss = unlabelled_loss(logits, part)
            silent = (~part.present).float()
            loss = loss + torch.nn.functional.binary_cross_entropy_with_logits(
                logits, opinion[some], OPINION * silent, reduction="sum"
            )
            loss = loss + CHOICE * choice_loss(slope * logits[:, things] + biases, part.fractions)
            optimiser.zero_grad()
            (loss / BATCH).backward()
            optimiser.step()
            schedule.step()
    return layer


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
    for name in ("--model", "--out", "--root", "--judged"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--size", type=int, required=True, help="pixels of the photos' sides")
    parser.add_argument("records", type=Path, nargs="+")
    args = parser.parse_args()
    torch.manual_seed(0)
    set_up_cpu(None)
    bundle = Bundle.open(args.model)
    judged = read_notes(args.judged, args.root)
    curves = curves_by(look(bundle, judged, args.root, args.size), judged, bundle.labels)
    notes = [note for path in args.records for note in read_notes(path, args.root)]
    seen = look(bundle, notes, args.root, args.size)
    log_odds = curves.log_odds(seen.total.numpy())
    mentions = Mentions.learn(notes, bundle.labels, torch.from_numpy(log_odds).float().sigmoid())
    spread, mean = torch.std_mean(seen.pooled, 0)
    spread += 1e-3
    own = learn(seen, (seen.pooled - mean) / spread, mentions)
    tensors = load_file(bundle.path / WEIGHTS)
    was = {name: value.float() for name, value in tensors.items() if value.is_floating_point()}
    with torch.no_grad():
        # Of pooled features from which only their mean is taken away.
        old = was["labels.own"] @ was["prior.own_projection.weight"]
        offset = was["labels.own"] @ was["prior.own_projection.bias"] + old @ mean
        offset += was["labels.bias"][:, 0]
        weight = NEW * own.weight / spread + (1 - NEW) * old
        width = was["labels.own"].shape[1]
        vectors, projection = in_fewer(weight, seen.pooled - mean, width)
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
