"""`--ray`: input files on a Ray cluster, one machine or many.

Each file is a Ray task: the command with one input, one output and `--resume`. Ray runs a task
again elsewhere if its process or machine is lost. All machines see the same files.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ramctl.errors import RamctlError, RunProblem, UsageProblem
from ramctl.records.extras import needs
from ramctl.records.files import hidden_path
from ramctl.records.inputs import require_files
from ramctl.records.record import STDIN
from ramctl.records.report import Report

RETRIES = 3  # of a file whose process has died
RECORDS = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".tar", ".parquet")
# Options that need all records in one run, and those of which each file has its own.
REFUSED = ("shard", "rejects", "group", "build_labels")
Parameters = Mapping[str, Any]  # the values of a command's options, by their names
Run = Callable[[Parameters], Report]  # runs the command


def run_on_cluster(command: str, parameters: Parameters, run: Run) -> Report:
    """Run or continue a command on every input file; the report of all."""
    tasks = list(_tasks(command, parameters))
    report = Report(command, quiet=parameters["quiet"])
    n_failed = 0
    with _cluster(parameters["ray"]) as ray:
        (parameters["output"] / "rejects").mkdir(parents=True, exist_ok=True)
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cores, gpus = resources(parameters, machines)
        report.device = f"{cores} cores and {gpus} GPUs a file"
        settings = engine_settings(parameters, cores, gpus)
        remote = ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=RETRIES)(run_task)
        with report.progress(unit="files", total=len(tasks)) as advance:
            running = [remote.remote(run, Path.cwd(), task | settings) for task in tasks]
            while running:
                (done,), running = ray.wait(running)
                n_failed += not _is_counted(ray, done, report)
                advance(1)
    if n_failed:
        raise RunProblem(f"{n_failed} of {len(tasks)} files failed: run the same command again")
    report.finish(parameters.get("stats"))
    return report


def run_task(run: Run, folder: Path, parameters: Parameters) -> Report | RamctlError:
    """Run the command on one file, in the process of a Ray task; its report, or why it failed."""
    os.chdir(folder)
    output = parameters["output"]
    is_parquet = parameters.get("format") == "parquet"  # whose end cannot be continued
    if is_parquet and output.exists():
        return Report(output.name)
    is_begun = hidden_path(output, ".done").exists()
    try:
        return run({**parameters, "resume": is_begun and not is_parquet})
    except RamctlError as problem:
        return RunProblem(problem.message)


def _is_counted(ray: Any, task: Any, report: Report) -> bool:
    """Add the counts of a complete task to the report; False, and a warning, where it failed."""
    try:
        outcome = ray.get(task)
    except ray.exceptions.RayError as error:
        outcome = RunProblem(f"a worker failed: {str(error).strip().splitlines()[-1]}")
    if isinstance(outcome, RamctlError):
        report.warn(outcome.message)
        return False
    report.add(outcome)
    return True


def resources(parameters: Parameters, machines: Sequence[Mapping[str, float]]) -> tuple[int, int]:
    """The cores and GPUs of a task: a GPU if the model may use one, and `-j` cores."""
    may_use_gpu = (parameters.get("device", "cpu") or "auto").split(":")[0] in ("auto", "cuda")
    with_gpu = [machine for machine in machines if may_use_gpu and machine.get("GPU")]
    cores = parameters.get("workers") or min(
        (m.get("CPU", 1) // m["GPU"] for m in with_gpu), default=1
    )
    largest = max(m.get("CPU", 1) for m in with_gpu or machines)
    return max(1, int(min(cores, largest))), int(bool(with_gpu))


def engine_settings(parameters: Parameters, cores: int, gpus: int) -> dict[str, Any]:
    """The options by which a model uses these cores, and the GPU that Ray gives the task."""
    if "device" not in parameters:
        return {}
    # Ray shows a task its GPU alone, whatever its number.
    device = "cuda" if gpus and parameters["device"] != "auto" else parameters["device"]
    return {"workers": cores, "device": device}


def _tasks(command: str, parameters: Parameters) -> Iterator[dict[str, Any]]:
    """The parameters for each input file alone; UsageProblem for what cannot be done by files."""
    names, folder = parameters.get("inputs"), parameters["output"]
    form = parameters.get("format") or parameters.get("target_format")
    for option in REFUSED:
        if parameters.get(option):
            raise UsageProblem(f"--{option.replace('_', '-')} does not go with --ray")
    if form == "ram":
        raise UsageProblem("-f ram does not go with --ray")
    if folder is None:
        raise UsageProblem("--ray needs -o DIR, a folder for an output a file")
    if not names or STDIN in names:
        raise UsageProblem("--ray reads files that all machines see, not standard input")
    require_files(names)
    inputs = {Path(name).resolve() for name in names}
    name_of: dict[Path, str] = {}
    for name in names:
        suffix = next((end for end in RECORDS if name.lower().endswith(end)), "")
        if not Path(name).is_file() or (command == "tag" and not suffix):
            raise UsageProblem(f"--ray works on JSONL, Parquet and tars: {name} is none of these")
        stem = Path(name).name[: -len(suffix) or None]
        output, rejects = folder / f"{stem}.{form or 'jsonl'}", folder / "rejects" / f"{stem}.jsonl"
        if other := name_of.get(output):
            raise UsageProblem(f"{other} and {name} would become one output, {output}")
        name_of[output] = name
        for path in (output, rejects):
            if path.resolve() in inputs:
                raise UsageProblem(f"{path} is an input: name another folder with -o")
        yield {
            **parameters, "inputs": (name,), "output": output, "rejects": str(rejects),
            "stats": None, "quiet": True,
        }  # fmt: skip


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster; `local` starts a cluster that ends with the block."""
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
