"""`ramctl fit`: labels fitted to the photos of one collection; the rest of the model as it was.

The tagger looks at each photo once. Its pooled features change the log-odds of labels by logistic
regressions. N photos, C channels, L labels, F fitted labels, T things that captions begin with.
"""

import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file

from ramctl.checkpoints.bundle import AXES, CARD, FIT, Bundle, BundleWriter, resolve_model
from ramctl.errors import RecordProblem, RunProblem
from ramctl.inference.calibration import THINGS
from ramctl.inference.log_odds import NO_FIRST, Array, Collection, Salience, score_logits, sigmoid
from ramctl.inference.onnx_engine import choose_runtime
from ramctl.inference.runner import ModelRunner, RunnerOptions
from ramctl.inference.selection import SelectionOptions, TagSelector
from ramctl.inference.vocabulary import Vocabulary, label_rows, rows_of_words
from ramctl.parsing.closed_mode import LabelMapper
from ramctl.parsing.english.lexicon import Lexicon, word_set
from ramctl.parsing.label_builder import parents_of
from ramctl.records.inputs import inputs_or_stdin, read_inputs
from ramctl.records.labels import LABELS, Label, Labels, normalise
from ramctl.records.parallel import chunks
from ramctl.records.record import JsonObject, Record, Reject, kinds_of, tag_language
from ramctl.records.report import Rejects, Report
from ramctl.records.stream import accepted
from ramctl.training.annotations import Annotation, Caption, read_annotation

MIN_PHOTOS, FEW_PHOTOS, MAX_PHOTOS = 20, 60, 5000  # an even sample of more
MIN_NEW = 5  # photos whose captions name a thing that becomes a label
MIN_FIRST, MIN_LIFTED = 2, 3  # photos whose captions begin with a thing, name a lifted label
PHRASE_ENDS = word_set("english") - {"a", "an", "the", "of"}
FOLDS = 4  # runs of photos, so that those of one series are on one side
# What is known of a label in a photo, the stronger last; silent: captions do not name it.
UNKNOWN, SILENT, IMPLIED, NAMED, REFUSED, UNSURE = range(6)
# P(named | there): the lowest rate, as of one's own photos silence means something; the usual one,
# the median of mini's labels; how many photos it counts for.
MIN_RATE, USUAL_RATE, PRIOR_PHOTOS = 0.15, 0.24, 5.0
MIN_EXPECTED = 3.0  # photos that show a label by the model, from which silence alone is learnt
GATE_MARGIN = 2.0  # log-odds from which a photo is one of the collection: most are of none
# The ridge and the constant feature of each function, chosen by captions that the fit left out.
LABEL_RIDGE, FIRST_RIDGE, GATE_RIDGE = (0.01, 0.1), (0.1, 1.0), (0.1, 3.0)
ROUNDS = 100  # of gradient descent
Pair = tuple[Array, Array]
Photo = list[tuple[Record, Annotation]]  # all records of one


class Evidence(NamedTuple):
    """Photos, and what captions and corrections tell of their labels."""

    pooled: Array  # (N, C)
    log_odds: Array  # (N, L)
    states: Array  # (N, L)
    first: Array  # (N, L) how many captions begin with each thing


@dataclass(frozen=True, slots=True)
class FitOptions:
    """The options of `ramctl fit`."""

    inputs: tuple[str, ...] = ()
    root: str | None = None
    model: str = "mini"
    out: Path = Path("fitted")
    rejects: str | None = None
    argv: tuple[str, ...] = ()


def run(options: FitOptions) -> Report:
    """Write the bundle `model` with what the records' photos teach."""
    report = Report("fit", unit="photos")
    bundle = Bundle.open(resolve_model(options.model))
    if bundle.fit or "salience" not in bundle.meta:
        why = "is fitted already" if bundle.fit else "cannot be fitted: it has no salience"
        raise RunProblem(f"{bundle.path}: {why}")
    report.notify(f"fits labels of {options.model} to these photos; its network stays as it is")
    reference = bundle.reference(bundle.preset.model.encoder.width).astype(np.float32)
    with Rejects(report, options.rejects) as rejects, BundleWriter(options.out) as writer:
        photos: dict[str, Photo] = {}
        inputs = inputs_or_stdin(options.inputs, "records (JSONL)")
        items = read_inputs(inputs, options.root, "fit")
        for record, note in accepted(items, lambda x: read_annotation(x.fields), rejects):
            photos.setdefault(os.path.normpath(record.base / note.image), []).append((record, note))
        chosen = list(photos.values())[:: -(-len(photos) // MAX_PHOTOS) or 1]
        labels = _with_new_labels(bundle, chosen)
        looked = list(_look(options, bundle, labels, chosen, rejects))
        states, first = _known([photo for photo, _ in looked], labels)
        if (n := (states >= IMPLIED).any(1).sum()) < MIN_PHOTOS:
            why = f"{MIN_PHOTOS} are needed (has `ramctl parse` run over the captions?)"
            raise RunProblem(f"{n} photos with tags that are labels are too few: {why}")
        pooled, log_odds = (np.stack([look[n] for _, look in looked]) for n in (0, 1))
        evidence = Evidence(pooled, log_odds, states, first)
        salience = Salience.from_bundle(bundle.meta["salience"], labels)
        assert salience is not None
        fit = partial(_fit, labels, len(bundle.labels), salience.slope, reference)
        limits = labels.thresholds(bundle.threshold)
        choose = TagSelector(Vocabulary(labels, limits, salience, True, True), SelectionOptions())
        figures = _figures(choose, fit, labels, evidence)
        figures["new_labels"] = labels.tags[len(bundle.labels) :]
        command = shlex.join(["ramctl", *options.argv])
        _write(writer, bundle, labels, fit(evidence), figures, command)
    if added := figures["new_labels"]:
        report.notify(f"{len(added)} new labels: {', '.join(added)}")
    report.notify(_described(figures))
    report.notify(f"wrote {options.out}")
    report.n_out = len(looked)
    report.finish()
    return report


def _with_new_labels(bundle: Bundle, photos: Sequence[Photo]) -> Labels:
    """The bundle's labels with their rows, and new things: those that many captions name."""
    known, counts, kinds = label_rows(bundle), Counter[str](), dict[str, str]()
    for photo in photos:
        counts.update({tag for _, note in photo for tag in note.tags})
        for record, _ in photo:
            kinds |= kinds_of(record.fields)
    often = {tag: kinds.get(tag) for tag, n in counts.most_common() if n >= MIN_NEW}
    new = {tag: kind for tag, kind in often.items() if kind in THINGS and not known.ids(tag)}
    things = [label for label in known if label.kind in THINGS]
    names = {name: x.tag for x in things for name in (*x.synonyms, x.tag)} | {x: x for x in new}
    all_kinds = {x.tag: x.kind for x in things} | new
    slope, offset = bundle.meta["open_set"]["calibration"]
    usual = float(np.nanmedian(known.numbers("salience", np.nan)))
    made = [
        Label(tag, kind, parents=parents_of(tag, names, all_kinds), count=counts[tag],
              calibration=(slope, offset), salience=usual)
        for tag, kind in new.items()
    ]  # fmt: skip
    assert known.rows is not None
    rows, unknown = rows_of_words(bundle, known.rows, made, guesses=True)
    return Labels.with_rows([*known, *(x for x in made if x.tag not in unknown)], rows)


def _look(
    options: FitOptions, bundle: Bundle, labels: Labels, photos: Sequence[Photo], rejects: Rejects
) -> Iterator[tuple[Photo, tuple[Array, Array]]]:
    """Each photo with its features (C,) and log-odds (L,); what cannot be read is rejected."""
    runtime = choose_runtime(bundle, "auto", "auto", "auto")
    runner = ModelRunner(bundle, RunnerOptions(), runtime, labels=labels, scores_all=True)
    rejects.report.device = runner.description
    outcomes = runner.run(
        chunks(photos, runner.at_once), lambda photo: runner.read(photo[0][0]).pixels, runner.look
    )
    with rejects.report.progress(total=len(photos)) as advance:
        for photo, outcome in zip(photos, chain.from_iterable(outcomes), strict=True):
            advance(1)
            if not isinstance(outcome, RecordProblem):
                yield photo, outcome
                continue
            for record, _ in photo:
                rejects.add(Reject.of(record, outcome, "fit"))


def _known(photos: Sequence[Photo], labels: Labels) -> Pair:
    """The states (N, L) of photos' labels, and how many captions begin with each thing (N, L)."""
    states = np.full((len(photos), len(labels)), UNKNOWN, np.int8)
    first = np.zeros(states.shape, np.float32)
    mapper = LabelMapper(labels, Lexicon.shared())

    def ids(names: Sequence[str], record: Record) -> list[int]:
        language = tag_language(record.fields)
        found = names if language else mapper.labels_of(names, kinds_of(record.fields))
        return [i for name in found for i in labels.by_name(name, language)]

    for state, counts, photo in zip(states, first, photos, strict=True):
        for record, note in photo:
            language, present = tag_language(record.fields), ids(note.tags, record)
            refused, unsure = (
                [i for name in names for i in labels.by_name(name, language)]
                for names in (note.negatives or (), note.uncertain)
            )
            if note.captions or note.negatives is None:
                np.maximum(state, SILENT, out=state)
            above = [i for j in present for tag in labels[j].parents for i in labels.ids(tag)]
            for value, rows in enumerate((above, present, refused, unsure), IMPLIED):
                state[rows] = np.maximum(state[rows], value)
            for caption in note.captions:
                if not caption.generated:
                    begin, every = (
                        [i for i in ids(tags, record) if labels[i].kind in THINGS]
                        for tags in (_in_first_phrase(caption), caption.tags)
                    )
                    counts[begin or every[:1]] += 1
    return states, first


def _in_first_phrase(caption: Caption) -> list[str]:
    """The tags in the noun phrase that a caption begins with: "leather shoes", "bowl of soup"."""
    words = normalise(re.split(r"[,.;:]", caption.text)[0].replace("-", " ")).split()
    phrase = " ".join(takewhile(lambda word: word not in PHRASE_ENDS, words))
    return [tag for tag in caption.tags if re.search(rf"\b{re.escape(tag)}", phrase)]


def _fit(
    labels: Labels, known: int, slope: float, reference: Array, evidence: Evidence
) -> Collection:
    """The collection of the photos; `reference` (R, C): features of other photos.

    Labels from the number `known` are new; `slope`: of log-odds in the choice of the first thing.
    """
    pooled = evidence.pooled
    mean, scales = pooled.mean(0), 1 / (pooled.std(0) + 1e-3) / np.sqrt(pooled.shape[1])
    features, others = (
        np.pad((x - mean) * scales, ((0, 0), (0, 1)), constant_values=1).astype(np.float32)
        for x in (pooled, reference)
    )  # of mean 0, about 1 long, and a constant
    fitted, added = _fit_labels(features, evidence, labels.numbers("mention_rate", USUAL_RATE))
    things, choice = _fit_first(features, evidence, np.float32(slope))
    weight = np.concatenate([_fit_gate(features, others), added, choice], axis=1)
    weight[:-1] *= scales[:, None]
    weight[-1] -= mean @ weight[:-1]
    implies = np.zeros((len(things), len(labels)), np.float32)
    for row, thing in zip(implies, things, strict=True):
        row[[thing, *(i for tag in labels[thing].parents for i in labels.ids(tag))]] = 1
    implied = np.flatnonzero(implies.any(0))
    lifted = np.union1d(np.flatnonzero((evidence.states == NAMED).sum(0) >= MIN_LIFTED), implied)
    implies, new = np.ascontiguousarray(implies[:, implied]), np.arange(known, len(labels))
    assert labels.rows is not None
    return Collection(
        fitted, things, implied, implies, weight, np.array(slope, np.float32), new,
        labels.rows[new], lifted,
    )  # fmt: skip


def _fit_labels(features: Array, evidence: Evidence, usual: Array) -> Pair:
    """The labels (F,), and what is added to their log-odds (C + 1, F).

    P(silence) = 1 - rate P(there). An implied label is there, and counts as often as it is named.
    """
    log_odds, states = evidence.log_odds, evidence.states
    n_named, n_implied = (states == NAMED).sum(0), (states == IMPLIED).sum(0)
    n_silent = (sigmoid(log_odds) * (states == SILENT)).sum(0)  # as far as the model can tell
    ids = np.flatnonzero((states >= IMPLIED).any(0) | (n_silent > MIN_EXPECTED))
    rates = (n_named + PRIOR_PHOTOS * usual) / (n_named + n_silent + PRIOR_PHOTOS)
    absent = (states == REFUSED) + np.maximum(rates, MIN_RATE) * (states == SILENT)
    implied = (states == IMPLIED) * (n_named / np.maximum(n_named + n_implied, 1))
    every = (states == NAMED) + implied, absent, log_odds
    positive, negative, usual_log_odds = (x[:, ids].astype(np.float32) for x in every)

    def gradient(added: Array) -> Array:
        there: Array = sigmoid(usual_log_odds + added)
        slope = negative * there * (1 - there) / np.maximum(1 - negative * there, 1e-6)
        return positive * (there - 1) + slope

    return ids, _minimum(features, gradient, len(ids), *LABEL_RIDGE)


def _fit_first(features: Array, evidence: Evidence, slope: np.float32) -> Pair:
    """The things (T,) that captions name first, and their logits (C + 1, T) by the features.

    These are added to `slope` x log-odds.
    """
    things = np.flatnonzero((evidence.first > 0).sum(0) >= MIN_FIRST)
    shown = evidence.first[:, things].any(1)
    counts = evidence.first[shown][:, things]
    fractions = counts / counts.sum(1, keepdims=True)
    usual = slope * evidence.log_odds[shown][:, things]

    def gradient(added: Array) -> Array:
        odds = np.exp(usual + added - (usual + added).max(1, keepdims=True, initial=-np.inf))
        return odds / odds.sum(1, keepdims=True) - fractions

    return things, _minimum(features[shown], gradient, len(things), *FIRST_RIDGE)


def _fit_gate(own: Array, others: Array) -> Array:
    """The function (C + 1, 1) that is positive for photos of the collection, and for few others."""
    is_own = np.repeat([[True], [False]], [len(own), len(others)], axis=0)
    weights = min(len(own), len(others)) / np.where(is_own, len(own), len(others))
    both, weights = np.concatenate([own, others]), weights.astype(np.float32)
    gate = _minimum(both, lambda x: weights * (sigmoid(x) - is_own), 1, *GATE_RIDGE)
    gate[-1] -= GATE_MARGIN
    return gate


def _minimum(
    features: Array, gradient: Callable[[Array], Array], width: int, ridge: float, constant: float
) -> Array:
    """The linear function (C + 1, width) of features (N, C + 1) of the lowest loss and ridge.

    `gradient` is the loss's by the values (N, width). The curvature of a softmax is 1/2 at most,
    which bounds the step in each direction (Boehning 1992); accelerated as by Nesterov (1983).
    """
    scales = np.append(np.ones(features.shape[1] - 1, np.float32), np.float32(constant))
    left, sizes, right = np.linalg.svd(features * scales, full_matrices=False)
    spanned, steps = left * sizes, 1 / (sizes**2 / 2 + np.float32(ridge))[:, None]
    weight = ahead = np.zeros((len(sizes), width), np.float32)
    for number in range(ROUNDS):
        slope = spanned.T @ gradient(spanned @ ahead) + np.float32(ridge) * ahead
        before, weight = weight, ahead - steps * slope
        ahead = weight + np.float32(number / (number + 3)) * (weight - before)
    return np.ascontiguousarray((right.T @ weight) * scales[:, None])


def _figures(
    choose: TagSelector, fit: Callable[[Evidence], Collection], labels: Labels, evidence: Evidence
) -> JsonObject:
    """Figures before and after; each part of the photos is tagged by a fit of the others.

    Tags a photo, the fraction of mentioned things that are given, and of photos whose first tag is
    what a caption names first.
    """
    mentioned = (evidence.states == NAMED) & [label.kind in THINGS for label in labels]
    photos, counts = np.arange(len(mentioned)), np.zeros((2, 3))
    for part in np.array_split(photos, FOLDS):
        others = np.setdiff1d(photos, part)
        collection = fit(Evidence(*(values[others] for values in evidence)))
        before = evidence.log_odds[part]
        after, leads = collection(before, collection.values(evidence.pooled[part]))
        before[:, collection.new] = -np.inf
        for count, rows, firsts in zip(
            counts, (before, after), (np.full(len(part), NO_FIRST), leads), strict=True
        ):
            for photo, scores, lead in zip(part, score_logits(rows), firsts, strict=True):
                given = [choose.ids[tag] for tag in choose(scores, lead).scores]
                hits = mentioned[photo, given].sum(), evidence.first[photo, given[:1]].any()
                count += np.array([len(given), *hits])
    n_first = int(evidence.first.any(1).sum())
    totals = len(photos), max(1, int(mentioned.sum())), max(1, n_first)
    tags, found, first = np.round(counts / totals, 3).T.tolist()
    return {
        "photos": len(photos), "tags": tags, "found": found, "first": first,
        "first_photos": n_first,
    }  # fmt: skip


def _described(figures: JsonObject) -> str:
    """The figures in words; `+-` is twice the standard error."""
    text = (
        "{photos} photos, left out of the fit, get {tags[1]:.1f} tags each ({tags[0]:.1f} before) "
        "and {found[1]:.0%} of the things that captions name ({found[0]:.0%})"
    )
    if n := figures["first_photos"]:
        rate = figures["first"][1]
        text += "; the first tag is what the caption begins with on {first[1]:.0%} "
        text += f"+- {2 * (rate * (1 - rate) / n) ** 0.5:.0%} ({{first[0]:.0%}})"
    if figures["photos"] < FEW_PHOTOS:
        text += f"; fewer than {FEW_PHOTOS} photos teach little"
    return text.format(**figures)


def _write(
    writer: BundleWriter, bundle: Bundle, labels: Labels, collection: Collection,
    figures: JsonObject, command: str,
) -> None:  # fmt: skip
    """Write the bundle: that of before, with more labels and the collection."""
    writer.copy_files(bundle, without={LABELS, AXES, CARD})
    labels.write(writer.path / LABELS)
    save_file(collection._asdict(), writer.path / FIT)
    if bundle.has(AXES):
        axes = np.pad(load_file(bundle.path / AXES)["axes"], ((0, len(collection.new)), (0, 0)))
        save_file({"axes": axes}, writer.path / AXES)
    history = bundle.meta.get("provenance", {})
    commands = [*history.get("commands", []), command]
    writer.meta["provenance"] = history | {"commands": commands, "fitted": figures}
    card = f"# {writer.target.name}\n\nFitted by `{command}`:\n{_described(figures)}.\n"
    card += f"New labels: {', '.join(figures['new_labels']) or 'none'}.\n\n"
    before = (bundle.path / CARD).read_text("utf-8") if bundle.has(CARD) else ""
    (writer.path / CARD).write_text(card + before, "utf-8")
