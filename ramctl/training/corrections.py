"""Thresholds learnt from what persons kept and took out: `ramctl finetune --thresholds`.

The weights stay as they are. Each label's score is worth more where its tags were confirmed and
less where they were refused; its threshold moves to where a tag is as likely right as before.
N photos, L labels.
"""

import math
import os
import shlex
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.calibration import FOLDS, NEVER, Calibration, Flags, Floats, log_odds_of, sigmoid
from ramctl.checkpoints.bundle import (
    CALIBRATION,
    INT8_THRESHOLDS,
    Bundle,
    BundleWriter,
    resolve_model,
)
from ramctl.errors import RecordProblem, RunProblem, UsageProblem, attempt
from ramctl.inference.label_set import LabelSet
from ramctl.labels import LABELS, LabelSystem
from ramctl.photos.decoding import record_photo
from ramctl.records.inputs import RootCheck, named_or_stdin, read_inputs, require_files
from ramctl.records.parallel import chunks, ordered_map, usable_cores
from ramctl.records.record import JsonObject, Record, Reject, decided_tags, image_name
from ramctl.records.report import Rejects, Report
from ramctl.records.stream import accepted
from ramctl.tagging.scorers import BundleScorer, Pixels, TaggerOptions
from ramctl.tagging.selection import SelectionOptions, TagSelector
from ramctl.training.plan import TrainOptions

DIGITS = 4  # of thresholds
OF_TRAINING = (
    "labels", "val", "text", "steps", "epochs", "seed", "events", "cache", "max_time", "distill",
    "resume", "restart", "dry_run",
)  # fmt: skip
FEWEST = 10  # decisions of which the effect is told


class Judged(NamedTuple):
    """A photo's records, and the labels that any of them keeps and refuses."""

    records: list[Record]
    kept: set[int]
    refused: set[int]


class Said(NamedTuple):
    """What persons said of n tags, photo by photo, and the model's scores of the photos."""

    scores: NDArray[np.float32]  # (N, L)
    photos: NDArray[np.int64]  # (n,) the photo of each tag
    labels: NDArray[np.int64]  # (n,)
    right: Flags  # (n,)

    def corrections(self, calibration: Calibration, some: Flags | slice = slice(None)) -> Floats:
        """What some of the tags add to the offsets of a calibration (L,)."""
        photos, labels = self.photos[some], self.labels[some]
        scores = self.scores[photos, labels].astype(np.float64)
        return calibration.corrections(labels, scores, self.right[some])


def learn_thresholds(options: TrainOptions) -> Report:
    """Write the bundle of `init` with thresholds that suit the records' decisions to `out`.

    Records have `confirmed` and `refused`, lists of tags; of all records of a photo a tag counts
    once, and one in both lists neither way. RunProblem where there are none, or where
    the bundle does not know what its scores are worth.
    """
    wrong = [f"--{name.replace('_', '-')}" for name in OF_TRAINING if getattr(options, name)]
    wrong += ["--set"] if options.overrides else []
    if wrong:
        raise UsageProblem(f"--thresholds trains nothing: it goes without {', '.join(wrong)}")
    report = Report(options.command, quiet=options.quiet, unit="photos")
    bundle = Bundle.open(resolve_model(options.init or "mini"))
    calibration = bundle.calibration
    scorer = BundleScorer(
        bundle,
        TaggerOptions(
            dense=True, device=options.device, dtype=options.dtype, threads=options.threads
        ),
    )
    with Rejects(report, options.rejects, strict=options.strict) as rejects:
        said = _read(options, scorer, report, rejects)
    n_right, n = int(said.right.sum()), len(said.right)
    if not n:
        raise RunProblem("no record has confirmed or refused tags that are labels of the model")
    report.say(f"decisions: {n_right} kept, {n - n_right} refused; photos: {len(said.scores)}")
    if n >= FEWEST:
        _tell_effect(report, scorer.label_set, said)
    decided = {"photos": len(said.scores), "kept": n_right, "refused": n - n_right}
    n_moved = _write(options, bundle, said.corrections(calibration), decided)
    report.n_out = len(said.scores)
    report.say(f"{options.out}: thresholds moved: {n_moved}")
    report.finish(options.stats)
    return report


def _write(options: TrainOptions, bundle: Bundle, added: Floats, decided: JsonObject) -> int:
    """Write the bundle with `added` to the offsets of its calibration; how many labels that moves.

    All else is linked to the files that it comes from.
    """
    calibration = bundle.calibration
    slopes, floors = calibration.slopes, calibration.floors
    with BundleWriter(options.out) as writer:
        writer.link_files(bundle, without={LABELS, CALIBRATION, INT8_THRESHOLDS})
        replace(calibration, offsets=calibration.offsets + added).write(writer.path / CALIBRATION)
        thresholds = moved(np.array(bundle.thresholds), added, slopes, floors).tolist()
        rows = zip(bundle.labels, thresholds, added.tolist(), strict=True)
        LabelSystem(
            replace(label, threshold=round(threshold, DIGITS)) if label.validated and own else label
            for label, threshold, own in rows
        ).write(writer.path / LABELS)
        if bundle.has(INT8_THRESHOLDS):
            of_int8 = moved(np.array(bundle.thresholds_of("int8")), added, slopes, floors)
            lines = "".join(f"{round(value, DIGITS)}\n" for value in of_int8.tolist())
            (writer.path / INT8_THRESHOLDS).write_text(lines, "utf-8")
        history = writer.meta.get("provenance", {})
        commands = [*history.get("commands", []), shlex.join(["ramctl", *options.argv])]
        writer.meta["provenance"] = history | {"commands": commands, "decisions": decided}
    return int((added != 0).sum())


def moved(thresholds: Floats, added: Floats, slopes: Floats, floors: Floats) -> Floats:
    """Scores (L,) that are worth, with offsets `added`, what the thresholds were without them."""
    changed = np.maximum(sigmoid(log_odds_of(thresholds) - added / slopes), floors)
    return np.where((added == 0) | (thresholds >= NEVER), thresholds, changed)


def _read(options: TrainOptions, scorer: BundleScorer, report: Report, rejects: Rejects) -> Said:
    """The decisions of all records that hold some, with their photos' scores."""
    labels, calibration = scorer.label_set.labels, scorer.label_set.calibration
    assert calibration is not None
    known = ~np.isnan(calibration.offsets)
    named = named_or_stdin(options.inputs, "records (JSONL)")
    require_files(named)
    check, judged = RootCheck(), dict[str, Judged]()  # photos by their paths

    def note(record: Record) -> None:
        if (decided := decided_tags(record.fields)) is None:
            return
        path = os.path.normpath(record.base / image_name(record.fields))
        photo = judged.setdefault(path, Judged([], set(), set()))
        photo.records.append(record)
        for ids, tags in zip((photo.kept, photo.refused), decided, strict=True):
            ids.update(i for tag in tags for i in labels.ids(tag) if known[i])

    def pixels(record: Record) -> Pixels:
        photo = record_photo(record, target=scorer.target, official=scorer.official)
        return scorer.prepare(photo)

    def tried(photo: Judged) -> tuple[Judged, Pixels | RecordProblem]:
        return photo, attempt(pixels, photo.records[0])

    def good() -> Iterator[tuple[Judged, Pixels]]:
        workers = options.workers or usable_cores()
        for photo, outcome in ordered_map(tried, judged.values(), workers):
            for record in photo.records:
                check.notice(record, outcome)
                if isinstance(outcome, RecordProblem):
                    rejects.add(Reject.of(record, outcome, options.command))
            if not isinstance(outcome, RecordProblem):
                yield photo, outcome

    for _ in accepted(read_inputs(named, options.root, options.command), note, rejects):
        pass
    parts = [np.zeros((0, len(labels)), np.float32)]
    said: list[tuple[int, int, bool]] = []  # photo, label, whether it is right
    photos, n_both = count(), 0
    for batch in chunks(good(), scorer.batch):
        parts.append(np.asarray(scorer.scores([some for _, some in batch])))
        for ((_, kept, refused), _), photo in zip(batch, photos, strict=False):
            said += [(photo, label, label in kept) for label in sorted(kept ^ refused)]
            n_both += len(kept & refused)
    if n_both:
        report.say(f"{n_both} decisions ignored: the tag was both kept and refused")
    of_photo, label, is_right = np.array(said, np.int64).reshape(-1, 3).T
    return Said(np.concatenate(parts), of_photo, label, is_right > 0)


def _tell_effect(report: Report, label_set: LabelSet, said: Said) -> None:
    """Say what of the judged tags is given, and right, on photos that moved no threshold."""
    calibration = label_set.calibration
    assert calibration is not None
    before, after = np.zeros((2, len(said.right)), bool)
    for fold in range(FOLDS):
        part = said.photos % FOLDS == fold
        added = said.corrections(calibration, ~part)
        thresholds = moved(label_set.thresholds, added, calibration.slopes, calibration.floors)
        others = replace(calibration, offsets=calibration.offsets + added)
        corrected = replace(label_set, thresholds=thresholds, calibration=others)
        before[part], after[part] = (_given(one, said, part) for one in (label_set, corrected))
    told = []
    for given in (before, after):
        n, hits = int(given.sum()), int((given & said.right).sum())
        low, high = wilson(hits, n)
        told.append(f"{hits} of {n} tags right ({100 * low:.0f} to {100 * high:.0f} %)")
    report.say(f"on held-out photos: before, {told[0]}; after, {told[1]}")


def _given(label_set: LabelSet, said: Said, part: Flags) -> Flags:
    """Which tags of a part, some photos', are given."""
    selector = TagSelector(label_set, SelectionOptions())
    photos, labels = said.photos[part].tolist(), said.labels[part].tolist()
    chosen = {photo: set(selector(said.scores[photo]).labels) for photo in set(photos)}
    return np.array([x in chosen[p] for p, x in zip(photos, labels, strict=True)], bool)


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share, of 95 % by default; (0, 1) without any trial."""
    if not n:
        return 0.0, 1.0
    share, spare = hits / n, z * z / n
    half = z * math.sqrt(share * (1 - share) / n + spare / (4 * n))
    return (share + spare / 2 - half) / (1 + spare), (share + spare / 2 + half) / (1 + spare)
