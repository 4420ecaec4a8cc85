"""`ramctl finetune` on a few thousand captioned photos: labels fitted to them, the rest as it was.

The tagger looks at each photo once. Words that captions name often become labels, and the labels'
own vectors are fitted to the captions. Thresholds and salience stay.
N photos, C channels, L labels.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import (
    CALIBRATION,
    REFERENCE,
    Bundle,
    resolve_model,
)
from ramctl.config import given_options
from ramctl.errors import RecordProblem, RunProblem, UsageProblem
from ramctl.inference.calibration import Calibration
from ramctl.inference.fitting import FOLDS, THINGS, calibrate, folds_of
from ramctl.inference.label_rows import Rows, label_rows, rows_of_words
from ramctl.inference.log_odds import Floats, log_odds_of, sigmoid
from ramctl.inference.onnx_engine import TORCH
from ramctl.inference.runner import ModelRunner
from ramctl.inference.selection import SelectionOptions, TagSelector
from ramctl.inference.thresholds import LabelSet, bundle_labels
from ramctl.labels import Label, Labels
from ramctl.records.inputs import RootCheck, read_inputs, require_files
from ramctl.records.jsonl import unread_records
from ramctl.records.parallel import chunks
from ramctl.records.record import Item, JsonObject, Record, Reject, kinds_of, shown_name
from ramctl.records.report import Rejects, Report
from ramctl.records.signals import StopRequest
from ramctl.records.stream import accepted
from ramctl.tagging.tagger_options import TaggerOptions
from ramctl.training.data.record_file import Source
from ramctl.training.data.targets import (
    Annotation,
    Targets,
    read_annotation,
    things_in_order,
)
from ramctl.training.fitted_bundle import write_fitted
from ramctl.training.label_vectors import (
    DENSE,
    Collection,
    Fitted,
    Mentions,
    fit,
    lifted,
)
from ramctl.training.plan import TrainOptions, sources_of
from ramctl.training.validation import judged_photos, truth_of

MIN_PHOTOS = 20
MAX_PHOTOS = 5000  # evenly taken from more
MIN_RATE = 0.15  # of mention: in one's own photos, a silence of all captions means something
MAX_LIFT = 2.0  # of the log-odds of labels, where the fit is too careful
MAX_REFERENCE = 6.0  # times as far from the mean as the photos, on average
MIN_NEW = 5  # photos whose captions name a thing that becomes a label
OF_STEPS = ("text", "seed")  # options


class Looked(NamedTuple):
    """The photos as the tagger sees them."""

    notes: Sequence[Annotation]
    pooled: Floats  # (N, C) mean of the tokens
    score_log_odds: Floats  # (N, L)


def fits_labels(options: TrainOptions) -> bool:
    """Whether fine-tuning fits labels alone: it does unless an option is about training steps.

    The model needs labels with vectors of their own, and a calibration.
    """
    step_options = ("steps", "epochs", "overrides", "distill", "events")
    is_begun = options.resume and options.work.path.exists()
    is_of_steps = is_begun or any(getattr(options, name) for name in step_options)
    if options.command != "finetune" or is_of_steps:
        return False
    bundle = Bundle.open(resolve_model(options.init or "mini"))
    model = bundle.preset.model
    is_fitted = model.prior and model.labels.own_width and bundle.preset.precision
    return bool(is_fitted and bundle.has(CALIBRATION))


def fit_labels(options: TrainOptions, report: Report) -> Report:
    """Write the bundle of `init` with labels fitted to the records' photos to `out`.

    Nothing is kept before that: a run that was stopped starts again, and gives the same bundle.
    """
    if wrong := ", ".join(given_options(options, OF_STEPS)):
        raise UsageProblem(f"{wrong}: only for training in steps; leave out, or add --epochs N")
    bundle = Bundle.open(resolve_model(options.init or "mini"))
    with (
        Rejects(report, options.rejects, strict=options.strict) as rejects,
        TemporaryDirectory() as folder,
    ):
        sources = sources_of(options, Path(folder))
        pairs = _read(_items(sources, options.command), rejects)
        judged = []
        if options.val:
            require_files([options.val])
            items = read_inputs([options.val], options.root, options.command)
            judged = _read(items, rejects)
        labels = _labels(options, bundle, pairs, report)
        ids = [*range(len(bundle.labels)), *(None for _ in labels[len(bundle.labels) :])]
        rows = rows_of_words(bundle, label_rows(bundle), labels, ids)
        with StopRequest() as stop:
            looked, looked_judged = (
                _look(options, bundle, rows, group, rejects, stop) if group else None
                for group in (pairs, judged)
            )
    if looked is None or len(looked.notes) < MIN_PHOTOS:
        number = len(looked.notes) if looked else 0
        raise RunProblem(f"{number} photos are too few: {MIN_PHOTOS} are needed")
    figures = _fit_and_write(options, bundle, labels, rows, looked, looked_judged, report)
    report.n_out = len(looked.notes)
    report.extra |= figures
    report.notify(f"wrote {options.out}")
    report.finish(options.stats)
    return report


def _fit_and_write(
    options: TrainOptions, bundle: Bundle, labels: Labels, rows: Rows, looked: Looked,
    judged: Looked | None, report: Report,
) -> JsonObject:  # fmt: skip
    """Write the bundle with labels fitted to the photos; what this brings."""
    ids = [*range(len(bundle.labels)), *(None for _ in labels[len(bundle.labels) :])]
    calibration = Calibration.from_bundle(bundle).for_labels(ids)
    collection, spread, mean = _collection(looked, labels, calibration, bundle)
    n_tagged = int(collection.mentions.present.any(1).sum())
    if n_tagged < MIN_PHOTOS:
        raise RunProblem(
            f"{n_tagged} photos have a label among their tags: {MIN_PHOTOS} are needed "
            "(has `ramctl parse` run over the captions?)"
        )
    groups = np.array([note.group or note.image for note in looked.notes])
    fitted, found = fit(collection), _out_of_fold(collection, folds_of(len(groups), groups))
    scores = (
        looked.score_log_odds + (found - collection.log_odds.double().numpy()) / calibration.slopes
    )
    learnt, precision = _calibration(calibration, collection), bundle.preset.precision
    chosen_by = "of the model before"
    if judged:
        learnt = _judged_calibration(learnt, judged, labels, fitted, (spread, mean), bundle)
        precision = _reachable(learnt, precision, report)
        chosen_by = f"for a precision of {precision:.2f} on {len(judged.notes)} judged photos"
    # Equal scores mean the same for all labels: shifts of the biases give them one threshold.
    shifts = learnt.shifts_for(precision)
    learnt, scores = learnt.with_shifts(shifts), scores + shifts
    thresholds, every = learnt.thresholds(precision, salient=True), np.ones(len(labels), bool)
    before = bundle_labels(bundle)
    after = LabelSet(labels, rows, thresholds, every, learnt, fills_up=True)
    if not judged:
        lift = _lift(before, after, looked.score_log_odds, scores)
        fitted, scores = lifted(fitted, collection, lift), scores + lift / learnt.slopes
    figures: JsonObject = {"photos": len(looked.notes), "precision": precision}
    figures |= {"thresholds": chosen_by, "new_labels": labels.tags[len(bundle.labels) :]}
    figures |= _figures(before, after, looked, scores, report)
    write_fitted(
        options.out, options.argv, bundle, labels, rows, learnt, thresholds, shifts, fitted,
        (spread, mean), figures,
    )  # fmt: skip
    return figures


def _items(sources: Sequence[Source], command: str) -> Iterator[Item]:
    for source in sources:
        with source.path.open("rb") as stream:
            makers = unread_records(stream, shown_name(source.name), source.base, command)
            yield from (make() for make in makers)


def _read(items: Iterable[Item], rejects: Rejects) -> list[tuple[Record, Annotation]]:
    """The records with their annotations, an even sample of MAX_PHOTOS at most."""
    pairs = list(accepted(items, read_annotation, rejects))
    chosen = pairs[:: -(-len(pairs) // MAX_PHOTOS) or 1]
    if len(chosen) < len(pairs):
        rejects.report.notify(f"{len(chosen)} of {len(pairs)} records are used, an even sample")
    return chosen


def _labels(
    options: TrainOptions, bundle: Bundle, pairs: Sequence[tuple[Record, Annotation]],
    report: Report,
) -> Labels:  # fmt: skip
    """The bundle's labels with those of `--labels`, or with things that captions often name."""
    if options.labels is not None:
        path = options.labels.removeprefix("+")
        return bundle.labels.extended(Labels.read(Path(path)))
    counts, kinds = Counter[str](), dict[str, str]()
    for record, note in pairs:
        kinds |= kinds_of(record.fields)
        counts.update({tag for tag in note.tags if not bundle.labels.ids(tag)})
    new = [
        Label(tag, kinds[tag], parents=_parents(tag, bundle.labels), count=number)
        for tag, number in counts.most_common()
        if number >= MIN_NEW and kinds.get(tag) in THINGS
    ]
    if new:
        words = ", ".join(f"{label.tag} ({label.count})" for label in new)
        report.notify(f"new labels, and how many photos name them: {words}")
    return bundle.labels.extended(new)


def _parents(tag: str, labels: Labels) -> tuple[str, ...]:
    """A bomber jacket is a jacket, and all that a jacket is."""
    ids = labels.ids(tag.rpartition(" ")[2]) if " " in tag else ()
    return (labels[ids[0]].tag, *labels[ids[0]].parents) if ids else ()


def _look(
    options: TrainOptions, bundle: Bundle, rows: Rows,
    pairs: Sequence[tuple[Record, Annotation]], rejects: Rejects, stop: StopRequest,
) -> Looked:  # fmt: skip
    """The photos of the records; records of those that cannot be read are rejected."""
    tagger = TaggerOptions(device=options.device, dtype=options.dtype, workers=options.workers)
    report = rejects.report
    runner = ModelRunner(bundle, tagger, TORCH, rows=rows, scores_all=True, notify=report.notify)
    results: list[tuple[Annotation, Floats, Floats]] = []
    check = RootCheck()

    def look(photos: list[NDArray[np.uint8]]) -> Iterator[tuple[Floats, Floats]]:
        (batch,) = runner.full_batches(photos)
        features = runner.engine.features(batch)
        pooled, scores = features.mean(1).cpu().numpy(), runner.engine.scores(features)
        return zip(pooled, log_odds_of(scores.astype(np.float64)), strict=True)

    def prepare(pair: tuple[Record, Annotation]) -> NDArray[np.uint8]:
        return runner.preprocess.resize(runner.decode(pair[0]))

    outcomes = runner.run(chunks(pairs, runner.at_once), prepare, look)
    with report.progress(title="looking", unit="photos", total=len(pairs)) as bar:
        for (record, note), outcome in zip(pairs, chain.from_iterable(outcomes), strict=True):
            bar(1)
            stop.raise_if_signalled()
            check.notice(record, outcome)
            if isinstance(outcome, RecordProblem):
                rejects.add(Reject.of(record, outcome, report.command))
            else:
                results.append((note, *outcome))
    if not results:
        raise RunProblem("no photo to learn from could be read")
    notes, pooled, log_odds = zip(*results, strict=True)
    return Looked(notes, np.stack(pooled), np.stack(log_odds))


def _collection(
    looked: Looked, labels: Labels, calibration: Calibration, bundle: Bundle
) -> tuple[Collection, Floats, Floats]:
    """The photos for the fit, and the deviation and mean (C,) of their features."""
    usual = calibration.for_all()
    log_odds = torch.from_numpy(usual.log_odds(looked.score_log_odds)).float()
    mentions = Mentions.learn(
        looked.notes, labels, log_odds.sigmoid(),
        None if usual.mention_rates is None else torch.from_numpy(usual.mention_rates).float(),
    )  # fmt: skip
    mentions = replace(mentions, rates=mentions.rates.clamp(min=MIN_RATE))
    mean, spread = looked.pooled.mean(0), looked.pooled.std(0) + 1e-3
    spread = spread * np.sqrt(len(mean))
    features = torch.from_numpy((looked.pooled - mean) / spread).float()
    things = mentions.things.numpy()
    salience = usual.salience
    slope, weights = (
        (1.0, np.zeros(len(labels))) if salience is None else (salience.slope, salience.weights)
    )
    weights = np.where(np.isfinite(weights), weights, 0.0)[things]
    choice = torch.from_numpy(slope * looked.score_log_odds[:, things] + weights).float()
    gains = torch.from_numpy(slope / usual.slopes[things]).float()
    reference = features[:0]
    if bundle.has(REFERENCE):
        known = bundle.array(REFERENCE, len(mean)).astype(np.float64)
        reference = torch.from_numpy((known - mean) / spread).float()
        # Of photos that hardly differ, the others are so far away that nothing could be learnt.
        distance = float(reference.square().sum(1).mean().sqrt())
        reference *= min(1.0, MAX_REFERENCE / max(distance, 1e-9))
    return Collection(features, log_odds, choice, gains, mentions, reference), spread, mean


def _out_of_fold(collection: Collection, folds: NDArray[np.int64]) -> Floats:
    """The log-odds (N, L) of being right of each fold of the photos, by a fit on the others."""
    found = collection.log_odds.clone()
    for number in range(FOLDS):
        is_part = torch.from_numpy(folds == number)
        part, others = (torch.nonzero(which)[:, 0] for which in (is_part, ~is_part))
        fitted, own = fit(collection.at(others)), collection.at(part)
        found[part] = own.log_odds + own.features @ fitted.weight + fitted.bias
    return found.double().numpy()


def _calibration(before: Calibration, collection: Collection) -> Calibration:
    """The calibration of the new scores: that of before, also for labels that are new."""
    mentions = collection.mentions
    n_present = mentions.present.sum(0).numpy()
    is_new = np.isnan(before.offsets) & (n_present >= MIN_NEW)
    return replace(
        before, offsets=np.where(is_new, before.intercept, before.offsets),
        # In a collection of clothes, most photos may show clothes.
        min_scores=np.where(n_present > 0, 0.0, before.min_scores),
        mention_rates=mentions.rates[DENSE].double().numpy(),
    )  # fmt: skip


def _lift(before: LabelSet, after: LabelSet, log_odds: Floats, new_log_odds: Floats) -> float:
    """The log-odds that the photos' labels lack to be given as many tags as before."""

    def n_tags(chosen: LabelSet, rows: Floats) -> int:
        select = TagSelector(chosen, SelectionOptions())
        return sum(len(select(row.astype(np.float32)).labels) for row in sigmoid(rows))

    n_before = n_tags(before, log_odds[:, : len(before.labels)])
    assert after.calibration is not None
    low, high = 0.0, MAX_LIFT
    while n_before and high - low > 0.05:
        middle = (low + high) / 2
        enough = n_tags(after, new_log_odds + middle / after.calibration.slopes) >= n_before
        low, high = (low, middle) if enough else (middle, high)
    return low and high


def _judged_calibration(
    learnt: Calibration, looked: Looked, labels: Labels, fitted: Fitted,
    scaling: tuple[Floats, Floats], bundle: Bundle,
) -> Calibration:  # fmt: skip
    """The calibration of the new scores by photos with all their tags (`--val`)."""
    spread, mean = scaling
    features = torch.from_numpy((looked.pooled - mean) / spread).float()
    added = (features @ fitted.weight + fitted.bias).double().numpy() / learnt.slopes
    targets = Targets(labels)
    truth = np.stack([truth_of(note, targets) for note in looked.notes])
    scores = sigmoid(looked.score_log_odds + added)
    judged = judged_photos(looked.notes, targets, scores, truth)
    evidence = ~np.isnan(learnt.offsets)
    calibration = calibrate(judged, evidence, bundle.preset.most_share, learnt.salience)
    return replace(calibration, shifts=learnt.shifts, mention_rates=learnt.mention_rates)


def _reachable(calibration: Calibration, precision: float, report: Report) -> float:
    """The precision for which thresholds are chosen: the highest one where that is lower."""
    curve = calibration.salient_curve or calibration.curve
    highest = max((point.precision for point in curve), default=0.0)
    if not highest:
        raise RunProblem("no label can be given: the captions name none of the labels")
    if highest < precision:
        report.notify(f"thresholds are for a precision of {highest:.2f}: none reaches {precision}")
    return min(highest, precision)


def _figures(
    before: LabelSet, after: LabelSet, looked: Looked, score_log_odds: Floats, report: Report
) -> JsonObject:
    """Tags a photo, and the things of the captions, if any, among them, before and after the fit.

    The scores after it (N, L) are those by fits on other photos.
    """
    figures: JsonObject = {}
    n_before = len(before.labels)
    for name, chosen, scores in (
        ("before", before, looked.score_log_odds[:, :n_before]), ("after", after, score_log_odds),
    ):  # fmt: skip
        selector, targets = TagSelector(chosen, SelectionOptions()), Targets(after.labels)
        counts = np.zeros(5)  # photos with things, tags, things, those found, first ones found
        for note, row in zip(looked.notes, sigmoid(scores), strict=True):
            ids = set(selector(row.astype(np.float32)).labels)
            kinds = {tag for i in ids for tag in (after.labels[i].tag, *after.labels[i].parents)}
            things = [t for c in note.captions for t in things_in_order(c, targets)]
            found = [after.labels[i].tag in kinds for i in dict.fromkeys(things)]
            counts += [bool(found), len(ids), len(found), sum(found), bool(found) and found[0]]
        n_photos, n_tags, n_things, n_found, n_first = counts.tolist()
        figures[name] = {"tags": round(n_tags / len(looked.notes), 2)}
        text = f"{name}, on held-out photos: {figures[name]['tags']} tags a photo"
        if n_things:
            share, first = round(n_found / n_things, 3), round(n_first / n_photos, 3)
            figures[name] |= {"things_found": share, "first_thing_found": first}
            text += f", {share:.0%} of the captions' things, {first:.0%} of the first ones"
        report.notify(text)
    return figures
