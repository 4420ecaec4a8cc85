"""The work folder of a run: what it was asked to do, its records, and its checkpoints."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import orjson

from ramctl.checkpoints.bundle import META
from ramctl.errors import RunProblem, UsageProblem
from ramctl.records.files import work_path, write_atomic
from ramctl.records.inputs import STDIN
from ramctl.training.record_file import Source, needs_spool, spool

PLAN = "run.json"


@dataclass(frozen=True)
class Plan:
    """All that decides a run's result; written once, read again by `--resume`.

    `preset` is the merged preset as a table; the paths are as the user gave them.
    """

    command: str
    preset: dict[str, Any]
    sources: list[dict[str, str]]
    labels: str | None = None
    val: str | None = None
    root: str | None = None
    init: str | None = None
    text: str | None = None
    cache: str | None = None
    commands: list[str] = field(default_factory=list)

    def record_sources(self) -> list[Source]:
        """The files of the records."""
        return [Source(Path(row["path"]), row["name"], Path(row["base"])) for row in self.sources]


class WorkFolder:
    """`OUT.work`, beside the bundle that a run will write."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.path = work_path(out)

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are."""
        return self.path / "checkpoints"

    @property
    def features(self) -> Path:
        """Where features of frozen encoders are, unless `--cache` says else."""
        return self.path / "features"

    def is_finished(self) -> bool:
        """Whether the bundle is there and nothing is left to do."""
        return not self.path.exists() and (self.out / META).is_file()

    def is_begun(self) -> bool:
        """Whether something is in the folder that took long to make."""
        made = [*self.checkpoints.glob("*"), *self.features.glob("*"), *self.path.glob("*.f16")]
        return bool(made)

    def prepare(self, *, resume: bool, restart: bool) -> bool:
        """Make the folder for a new run, or find that there is one to continue (True).

        Raises UsageProblem when an unfinished run is there and neither was asked for.
        """
        if restart and self.path.exists():
            shutil.rmtree(self.path)
        if self.path.exists():
            if not resume:
                raise UsageProblem(
                    f"{self.path} holds an unfinished run: --resume continues it, "
                    "--restart begins anew"
                )
            if not (self.path / PLAN).is_file():
                raise RunProblem(f"{self.path}: the run ended before it began; use --restart")
            return True
        self.path.mkdir(parents=True)
        return False

    def take_inputs(self, inputs: Sequence[str], root: str | None) -> list[dict[str, str]]:
        """The records' files; what cannot be read again is copied into the folder."""
        sources = []
        for name in inputs:
            path = spool(name, self.path) if needs_spool(name) else Path(name)
            base = root or ("." if name == STDIN else str(Path(name).parent))
            sources.append({"path": str(path), "name": name, "base": base})
        return sources

    def write_plan(self, plan: Plan) -> None:
        """Keep the plan."""
        content = orjson.dumps(asdict(plan), option=orjson.OPT_INDENT_2)
        write_atomic(self.path / PLAN, content + b"\n")

    def read_plan(self) -> Plan:
        """The plan of the run that is there."""
        try:
            table = orjson.loads((self.path / PLAN).read_bytes())
            return Plan(**{f.name: table[f.name] for f in fields(Plan)})
        except (OSError, ValueError, KeyError) as error:
            raise RunProblem(f"{self.path / PLAN}: {error}; use --restart") from error

    def remove(self) -> None:
        """Delete the folder: the bundle is complete."""
        shutil.rmtree(self.path)


def check_same(plan: Plan, asked: Mapping[str, Any]) -> None:
    """UsageProblem when options given with `--resume` contradict the run."""
    for name, value in asked.items():
        have = getattr(plan, name)
        if value is not None and value != have:
            raise UsageProblem(
                f"the unfinished run has --{name} {have}, not {value}: leave it out to resume, "
                "or begin anew with --restart"
            )
