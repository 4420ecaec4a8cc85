"""`ramctl eval`: read predictions and truth, compare them, and write the figures."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ramctl.captions.caption_formats import read_predictions
from ramctl.checkpoints.bundle import read_labels
from ramctl.evaluation.classes import Classes, read_map
from ramctl.evaluation.comparison import Comparison, compare_systems, on_shared_photos
from ramctl.evaluation.metrics import interval
from ramctl.evaluation.plot import plot
from ramctl.evaluation.predictions import PredictionTable, all_tags, read_threshold, read_truth
from ramctl.evaluation.tables import class_table, figure_table
from ramctl.records.extras import require
from ramctl.records.files import write_atomic
from ramctl.records.inputs import inputs_or_stdin, require_files
from ramctl.records.jsonl import dumps
from ramctl.records.labels import DEFAULT_THRESHOLD, Labels
from ramctl.records.record import JsonObject, listed_names
from ramctl.records.report import Rejects, Report
from ramctl.records.resume import write_to_stdout

MAX_MISSING = 0.1  # of the scores, beyond which mAP is a lower bound


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """The options of `ramctl eval`; `-` is standard input."""

    truth: str
    predictions: tuple[str, ...] = ()  # a file a system; none: standard input
    classes: Path | None = None
    map_file: Path | None = None
    format: str = "json"
    output: Path | None = None
    report_file: Path | None = None  # the table of classes
    plot: Path | None = None
    rejects: str | None = None
    threshold: str | None = None
    ci: bool = False
    quiet: bool = False


def run(options: EvalOptions) -> Report:
    """Evaluate and write the results; return the report of the run."""
    systems = inputs_or_stdin(options.predictions, "a file of predictions")
    if options.plot is not None:
        require("plot", "--plot")
    require_files([*systems, options.truth])
    report = Report("eval", quiet=options.quiet, unit="photos")
    with Rejects(report, options.rejects) as rejects:
        truth = read_truth(read_predictions(options.truth, "eval"), rejects)
        origin = None if options.classes is None else str(options.classes)
        system = read_labels(origin) if origin else Labels.from_tags(all_tags(truth.values()))
        classes = Classes(system, origin, read_map(options.map_file))
        threshold = read_threshold(options.threshold, classes) if options.threshold else None
        read = (read_predictions(name, "eval") for name in systems)
        tables = [PredictionTable.read(items, classes, rejects) for items in read]
    compared = [Comparison.from_tables(truth, table, classes, threshold) for table in tables]
    first, by_name = compared[0], dict(zip(systems, on_shared_photos(compared), strict=True))
    by_tags = str(DEFAULT_THRESHOLD) if None in tables[0].tagged else "the predictions' own tags"
    result = _result(options, first, by_name, options.threshold or by_tags)
    _explain(report, tables[0], result)
    if options.report_file:
        write_atomic(options.report_file, class_table(first))
    if options.plot:
        write_atomic(options.plot, plot(by_name, options.plot.suffix[1:]))
    content = dumps(result) if options.format == "json" else figure_table(result)
    if options.output:
        write_atomic(options.output, content)
    else:
        write_to_stdout(content.decode())
    report.n_out = len(first.photos)
    report.finish()
    return report


def _result(
    options: EvalOptions, first: Comparison, by_name: dict[str, Comparison], decided_by: str
) -> JsonObject:
    """The figures, and what they are based on."""
    result: JsonObject = {**first.figures}
    if options.ci:
        result["mAP_ci"] = interval(result["mAP"], first.resampled_means())
    if len(by_name) > 1:
        result["comparison"] = compare_systems(by_name)
    names = np.array(first.classes.names, object)
    return result | {
        "averaged_classes": int(first.has_positives.sum()),
        "decided_by": decided_by,
        "photos": first.matching,
        "classes": {
            "count": len(names),
            "sha256": hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest(),
            "from": first.classes.origin or "the truth",
            "without_positives": names[~first.has_positives].tolist(),
            "without_tag": names[~first.known].tolist(),
            "names": names.tolist(),
        },
    }


def _explain(report: Report, predictions: PredictionTable, result: JsonObject) -> None:
    """Report on stderr what would be misread in the figures."""
    photos, unknown = result["photos"], result["classes"]["without_tag"]
    left, right = photos["only_in_truth"], photos["only_in_predictions"]
    if left or right:
        report.notify(f"photos in the truth only: {left}, predictions only: {right}")
    if unknown:
        names = listed_names(unknown)
        report.notify(f"{len(unknown)} classes without a predicted tag, AP 0 (see --map): {names}")
    lowest, highest = predictions.scores.min(), predictions.scores.max()
    if lowest < 0 or highest > 1:
        ends = f"{lowest:g} to {highest:g}"
        report.notify(f"scores are not probabilities ({ends}); decided by {result['decided_by']}")
    if predictions.missing[predictions.known].sum() > MAX_MISSING * predictions.known.sum():
        report.notify("many scores are missing, so mAP is a lower bound: predict with tag --dense")
