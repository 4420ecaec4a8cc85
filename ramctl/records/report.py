"""Report a run: counts, rejects, statistics, progress and the closing line."""

import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

from ramctl import __version__
from ramctl.errors import EXIT_OK, EXIT_REJECTS, one_line
from ramctl.records.files import naming, write_atomic
from ramctl.records.jsonl import dumps
from ramctl.records.record import JsonObject, Reject

NAMED_REJECTS = 20
ENGINES = ("onnxruntime", "torch", "spacy")  # whose versions change what a model gives


@dataclass(slots=True)
class Report:
    """Counts of one run of one command, for stderr and `--stats`."""

    command: str
    quiet: bool = False
    unit: str = "records"
    device: str = "cpu"
    n_in: int = 0
    n_out: int = 0
    n_skipped: int = 0  # done before
    forgives_rejects: bool = False  # exit 0 instead of 3: the parent process counts rejects
    rejects: Counter[str] = field(default_factory=Counter)
    extra: JsonObject = field(default_factory=dict)  # a command's own counts, for `--stats`
    counts: Counter[str] = field(default_factory=Counter)  # those of the closing line, by words
    started: float = field(default_factory=time.monotonic)

    @property
    def n_rejected(self) -> int:
        """Inputs that were rejected in this run."""
        return sum(self.rejects.values())

    @property
    def exit_code(self) -> int:
        """3 if inputs were rejected."""
        return EXIT_REJECTS if self.rejects and not self.forgives_rejects else EXIT_OK

    def notify(self, message: str) -> None:
        """Write one line to stderr, with the command's name; nothing with `-q`."""
        if not self.quiet:
            self.warn(message)

    def warn(self, message: str) -> None:
        """Write one line to stderr, also with `-q`."""
        sys.stderr.write(f"ramctl {self.command}: {one_line(message)}\n")
        sys.stderr.flush()

    def reject(self, reject: Reject) -> None:
        """Count a reject; the first NAMED_REJECTS are reported."""
        self.rejects[reject.code] += 1
        if self.n_rejected <= NAMED_REJECTS:
            self.notify(f"{reject.place}: {reject.message}")
        elif self.n_rejected == NAMED_REJECTS + 1:
            self.notify("further rejects are counted only; --rejects FILE lists them")

    def add(self, part: "Report") -> None:
        """Add the counts of another process, which did a part of the inputs."""
        self.n_in += part.n_in
        self.n_out += part.n_out
        self.n_skipped += part.n_skipped
        self.rejects.update(part.rejects)
        self.unit = part.unit

    def summary(self) -> str:
        """The closing line, in a form that scripts may rely on."""
        seconds = time.monotonic() - self.started
        parts = [f"{self.n_in} in", f"{self.n_out} out", f"{self.n_rejected} rejected"]
        if self.n_skipped:
            parts.append(f"{self.n_skipped} done before")
        parts += [f"{number} {words}" for words, number in self.counts.items()]
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
            "rejects": dict(sorted(self.rejects.items())),
            "seconds": round(seconds, 3),
            "rate": round(self.n_out / seconds, 3) if seconds > 0 else 0.0,
            "unit": self.unit,
            "device": self.device,
            "versions": {"ramctl": __version__, "python": platform.python_version()}
            | {n: str(sys.modules[n].__version__) for n in ENGINES if n in sys.modules},
            **self.extra,
            **self.counts,
        }

    @contextmanager
    def progress(
        self, *, shown: bool = True,
        title: str | None = None, unit: str | None = None, total: int | None = None,
    ) -> Iterator[Callable[[int], object]]:  # fmt: skip
        """A function that advances a progress bar, which is shown on a terminal alone."""
        if self.quiet or not (shown and sys.stderr.isatty()):
            yield lambda n: None
            return
        from tqdm import tqdm

        with tqdm(
            desc=title or self.command, unit=f" {unit or self.unit}", total=total,
            file=sys.stderr, dynamic_ncols=True, leave=False,
        ) as bar:  # fmt: skip
            yield bar.update

    def finish(self, stats: Path | None = None) -> None:
        """Write the file of `--stats`, if there is one, and the closing line."""
        if stats is not None:
            write_atomic(stats, dumps(self.stats()))
        self.notify(self.summary())


class Rejects:
    """Count and report rejects, and write them to the file of `--rejects`; `-` is stderr."""

    def __init__(self, report: Report, name: str | None = None, *, strict: bool = False) -> None:
        self.report, self.strict, self._name = report, strict, name
        self._stream: IO[bytes] | None = None

    def add(self, reject: Reject) -> None:
        """Count and write a reject; RunProblem with `strict`."""
        self.report.reject(reject)
        if self._stream is not None:
            with naming(Path(self._name or "")):
                self._stream.write(dumps(reject.to_json()))
                self._stream.flush()
        if self.strict:
            reject.fail()

    def __enter__(self) -> Self:
        if self._name == "-":
            self._stream = sys.stderr.buffer
        elif self._name:
            with naming(Path(self._name)):
                self._stream = Path(self._name).open("wb", buffering=0)
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream is not None and self._name != "-":
            self._stream.close()
