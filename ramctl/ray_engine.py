"""`--ray`: input files on a Ray cluster, one machine or many.

Each file is a Ray task: the command with one input and one output, so that order, rejects, locks
and resuming are those of the command itself. Ray runs a task again elsewhere if its process or
machine is lost. All machines see the same files.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ramctl.errors import RamctlError, RunProblem, UsageProblem
from ramctl.parts import needs
from ramctl.records.files import move_into_place, output_lock, part_path, state_path
from ramctl.records.inputs import require_files
from ramctl.records.jsonl import content_stamp, dumps
from ramctl.records.parquet import opened
from ramctl.records.pipes import STDIN
from ramctl.records.record import shown_name
from ramctl.records.report import Report
from ramctl.records.state import OtherRun, recorded_fingerprint

RETRIES = 3  # of a file whose process has died
RECORDS = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".tar", ".parquet")
# Options that change where or how fast, and nothing in the output.
HOW = {"inputs", "output", "rejects", "stats", "progress", "quiet", "verbose", "ray", "resume"}
HOW |= {"jobs", "threads", "device", "batch", "strict"}
# Options that need all records in one run, and those of which each file has its own.
REFUSED = (
    "shard", "rejects", "group", "build_labels",
)  # fmt: skip
Parameters = Mapping[str, Any]  # the values of a command's options, by their names
Run = Callable[[str, Parameters], Report]  # runs the command of a name


def run_on_cluster(command: str, parameters: Parameters, run: Run) -> Report:
    """Run or continue a command on every input file; the report of all."""
    tasks = list(_tasks(command, parameters))
    report = Report(command, quiet=parameters["quiet"])
    n_failed = 0
    with _cluster(parameters["ray"]) as ray:
        for name in ("rejects", "states"):
            (parameters["output"] / name).mkdir(parents=True, exist_ok=True)
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cores, gpus = resources(parameters, machines)
        report.device = f"{cores} cores and {gpus} GPUs a file"
        settings = engine_settings(parameters, cores, gpus)
        remote = ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=RETRIES)(run_task)
        with report.progress(parameters["progress"], unit="files", total=len(tasks)) as advance:
            # Complete ones first: if they were made with other settings, nothing new is made.
            for is_complete in (True, False):
                group = [task for task in tasks if task["output"].exists() == is_complete]
                running = [
                    remote.remote(run, command, Path.cwd(), task | settings) for task in group
                ]
                while running:
                    (done,), running = ray.wait(running)
                    n_failed += not _is_counted(ray, done, report)
                    advance(1)
    if n_failed:
        raise RunProblem(f"{n_failed} of {len(tasks)} files failed: run the same command again")
    report.finish(parameters["stats"])
    return report


def run_task(run: Run, command: str, folder: Path, parameters: Parameters) -> Report | RamctlError:
    """Run the command on one file, in the process of a Ray task; its report, or why it failed."""
    os.chdir(folder)
    output, source = parameters["output"], Path(parameters["inputs"][0])
    state, kept, facts = state_path(output), _kept_state(output), source.stat()
    made_from = {
        "input": shown_name(str(source.resolve())),
        "version of the input": f"{facts.st_size}-{facts.st_mtime_ns}",
    }
    is_parquet = parameters.get("format") == "parquet"  # whose end cannot be continued
    if is_parquet:
        chosen = {name: str(value) for name, value in parameters.items() if name not in HOW}
        made_from["options"] = content_stamp(dumps(chosen))
    try:
        with output_lock(output):
            if kept.exists():
                kept.replace(state)
            before = recorded_fingerprint(output)
            changed = [name for name, value in made_from.items() if before.get(name) != value]
            is_begun = output.exists() or part_path(output).exists()
            # A changed input is done anew; a file of that name in another folder is refused.
            resume = is_begun and changed != ["version of the input"]
            if is_parquet and output.exists() and resume:
                if changed:
                    raise OtherRun(state, changed[0])
                if not Path(parameters["rejects"]).stat().st_size:
                    return Report(command, n_skipped=opened(str(output)).metadata.num_rows)
            resume = resume and not is_parquet
            try:
                return run(command, {**parameters, "made_from": made_from, "resume": resume})
            finally:
                if state.exists() and not part_path(output).exists():
                    move_into_place(state, kept)
    except OtherRun as problem:
        what = f"{output}: made with another {problem.what}"
        return UsageProblem(f"{what}; remove it to have it made anew, or name another folder")
    except RamctlError as problem:
        return RunProblem(problem.message)


def _is_counted(ray: Any, task: Any, report: Report) -> bool:
    """Add the counts of a complete task to the report; False, and a warning, where it failed."""
    try:
        outcome = ray.get(task)
    except ray.exceptions.RayError as error:
        outcome = RunProblem(f"a worker failed: {str(error).strip().splitlines()[-1]}")
    if isinstance(outcome, UsageProblem):
        raise outcome
    if isinstance(outcome, RamctlError):
        report.warn(outcome.message)
        return False
    report.add(outcome)
    return True


def _kept_state(output: Path) -> Path:
    """The state of a complete output: not beside it, as `*.jsonl` would match it."""
    return output.parent / "states" / state_path(output).name[1:]


def resources(parameters: Parameters, machines: Sequence[Mapping[str, float]]) -> tuple[int, int]:
    """The cores and GPUs of a task: a GPU if the model may use one, else `--threads` (`-j`)."""
    may_use_gpu = (parameters.get("device", "cpu") or "auto").split(":")[0] in ("auto", "cuda")
    with_gpu = [machine for machine in machines if may_use_gpu and machine.get("GPU")]
    requested = parameters.get("threads" if "threads" in parameters else "jobs")
    cores = requested or min((m.get("CPU", 1) // m["GPU"] for m in with_gpu), default=1)
    largest = max(m.get("CPU", 1) for m in with_gpu or machines)
    return max(1, int(min(cores, largest))), int(bool(with_gpu))


def engine_settings(parameters: Parameters, cores: int, gpus: int) -> dict[str, Any]:
    """The options by which a model uses these cores, and the GPU that Ray gives the task."""
    if "threads" not in parameters:
        return {}
    # Ray shows a task its GPU alone, whatever its number.
    device = "cuda" if gpus and parameters["device"] != "auto" else parameters["device"]
    return {"threads": cores, "jobs": parameters["jobs"] or cores, "device": device}


def _tasks(command: str, parameters: Parameters) -> Iterator[dict[str, Any]]:
    """The parameters for each input file alone; UsageProblem for what cannot be done by files."""
    names, folder, form = (parameters.get(name) for name in ("inputs", "output", "format"))
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
            "stats": None, "progress": False, "quiet": True,
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
