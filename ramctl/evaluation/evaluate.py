"""`ramctl eval`: read predictions and truth, compare them, and write the figures."""

from dataclasses import dataclass
from pathlib import Path

from ramctl.checkpoints.bundle import read_labels
from ramctl.classes import Classes, read_map
from ramctl.errors import UsageProblem
from ramctl.evaluation.comparison import Comparison, on_shared_photos
from ramctl.evaluation.figures import compare_systems, map_interval, plain_figures
from ramctl.evaluation.metrics import LEVEL, RESAMPLES
from ramctl.evaluation.plot import plot
from ramctl.evaluation.predictions import PredictionTable, Thresholds, read_table
from ramctl.evaluation.tables import class_table, figure_table
from ramctl.evaluation.truth import TruthTable
from ramctl.labels import Labels
from ramctl.parts import require
from ramctl.records.files import output_lock, write_atomic
from ramctl.records.inputs import inputs_or_stdin, require_files
from ramctl.records.jsonl import dumps
from ramctl.records.outputs import records_to_stdout
from ramctl.records.record import STDIN, JsonObject
from ramctl.records.report import Rejects, Report

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """The options of `ramctl eval`; `-` is standard input."""

    truth: str | None = None
    predictions: str | tuple[str, ...] = ()  # none: standard input
    classes: Path | None = None
    map_file: Path | None = None
    labels: Path | None = None
    source_format: str | None = None  # of the predictions; None: it is recognised
    format: str = "json"
    output: Path | None = None
    report_file: Path | None = None  # the table of classes
    plot: Path | None = None
    rejects: str | None = None
    strict: bool = False
    threshold: str | None = None
    ci: bool = False
    stats: Path | None = None
    quiet: bool = False

    @property
    def systems(self) -> tuple[str, ...]:
        """The files of predictions, one for each system."""
        files = (self.predictions,) if isinstance(self.predictions, str) else self.predictions
        return files or (STDIN,)


def run(options: EvalOptions) -> Report:
    """Evaluate and write the results; return the report of the run."""
    if STDIN in options.systems:
        inputs_or_stdin((), "a file of predictions")
    if len(set(options.systems)) < len(options.systems):
        raise UsageProblem("the same file of predictions is given twice")
    if options.truth is None:
        raise UsageProblem("no truth to compare with: add --truth FILE")
    sources = [*options.systems, options.truth]
    if sources.count(STDIN) > 1:
        raise UsageProblem("only one of PREDICTIONS and --truth can be stdin (-)")
    if options.plot is not None:
        if options.plot.suffix not in PLOT_SUFFIXES:
            known = ", ".join(PLOT_SUFFIXES)
            raise UsageProblem(f"--plot {options.plot}: expected a name in {known}")
        require("plot", "--plot")
    require_files(sources)
    with output_lock(options.output, options.report_file, options.plot):
        return _run(options, options.truth)


def _run(options: EvalOptions, truth_file: str) -> Report:
    report = Report("eval", quiet=options.quiet, unit="photos")
    with Rejects(report, options.rejects, strict=options.strict) as rejects:
        truth = TruthTable.read(truth_file, rejects)
        class_file, labels = options.classes, options.labels
        classes = Classes(
            read_labels(str(class_file)) if class_file else Labels.from_tags(truth.all_tags()),
            str(class_file) if class_file else None,
            read_map(options.map_file),
            read_labels(str(labels)) if labels else None,
        )
        text, form = options.threshold, options.source_format
        thresholds = None if text is None else Thresholds.parse(text, classes)
        tables = [
            read_table(name, classes, thresholds, rejects, form=form) for name in options.systems
        ]
    predictions = tables[0]
    value = thresholds and thresholds.values
    if predictions.are_probabilities and isinstance(value, float) and not 0 <= value <= 1:
        raise UsageProblem(f"--threshold {value:g}: a probability is between 0 and 1")
    compared = [Comparison.from_tables(truth, table, classes) for table in tables]
    first = compared[0]
    result = _result(options, compared, predictions)
    tags = {tag for statement in truth.statements for tag in statement.tags}
    outside = sorted(tag for tag in tags if not classes.system.ids(tag))
    result["classes"]["truth_tags_outside"] = outside
    _explain(report, first, predictions, result)
    report.n_out = len(first.photos)
    content = dumps(result) if options.format == "json" else figure_table(result)
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
    first = compared[0]
    by_name = dict(zip(options.systems, on_shared_photos(compared), strict=True))
    result: JsonObject = {**plain_figures(first)}
    if options.ci:
        result["mAP_ci"] = map_interval(first)
    if len(compared) > 1:
        result["comparison"] = compare_systems(by_name)
    if options.ci or len(compared) > 1:
        result["bootstrap"] = {"level": LEVEL, "resamples": RESAMPLES}
    result["looks_thresholded"] = predictions.looks_thresholded(first.scores)
    span = predictions.lowest, predictions.highest
    result["score_range"] = None if span[0] > span[1] else span
    result |= first.conditions()
    if options.report_file:
        write_atomic(options.report_file, class_table(first))
    if options.plot:
        write_atomic(options.plot, plot(by_name, options.plot.suffix[1:]))
    return result


def _explain(
    report: Report, comparison: Comparison, predictions: PredictionTable, result: JsonObject
) -> None:
    """Report on stderr how photos were matched, what is missing and what looks wrong."""
    if set(comparison.matched_by) != {"name"}:
        matched = ", ".join(f"{count} by {key}" for key, count in comparison.matched_by.items())
        report.notify(f"photos matched: {matched}")
    one_sided = (len(comparison.only_in_truth), len(comparison.only_in_predictions))
    if any(one_sided):
        report.notify(f"photos in the truth only: {one_sided[0]}, predictions only: {one_sided[1]}")
    classes = comparison.classes
    unused = [name for name in classes.mapping if not classes.system.ids(name)]
    for names, what in (
        (result["classes"]["without_tag"], "classes without a predicted tag (see --map, --labels)"),
        (result["classes"]["truth_tags_outside"], "true tags that are not classes"),
        (unused, "lines of --map that name no class"),
    ):
        if names:
            more = f" ... ({len(names)})" if len(names) > 5 else ""
            report.notify(f"{what}: {', '.join(names[:5])}{more}")
    if (span := result["score_range"]) and not predictions.are_probabilities:
        ends = f"{span[0]:g} to {span[1]:g}"
        report.notify(f"scores are not probabilities ({ends}); thresholds are in the same unit")
    if result["looks_thresholded"]:
        report.notify("many scores are missing, so mAP is a lower bound: predict with tag --dense")
