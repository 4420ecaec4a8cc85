"""Thresholds learnt from the tags that persons kept and deleted: `ramctl finetune --thresholds`.

The weights stay as they are. Each label's score is worth more where its tags were confirmed and
less where they were refused; its threshold moves to where a tag is as likely right as before.
N photos, L labels.
"""

import math
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import (
    CALIBRATION,
    Bundle,
    BundleWriter,
    resolve_model,
)
from ramctl.config import given_options
from ramctl.errors import RecordProblem, RunProblem, UsageProblem
from ramctl.inference.calibration import NEVER, Calibration
from ramctl.inference.fitting import FOLDS, Flags, correct_offsets
from ramctl.inference.log_odds import Floats, log_odds_of, sigmoid
from ramctl.inference.runner import ModelRunner
from ramctl.inference.selection import SelectionOptions, TagSelector
from ramctl.inference.thresholds import LabelSet, thresholds_of
from ramctl.labels import LABELS, Labels
from ramctl.records.inputs import RootCheck, inputs_or_stdin, read_inputs, require_files
from ramctl.records.parallel import chunks
from ramctl.records.record import (
    Item,
    JsonObject,
    Record,
    Reject,
    decided_tags,
    image_name,
    tag_language,
)
from ramctl.records.report import Rejects, Report
from ramctl.records.stream import accepted
from ramctl.tagging.tagger import open_runner
from ramctl.tagging.tagger_options import TaggerOptions
from ramctl.training.plan import TrainOptions

DIGITS = 4  # of thresholds
OF_TRAINING = (
    "labels", "val", "text", "steps", "epochs", "seed", "events", "distill", "resume",
)  # fmt: skip
MIN_DECISIONS = 10  # of which the effect is reported


class Decisions(NamedTuple):
    """Persons' decisions about n tags, photo by photo, and the model's scores of the photos."""

    scores: NDArray[np.float32]  # (N, L)
    photos: NDArray[np.int64]  # (n,) the photo of each tag
    labels: NDArray[np.int64]  # (n,)
    right: Flags  # (n,)

    def offsets(self, calibration: Calibration, chosen: Flags | slice = slice(None)) -> Floats:
        """The corrections of a calibration's offsets (L,) by some of the tags."""
        photos, labels = self.photos[chosen], self.labels[chosen]
        scores = self.scores[photos, labels].astype(np.float64)
        return correct_offsets(calibration, labels, scores, self.right[chosen])


class DecidedPhoto(NamedTuple):
    """A photo's records, and the labels that any of them keeps and refuses."""

    records: list[Record]
    kept: set[int]
    refused: set[int]


def learn_thresholds(options: TrainOptions) -> Report:
    """Write the bundle of `init` with thresholds that suit the records' decisions to `out`.

    Records have `confirmed` and `refused`, lists of tags; of all records of a photo a tag counts
    once, and one in both lists neither way. RunProblem where there are none, or where
    the bundle has no calibration.
    """
    wrong = given_options(options, OF_TRAINING)
    wrong += ["--set"] if options.overrides and "overrides" not in options.inherited else []
    if wrong:
        raise UsageProblem(f"--thresholds trains nothing: leave out {', '.join(wrong)}")
    report = Report(options.command, quiet=options.quiet, unit="photos")
    bundle = Bundle.open(resolve_model(options.init or "mini"))
    calibration = Calibration.from_bundle(bundle)
    tagger_options = TaggerOptions(
        dense=True, device=options.device, dtype=options.dtype, workers=options.workers
    )
    runner, label_set = open_runner(bundle, tagger_options)
    with Rejects(report, options.rejects, strict=options.strict) as rejects:
        names = inputs_or_stdin(options.inputs, "records (JSONL)")
        require_files(names)
        items = read_inputs(names, options.root, options.command)
        photos = _decided_photos(items, label_set.labels, calibration, rejects)
        decisions = _decisions(photos, runner, len(calibration.slopes), rejects)
    n_right, n = int(decisions.right.sum()), len(decisions.right)
    if not n:
        raise RunProblem("no record has confirmed or refused tags that are labels of the model")
    n_photos = len(decisions.scores)
    report.notify(f"decisions: {n_right} kept, {n - n_right} refused; photos: {n_photos}")
    if n >= MIN_DECISIONS:
        _report_effect(report, label_set, calibration, decisions)
    counts = {"photos": n_photos, "kept": n_right, "refused": n - n_right}
    offsets = decisions.offsets(calibration)
    n_moved = _write(options.out, options.argv, bundle, calibration, offsets, counts)
    report.n_out = n_photos
    report.notify(f"{options.out}: thresholds moved: {n_moved}")
    report.finish(options.stats)
    return report


def _write(
    out: Path, argv: Sequence[str], bundle: Bundle, calibration: Calibration, added: Floats,
    counts: JsonObject,
) -> int:  # fmt: skip
    """Write the bundle with `added` to the offsets of its calibration; how many labels that moves.

    All else is copied.
    """
    with BundleWriter(out) as writer:
        writer.copy_files(bundle, without={LABELS, CALIBRATION})
        replace(calibration, offsets=calibration.offsets + added).write(writer.path / CALIBRATION)
        thresholds = moved(np.array(thresholds_of(bundle)), added, calibration).tolist()
        rows = zip(bundle.labels, thresholds, added.tolist(), strict=True)
        Labels(
            replace(label, threshold=round(value, DIGITS)) if label.validated and offset else label
            for label, value, offset in rows
        ).write(writer.path / LABELS)
        history = writer.meta.get("provenance", {})
        commands = [*history.get("commands", []), shlex.join(["ramctl", *argv])]
        writer.meta["provenance"] = history | {"commands": commands, "decisions": counts}
    return int((added != 0).sum())


def moved(thresholds: Floats, added: Floats, calibration: Calibration) -> Floats:
    """The thresholds (L,) at which, with offsets `added`, a tag is as likely right as before."""
    changed = sigmoid(log_odds_of(thresholds) - added / calibration.slopes)
    changed = np.maximum(changed, calibration.min_scores)
    return np.where((added == 0) | (thresholds >= NEVER), thresholds, changed)


def _decided_photos(
    items: Iterable[Item], labels: Labels, calibration: Calibration, rejects: Rejects
) -> Sequence[DecidedPhoto]:
    """The photos of the records that hold decisions."""
    has_evidence = ~np.isnan(calibration.offsets)
    by_path = dict[str, DecidedPhoto]()

    def note(record: Record) -> None:
        if (decided := decided_tags(record.fields)) is None:
            return
        path = os.path.normpath(record.base / image_name(record.fields))
        photo = by_path.setdefault(path, DecidedPhoto([], set(), set()))
        photo.records.append(record)
        for ids, tags in zip((photo.kept, photo.refused), decided, strict=True):
            numbers = (i for tag in tags for i in labels.by_name(tag, tag_language(record.fields)))
            ids.update(i for i in numbers if has_evidence[i])

    for _ in accepted(items, note, rejects):
        pass
    return list(by_path.values())


def _decisions(
    photos: Sequence[DecidedPhoto], runner: ModelRunner, n_labels: int, rejects: Rejects
) -> Decisions:
    """The decisions on photos that can be read; records of the others are rejected."""
    check, n_both = RootCheck(), 0
    scores = [np.zeros((0, n_labels), np.float32)]
    decisions: list[tuple[int, int, bool]] = []  # photo, label, whether it is right
    outcomes = runner.run(
        chunks(photos, runner.batch),
        lambda photo: runner.to_model(runner.decode(photo.records[0])),
        lambda decoded: runner.scores_of(decoded)[0],
    )
    for photo, outcome in zip(photos, chain.from_iterable(outcomes), strict=True):
        for record in photo.records:
            check.notice(record, outcome)
            if isinstance(outcome, RecordProblem):
                rejects.add(Reject.of(record, outcome, rejects.report.command))
        if not isinstance(outcome, RecordProblem):
            decided = sorted(photo.kept ^ photo.refused)
            decisions += [(len(scores) - 1, label, label in photo.kept) for label in decided]
            n_both += len(photo.kept & photo.refused)
            scores.append(outcome[None])
    if n_both:
        rejects.report.notify(f"{n_both} decisions ignored: the tag was both kept and refused")
    rows, labels, is_right = np.array(decisions, np.int64).reshape(-1, 3).T
    return Decisions(np.concatenate(scores), rows, labels, is_right > 0)


def _report_effect(
    report: Report, label_set: LabelSet, calibration: Calibration, decisions: Decisions
) -> None:
    """Report how many of the decided tags are given, and right, by other photos' decisions."""
    before, after = np.zeros((2, len(decisions.right)), bool)
    for fold in range(FOLDS):
        part = decisions.photos % FOLDS == fold
        added = decisions.offsets(calibration, ~part)
        others = replace(calibration, offsets=calibration.offsets + added)
        thresholds = moved(label_set.thresholds, added, calibration)
        corrected = replace(label_set, thresholds=thresholds, calibration=others)
        before[part] = _given(label_set, decisions, part)
        after[part] = _given(corrected, decisions, part)
    effects = []
    for given in (before, after):
        n, hits = int(given.sum()), int((given & decisions.right).sum())
        low, high = wilson(hits, n)
        effects.append(f"{hits} of {n} tags right ({100 * low:.0f} to {100 * high:.0f} %)")
    report.notify(f"on held-out photos: before, {effects[0]}; after, {effects[1]}")


def _given(label_set: LabelSet, decisions: Decisions, part: Flags) -> Flags:
    """Which tags of some photos' decisions are given."""
    selector = TagSelector(label_set, SelectionOptions())
    photos, labels = decisions.photos[part].tolist(), decisions.labels[part].tolist()
    chosen = {photo: set(selector(decisions.scores[photo]).labels) for photo in set(photos)}
    return np.array([x in chosen[p] for p, x in zip(photos, labels, strict=True)], bool)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a fraction; (0, 1) without any trial."""
    if not n:
        return 0.0, 1.0
    z = 1.96
    fraction, spare = hits / n, z * z / n
    half = z * math.sqrt(fraction * (1 - fraction) / n + spare / (4 * n))
    return (fraction + spare / 2 - half) / (1 + spare), (fraction + spare / 2 + half) / (1 + spare)
