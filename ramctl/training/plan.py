"""A run's beginning: what the command line asks for becomes a plan, or meets an unfinished one."""

from dataclasses import dataclass, replace
from pathlib import Path

from ramctl.checkpoints.bundle import Bundle, resolve_model
from ramctl.errors import UsageProblem
from ramctl.model.config import (
    Preset,
    finetuning_preset,
    load_preset,
    override_preset,
    preset_from_table,
    preset_to_table,
)
from ramctl.records.inputs import STDIN, named_or_stdin, require_files
from ramctl.records.report import Report
from ramctl.training.assembly import with_run_options
from ramctl.training.distributed import is_torchrun
from ramctl.training.publish import command_line
from ramctl.training.work_folder import Plan, WorkFolder, check_same

DEFAULT_PRESET = "mini"


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What the command line asks for."""

    command: str
    argv: tuple[str, ...]
    inputs: tuple[str, ...]
    out: Path
    preset: str | None = None
    overrides: tuple[str, ...] = ()
    init: str | None = None
    labels: str | None = None
    val: str | None = None
    root: str | None = None
    text: str | None = None
    cache: str | None = None
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
    tensorboard: Path | None = None
    compile: bool = False
    dry_run: bool = False
    progress: bool | None = None


def open_plan(options: TrainOptions, work: WorkFolder, report: Report) -> None:
    """Write the plan of a new run, or add this command to that of an unfinished one.

    Raises UsageProblem when an unfinished run is in the way, or is another one.
    """
    commands = [command_line(list(options.argv))]
    if work.prepare(resume=options.resume, restart=options.restart):
        plan = work.read_plan()
        _check_resumed(options, plan)
        report.say(f"resuming {work.path}")
        work.write_plan(replace(plan, commands=[*plan.commands, *commands]))
        return
    try:
        work.write_plan(_new_plan(options, work, commands))
    except BaseException:
        work.remove()
        raise


def _new_plan(options: TrainOptions, work: WorkFolder, commands: list[str]) -> Plan:
    preset = _with_options(_base_preset(options), options)
    inputs = named_or_stdin(options.inputs, "JSONL files of parsed records")
    require_files(inputs)
    if is_torchrun() and STDIN in inputs:
        raise UsageProblem("several processes cannot share stdin: name the records' files")
    return Plan(
        command=options.command,
        preset=preset_to_table(preset),
        sources=work.take_inputs(inputs, options.root),
        labels=options.labels,
        val=options.val,
        root=options.root,
        init=options.init,
        text=options.text,
        cache=options.cache,
        commands=commands,
    )


def _check_resumed(options: TrainOptions, plan: Plan) -> None:
    """UsageProblem when what was given beside `--resume` contradicts the unfinished run."""
    check_same(plan, {name: getattr(options, name) for name in ("labels", "val", "init", "text")})
    names = [source["name"] for source in plan.sources]
    if options.inputs and list(options.inputs) != names:
        raise UsageProblem(f"the unfinished run reads {', '.join(names)}; name these or none")
    preset = preset_from_table(plan.preset)
    named = preset if options.preset is None else load_preset(options.preset)
    if named.name != preset.name or _with_options(preset, options) != preset:
        raise UsageProblem(
            "the unfinished run has other numbers than --preset, --set, --steps, --epochs, --seed "
            "and --distill say: leave them out to resume, or begin anew with --restart"
        )


def _base_preset(options: TrainOptions) -> Preset:
    if options.preset is None and options.init is not None:
        preset = Bundle.open(resolve_model(options.init)).preset
    else:
        preset = load_preset(options.preset or DEFAULT_PRESET)
    return finetuning_preset(preset) if options.command == "finetune" else preset


def _with_options(preset: Preset, options: TrainOptions) -> Preset:
    return with_run_options(
        override_preset(preset, options.overrides),
        steps=options.steps,
        epochs=options.epochs,
        seed=options.seed,
        distill=options.distill,
    )
