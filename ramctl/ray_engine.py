"""`--ray`: the shards of an input on the workers of a Ray cluster, one machine or many.

Ray starts processes, hands them shards and says which have died. All else is the commands'
own: a worker runs the command with one shard as its input and one file as its output, so that
order, rejects, locks and resuming are those of one process. (Ray Data would take the records of a
shard apart and leave open what is complete.) All machines see the same files.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Collection, Iterator
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
from ramctl.records.shards import Shard, Shared
from ramctl.records.state import OtherRun, recorded_fingerprint

RETRIES = 3  # of a shard whose worker has died, and of workers that do not start
RECORDS = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".tar")


class Worker:
    """Runs a command on shards in a process of its own; the model is loaded once."""

    def __init__(self, module: str, folder: str) -> None:
        os.chdir(folder)
        self._module = import_module(module)
        self._run: Callable[[Any], Report] | None = None

    def is_there(self) -> bool:
        """True, once this process runs."""
        return True

    def do(self, options: Any) -> JsonObject | str | UsageProblem:
        """The counts of a shard that is complete now, or why it is not."""
        output = options.stream.output
        try:
            self._run = self._run or self._module.loaded(options)
            if output is None:
                return self._run(options).stats()
            with output_lock(output), _state_in_place(output):
                stats = self._run(_continuing(options)).stats()
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
    """Where the state of a complete shard is: not among the outputs, which `*.jsonl` shall find."""
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
    """The options with `--resume` where there is something; not if its input has changed since."""
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


def _require_own(shard: Any, inputs: Collection[Path]) -> None:
    """UsageProblem where what a shard becomes is an input, or is there and somebody else's."""
    output, rejects = shard.stream.output, Path(shard.stream.rejects)
    is_known = state_path(output).exists() or _kept_state(output).exists()
    for path in (output, part_path(output), rejects, part_path(rejects)):
        if path.resolve() in inputs:
            raise UsageProblem(f"{path} is an input: name another folder with -o")
        if path.exists() and not is_known:
            raise UsageProblem(f"{path} is no output of this command: name another folder with -o")


@dataclass(frozen=True, slots=True)
class Resources:
    """What one of `number` workers has."""

    number: int
    cores: int
    gpus: int

    @classmethod
    def of(cls, options: Any, shared: Shared, cluster: dict[str, float], n_shards: int) -> Self:
        """A GPU a worker where there are GPUs and a model that may use them, else its cores."""
        n_cores, n_gpus = max(1, int(cluster.get("CPU", 1))), 0
        if shared.model is None:
            asked = options.workers
        else:
            model = getattr(options, shared.model)
            asked = model.threads
            if model.device.split(":")[0] in ("auto", "cuda"):
                n_gpus = int(cluster.get("GPU", 0))
        cores = asked or (max(1, n_cores // n_gpus) if n_gpus else 1)
        number = n_gpus or max(1, n_cores // cores)
        return cls(max(1, min(number, n_shards)), min(cores, n_cores), int(n_gpus > 0))

    def keep_to(self, options: Any, shared: Shared) -> Any:
        """The options of a command that uses these cores and no others."""
        if shared.model is None:
            return options
        model = getattr(options, shared.model)
        # Ray shows a worker its own GPU only, whatever its number.
        device = "cuda" if self.gpus and model.device != "auto" else model.device
        jobs = model.workers or self.cores
        model = replace(model, device=device, threads=self.cores, workers=jobs)
        return replace(options, **{shared.model: model})


def run(module: str, command: str, options: Any) -> Report:
    """Run or continue a command on every shard; the report of all."""
    stream, shared = options.stream, import_module(module).SHARED
    _check(options, shared)
    report = Report(command, quiet=options.quiet)
    shards = [] if shared.in_work_folder else list(_shards(options, shared))
    inputs = {Path(name).resolve() for name in options.inputs}
    for one in shards:
        _require_own(one, inputs)
    # Those that are there come first: nothing new is made beside what was made otherwise.
    shards.sort(key=lambda one: not one.stream.output.exists())
    with _cluster(stream.ray) as ray:
        for one in shards:
            Path(one.stream.rejects).parent.mkdir(parents=True, exist_ok=True)
        each = Resources.of(options, shared, ray.cluster_resources(), len(shards) or 1 << 30)
        tasks = shards or [
            replace(
                options, quiet=True,
                stream=replace(stream, shard=Shard(i, each.number), stats=None, progress=False),
            )
            for i in range(1, each.number + 1)
        ]  # fmt: skip
        kind = ray.remote(num_cpus=each.cores, num_gpus=each.gpus)(Worker)
        start = partial(kind.remote, module, os.getcwd())  # noqa: PTH109
        report.device = f"{each.number} workers of {each.cores} cores, {each.gpus} GPUs"
        limited = [each.keep_to(task, shared) for task in tasks]
        failed = 0
        with report.progress(stream.progress, unit="shards", total=len(tasks)) as advance:
            for outcome in _outcomes(ray, start, each.number, limited, report.say):
                if isinstance(outcome, UsageProblem):
                    raise outcome
                if isinstance(outcome, str):
                    failed += 1
                    report.warn(outcome)
                else:
                    report.n_in += outcome["in"]
                    report.n_out += outcome["out"]
                    report.n_skipped += outcome["skipped"]
                    report.n_rejected_before += outcome["rejected_before"]
                    report.rejects.update(outcome["rejects"])
                    report.unit = outcome["unit"]
                advance(1)
    if failed:
        raise RunProblem(f"{failed} shards failed; the same command does what is missing")
    report.finish(stream.stats)
    return report


def _outcomes(
    ray: Any, start: Callable[[], Any], number: int, tasks: list[Any], say: Callable[[str], None]
) -> Iterator[JsonObject | str | UsageProblem]:
    """What comes of each task, as soon as it is there, done by `number` workers.

    Where a worker dies another one starts, and whichever is free does its task. A new one gets none
    before it is there: a machine that is lost takes its cores along, and the others go on. (Ray
    would keep the task for the worker that cannot start.) RunProblem where no worker starts.
    """
    waiting = deque((task, RETRIES) for task in tasks)
    n_left, starts_left = len(waiting), RETRIES
    free: list[Any] = []
    busy: dict[Any, tuple[Any, tuple[Any, int] | None]] = {}

    def start_one() -> None:
        worker = start()
        busy[worker.is_there.remote()] = worker, None

    for _ in range(number):
        start_one()
    while n_left:
        while free and waiting:
            worker, task = free.pop(), waiting.popleft()
            busy[worker.do.remote(task[0])] = worker, task
        (done,), _ = ray.wait(list(busy))
        worker, assigned = busy.pop(done)
        outcome: JsonObject | str | UsageProblem = ""
        try:
            outcome = ray.get(done)
            free.append(worker)
        except ray.exceptions.RayActorError as error:
            if assigned is None and not starts_left:
                raise RunProblem(f"workers do not start: {_last_line(error)}") from error
            starts_left -= assigned is None
            start_one()
            if assigned is not None and assigned[1]:
                say("a worker died; its shard goes to another one")
                waiting.appendleft((assigned[0], assigned[1] - 1))
                continue
            outcome = f"workers died: {_last_line(error)}"
        except ray.exceptions.RayError as error:
            outcome = f"a worker failed: {_last_line(error)}"
            free.append(worker)
        if assigned is not None:
            n_left -= 1
            yield outcome


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


def _check(options: Any, shared: Shared) -> None:
    """UsageProblem for what cannot be shared."""
    stream, usual = options.stream, type(options)()
    refused = {
        "--retry-rejects": stream.retry_rejects, "--max-time": stream.max_time,
        "--shard": not stream.shard.is_all,
    }  # fmt: skip
    for option, name in shared.alone.items():
        refused[option] = attrgetter(name)(options) != attrgetter(name)(usual)
    if shared.in_work_folder:
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
        is_other = shared.photos and not name.lower().endswith(RECORDS)
        if is_other or not Path(name).is_file():
            raise UsageProblem(f"--ray works on shards, JSONL files and tars: {name} is neither")


def _shards(options: Any, shared: Shared) -> Iterator[Any]:
    """The options of each input alone, with the files that it becomes."""
    folder, form = options.stream.output, (shared.photos and options.format) or "jsonl"
    taken: dict[str, str] = {}
    for name in options.inputs:
        suffix = next((end for end in RECORDS if name.lower().endswith(end)), "")
        stem = Path(name).name[: -len(suffix) or None]
        if other := taken.get(stem):
            raise UsageProblem(f"{other} and {name} would become one output, {stem}.{form}")
        taken[stem] = name
        stream = replace(
            options.stream, output=folder / f"{stem}.{form}", stats=None, progress=False,
            rejects=str(folder / "rejects" / f"{stem}.jsonl"),
        )  # fmt: skip
        yield replace(options, inputs=(name,), stream=stream, quiet=True)


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
