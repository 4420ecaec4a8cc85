"""What a command says about its run: counts, rejects, statistics, progress, the closing line."""

import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from ramctl.errors import EXIT_OK, EXIT_REJECTS, EXIT_TIME_IS_UP, one_line
from ramctl.parts import __version__
from ramctl.records.files import output_lock, write_atomic
from ramctl.records.jsonl import dumps
from ramctl.records.outputs import Sink, open_rejects, rejects_file
from ramctl.records.ownership import REJECTS, require_ours
from ramctl.records.record import JsonObject, Reject

NAMED_REJECTS = 20


@dataclass(slots=True)
class Report:
    """Counts of one run of one command, for stderr and `--stats`."""

    command: str
    quiet: bool = False
    unit: str = "records"
    device: str = "cpu"
    n_in: int = 0
    n_out: int = 0
    n_skipped: int = 0  # done before, or rejected
    n_rejected_before: int = 0  # of these
    n_pruned: int = 0  # earlier records that were dropped
    n_left: int = 0
    time_is_up: bool = False  # `--max-time` ended the run before its end
    forgives_rejects: bool = False  # to whom this process reports, 3 would be a failure
    rejects: Counter[str] = field(default_factory=Counter)
    extra: JsonObject = field(default_factory=dict)  # a command's own counts, for `--stats`
    counted: dict[str, str] = field(default_factory=dict)  # those in the closing line, and as what
    started: float = field(default_factory=time.monotonic)

    @property
    def n_rejected(self) -> int:
        """Inputs that were rejected in this run."""
        return sum(self.rejects.values())

    @property
    def has_found(self) -> bool:
        """Whether there was any input."""
        return self.n_in + self.n_skipped > 0

    @property
    def exit_code(self) -> int:
        """4 when time was up before the end, 3 when inputs were rejected, now or earlier."""
        if self.time_is_up:
            return EXIT_TIME_IS_UP
        has_rejects = self.rejects or self.n_rejected_before
        return EXIT_REJECTS if has_rejects and not self.forgives_rejects else EXIT_OK

    def say(self, message: str) -> None:
        """One line on stderr, named after the command; silent with `-q`."""
        if not self.quiet:
            self.warn(message)

    def warn(self, message: str) -> None:
        """One line on stderr, with `-q` too."""
        sys.stderr.write(f"ramctl {self.command}: {one_line(message)}\n")
        sys.stderr.flush()

    def reject(self, reject: Reject) -> None:
        """Count a reject; the first twenty are named."""
        self.rejects[reject.code] += 1
        if self.n_rejected <= NAMED_REJECTS:
            self.say(f"{reject.place}: {reject.message}")
        elif self.n_rejected == NAMED_REJECTS + 1:
            self.say("more rejects follow; they are counted, and named in --rejects")

    def summary(self) -> str:
        """The closing line, in a form that scripts may rely on."""
        seconds = time.monotonic() - self.started
        parts = [f"{self.n_in} in", f"{self.n_out} out", f"{self.n_rejected} rejected"]
        if self.n_skipped:
            before = self.n_rejected_before
            of_them = f" ({before} of them rejected)" if before else ""
            parts.append(f"{self.n_skipped} done before{of_them}")
        later = {"pruned": self.n_pruned, "left": self.n_left}
        parts += [f"{number} {what}" for what, number in later.items() if number]
        parts += [f"{self.extra[name]} {what}" for name, what in self.counted.items()]
        rate = self.n_out / seconds if seconds > 0 else 0.0
        parts += [f"{seconds:.1f} s", f"{rate:.{0 if rate >= 10 else 1}f} {self.unit}/s"]
        return ", ".join(parts) + f" ({self.device})"

    def stats(self) -> JsonObject:
        """The closing line as an object, with rejects by code and versions."""
        seconds = time.monotonic() - self.started
        return {
            "command": self.command,
            "in": self.n_in,
            "out": self.n_out,
            "rejected": self.n_rejected,
            "skipped": self.n_skipped,
            "rejected_before": self.n_rejected_before,
            "pruned": self.n_pruned,
            "left": self.n_left,
            "time_is_up": self.time_is_up,
            "rejects": dict(sorted(self.rejects.items())),
            "seconds": round(seconds, 3),
            "rate": round(self.n_out / seconds, 3) if seconds > 0 else 0.0,
            "unit": self.unit,
            "device": self.device,
            "versions": {"ramctl": __version__, "python": platform.python_version()},
            **self.extra,
        }

    @contextmanager
    def progress(
        self, shown: bool | None, *,
        title: str | None = None, unit: str | None = None, total: int | None = None,
    ) -> Iterator[Callable[[int], object]]:  # fmt: skip
        """What counts units as done, on a bar on stderr; `shown` None: if that is a terminal."""
        if self.quiet or not (sys.stderr.isatty() if shown is None else shown):
            yield lambda n: None
            return
        from tqdm import tqdm

        with tqdm(
            desc=title or self.command, unit=f" {unit or self.unit}", total=total,
            file=sys.stderr, dynamic_ncols=True, leave=False,
        ) as bar:  # fmt: skip
            yield bar.update

    def write_stats(self, path: Path | None) -> None:
        """Write the file of `--stats`, where one was asked for."""
        if path is not None:
            write_atomic(path, dumps(self.stats()))

    def finish(self, stats: Path | None) -> None:
        """Write the file of `--stats`, where asked for, and say the closing line."""
        self.write_stats(stats)
        self.say(self.summary())


class Rejects:
    """Where the rejects of a run go: counted, named, written to `--rejects`, locked meanwhile."""

    def __init__(self, report: Report, name: str | None, *, strict: bool = False) -> None:
        self.sink = Sink()
        self._name = name
        self.report = report
        self._strict = strict
        self._lock = ExitStack()
        require_ours(rejects_file(name), REJECTS)

    def add(self, reject: Reject) -> None:
        """Count and write a reject; RunProblem with `strict`."""
        self.report.reject(reject)
        self.sink.write(dumps(reject.to_json()))
        if self._strict:
            reject.fail()

    def __enter__(self) -> Self:
        self._lock.enter_context(output_lock(rejects_file(self._name), say=self.report.say))
        self.sink = open_rejects(self._name, resume=False)
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self.sink.flush()
            self.sink.finish()
