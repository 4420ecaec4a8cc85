"""`ramctl fit`: labels fitted to the captions of one collection; the rest of the model as it was.

The tagger looks at each photo once. Its pooled features change the log-odds of labels by logistic
regressions. A caption that leaves out a label is weak evidence against it, and none against parents
of what it names. N photos, C channels, L labels.
"""

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from ramctl.checkpoints.bundle import (
    AXES,
    CARD,
    FIT,
    REFERENCE,
    Bundle,
    BundleWriter,
    require_bundle,
    resolve_model,
)  # fmt: skip
from ramctl.errors import RecordProblem, RunProblem
from ramctl.inference.collection import Collection, standardised
from ramctl.inference.log_odds import Floats, sigmoid
from ramctl.inference.onnx_engine import choose_runtime
from ramctl.inference.runner import ModelRunner, RunnerOptions, Scores
from ramctl.inference.salience import THINGS, Salience
from ramctl.inference.vocabulary import label_rows, rows_of_words
from ramctl.labels import LABELS, Label, Labels
from ramctl.parsing.english.wordnet import NOUN, WordNet, spelled
from ramctl.parsing.label_building.hierarchy import reviewed_parents
from ramctl.records.inputs import RootCheck, inputs_or_stdin, read_inputs, require_files
from ramctl.records.parallel import chunks
from ramctl.records.record import JsonObject, Record, Reject, kinds_of
from ramctl.records.report import Rejects, Report
from ramctl.records.stream import accepted
from ramctl.training.annotations import Annotation, read_annotation
from ramctl.training.data import ABSENT, DENIED, IMPLIED, PRESENT, Targets, things_in_order

MIN_PHOTOS, MAX_PHOTOS = 20, 5000
MIN_NEW = 5  # photos whose captions name a thing that becomes a label
MIN_FIRST = 2  # captions that begin with a thing
# Chosen by what captions of photos that were left out name, of two collections.
RIDGE, OFFSET_RIDGE, FIRST_RIDGE, FIRST_OFFSET_RIDGE, GATE_RIDGE = 0.1, 1.0, 0.1, 0.1, 1.0
MIN_RATE, MAX_RATE = 0.15, 0.98  # of mention: in one's own photos, silence means something
PRIOR_PHOTOS = 5.0  # that the model's rate of mention counts for
USUAL_RATE = 0.24  # of labels without one
ROUNDS = 60  # of L-BFGS
FOLDS = 3  # for the figures


@dataclass(frozen=True, slots=True)
class FitOptions:
    """The options of `ramctl fit`."""

    inputs: tuple[str, ...] = ()  # parsed or corrected records (JSONL); none or `-`: stdin
    root: str | None = None
    model: str = "mini"
    labels: str | None = None  # a file of the new labels; None: things that captions often name
    out: Path = Path("fitted")
    rejects: str | None = None
    strict: bool = False
    stats: Path | None = None
    runner: RunnerOptions = field(default_factory=RunnerOptions)
    quiet: bool = False
    argv: tuple[str, ...] = ()


class Looked(NamedTuple):
    """The photos as the tagger sees them."""

    notes: list[Annotation]
    pooled: Floats  # (N, C)
    log_odds: Floats  # (N, L)


def run(options: FitOptions) -> Report:
    """Write the model with labels fitted to the records' photos."""
    require_bundle(options.out)
    report = Report("fit", quiet=options.quiet, unit="photos", model=options.model)
    bundle = Bundle.open(resolve_model(options.model))
    if bundle.fit or not (bundle.has(REFERENCE) and "salience" in bundle.meta):
        why = "is fitted already" if bundle.fit else "cannot be fitted: it has no reference photos"
        raise RunProblem(f"{bundle.path}: {why}")
    inputs = inputs_or_stdin(options.inputs, "records (JSONL)")
    require_files(inputs)
    with Rejects(report, options.rejects, strict=options.strict) as rejects:
        items = read_inputs(inputs, options.root, report.command)
        pairs = list(accepted(items, lambda record: read_annotation(record.fields), rejects))
        pairs = pairs[:: -(-len(pairs) // MAX_PHOTOS) or 1]
        labels = _with_new(label_rows(bundle), bundle, pairs, options.labels, report)
        looked = _look(bundle, labels, pairs, options.runner, rejects)
    targets = Targets(labels)
    states = np.stack([targets.states(note) for note in looked.notes])
    if (n_named := int((states == PRESENT).any(1).sum())) < MIN_PHOTOS:
        lack = "have a label among their tags (has `ramctl parse` run over the captions?)"
        raise RunProblem(f"{n_named} photos {lack}: {MIN_PHOTOS} are needed")
    fitted = fit(bundle, labels, looked, states)
    figures = _figures(bundle, labels, looked, states)
    report.notify(_described(figures))
    _write(options, bundle, labels, fitted, figures)
    report.n_out = len(looked.notes)
    report.notify(f"wrote {options.out}")
    report.finish(options.stats)
    return report


def _with_new(
    labels: Labels, bundle: Bundle, pairs: Sequence[tuple[Record, Annotation]], name: str | None,
    report: Report,
) -> Labels:  # fmt: skip
    """The labels with those of `--labels`, or with things that captions often name."""
    if name is not None:
        words: list[tuple[str, str, int | None]]
        words = [(label.tag, label.kind, None) for label in Labels.read(Path(name.lstrip("+")))]
    else:
        counts, kinds = Counter[str](), dict[str, str]()
        for record, note in pairs:
            kinds |= kinds_of(record.fields)
            counts.update(set(note.tags))
        frequent = [(tag, n) for tag, n in counts.most_common() if n >= MIN_NEW]
        words = [(tag, kinds[tag], n) for tag, n in frequent if kinds.get(tag) in THINGS]
    usual = float(np.nanmedian(labels.numbers("salience", np.nan)))
    slope, offset = bundle.meta["open_set"]["calibration"]
    new = [
        Label(tag, kind, parents=_parents(tag, labels), count=count, salience=usual,
              calibration=(slope, offset))
        for tag, kind, count in words if not labels.ids(tag)
    ]  # fmt: skip
    assert labels.rows is not None
    rows, unknown = rows_of_words(bundle, labels.rows, new, guesses=True)
    new = [label for label in new if label.tag not in unknown]
    if new:
        report.notify(f"{len(new)} new labels: {', '.join(label.tag for label in new)}")
    return Labels.with_rows([*labels, *new], rows)


def _parents(tag: str, labels: Labels) -> tuple[str, ...]:
    """The labels above a thing: reviewed, else those of its head noun, else of its first sense."""
    if (reviewed := reviewed_parents().get((tag, NOUN))) is not None:
        return tuple(name for name in reviewed if labels.ids(name))
    if " " in tag and (ids := labels.ids(tag.rpartition(" ")[2])):
        return labels[ids[0]].tag, *labels[ids[0]].parents
    wordnet = WordNet.shared()
    senses = wordnet.synsets(tag, NOUN)[:1]
    above = (wordnet.synset(n) for sense in senses for n in wordnet.hypernym_path(sense.number))
    names = dict.fromkeys(spelled(lemma) for synset in above for lemma in synset.lemmas)
    return tuple(name for name in names if name in labels.tags)


def _look(
    bundle: Bundle, labels: Labels, pairs: Sequence[tuple[Record, Annotation]],
    options: RunnerOptions, rejects: Rejects,
) -> Looked:  # fmt: skip
    """The photos of the records, each once; records of those that cannot be read are rejected."""
    engine = choose_runtime(bundle, "auto", options.device, options.dtype)
    runner = ModelRunner(bundle, options, engine, labels=labels, scores_all=True)
    by_photo, check = dict[str, tuple[Annotation, Scores, Scores]](), RootCheck()
    outcomes = runner.run(
        chunks(pairs, runner.batch),
        lambda pair: runner.preprocess.resize(runner.decode(pair[0])), runner.look,
    )  # fmt: skip
    with rejects.report.progress(title="looking", unit="photos", total=len(pairs)) as bar:
        for (record, note), outcome in zip(pairs, chain.from_iterable(outcomes), strict=True):
            bar(1)
            check.notice(record, outcome)
            if isinstance(outcome, RecordProblem):
                rejects.add(Reject.of(record, outcome, rejects.report.command))
            else:
                by_photo[str(record.base / note.image)] = note, outcome[0], outcome[1]
    if len(by_photo) < MIN_PHOTOS:
        raise RunProblem(f"{len(by_photo)} photos are too few: {MIN_PHOTOS} are needed")
    notes, pooled, log_odds = zip(*by_photo.values(), strict=True)
    arrays = np.stack(pooled).astype(np.float64), np.stack(log_odds).astype(np.float64)
    return Looked(list(notes), *arrays)


def fit(bundle: Bundle, labels: Labels, looked: Looked, states: NDArray[np.int8]) -> Collection:
    """The changes that make what captions name likely; `states` (N, L) are those of `Targets`."""
    pooled, log_odds = looked.pooled, looked.log_odds
    mean, deviation = pooled.mean(0), pooled.std(0) + 1e-3
    features = standardised(pooled, mean, deviation)
    is_named, implied, silent = states == PRESENT, states == IMPLIED, states == ABSENT
    probability = sigmoid(log_odds)
    rates = _mention_rates(probability, is_named, silent, labels)
    n_named, n_implied = is_named.sum(0), implied.sum(0)
    is_spoken_of = (is_named | implied | (states == DENIED)).any(0)
    ids = np.flatnonzero(is_spoken_of | (probability.sum(0) > 1))
    # A parent that is implied counts as a positive as often as captions name it where it is there.
    weight = n_named / np.maximum(n_named + n_implied, 1)
    positive = np.where(is_named, 1.0, np.where(implied, weight, 0.0))[:, ids]
    silence = np.where(states == DENIED, 1.0, np.where(silent, rates, 0.0))[:, ids]
    offset = log_odds[:, ids]

    def named_loss(added: Floats) -> tuple[float, Floats]:
        p = sigmoid(offset + added)
        unnamed = np.maximum(1 - silence * p, 1e-9)  # P(silence)
        cost = (positive * np.logaddexp(0, -offset - added)).sum() - np.log(unnamed).sum()
        return float(cost), positive * (p - 1) + silence * p * (1 - p) / unnamed

    salience = Salience.from_bundle(bundle.meta["salience"], labels)
    assert salience is not None
    begins = np.array([_first_thing(note, labels) for note in looked.notes])
    things, counts = np.unique(begins[begins >= 0], return_counts=True)
    first = things[counts >= MIN_FIRST]
    is_used = np.isin(begins, first)
    chosen = np.searchsorted(first, begins[is_used])
    usual = salience.slope * log_odds[is_used][:, first] + salience.weights[first]

    def first_loss(added: Floats) -> tuple[float, Floats]:
        logits = usual + added
        logits = logits - logits.max(1, keepdims=True)
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        rows = np.arange(len(chosen))
        gradient = p.copy()
        gradient[rows, chosen] -= 1
        return -float(np.log(p[rows, chosen] + 1e-12).sum()), gradient

    reference = standardised(bundle.reference(pooled.shape[1]).astype(np.float64), mean, deviation)
    both = np.concatenate([features, reference])
    is_own = np.arange(len(both))[:, None] < len(features)
    balance = np.where(is_own, 1 / len(features), 1 / len(reference))
    balance *= min(len(features), len(reference))

    def gate_loss(logits: Floats) -> tuple[float, Floats]:
        cost = balance * (np.logaddexp(0, logits) - is_own * logits)
        return float(cost.sum()), balance * (sigmoid(logits) - is_own)

    return Collection(
        mean, deviation, _fit_linear(both, gate_loss, 1, GATE_RIDGE, 1e-3)[:, 0],
        ids, _fit_linear(features, named_loss, len(ids), RIDGE, OFFSET_RIDGE),
        first, _fit_linear(features[is_used], first_loss, len(first), FIRST_RIDGE,
                           FIRST_OFFSET_RIDGE),
        np.union1d(np.flatnonzero(n_named >= MIN_FIRST), first), len(bundle.labels), salience,
    )  # fmt: skip


def _fit_linear(
    features: Floats, loss: Callable[[Floats], tuple[float, Floats]], width: int, ridge: float,
    offset_ridge: float,
) -> Floats:  # fmt: skip
    """The matrix (C + 1, width) of the lowest loss and penalty.

    `loss` gives the cost and the gradient of products (N, width). In the space that the features
    span there are at most N directions.
    """
    from scipy.optimize import minimize

    if not width:
        return np.zeros((features.shape[1], 0))
    scale = np.ones(features.shape[1])
    scale[-1] = np.sqrt(ridge / offset_ridge)
    left, sizes, right = np.linalg.svd(features * scale, full_matrices=False)
    spanned = left * sizes

    def cost(flat: Floats) -> tuple[float, Floats]:
        matrix = flat.reshape(-1, width)
        value, gradient = loss(spanned @ matrix)
        gradient = spanned.T @ gradient + ridge * matrix
        return value + ridge * float(flat @ flat) / 2, gradient.ravel()

    start = np.zeros(len(sizes) * width)
    found = minimize(cost, start, jac=True, method="L-BFGS-B", options={"maxiter": ROUNDS})
    return np.asarray(scale[:, None] * (right.T @ found.x.reshape(-1, width)))


def _mention_rates(
    probability: Floats, is_named: NDArray[np.bool_], silent: NDArray[np.bool_], labels: Labels
) -> Floats:
    """P(a caption names a label | it is there) (L,), drawn to the model's rates.

    Maximum likelihood of P(named) = rate x P(there), by expectation maximisation.
    """
    usual = labels.numbers("mention_rate", USUAL_RATE)
    rates, n_named = usual, is_named.sum(0)
    for _ in range(30):
        there = probability * (1 - rates) / np.maximum(1 - probability * rates, 1e-6)
        n_unnamed = (there * silent).sum(0)
        rates = (n_named + PRIOR_PHOTOS * usual) / (n_named + n_unnamed + PRIOR_PHOTOS)
    return np.clip(rates, MIN_RATE, MAX_RATE)


def _first_thing(note: Annotation, labels: Labels) -> int:
    """The thing that a photo's first caption begins with; -1 without."""
    things = [x for caption in note.captions[:1] for x in things_in_order(caption, labels)]
    return things[0] if things else -1


def _figures(
    bundle: Bundle, labels: Labels, looked: Looked, states: NDArray[np.int8]
) -> JsonObject:
    """How often the first thing of a caption is printed first, on photos left out of the fit."""
    begins = np.array([_first_thing(note, labels) for note in looked.notes])
    salience = Salience.from_bundle(bundle.meta["salience"], labels)
    assert salience is not None
    usual = salience.slope * looked.log_odds + salience.weights
    before = usual[:, : len(bundle.labels)].argmax(1) == begins
    hits = np.zeros(len(begins), bool)
    folds = np.arange(len(begins)) % FOLDS
    for fold in range(FOLDS):
        part = folds == fold
        others = [note for note, is_out in zip(looked.notes, part, strict=True) if not is_out]
        rest = Looked(others, looked.pooled[~part], looked.log_odds[~part])
        fitted = fit(bundle, labels, rest, states[~part])
        _, first = fitted(looked.log_odds[part], looked.pooled[part], np.ones(part.sum(), bool))
        hits[part] = first == begins[part]
    figures: JsonObject = {
        "photos": len(begins), "new_labels": labels.tags[len(bundle.labels) :]
    }  # fmt: skip
    if (has_thing := begins >= 0).any():
        for name, values in (("first_before", before), ("first", hits)):
            figures[name] = round(float(values[has_thing].mean()), 3)
    return figures


def _described(figures: JsonObject) -> str:
    """The figures in words."""
    if "first" not in figures:
        return f"{figures['photos']} photos without captions"
    before, after = (f"{figures[name]:.0%}" for name in ("first_before", "first"))
    return (
        f"of {figures['photos']} photos, {after} get what their caption begins with as the first "
        f"tag when they are left out of the fit ({before} before it)"
    )


def _write(
    options: FitOptions, bundle: Bundle, labels: Labels, fitted: Collection, figures: JsonObject
) -> None:
    """Write the bundle: that of before, with more labels and the collection."""
    assert labels.rows is not None
    command = shlex.join(["ramctl", *options.argv])
    arrays = {
        "mean": fitted.mean, "deviation": fitted.deviation, "gate": fitted.gate,
        "change": fitted.change, "first_change": fitted.first_change,
    }  # fmt: skip
    numbers = {"labels": fitted.labels, "first": fitted.first, "lifted": fitted.lifted}
    numbers["new"] = np.array([fitted.new])
    with BundleWriter(options.out) as writer:
        writer.copy_files(bundle, without={LABELS, CARD, AXES})
        labels.write(writer.path / LABELS)
        if bundle.has(AXES):
            axes = load_file(bundle.path / AXES)["axes"]
            new = np.zeros((len(labels) - len(axes), axes.shape[1]), axes.dtype)
            save_file({"axes": np.concatenate([axes, new])}, writer.path / AXES)
        stored = {name: values.astype(np.float32) for name, values in arrays.items()}
        stored |= {name: values.astype(np.int64) for name, values in numbers.items()}
        stored["rows"] = labels.rows[fitted.new :]
        save_file(stored, writer.path / FIT)
        history = bundle.meta.get("provenance", {})
        commands = [*history.get("commands", []), command]
        writer.meta["provenance"] = history | {"commands": commands, "fitted": figures}
        before = (bundle.path / CARD).read_text("utf-8") if bundle.has(CARD) else ""
        card = f"# {options.out.name}\n\nFitted by `{command}`:\n{_described(figures)}.\n"
        card += f"New labels: {', '.join(figures['new_labels']) or 'none'}.\n\n{before}"
        (writer.path / CARD).write_text(card, "utf-8")
