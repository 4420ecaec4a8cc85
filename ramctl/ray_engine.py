"""`--ray`: the shards of an input on a Ray cluster, one machine or many.

Each shard is a Ray task, which Ray runs again elsewhere when its process or machine is lost. A task
runs the command with one input file and one output file, so that order, rejects, locks and resuming
are those of the command itself. All machines see the same files.
"""

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any, Self

from ramctl.errors import RamctlError, RunProblem, UsageProblem
from ramctl.parts import needs
from ramctl.records.files import move_into_place, output_lock, part_path, state_path, write_atomic
from ramctl.records.inputs import require_files
from ramctl.records.pipes import STDIN
from ramctl.records.record import JsonObject, shown_name
from ramctl.records.report import Report
from ramctl.records.shards import RayRules, Shard
from ramctl.records.state import OtherRun, recorded_fingerprint

RETRIES = 3  # of a shard whose process has died
RECORDS = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".tar")
Outcome = JsonObject | str | UsageProblem  # the counts of a complete shard, or why it is not


def run_shard(module: str, folder: str, options: Any) -> Outcome:
    """Run the command of a module on one shard, in the process of a Ray task."""
    os.chdir(folder)
    command, output = import_module(module), options.stream.output
    stats: JsonObject
    try:
        if output is None:
            stats = command.run(options).stats()
            return stats
        with output_lock(output), _state_in_place(output):
            stats = command.run(_continuing(options)).stats()
            for path in (output, Path(options.stream.rejects)):
                if not path.exists():  # continued, with nothing left to write
                    write_atomic(path, b"")
            return stats
    except OtherRun as problem:
        what = f"{output}: made with another {problem.what}"
        return UsageProblem(f"{what}; remove it to have it made anew, or name another folder")
    except RamctlError as problem:
        return problem.message
    except OSError as problem:
        return f"{problem.filename}: {problem.strerror or problem}"


def _kept_state(output: Path) -> Path:
    """The state of a complete shard: not among the outputs, as `*.jsonl` would match it."""
    return output.parent / "states" / state_path(output).name


@contextmanager
def _state_in_place(output: Path) -> Iterator[None]:
    """Have a shard's state beside its output for a block, or until the shard is complete."""
    kept, state = _kept_state(output), state_path(output)
    if kept.exists():
        kept.replace(state)
    try:
        yield
    finally:
        if state.exists() and not part_path(output).exists():
            kept.parent.mkdir(exist_ok=True)
            move_into_place(state, kept)


def _continuing(options: Any) -> Any:
    """The options with `--resume` where there is a part; not if its input has changed since."""
    output, source = options.stream.output, Path(options.inputs[0])
    facts, made = source.stat(), recorded_fingerprint(output)
    now = {
        "input": shown_name(str(source.resolve())),
        "version of the input": f"{facts.st_size}-{facts.st_mtime_ns}",
    }
    changed = [name for name in now if made.get(name) != now[name]]
    is_there = output.exists() or part_path(output).exists()
    resume = bool(made) and is_there and changed != ["version of the input"]
    return replace(options, stream=replace(options.stream, resume=resume, made_from=now))


def _require_ours(shard: Any, inputs: Collection[Path]) -> None:
    """UsageProblem where an output of a shard would replace an input or a file of the user's."""
    output, rejects = shard.stream.output, Path(shard.stream.rejects)
    is_known = state_path(output).exists() or _kept_state(output).exists()
    for path in (output, part_path(output), rejects, part_path(rejects)):
        if path.resolve() in inputs:
            raise UsageProblem(f"{path} is an input: name another folder with -o")
        if path.exists() and not is_known:
            raise UsageProblem(f"{path} is no output of this command: name another folder with -o")


@dataclass(frozen=True, slots=True)
class Resources:
    """The cores and GPUs of a task, and the number of tasks at the same time."""

    number: int
    cores: int
    gpus: int

    @classmethod
    def plan(cls, options: Any, rules: RayRules, cluster: dict[str, float], n_shards: int) -> Self:
        """A GPU a task where there are GPUs and a model that may use them, else its cores."""
        n_cores, n_gpus = max(1, int(cluster.get("CPU", 1))), 0
        if rules.model is None:
            requested = options.workers
        else:
            model = getattr(options, rules.model)
            requested = model.threads
            if model.device.split(":")[0] in ("auto", "cuda"):
                n_gpus = int(cluster.get("GPU", 0))
        cores = requested or (max(1, n_cores // n_gpus) if n_gpus else 1)
        number = n_gpus or max(1, n_cores // cores)
        return cls(max(1, min(number, n_shards)), min(cores, n_cores), int(n_gpus > 0))

    def keep_to(self, options: Any, rules: RayRules) -> Any:
        """The options of a command that uses these cores and no others."""
        if rules.model is None:
            return options
        model = getattr(options, rules.model)
        # Ray shows a task its GPU alone, whatever its number.
        device = "cuda" if self.gpus and model.device != "auto" else model.device
        jobs = model.workers or self.cores
        model = replace(model, device=device, threads=self.cores, workers=jobs)
        return replace(options, **{rules.model: model})


def run(module: str, command: str, options: Any) -> Report:
    """Run or continue a command on every shard; the report of all."""
    stream, rules = options.stream, import_module(module).RAY
    _check(options, rules)
    report = Report(command, quiet=options.quiet)
    shards = [] if rules.in_work_folder else list(_shards(options, rules))
    inputs = {Path(name).resolve() for name in options.inputs}
    for shard in shards:
        _require_ours(shard, inputs)
    with _cluster(stream.ray) as ray:
        for shard in shards:
            Path(shard.stream.rejects).parent.mkdir(parents=True, exist_ok=True)
        size = Resources.plan(options, rules, ray.cluster_resources(), len(shards) or 1 << 30)
        report.device = f"{size.number} workers of {size.cores} cores, {size.gpus} GPUs"
        shards = shards or list(_parts(options, size.number))
        remote = ray.remote(num_cpus=size.cores, num_gpus=size.gpus, max_retries=RETRIES)
        task = partial(remote(run_shard).remote, module, os.getcwd())  # noqa: PTH109
        n_failed = 0
        with report.progress(stream.progress, unit="shards", total=len(shards)) as advance:
            # Complete ones first: if they were made with other settings, nothing new is made.
            complete = [one for one in shards if one.stream.output and one.stream.output.exists()]
            for some in (complete, [one for one in shards if one not in complete]):
                tasks = [task(size.keep_to(one, rules)) for one in some]
                for outcome in _outcomes(ray, tasks):
                    n_failed += not _count(outcome, report)
                    advance(1)
    if n_failed:
        raise RunProblem(f"{n_failed} shards failed; the same command does what is missing")
    report.finish(stream.stats)
    return report


def _outcomes(ray: Any, tasks: list[Any]) -> Iterator[Outcome]:
    """The outcome of each task, as soon as it is complete."""
    while tasks:
        (done,), tasks = ray.wait(tasks)
        try:
            yield ray.get(done)
        except ray.exceptions.RayError as error:
            yield f"a worker failed: {str(error).strip().splitlines()[-1]}"


def _count(outcome: Outcome, report: Report) -> bool:
    """Add the counts of a shard to the report; False where it failed."""
    if isinstance(outcome, UsageProblem):
        raise outcome
    if isinstance(outcome, str):
        report.warn(outcome)
        return False
    report.n_in += outcome["in"]
    report.n_out += outcome["out"]
    report.n_skipped += outcome["skipped"]
    report.n_rejected_before += outcome["rejected_before"]
    report.rejects.update(outcome["rejects"])
    report.unit = outcome["unit"]
    return True


def _check(options: Any, rules: RayRules) -> None:
    """UsageProblem for what cannot be shared."""
    stream, usual = options.stream, type(options)()
    refused = {
        "--retry-rejects": stream.retry_rejects, "--max-time": stream.max_time,
        "--shard": not stream.shard.is_all,
    }  # fmt: skip
    for option, name in rules.alone.items():
        refused[option] = attrgetter(name)(options) != attrgetter(name)(usual)
    if rules.in_work_folder:
        if options.stage != "detect":
            raise UsageProblem("--ray needs --stage detect: the other stages are one run")
    elif stream.output is None:
        raise UsageProblem("--ray needs -o DIR, a folder for an output a shard")
    else:
        refused["--rejects"] = stream.rejects
    for option in (option for option, is_given in refused.items() if is_given):
        raise UsageProblem(f"{option} does not go with --ray")
    if not options.inputs or STDIN in options.inputs:
        raise UsageProblem("--ray reads files that all machines see, not standard input")
    require_files(options.inputs)
    for name in options.inputs:
        is_other = rules.photos and not name.lower().endswith(RECORDS)
        if is_other or not Path(name).is_file():
            raise UsageProblem(f"--ray works on shards, JSONL files and tars: {name} is neither")


def _shards(options: Any, rules: RayRules) -> Iterator[Any]:
    """The options of each input alone, with the files that it becomes."""
    folder, form = options.stream.output, (rules.photos and options.format) or "jsonl"
    names_by_stem: dict[str, str] = {}
    for name in options.inputs:
        suffix = next((end for end in RECORDS if name.lower().endswith(end)), "")
        stem = Path(name).name[: -len(suffix) or None]
        if other := names_by_stem.get(stem):
            raise UsageProblem(f"{other} and {name} would become one output, {stem}.{form}")
        names_by_stem[stem] = name
        stream = replace(
            options.stream, output=folder / f"{stem}.{form}", stats=None, progress=False,
            rejects=str(folder / "rejects" / f"{stem}.jsonl"),
        )  # fmt: skip
        yield replace(options, inputs=(name,), stream=stream, quiet=True)


def _parts(options: Any, number: int) -> Iterator[Any]:
    """The options of so many parts of all inputs, which fill one work folder."""
    stream = replace(options.stream, stats=None, progress=False)
    for index in range(1, number + 1):
        yield replace(options, stream=replace(stream, shard=Shard(index, number)), quiet=True)


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster; `local` starts one that ends with the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    try:
        import ray
    except ImportError as error:
        raise RunProblem(needs("--ray", "ray")) from error
    settings: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **settings)
    except Exception as error:  # ConnectionError, ValueError, RuntimeError, Exception itself
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunProblem(f"--ray {address}: {reason}") from error
    try:
        yield ray
    finally:
        ray.shutdown()
