"""What a run is asked to do: the command's options, and the plan that `--resume` reads again."""

import secrets
import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import orjson

from ramctl.checkpoints.bundle import META, Bundle, resolve_model
from ramctl.errors import HIDDEN, RunProblem, UsageProblem, without_secrets
from ramctl.model.config import (
    Preset,
    change_preset,
    finetuning_preset,
    load_preset,
    override_preset,
    preset_from_table,
    preset_to_table,
)
from ramctl.records.files import is_url, work_path, write_atomic
from ramctl.records.inputs import STDIN, named_or_stdin, require_files
from ramctl.records.ownership import require_ours
from ramctl.records.report import Report
from ramctl.tagger_scores import PREFIX as SCORES
from ramctl.training.checkpoint_store import (
    BEST,
    CHECKPOINTS,
    FEATURES,
    PLAN,
    RUN,
    CheckpointStore,
)
from ramctl.training.data.record_file import Source, spool
from ramctl.training.distributed import is_torchrun
from ramctl.training.encoder_weights import with_encoder

DEFAULT_PRESET = "mini"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPaths:
    """What a run reads besides its records, and how much of these, as the user said it."""

    labels: str | None = None
    val: str | None = None
    root: str | None = None
    init: str | None = None
    text: str | None = None
    vocab: str | None = None
    cache: str | None = None
    max_line: int | None = None  # bytes of a JSONL line


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions(RunPaths):
    """What `ramctl train` or `finetune` is asked for; the defaults are those of `train`."""

    command: str = "train"  # or `finetune`: the preset's settings for that
    argv: tuple[str, ...] = ()  # the command line, for the bundle's provenance
    inputs: tuple[str, ...] = ()  # none or `-`: stdin
    out: Path = Path("model")
    preset: str | None = None
    overrides: tuple[str, ...] = ()
    distill: tuple[str, ...] = ()
    encoder: str | None = None
    steps: int | None = None
    epochs: float | None = None
    seed: int | None = None
    resume: bool = False
    restart: bool = False
    save_every: int | None = None
    val_every: int | None = None
    keep: tuple[str, ...] = ()  # epochs: a bundle of each; best: that of the best validation
    checkpoints: str | None = None  # URL or folder of copies
    max_time: float | None = None
    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None
    workers: int | None = None
    rejects: str | None = None
    strict: bool = False
    events: Path | None = None
    tensorboard: Path | None = None
    wandb: str | None = None  # the project
    compile: bool = False
    dry_run: bool = False
    stats: Path | None = None
    progress: bool | None = None
    quiet: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(RunPaths):
    """All that decides a run's result: written once, read again by `--resume`."""

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
        self.best = self.path / BEST  # the bundle of the best validation so far
        self.features = self.path / FEATURES  # unless `--cache` names a folder

    def is_finished(self) -> bool:
        """Whether the bundle is written and nothing is left to do."""
        return not RUN.is_on(self.path) and (self.out / META).is_file()

    def has_progress(self) -> bool:
        """Whether the folder holds something that took long to compute."""
        made = [*self.checkpoints.glob("*"), *self.features.glob("*"), *self.path.glob("*.f16")]
        return bool(made)

    def write_plan(self, plan: Plan) -> None:
        """Write it without the secrets in its URLs, which are for who gives them again."""
        table = {f.name: getattr(plan, f.name) for f in fields(plan)}
        table["preset"] = preset_to_table(plan.preset)
        table["sources"] = [{"path": str(one.path), "name": one.name} for one in plan.sources]
        # str is for paths.
        content = orjson.dumps(table, default=str, option=orjson.OPT_INDENT_2)
        text = without_secrets(content.decode())
        write_atomic(self.plan_file, text.encode() + b"\n")

    def read_plan(self, options: TrainOptions) -> Plan:
        """The plan of the run in this folder; the secrets of its URLs are those of the options."""
        try:
            return _plan_of(self.plan_file.read_bytes(), options)
        except (OSError, ValueError, KeyError) as error:
            raise RunProblem(f"{self.plan_file}: {error}; use --restart") from error

    def wandb_id(self) -> str:
        """What the run is called at Weights & Biases, also when it is resumed."""
        kept = self.path / "wandb.id"
        if not kept.is_file():
            write_atomic(kept, secrets.token_hex(4).encode("ascii"))
        return kept.read_text("ascii")

    def make(self) -> None:
        """Make the folder, with its mark."""
        RUN.put_on(self.path)

    def remove(self) -> None:
        """Delete the folder, but for files that no run has made."""
        RUN.remove(self.path)


def _plan_of(content: bytes, options: TrainOptions) -> Plan:
    """A stored plan, whose URLs have the secrets of those that were given."""
    table = orjson.loads(content)
    given = [*options.inputs, options.root, options.val]
    whole = {without_secrets(name): name for name in given if name}
    names = [row["name"] for row in table["sources"]]
    for name in (*names, table["root"], table["val"]):
        if name and is_url(name) and HIDDEN in name and name not in whole:
            raise UsageProblem(f"{name}: its secrets are not kept: name it again beside --resume")
    table |= {name: whole.get(table[name], table[name]) for name in ("root", "val")}
    table["preset"] = preset_from_table(table["preset"])
    table["sources"] = [
        Source.of(whole.get(row["name"], row["name"]), table["root"], Path(row["path"]))
        for row in table["sources"]
    ]
    return Plan(**{f.name: table[f.name] for f in fields(Plan)})


def open_plan(
    options: TrainOptions, work: WorkFolder, report: Report, store: CheckpointStore | None = None
) -> None:
    """Write the plan of a new run, or add this command to that of an unfinished one.

    That may be one in the store, which then is newer than the work folder, or all there is. Raises
    UsageProblem when an unfinished run is in the way, or is a different one.
    """
    command = shlex.join(["ramctl", *options.argv])
    require_ours(work.path, RUN)
    if store is not None:
        store.require_ours()
    if options.restart:
        if work.path.exists():
            work.remove()
        if store is not None:
            store.remove()
    stored = store if store is not None and store.has_run() else None
    for place in (work.path if work.path.exists() else None, stored.url if stored else None):
        if place is not None and not options.resume:
            raise UsageProblem(
                f"{place} holds an unfinished run: --resume continues it, --restart discards it"
            )
    if stored is not None and not work.plan_file.is_file() and work.path.exists():
        work.remove()  # it is being fetched again
    if not work.path.exists():
        if options.resume and stored is None:
            where = f" or {store.url}" if store is not None else ""
            report.say(f"nothing to resume in {work.path}{where}: a new run")
        work.make()
        try:
            plan = _stored_plan(options, work, stored) if stored else None
            work.write_plan(plan or _new_plan(options, work, command))
        except BaseException:
            work.remove()
            raise
        if stored is None:
            return
    if not work.plan_file.is_file():
        raise RunProblem(
            f"{work.path}: no {PLAN}: the earlier run failed during set-up; use --restart"
        )
    plan = work.read_plan(options)
    _check_resumed(options, plan)
    if stored is not None:
        if _identity(_read_stored(stored, options)) != _identity(plan):
            raise UsageProblem(f"{stored.url} holds another run than {work.path}")
        stored.fetch_checkpoint(report.say)
    report.say(f"resuming {work.path}" + (f", from {stored.url}" if stored else ""))
    work.write_plan(replace(plan, commands=[*plan.commands, command]))


def _read_stored(store: CheckpointStore, options: TrainOptions) -> Plan:
    try:
        return _plan_of(store.read_plan(), options)
    except (ValueError, KeyError) as error:
        raise RunProblem(f"{store.url}/{PLAN}: {error}; use --restart") from error


def _stored_plan(options: TrainOptions, work: WorkFolder, store: CheckpointStore) -> Plan:
    """The plan of a run that is only in the store: its other files are fetched, and its records
    copied anew where they cannot be read by offset."""
    plan = _read_stored(store, options)
    _check_resumed(options, plan)
    store.fetch_run_files()
    named_or_stdin([source.name for source in plan.sources], "the run's records")
    sources = []
    for source in plan.sources:
        require_files([source.name])
        copy = spool(source.name, work.path)
        sources.append(replace(source, path=copy or Path(source.name)))
    return replace(plan, sources=sources)


def _identity(plan: Plan) -> Plan:
    """What two plans of one run have in common, wherever it goes on."""
    sources = [replace(source, path=Path(source.name)) for source in plan.sources]
    return replace(plan, sources=sources, commands=[])


def _new_plan(options: TrainOptions, work: WorkFolder, command: str) -> Plan:
    if options.preset is None and options.init is not None:
        preset = _without_scores(Bundle.open(resolve_model(options.init)).preset)
    else:
        preset = load_preset(options.preset or DEFAULT_PRESET)
    if options.command == "finetune":
        preset = finetuning_preset(preset)
    preset = _with_options(preset, options)
    inputs = named_or_stdin(options.inputs, "JSONL files of parsed records")
    require_files(inputs)
    if is_torchrun() and STDIN in inputs:
        raise UsageProblem("several processes cannot share stdin: name the records' files")
    return Plan(
        command=options.command,
        preset=preset,
        sources=[Source.of(name, options.root, spool(name, work.path)) for name in inputs],
        commands=[command],
        **{f.name: getattr(options, f.name) for f in fields(RunPaths)},
    )


def _without_scores(preset: Preset) -> Preset:
    """A bundle's preset without the files of scores that taught it: they are not its user's."""
    teachers = [n for n in preset.training.losses.distill if not n.startswith(SCORES)]
    return change_preset(preset, {"training": {"distill": teachers}})


def _check_resumed(options: TrainOptions, plan: Plan) -> None:
    """UsageProblem when what was given beside `--resume` contradicts the unfinished run."""
    for name in (field.name for field in fields(RunPaths)):
        given, planned = getattr(options, name), getattr(plan, name)
        if given is not None and given != planned:
            option = f"--{name.replace('_', '-')}"
            has = f"no {option}" if planned is None else f"{option} {planned}"
            raise UsageProblem(
                f"the unfinished run has {has}, not {given}: leave it out to resume, "
                "or start over with --restart"
            )
    names = [source.name for source in plan.sources]
    if options.inputs and list(options.inputs) != names:
        raise UsageProblem(f"the unfinished run reads {', '.join(names)}; name these or none")
    named = plan.preset if options.preset is None else load_preset(options.preset)
    if named.name != plan.preset.name or _with_options(plan.preset, options) != plan.preset:
        raise UsageProblem(
            "the unfinished run has other settings than --preset, --encoder, --set, --steps, "
            "--epochs, --seed and --distill say: leave them out to resume, or start over with "
            "--restart"
        )


def _with_options(preset: Preset, options: TrainOptions) -> Preset:
    if options.encoder is not None:
        if options.init is not None:
            raise UsageProblem("--encoder and --init: a bundle brings its own encoder")
        preset = with_encoder(preset, options.encoder)
    if options.vocab is not None and options.init is not None:
        raise UsageProblem("--vocab and --init: a bundle brings its own vocabulary")
    given = {"steps": options.steps, "seed": options.seed}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if options.epochs is not None:
        changes |= {"epochs": options.epochs, "steps": 0}
    if options.distill:
        changes["distill"] = [name for name in options.distill if name != "none"]
    return change_preset(override_preset(preset, options.overrides), {"training": changes})
