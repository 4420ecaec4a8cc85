"""Logits of photos that are not changed, as in tagging, and their mAP.

The first process alone scores them. N photos, L labels.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ramctl.errors import RecordProblem
from ramctl.evaluation.metrics import POSITIVE, mean_average_precision
from ramctl.model.device import Runtime
from ramctl.model.ram import RAM
from ramctl.records.record import JsonObject
from ramctl.training.annotations import Ids
from ramctl.training.data import TrainingSet
from ramctl.training.job import Job, Run

MAX_PHOTOS = 20_000  # logits of all photos are held in memory
PHOTOS_AT_ONCE = 32


class Scored(NamedTuple):
    """Logits and truth (1, 0, -1: unknown), both (N, L), of the records `ids` (N,)."""

    logits: NDArray[np.float32]
    truth: NDArray[np.int8]
    ids: Ids


def label_logits(model: RAM, photos: Tensor) -> Tensor:
    """Logits (B, L) of all labels."""
    return model(photos).logits.total


def score(
    run: Run, job: Job, data: TrainingSet, ids: Ids, runtime: Runtime,
    logits_of: Callable[[RAM, Tensor], Tensor] = label_logits,
) -> Scored:  # fmt: skip
    """The photos that can be read; the model is left in evaluation mode."""
    model, blocks = job.model.eval(), np.split(ids, range(PHOTOS_AT_ONCE, len(ids), PHOTOS_AT_ONCE))
    found, problems = [], dict[int, RecordProblem]()
    for batch in data.batches(((0, block) for block in blocks), job.workers):
        problems |= dict(batch.rejected)
        if batch.is_real:
            with torch.inference_mode(), runtime.precision():
                logits = logits_of(model, batch.photos.to(runtime.device))
            found.append(logits.float().cpu().numpy())
    run.reject_photos(data.records, problems)
    ids = ids[~np.isin(ids, list(problems))]
    nothing = np.zeros((0, len(data.targets.labels)), np.float32)
    truth = [data.targets.truth(data.records[index]) for index in ids.tolist()]
    return Scored(
        np.concatenate([nothing, *found]), np.array(truth).reshape(-1, nothing.shape[1]), ids
    )


def validate(run: Run, job: Job, runtime: Runtime) -> tuple[Scored | None, JsonObject]:
    """The scored validation photos, and the mAP over the labels with evidence that they show.

    None, and nothing, without photos that can be used, and in all processes but the first.
    """
    ids, evidence = job.examples.held_out_ids[:MAX_PHOTOS], job.examples.evidence
    if not len(ids) or not run.world.is_main:
        return None, {}
    scored = score(run, job, job.validation, ids, runtime)
    occurring = evidence & (scored.truth == POSITIVE).any(0)
    if not occurring.any():
        why = "their tags were not trained" if len(scored.ids) else "they cannot be read"
        run.report.notify(f"none of {len(ids)} validation photos can be used: {why}")
        return None, {}
    logits = scored.logits[:, occurring].astype(np.float64)
    value = mean_average_precision(logits, scored.truth[:, occurring])
    facts = {"map": value, "labels": int(occurring.sum()), "photos": len(scored.ids)}
    words = f"mAP {value:.4f} over {facts['labels']} labels, {facts['photos']} validation photos"
    run.report.notify(f"step {job.trainer.step}: {words}")
    return scored, facts
