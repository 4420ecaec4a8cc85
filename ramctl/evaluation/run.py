"""`ramctl eval`: read both sides, compare them, write what was asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ramctl.errors import UsageProblem
from ramctl.evaluation.benchmarks import MASKED, open_benchmark
from ramctl.evaluation.classes import Classes, read_groups, read_map
from ramctl.evaluation.comparison import (
    Bootstrap,
    Comparison,
    conditions,
    difference,
    group_figures,
    on_equal_terms,
)
from ramctl.evaluation.figures import Figures, nested
from ramctl.evaluation.metrics import LEVEL, Style, interval
from ramctl.evaluation.operating_point import Goal
from ramctl.evaluation.output import (
    calibrate,
    class_table,
    render,
    report_format,
    write_rows,
)
from ramctl.evaluation.predictions import PredictionTable, read_table
from ramctl.evaluation.reading import Intake, TruthTable
from ramctl.evaluation.report import write_report
from ramctl.evaluation.systems import compare_systems, intervals
from ramctl.evaluation.thresholds import Cut
from ramctl.labels import LabelSystem
from ramctl.records.files import output_lock, require_distinct, write_atomic
from ramctl.records.inputs import STDIN, named_or_stdin, require_files
from ramctl.records.outputs import records_to_stdout, rejects_file
from ramctl.records.ownership import PAGE, require_ours
from ramctl.records.record import JsonObject
from ramctl.records.report import Rejects, Report


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """What the command line asks for; `-` is standard input."""

    truth: str | None = None  # or a benchmark, by the files in a folder
    predictions: str | tuple[str, ...] = ()  # nothing is standard input too
    benchmark: str | None = None
    data: Path | None = None
    min_area: float | None = None  # share of a photo that a class must cover, in masks
    classes: Path | None = None
    map_file: Path | None = None
    groups: Path | None = None
    labels: Path | None = None
    baseline: str | None = None
    source_format: str | None = None  # of the predictions; None: it is recognised
    key: str | None = None
    form: str = "json"
    spreadsheet: bool = False  # no cell of csv and tsv is a formula
    output: Path | None = None
    report_file: Path | None = None
    root: Path | None = None  # of the photos that a report shows; None: the truth's
    calibrate: Path | None = None
    calibrate_for: float | None = None  # the precision of the thresholds; None: the best F1
    rejects: str | None = None
    strict: bool = False
    threshold: str | None = None
    top: int | None = None  # the highest scores of a photo whose figures are added
    style: Style = "exact"
    ci: bool = False
    resamples: int = 1000
    seed: int = 0
    stats: Path | None = None
    quiet: bool = False

    @property
    def systems(self) -> tuple[str, ...]:
        """The files of predictions: one system each."""
        named = self.predictions
        return ((named,) if isinstance(named, str) else named) or (STDIN,)


def run(options: EvalOptions) -> Report:
    """Evaluate and write; the report of the run, which counts the lines that were rejected."""
    if STDIN in options.systems:
        named_or_stdin((), "a file of predictions")
    if len(set(options.systems)) < len(options.systems):
        raise UsageProblem("a file of predictions is named twice")
    _require_one_truth(options)
    sources = [*options.systems, options.truth or "", options.baseline or ""]
    if sources.count(STDIN) > 1:
        raise UsageProblem("only one of PREDICTIONS, --truth and --baseline can be stdin (-)")
    if options.calibrate_for is not None and options.calibrate is None:
        raise UsageProblem("--precision goes with --calibrate FILE")
    _require_one_stdout(options)
    tables = [options.form] + [report_format(path) for path in (options.report_file,) if path]
    if options.root is not None and "html" not in tables:
        raise UsageProblem("--root goes with --report FILE.html: it says where the photos are")
    if options.spreadsheet and not {"csv", "tsv"} & {*tables}:
        raise UsageProblem("--spreadsheet goes with -f csv, or --report FILE.csv or .tsv")
    require_files([name for name in sources if name])
    report, calibrate = _file(options.report_file), _file(options.calibrate)
    require_distinct(
        output=options.output, report=report, calibrate=calibrate,
        rejects=rejects_file(options.rejects), stats=options.stats,
    )  # fmt: skip
    if "html" in tables[1:]:
        require_ours(report, PAGE)
    with output_lock(options.output, report, calibrate):
        return _run(options)


def _require_one_truth(options: EvalOptions) -> None:
    if (options.truth is None) == (options.benchmark is None):
        raise UsageProblem("name what is true: --truth FILE or --benchmark NAME, one of these")
    if (options.benchmark is None) != (options.data is None):
        raise UsageProblem("--benchmark NAME and --data DIR go together")
    if options.min_area is not None and options.benchmark not in MASKED:
        raise UsageProblem(f"--min-area goes with --benchmark {' or '.join(MASKED)}")
    if options.benchmark and options.classes:
        raise UsageProblem("--benchmark brings its own classes: leave --classes out")


def _file(path: Path | None) -> Path | None:
    """The file that an option names, if any: `-` is standard output."""
    return None if path is None or str(path) == STDIN else path


def _require_one_stdout(options: EvalOptions) -> None:
    figures = None if options.output else "the figures (see -o)"
    tables = {"--report": options.report_file, "--calibrate": options.calibrate}
    on_stdout = [name for name, path in tables.items() if str(path) == STDIN]
    others = [figures, *on_stdout[1:]] if figures else on_stdout[1:]
    if on_stdout and others:
        raise UsageProblem(f"{on_stdout[0]} -: standard output is for {others[0]}")


def _write(path: Path | None, content: bytes) -> None:
    """Write a file, or standard output for None and `-`."""
    if (file := _file(path)) is not None:
        write_atomic(file, content)
        return
    with records_to_stdout() as stream:
        stream.write(content)


def _run(options: EvalOptions) -> Report:
    goal = Goal.parse(options.threshold)
    cut = Cut.parse(None if goal else options.threshold, inclusive=options.style == "ram")
    report = Report("eval", quiet=options.quiet, unit="photos")
    with Rejects(report, options.rejects, strict=options.strict) as rejects:
        intake = Intake(report, rejects)
        truth, classes = _truth(options, intake)
        names = [*options.systems, *filter(None, [options.baseline])]
        tables = [
            read_table(
                name, classes, cut, intake,
                n_expected=len(truth.photos), form=options.source_format,
            )
            for name in names
        ]  # fmt: skip
    predictions = tables[0]
    if predictions.are_probabilities or predictions.score_range is None:
        cut.require_probability()
    compared = [
        Comparison.of(truth, table, classes, key=options.key, style=options.style)
        for table in tables
    ]
    if goal is not None:
        compared = [goal.decide(comparison) for comparison in compared]
    ours = compared[0]
    result = _result(options, compared, predictions)
    result["classes"]["truth_tags_outside"] = truth.tags_outside(classes)
    _explain(report, ours, predictions, result)
    report.n_out = len(ours.photos)
    _write(options.output, render(result, options.form, spreadsheet=options.spreadsheet))
    report.finish(options.stats)
    return report


def _truth(options: EvalOptions, intake: Intake) -> tuple[TruthTable, Classes]:
    """What is true of each photo, and the classes that are evaluated."""
    origin: Path | None
    ids: Mapping[str, int] | None = None
    if options.benchmark and options.data:
        benchmark = open_benchmark(options.benchmark, options.data, options.min_area or 0.0)
        truth = TruthTable.of(benchmark.items, intake)
        system, origin, ids = benchmark.classes, benchmark.origin, benchmark.ids
    else:
        truth, origin = TruthTable.read(options.truth or STDIN, intake), options.classes
        system = LabelSystem.read(origin) if origin else LabelSystem.from_tags(truth.named())
    tag_system = LabelSystem.read(options.labels) if options.labels else None
    listed = str(origin) if origin else None
    return truth, Classes(system, listed, read_map(options.map_file), tag_system, ids)


def _result(
    options: EvalOptions, compared: list[Comparison], predictions: PredictionTable
) -> JsonObject:
    bootstrap = Bootstrap(options.resamples, options.seed)
    ours, n_systems = compared[0], len(options.systems)
    groups = read_groups(options.groups, ours.classes.system)
    figures = Figures(ours, options.top)
    plain = figures.plain()
    result, classwise = nested(plain), None
    if options.ci:
        resampled, classwise = figures.resampled(bootstrap)
        result["mAP_ci"] = interval(plain["mAP"], resampled["mAP"])
        result["ci"] = intervals(plain, resampled)
    if groups:
        result["groups"] = group_figures(ours, groups, classwise["AP"] if classwise else None)
    if options.baseline:
        result["baseline"] = difference(ours, compared[-1], bootstrap)
    if n_systems > 1:
        named = dict(zip(options.systems, compared[:n_systems], strict=True))
        result["comparison"] = compare_systems(named, bootstrap, options.top)
    if options.ci or len(compared) > 1:
        result["bootstrap"] = {"level": LEVEL, "resamples": bootstrap.n, "seed": bootstrap.seed}
    result["looks_thresholded"] = predictions.looks_thresholded(ours.scores)
    result["score_range"] = predictions.score_range
    result |= conditions(ours)
    if options.report_file:
        form = report_format(options.report_file)
        if form == "html":
            names = [*options.systems, *filter(None, [options.baseline])]
            named = dict(zip(names, on_equal_terms(compared), strict=True))
            content = write_report(named, options.root, result.get("ci", {}))
        else:
            table = class_table(ours, classwise)
            content = write_rows(*table, form, spreadsheet=options.spreadsheet)
        _write(options.report_file, content)
    if options.calibrate:
        lines, result["calibration"] = calibrate(ours, options.calibrate_for)
        _write(options.calibrate, lines)
    return result


def _explain(
    report: Report, ours: Comparison, predictions: PredictionTable, result: JsonObject
) -> None:
    """Say on stderr what may surprise: how photos were matched, what is missing or looks wrong."""
    if set(ours.matched_by) != {"image"}:
        matched = ", ".join(f"{count} by {key}" for key, count in ours.matched_by.items())
        report.say(f"photos matched: {matched}")
    one_sided = (len(ours.only_in_truth), len(ours.only_in_predictions))
    if any(one_sided):
        report.say(f"photos in the truth only: {one_sided[0]}, predictions only: {one_sided[1]}")
    for names, what in (
        (result["classes"]["without_tag"], "no predicted tag stands for"),
        (result["classes"]["truth_tags_outside"], "tags of the truth that are not classes"),
        (ours.classes.unused_map_lines(), "lines of --map for no class"),
    ):
        if names:
            more = f" ... ({len(names)})" if len(names) > 5 else ""
            report.say(f"{what}: {', '.join(names[:5])}{more}")
    if (span := predictions.score_range) and not predictions.are_probabilities:
        report.say(
            f"scores are no probabilities ({span[0]:g} to {span[1]:g}), and thresholds neither"
        )
    if (expected := result.get("calibration", {}).get("macro_f1")) is not None:
        report.say(f"calibrated: on other photos a macro F1 of {expected:.3f} is expected")
    if result["looks_thresholded"]:
        report.say("the predictions look thresholded, so mAP is a lower bound (use --dense)")
