"""`ramctl eval`: read both sides, compare them, write what was asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ramctl.classes import Classes, read_groups, read_map
from ramctl.decide.fitting import sample, thresholds_for
from ramctl.errors import UsageProblem
from ramctl.evaluation.comparison import Comparison, TruthTable, on_equal_terms
from ramctl.evaluation.figures import Figures, compare_systems, group_figures, intervals, nested
from ramctl.evaluation.metrics import LEVEL, POSITIVE, RESAMPLES, UNKNOWN, Style, interval
from ramctl.evaluation.predictions import Cut, PredictionTable, read_table
from ramctl.evaluation.report import report_page
from ramctl.evaluation.tables import class_table, render, report_format, write_rows
from ramctl.labels import LabelSystem
from ramctl.records.files import is_url, output_lock, unpacked_name, write_atomic
from ramctl.records.inputs import named_or_stdin, require_files
from ramctl.records.jsonl import dumps
from ramctl.records.outputs import records_to_stdout
from ramctl.records.ownership import PAGE, require_ours
from ramctl.records.pipes import STDIN
from ramctl.records.record import JsonObject
from ramctl.records.report import Rejects, Report


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """What the command line asks for; `-` is standard input."""

    truth: str | None = None
    predictions: str | tuple[str, ...] = ()  # nothing is standard input too
    names: tuple[str, ...] = ()  # NAME=FILE: what files of predictions are called
    classes: Path | None = None
    map_file: Path | None = None
    groups: Path | None = None
    labels: Path | None = None
    source_format: str | None = None  # of the predictions; None: it is recognised
    format: str = "json"
    output: Path | None = None
    report_file: Path | None = None
    root: Path | None = None  # of the photos that a report shows; None: the truth's
    calibrate: Path | None = None
    precision: float | None = None  # of the calibrated thresholds; None: the best F1
    rejects: str | None = None
    strict: bool = False
    threshold: str | None = None
    style: Style = "exact"
    ci: bool = False
    seed: int = 0
    stats: Path | None = None
    quiet: bool = False

    @property
    def systems(self) -> tuple[str, ...]:
        """The files of predictions: one system each, those that only `names` has last."""
        given = (self.predictions,) if isinstance(self.predictions, str) else self.predictions
        return (*given, *(file for file in self.name_of if file not in given)) or (STDIN,)

    @property
    def name_of(self) -> dict[str, str]:
        """The names of files; UsageProblem for what is not NAME=FILE, and for a second name."""
        pairs = [named.partition("=") for named in self.names]
        for named, (name, _, file) in zip(self.names, pairs, strict=True):
            if not (name and file) or is_url(name):
                raise UsageProblem(f"--name {named}: expected NAME=FILE")
            if [one[2] for one in pairs].count(file) > 1:
                raise UsageProblem(f"--name {named}: {file} is named twice")
        return {file: name for name, _, file in pairs}

    def called(self, files: Sequence[str]) -> list[str]:
        """What files are called: by their names, else as they are; UsageProblem for one of two."""
        names = [self.name_of.get(file, file) for file in files]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageProblem(f"--name {twice}: two files have this name")
        return names


def run(options: EvalOptions) -> Report:
    """Evaluate and write; the report of the run, which counts the lines that were rejected."""
    if STDIN in options.systems:
        named_or_stdin((), "a file of predictions")
    if len(set(options.systems)) < len(options.systems):
        raise UsageProblem("a file of predictions is named twice")
    options.called(options.systems)
    if options.truth is None:
        raise UsageProblem("name what is true: --truth FILE")
    sources = [*options.systems, options.truth]
    if sources.count(STDIN) > 1:
        raise UsageProblem("only one of PREDICTIONS and --truth can be stdin (-)")
    if options.precision is not None and options.calibrate is None:
        raise UsageProblem("--precision P goes with --calibrate FILE")
    is_page = options.report_file is not None and report_format(options.report_file) == "html"
    if options.root is not None and not is_page:
        raise UsageProblem("--root goes with --report FILE.html: it says where the photos are")
    require_files(sources)
    if is_page:
        require_ours(options.report_file, PAGE)
    with output_lock(options.output, options.report_file, options.calibrate):
        return _run(options, options.truth)


def _run(options: EvalOptions, truth_file: str) -> Report:
    cut = Cut.parse(options.threshold, inclusive=options.style == "ram")
    report = Report("eval", quiet=options.quiet, unit="photos")
    with Rejects(report, options.rejects, strict=options.strict) as rejects:
        truth = TruthTable.read(truth_file, rejects)
        listed, labels = options.classes, options.labels
        classes = Classes(
            LabelSystem.read(listed) if listed else LabelSystem.from_tags(truth.named()),
            str(listed) if listed else None,
            read_map(options.map_file),
            LabelSystem.read(labels) if labels else None,
        )
        form = options.source_format
        tables = [
            read_table(name, classes, cut, rejects, photos=truth.photos, form=form)
            for name in options.systems
        ]
    predictions = tables[0]
    if predictions.scores.are_probabilities and cut.value is not None and not 0 <= cut.value <= 1:
        raise UsageProblem(f"--threshold {cut.value:g}: a probability is between 0 and 1")
    compared = [Comparison.of(truth, table, classes, style=options.style) for table in tables]
    first = compared[0]
    result = _result(options, compared, predictions)
    tags = {tag for statement in truth.statements for tag in statement.tags}
    outside = sorted(tag for tag in tags if not classes.system.ids(tag))
    result["classes"]["truth_tags_outside"] = outside
    _explain(report, first, predictions, result)
    report.n_out = len(first.photos)
    content = render(result, options.format, options.called(options.systems[:1])[0])
    if options.output is None:
        with records_to_stdout() as stream:
            stream.write(content)
    else:
        write_atomic(options.output, content)
    report.finish(options.stats)
    return report


def _result(
    options: EvalOptions, compared: list[Comparison], predictions: PredictionTable
) -> JsonObject:
    first, seed = compared[0], options.seed
    groups = read_groups(options.groups, first.classes.system)
    figures = Figures(first)
    plain = figures.plain()
    result, classwise = nested(plain), None
    if options.ci:
        resampled, classwise = figures.resampled(seed)
        result["mAP_ci"] = interval(plain["mAP"], resampled["mAP"])
        result["ci"] = intervals(plain, resampled)
    if groups:
        result["groups"] = group_figures(first, groups, classwise)
    if len(options.systems) > 1:
        named = dict(zip(options.called(options.systems), compared, strict=True))
        result["comparison"] = compare_systems(named, seed)
    if options.ci or len(compared) > 1:
        result["bootstrap"] = {"level": LEVEL, "resamples": RESAMPLES, "seed": seed}
    result["looks_thresholded"] = predictions.looks_thresholded(first.scores)
    scores = predictions.scores
    is_empty = scores.lowest > scores.highest
    result["score_range"] = None if is_empty else (scores.lowest, scores.highest)
    result |= first.conditions()
    if options.report_file:
        form = report_format(options.report_file)
        if form == "html":
            equal = on_equal_terms(compared)
            named = dict(zip(options.called(options.systems), equal, strict=True))
            title = unpacked_name(Path(options.truth or STDIN).name).partition(".")[0]
            content = report_page(title, named, options.root, result.get("ci", {}))
        else:
            content = write_rows(*class_table(first, classwise), form)
        write_atomic(options.report_file, content)
    if options.calibrate:
        result["calibration"] = _calibrate(first, options.calibrate, options.precision)
    return result


def _calibrate(comparison: Comparison, path: Path, precision: float | None) -> JsonObject:
    """Write thresholds as JSONL `{"tag", "threshold"}`, a line for each class; what to expect."""
    some = sample(comparison.scores)
    scores, truth = comparison.scores[some].astype(np.float64), comparison.truth[some]
    thresholds, macro_f1 = thresholds_for(scores, truth == POSITIVE, truth != UNKNOWN, precision)
    rows = zip(comparison.classes.names, thresholds.tolist(), strict=True)
    write_atomic(path, b"".join(dumps({"tag": name, "threshold": value}) for name, value in rows))
    if precision is not None:
        return {"for": f"precision={precision:g}"}
    return {"for": "F1", "macro_f1": macro_f1}


def _explain(
    report: Report, comparison: Comparison, predictions: PredictionTable, result: JsonObject
) -> None:
    """Say on stderr what may surprise: how photos were matched, what is missing or looks wrong."""
    if set(comparison.matched_by) != {"image"}:
        matched = ", ".join(f"{count} by {key}" for key, count in comparison.matched_by.items())
        report.say(f"photos matched: {matched}")
    one_sided = (len(comparison.only_in_truth), len(comparison.only_in_predictions))
    if any(one_sided):
        report.say(f"photos in the truth only: {one_sided[0]}, predictions only: {one_sided[1]}")
    classes = comparison.classes
    unused = [name for name in classes.mapping if not classes.system.ids(name)]
    for names, what in (
        (result["classes"]["without_tag"], "no predicted tag stands for"),
        (result["classes"]["truth_tags_outside"], "tags of the truth that are not classes"),
        (unused, "lines of --map for no class"),
    ):
        if names:
            more = f" ... ({len(names)})" if len(names) > 5 else ""
            report.say(f"{what}: {', '.join(names[:5])}{more}")
    if (span := result["score_range"]) and not predictions.scores.are_probabilities:
        ends = f"{span[0]:g} to {span[1]:g}"
        report.say(f"scores are no probabilities ({ends}), and thresholds neither")
    if (expected := result.get("calibration", {}).get("macro_f1")) is not None:
        report.say(f"calibrated: on other photos a macro F1 of {expected:.3f} is expected")
    if result["looks_thresholded"]:
        report.say("the predictions look thresholded, so mAP is a lower bound (use --dense)")
