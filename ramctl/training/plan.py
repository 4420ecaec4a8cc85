"""The options of a training command, and the plan that `--resume` reads again."""

import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import orjson

from ramctl.checkpoints.bundle import META, Bundle, resolve_model
from ramctl.errors import RunProblem, UsageProblem
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
from ramctl.records.files import remove_folder, work_path, write_atomic
from ramctl.records.inputs import inputs_or_stdin, require_files
from ramctl.records.record import STDIN
from ramctl.records.report import Report
from ramctl.tagger_scores import PREFIX as SCORES
from ramctl.training.data.record_file import Source, spool
from ramctl.training.distributed import is_torchrun
from ramctl.training.initial import clip_place

DEFAULT_PRESET = "mini"

# Names in a work folder.
PLAN = "run.json"
RECORDS_HASH = "records.sha256"
CHECKPOINTS = "checkpoints"
FEATURES = "features"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPaths:
    """Files and folders that a run reads besides its records, as given by the user."""

    labels: str | None = None
    val: str | None = None
    root: str | None = None
    init: str | None = None
    text: str | None = None


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
    device: str = "auto"
    dtype: str = "auto"
    workers: int | None = None
    rejects: str | None = None
    strict: bool = False
    events: Path | None = None
    thresholds: bool = False  # learn these alone, by `ramctl.training.learn_thresholds`
    stats: Path | None = None
    quiet: bool = False
    inherited: Collection[str] = ()  # fields that the command line leaves out

    @property
    def work(self) -> "WorkFolder":
        """The folder of the unfinished run."""
        return WorkFolder(work_path(self.out))

    @property
    def is_finished(self) -> bool:
        """Whether the bundle is written, so that nothing remains to resume."""
        return self.resume and not self.work.path.exists() and (self.out / META).is_file()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(RunPaths):
    """Everything that decides a run's result: written once, read again by `--resume`."""

    command: str
    preset: Preset  # with all overrides merged in
    sources: list[Source]
    commands: list[str]


class WorkFolder:
    """`OUT.work`, beside the bundle that a run will write: plan, checkpoints, kept features."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan_file = path / PLAN
        self.checkpoints = path / CHECKPOINTS
        self.features = path / FEATURES

    def has_progress(self) -> bool:
        """Whether the folder holds results that took long to compute."""
        patterns = (f"{CHECKPOINTS}/*", f"{FEATURES}/*", "*.f16")
        return any(True for pattern in patterns for _ in self.path.glob(pattern))

    def write_plan(self, plan: Plan) -> None:
        """Write the plan."""
        table = {f.name: getattr(plan, f.name) for f in fields(plan)}
        table["preset"] = write_table(plan.preset)
        table["sources"] = [{"path": str(s.path), "name": s.name} for s in plan.sources]
        content = orjson.dumps(table, default=str, option=orjson.OPT_INDENT_2)
        write_atomic(self.plan_file, content + b"\n")

    def read_plan(self) -> Plan:
        """Read the plan of this folder."""
        try:
            table = orjson.loads(self.plan_file.read_bytes())
            table["preset"] = preset_from_table(table["preset"])
            table["sources"] = [
                Source.of(row["name"], table["root"], Path(row["path"])) for row in table["sources"]
            ]
            return Plan(**{f.name: table[f.name] for f in fields(Plan)})
        except (OSError, ValueError, KeyError) as error:
            raise RunProblem(f"{self.plan_file}: {error}") from error

    def remove(self) -> None:
        """Delete the folder."""
        remove_folder(self.path)


def open_plan(options: TrainOptions, report: Report) -> None:
    """Write the plan of a new run, or add this command to the plan of an unfinished one.

    Raises UsageProblem when an unfinished run is in the way, or is a different one.
    """
    command, work = shlex.join(["ramctl", *options.argv]), options.work
    if not work.path.exists():
        if options.resume:
            report.notify(f"nothing to resume in {work.path}: a new run")
        work.path.mkdir()
        try:
            work.write_plan(_new_plan(options, command))
        except BaseException:
            work.remove()
            raise
        return
    if not options.resume:
        choice = "--resume continues it; delete the folder to start anew"
        raise UsageProblem(f"{work.path} holds an unfinished run: {choice}")
    plan = work.read_plan()
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


def _new_plan(options: TrainOptions, command: str) -> Plan:
    preset = _new_preset(options)
    keeps_labels = options.init is not None and options.labels is None
    if problems := "; ".join(contradictions(preset, keeps_labels=keeps_labels)):
        raise UsageProblem(problems)
    return Plan(
        command=options.command,
        preset=preset,
        sources=sources_of(options, options.work.path),
        commands=[command],
        **{f.name: getattr(options, f.name) for f in fields(RunPaths)},
    )


def contradictions(preset: Preset, *, keeps_labels: bool) -> Iterator[str]:
    """The problems of the losses of a run, which may start from a tagger whose labels it keeps."""
    config, captioning = preset.training, preset.model.captioning
    has_classes = preset.model.prior is not None and preset.model.prior.classes > 0
    has_captions = captioning is not None and config.caption_weight > 0
    if has_classes and preset.model.labels.kind == "learnt":
        yield "learnt label queries have no text for the ImageNet classes: model.prior.classes=0"
    if config.captions_alone:
        shares_weights = captioning is not None and captioning.tie_tag_decoder
        if not (has_captions and keeps_labels) or shares_weights or config.backbone_lr_factor:
            yield (
                "training.tag_weight = 0 trains captions alone: it needs a tagger with these "
                "labels to start from, a captioning branch with weights of its own and a loss, and "
                "training.backbone_lr_factor = 0"
            )
        return
    # Files of scores are in the targets already.
    teachers = [name.partition(":")[0] for name in config.distill if not name.startswith(SCORES)]
    for name in sorted({*teachers} - {"caption", "imagenet", "clip"}):
        yield f"--distill {name}: known are clip:FOLDER, caption, imagenet, scores:FILE, none"
    if not has_classes and ("imagenet" in teachers or config.classes_weight):
        yield "without model.prior.classes: --distill caption, and training.classes_weight=0"
    if teachers and preset.model.prior is None and not preset.model.encoder.mean_token:
        yield "--distill needs a model with a global feature"
    if ("clip" in teachers or config.alignment_weight) and not clip_place(config.distill):
        yield "--distill clip and training.alignment_weight need a folder: --distill clip:FOLDER"
    if config.loss == "ram-official":
        has_more = len(teachers) > 1 or config.classes_weight or config.decouple_own
        if has_more or not (has_captions or config.objective == "ram-plus"):
            yield (
                "training.loss ram-official needs the captioning branch and its loss, one teacher "
                "at most, training.classes_weight=0 and decouple_own=false"
            )


def _check_resumed(options: TrainOptions, plan: Plan) -> None:
    """UsageProblem when options beside `--resume` contradict the unfinished run."""
    names = {f.name for f in fields(RunPaths) if getattr(options, f.name) is not None}
    names -= {*options.inherited}  # `finetune` has a default model
    others = [
        "--model" if name == "init" else f"--{name}"
        for name in sorted(names)
        if getattr(options, name) != getattr(plan, name)
    ]
    if options.inputs and list(options.inputs) != [source.name for source in plan.sources]:
        others.append("the records")
    preset = plan.preset if options.preset is None else load_preset(options.preset)
    if preset.name != plan.preset.name or _with_options(plan.preset, options) != plan.preset:
        others.append("settings (--preset, --set, --steps, --epochs, --seed, --distill)")
    if others:
        raise UsageProblem(
            f"the unfinished run differs in {', '.join(others)}; leave them out to resume"
        )


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
