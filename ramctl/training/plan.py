"""The options of a training command, and the plan that `--resume` reads again."""

import shlex
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from ramctl.checkpoints.bundle import META, TOKENIZER, Bundle, resolve_model
from ramctl.errors import HIDDEN, RunProblem, UsageProblem, without_secrets
from ramctl.labels import LABELS
from ramctl.model.preset import (
    Preset,
    change_preset,
    finetuning_preset,
    load_preset,
    override_preset,
    parse_overrides,
    preset_from_table,
    write_table,
)
from ramctl.records.files import is_url, work_path, write_atomic
from ramctl.records.inputs import inputs_or_stdin, require_files
from ramctl.records.ownership import FolderMark, require_ours
from ramctl.records.pipes import STDIN
from ramctl.records.record import JsonObject
from ramctl.records.report import Report
from ramctl.tagger_scores import PREFIX as SCORES
from ramctl.training.contradictions import require_consistent
from ramctl.training.data.record_file import Source, spool
from ramctl.training.data.record_scan import content_sha256
from ramctl.training.distributed import is_torchrun

DEFAULT_PRESET = "mini"

# Names in a work folder.
PLAN = "run.json"
RECORDS_HASH = "records.sha256"
CHECKPOINTS = "checkpoints"
FEATURES = "features"
RUN = FolderMark(
    "the folder of a training run",
    ".ramctl-train",
    (
        ".ramctl-train", f"*{PLAN}*", f"{RECORDS_HASH}*", f"{LABELS}*", f"{TOKENIZER}*",
        "records*.jsonl*", "*.f16", f"{CHECKPOINTS}/step-*", "val/*", f"{FEATURES}/*",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPaths:
    """Files and folders that a run reads besides its records, as given by the user."""

    labels: str | None = None
    val: str | None = None
    root: str | None = None
    init: str | None = None
    text: str | None = None
    cache: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions(RunPaths):
    """The options of `ramctl train` and `finetune`; the defaults are those of `train`."""

    command: str = "train"  # or `finetune`: the preset's settings for that
    argv: tuple[str, ...] = ()  # the command line, for the bundle's provenance
    inputs: tuple[str, ...] = ()  # none or `-`: stdin
    out: Path = Path("model")
    preset: str | None = None
    overrides: tuple[str, ...] = ()
    distill: tuple[str, ...] = ()
    steps: int | None = None
    epochs: float | None = None
    seed: int | None = None
    resume: bool = False
    restart: bool = False
    save_every: int | None = None
    max_time: float | None = None
    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None
    workers: int | None = None
    rejects: str | None = None
    strict: bool = False
    events: Path | None = None
    dry_run: bool = False
    thresholds: bool = False  # learn these alone, by `ramctl.training.learn_thresholds`
    stats: Path | None = None
    progress: bool | None = None
    quiet: bool = False
    inherited: Collection[str] = ()  # fields that the command line leaves out


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(RunPaths):
    """Everything that decides a run's result: written once, read again by `--resume`."""

    command: str
    preset: Preset  # with all overrides merged in
    sources: list[Source]
    commands: list[str]


class WorkFolder:
    """`OUT.work`, beside the bundle that a run will write: plan, checkpoints, kept features."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.path = work_path(out)
        self.plan_file = self.path / PLAN
        self.checkpoints = self.path / CHECKPOINTS
        self.features = self.path / FEATURES  # unless `--cache` names a folder

    def is_finished(self) -> bool:
        """Whether the bundle is written, so that nothing remains to do."""
        return not RUN.is_on(self.path) and (self.out / META).is_file()

    def has_progress(self) -> bool:
        """Whether the folder holds results that took long to compute."""
        patterns = (f"{CHECKPOINTS}/*", f"{FEATURES}/*", "*.f16")
        return any(True for pattern in patterns for _ in self.path.glob(pattern))

    def write_plan(self, plan: Plan) -> None:
        """Write the plan without the secrets of its URLs, which must be given again."""
        table = {f.name: getattr(plan, f.name) for f in fields(plan)}
        table["preset"] = write_table(plan.preset)
        table["sources"] = [{"path": str(s.path), "name": s.name} for s in plan.sources]
        content = orjson.dumps(table, default=str, option=orjson.OPT_INDENT_2)
        write_atomic(self.plan_file, without_secrets(content.decode()).encode() + b"\n")

    def read_plan(self, options: TrainOptions) -> Plan:
        """Read the plan of this folder; the secrets of its URLs come from the options."""
        try:
            table = orjson.loads(self.plan_file.read_bytes())
            inputs = [*options.inputs, options.root, options.val]
            with_secrets = {without_secrets(name): name for name in inputs if name}
            names = [row["name"] for row in table["sources"]]
            for name in (*names, table["root"], table["val"]):
                if name and is_url(name) and HIDDEN in name and name not in with_secrets:
                    remedy = "name it again beside --resume"
                    raise UsageProblem(f"{name}: its secrets are not stored: {remedy}")
            for name in ("root", "val"):
                table[name] = with_secrets.get(table[name], table[name])
            table["preset"] = preset_from_table(table["preset"])
            table["sources"] = [
                Source.of(with_secrets.get(name, name), table["root"], Path(row["path"]))
                for name, row in zip(names, table["sources"], strict=True)
            ]
            return Plan(**{f.name: table[f.name] for f in fields(Plan)})
        except (OSError, ValueError, KeyError) as error:
            raise RunProblem(f"{self.plan_file}: {error}; use --restart") from error

    def remove(self) -> None:
        """Delete the folder, except for files that no run has made."""
        RUN.remove(self.path)


def open_plan(options: TrainOptions, work: WorkFolder, report: Report) -> None:
    """Write the plan of a new run, or add this command to the plan of an unfinished one.

    Raises UsageProblem when an unfinished run is in the way, or is a different one.
    """
    command = shlex.join(["ramctl", *options.argv])
    require_ours(work.path, RUN)
    if options.restart and work.path.exists():
        work.remove()
    if not work.path.exists():
        if options.resume:
            report.notify(f"nothing to resume in {work.path}: a new run")
        RUN.put_on(work.path)
        try:
            work.write_plan(_new_plan(options, work, command))
        except BaseException:
            work.remove()
            raise
        return
    if not options.resume:
        choice = "--resume continues it, --restart discards it"
        raise UsageProblem(f"{work.path} holds an unfinished run: {choice}")
    if not work.plan_file.is_file():
        reason = "the earlier run failed during set-up; use --restart"
        raise RunProblem(f"{work.path}: no {PLAN}: {reason}")
    plan = work.read_plan(options)
    _check_resumed(options, plan)
    report.notify(f"resuming {work.path}")
    work.write_plan(replace(plan, commands=[*plan.commands, command]))


def _new_preset(options: TrainOptions) -> Preset:
    if options.preset is None and options.init is not None:
        preset = Bundle.open(resolve_model(options.init)).preset
        # The user of a bundle does not have the files of scores that it was trained with.
        teachers = [n for n in preset.training.distill if not n.startswith(SCORES)]
        preset = change_preset(preset, {"training": {"distill": teachers}})
    else:
        preset = load_preset(options.preset or DEFAULT_PRESET)
    if options.command == "finetune":
        preset = finetuning_preset(preset)
    return _with_options(preset, options)


def sources_of(options: TrainOptions, folder: Path) -> list[Source]:
    """The inputs; those that cannot be read twice are copied into the folder."""
    inputs = inputs_or_stdin(options.inputs, "JSONL files of parsed records")
    require_files(inputs)
    if is_torchrun() and STDIN in inputs:
        raise UsageProblem("several processes cannot share stdin: name the records' files")
    return [
        Source.of(name, options.root, spool(name, folder / f"records{number or ''}.jsonl"))
        for number, name in enumerate(inputs)
    ]


def _new_plan(options: TrainOptions, work: WorkFolder, command: str) -> Plan:
    preset = _new_preset(options)
    require_consistent(preset, init=options.init, labels=options.labels)
    return Plan(
        command=options.command,
        preset=preset,
        sources=sources_of(options, work.path),
        commands=[command],
        **{f.name: getattr(options, f.name) for f in fields(RunPaths)},
    )


def _check_resumed(options: TrainOptions, plan: Plan) -> None:
    """UsageProblem when options beside `--resume` contradict the unfinished run."""
    names = {f.name for f in fields(RunPaths) if getattr(options, f.name) is not None}
    names -= {*options.inherited}  # `finetune` has a default model
    others = [_flag(x) for x in sorted(names) if getattr(options, x) != getattr(plan, x)]
    if options.inputs and list(options.inputs) != [source.name for source in plan.sources]:
        others.append("the records")
    preset = plan.preset if options.preset is None else load_preset(options.preset)
    if preset.name != plan.preset.name or _with_options(plan.preset, options) != plan.preset:
        others.append("settings (--preset, --set, --steps, --epochs, --seed, --distill)")
    if others:
        raise UsageProblem(
            f"the unfinished run differs in {', '.join(others)}; leave them out to resume, or "
            "start over with --restart"
        )


def plan_facts(plan: RunPaths, records_sha256: str) -> JsonObject:
    """The records and files of a run, without secrets, for `require_made_so`."""
    paths = {f.name: getattr(plan, f.name) for f in fields(RunPaths) if f.name != "cache"}
    return {"records": records_sha256} | {n: v and without_secrets(v) for n, v in paths.items()}


def require_made_so(options: TrainOptions, *, fits_labels: bool = False) -> None:
    """UsageProblem when the complete bundle was not made by the options beside `--resume`.

    Without inputs, options that are left out are no difference; nor are they in a command that
    took part in the run. A fit of labels has no settings.
    """
    bundle = Bundle.open(options.out)
    provenance = bundle.meta.get("provenance", {})
    made, commands = provenance.get("plan", {}), provenance.get("commands", [])
    is_whole = bool(options.inputs) and shlex.join(["ramctl", *options.argv]) not in commands
    others = []
    for name in made.keys() - {"records"}:
        value = getattr(options, name)
        is_given = value is not None and name not in options.inherited
        if (is_given or is_whole) and (value and without_secrets(value)) != made[name]:
            others.append(_flag(name))
    if options.inputs and made:
        with TemporaryDirectory() as folder:
            if content_sha256(sources_of(options, Path(folder))) != made["records"]:
                others.insert(0, "the records")
    if options.preset is not None and load_preset(options.preset).name != bundle.preset.name:
        others.append("--preset")
    preset = _new_preset(options) if is_whole else _with_options(bundle.preset, options)
    if fits_labels and "fitted" in provenance:
        preset = bundle.preset
    settings = _settings(write_table(preset)), _settings(write_table(bundle.preset))
    for name in sorted(settings[0].keys() | settings[1].keys()):
        now, then = (values.get(name, "none") for values in settings)
        if now != then:
            others.append(f"{name} ({then}, not {now})")
    if others:
        shown = ", ".join([*others[:5], *["..."][: len(others) > 5]])
        raise UsageProblem(
            f"{options.out} is complete, but differs in {shown}; "
            "name another --out, or leave out --resume to replace it"
        )


def _flag(field: str) -> str:
    """The option that fills a field of `RunPaths`."""
    return "--model" if field == "init" else f"--{field}"


def _settings(table: JsonObject, before: str = "") -> JsonObject:
    """The values of nested tables by their names as in `--set`."""
    values: JsonObject = {}
    for name, value in table.items():
        inner = isinstance(value, dict)
        values |= _settings(value, f"{before}{name}.") if inner else {before + name: value}
    return values


def _with_options(preset: Preset, options: TrainOptions) -> Preset:
    numbers = {"steps": options.steps, "seed": options.seed}
    changes: dict[str, Any] = {name: n for name, n in numbers.items() if n is not None}
    if options.epochs is not None:
        changes |= {"epochs": options.epochs, "steps": 0}
    if options.distill:
        changes["distill"] = [name for name in options.distill if name != "none"]
    # What `train` sets is the model's, what `finetune` sets this run's.
    if options.command == "finetune":
        preset = change_preset(preset, parse_overrides(options.overrides))
    else:
        preset = override_preset(preset, options.overrides)
    return change_preset(preset, {"training": changes})
