"""`--ray`: the shards of an input on the workers of a Ray cluster, one machine or many.

Ray starts processes, hands them shards and says which have died. All else is the commands'
own: a worker runs the command with one shard as its input and one file as its output, so that
order, rejects, locks and resuming are those of one process. (Ray Data would take the records of a
shard apart and leave open what is complete.) All machines see the same files.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from ramctl.errors import RamctlError, RunProblem, UsageProblem
from ramctl.records.files import part_path, state_path, write_atomic
from ramctl.records.inputs import STDIN
from ramctl.records.record import JsonObject
from ramctl.records.report import Report
from ramctl.records.shards import ALL, Shard

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

    def do(self, options: Any) -> JsonObject | str:
        """The counts of a shard that is complete now, or why it is not."""
        output = options.stream.output
        try:
            self._run = self._run or self._module.loaded(options)
            report = self._run(options if output is None else _continuing(options))
        except RamctlError as problem:
            return problem.message
        except OSError as problem:
            return f"{problem.filename}: {problem.strerror or problem}"
        if output is not None:
            for path in (output, Path(options.stream.rejects)):
                if not path.exists():  # continued, with nothing left to write
                    write_atomic(path, b"")
            state_path(output).unlink(missing_ok=True)
        return report.stats()


def _continuing(options: Any) -> Any:
    """The options with `--resume` where a worker that died has left something."""
    output = options.stream.output
    begun = any(path.exists() for path in (part_path(output), state_path(output)))
    return replace(options, stream=replace(options.stream, resume=begun))


def is_complete(output: Path) -> bool:
    """Whether a shard is done; its state is removed last."""
    unfinished = (state_path(output), part_path(output))
    return output.exists() and not any(path.exists() for path in unfinished)


@dataclass(frozen=True, slots=True)
class Resources:
    """What one of `number` workers has."""

    number: int
    cores: int
    gpus: int

    @classmethod
    def shared(cls, options: Any, cluster: dict[str, float], n_shards: int) -> "Resources":
        """A GPU a worker where there are GPUs and a model that may use them, else its cores."""
        model = _model_options(options)
        device = "cpu" if model is None else model[1].device
        n_cores = max(1, int(cluster.get("CPU", 1)))
        n_gpus = int(cluster.get("GPU", 0)) if device.split(":")[0] in ("auto", "cuda") else 0
        asked = options.workers if model is None else model[1].threads
        cores = asked or (max(1, n_cores // n_gpus) if n_gpus else 1)
        number = n_gpus or max(1, n_cores // cores)
        return cls(max(1, min(number, n_shards)), min(cores, n_cores), int(n_gpus > 0))

    def given_to(self, options: Any) -> Any:
        """The options of a command that keeps to these cores."""
        model = _model_options(options)
        if model is None:
            return options
        # Ray shows a worker its own GPU only, whatever its number.
        device = "cuda" if self.gpus and model[1].device != "auto" else model[1].device
        jobs = model[1].workers or self.cores
        own = replace(model[1], device=device, threads=self.cores, workers=jobs)
        return replace(options, **{model[0]: own})


def _model_options(options: Any) -> tuple[str, Any] | None:
    """The name and the value of the field that says how a command's model runs."""
    found = [name for name in ("tagger", "baseline") if hasattr(options, name)]
    return (found[0], getattr(options, found[0])) if found else None


def run(module: str, command: str, options: Any) -> Report:
    """Run a command on every shard that is not complete; the report of all.

    RunProblem at the end when shards failed; those that are complete stay.
    """
    stream = options.stream
    _check(command, options)
    report = Report(command, quiet=options.quiet)
    shards = [] if command == "clean" else list(_shards(options))
    todo = [one for one in shards if not is_complete(one.stream.output)]
    if len(todo) < len(shards):
        report.say(f"{len(shards) - len(todo)} of {len(shards)} shards are complete")
    if todo or not shards:
        failed = _run_on_cluster(module, todo, options, report)
        if failed:
            raise RunProblem(f"{failed} shards failed; the same command does what is missing")
    report.finish(stream.stats)
    return report


def _run_on_cluster(module: str, todo: list[Any], options: Any, report: Report) -> int:
    """Run the shards, add up their counts; how many failed."""
    with _cluster(options.stream.ray) as ray:
        for task in todo:
            Path(task.stream.rejects).parent.mkdir(parents=True, exist_ok=True)
        each = Resources.shared(options, ray.cluster_resources(), len(todo) or 1 << 30)
        tasks = todo or list(_parts(options, each.number))
        kind = ray.remote(num_cpus=each.cores, num_gpus=each.gpus)(Worker)
        start = partial(kind.remote, module, os.getcwd())  # noqa: PTH109
        report.device = f"{each.number} workers of {each.cores} cores, {each.gpus} GPUs"
        outcomes = _outcomes(ray, start, each.number, map(each.given_to, tasks), report.say)
        failed = 0
        with report.progress(options.stream.progress, unit="shards", total=len(tasks)) as advance:
            for found in outcomes:
                failed += isinstance(found, str)
                _count(report, found)
                advance(1)
    return failed


def _outcomes(
    ray: Any,
    start: Callable[[], Any],
    number: int,
    tasks: Iterable[Any],
    say: Callable[[str], None],
) -> Iterator[JsonObject | str]:
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
        worker, own = busy.pop(done)
        found: JsonObject | str = ""
        try:
            found = ray.get(done)
            free.append(worker)
        except ray.exceptions.RayActorError as error:
            if own is None and not starts_left:
                raise RunProblem(f"workers do not start: {_last_line(error)}") from error
            starts_left -= own is None
            start_one()
            if own is not None and own[1]:
                say("a worker died; its shard goes to another one")
                waiting.appendleft((own[0], own[1] - 1))
                continue
            found = f"workers died: {_last_line(error)}"
        except ray.exceptions.RayError as error:
            found = f"a worker failed: {_last_line(error)}"
            free.append(worker)
        if own is not None:
            n_left -= 1
            yield found


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


def _count(report: Report, found: JsonObject | str) -> None:
    if isinstance(found, str):
        report.warn(found)
        return
    report.n_in += found["in"]
    report.n_out += found["out"]
    report.n_skipped += found["skipped"]
    report.n_rejected_before += found["rejected_before"]
    report.rejects.update(found["rejects"])
    report.unit = found["unit"]


def _check(command: str, options: Any) -> None:
    """UsageProblem for what cannot be shared."""
    stream = options.stream
    names = ("group", "build_labels", "gallery", "xmp_remove", "page", "prune")
    refused = {f"--{name.replace('_', '-')}": getattr(options, name, None) for name in names}
    refused |= {"--retry-rejects": stream.retry_rejects, "--max-time": stream.max_time}
    refused["--report"] = refused.pop("--page")
    refused["--to ram"] = getattr(options, "target_format", "jsonl") == "ram"
    refused["--shard"] = stream.shard != ALL
    if command == "clean":
        if options.stage != "detect":
            raise UsageProblem("--ray needs --stage detect: the other stages are one run")
    elif stream.output is None:
        raise UsageProblem("--ray needs -o DIR, a folder for an output a shard")
    else:
        refused["--rejects"] = stream.rejects
    for name in (name for name, given in refused.items() if given):
        raise UsageProblem(f"{name} does not go with --ray")
    if not options.inputs or STDIN in options.inputs:
        raise UsageProblem("--ray reads files that all machines see, not standard input")
    for name in options.inputs:
        if not Path(name).is_file():
            raise RunProblem(f"{name}: no such file")
        if command == "tag" and not name.lower().endswith(RECORDS):
            raise UsageProblem(f"--ray works on shards, JSONL files and tars: {name} is neither")


def _shards(options: Any) -> Iterator[Any]:
    """The options of each input alone, with the files that it becomes."""
    folder, form = options.stream.output, getattr(options, "form", "") or "jsonl"
    taken: dict[str, str] = {}
    for name in options.inputs:
        suffix = next((end for end in RECORDS if name.lower().endswith(end)), "")
        stem = Path(name).name
        stem = stem[: len(stem) - len(suffix)]
        if other := taken.get(stem):
            raise UsageProblem(f"{other} and {name} would become one output, {stem}.{form}")
        taken[stem] = name
        stream = replace(
            options.stream, output=folder / f"{stem}.{form}", stats=None, progress=False,
            rejects=str(folder / "rejects" / f"{stem}.jsonl"),
        )  # fmt: skip
        yield replace(options, inputs=(name,), stream=stream, quiet=True)


def _parts(options: Any, number: int) -> Iterator[Any]:
    """The options of each share of a work folder."""
    for index in range(1, number + 1):
        stream = replace(options.stream, shard=Shard(index, number), stats=None, progress=False)
        yield replace(options, stream=stream, quiet=True)


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster; `local` starts one that ends with the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    try:
        import ray
    except ImportError as error:
        raise RunProblem("--ray needs the extra: pip install 'ramctl[ray]'") from error
    own: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **own)
    except Exception as error:  # ConnectionError, ValueError, RuntimeError, Exception itself
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunProblem(f"--ray {address}: {reason}") from error
    try:
        yield ray
    finally:
        ray.shutdown()
