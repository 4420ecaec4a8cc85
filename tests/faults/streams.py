"""Work for the tests of crashes that needs the loop of the record commands and nothing else.

It runs in forks of a process that has imported no more than this, which cost 2 ms each.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ramctl.errors import Interrupted, RecordProblem, RunProblem
from ramctl.records.inputs import read_inputs
from ramctl.records.record import JsonObject, Record
from ramctl.records.report import Report
from ramctl.records.stream import Format, StreamOptions, each, run_stream

GOOD = ['{"captions":["a horse"]}', '{"captions":["a boat"]}', '{"captions":["a red house"]}']
LINES = [GOOD[0], "{oops", GOOD[1], '{"none":1}', GOOD[2]]


def with_lines(*lines: str) -> Callable[[Path], None]:
    """Fills a folder with an input of these lines."""

    def prepare(folder: Path) -> None:
        (folder / "in.jsonl").write_text("".join(line + "\n" for line in lines))

    return prepare


def words_of(record: Record) -> JsonObject:
    """What stands for a command here: cheap, with rejects of its own."""
    if "none" in record.fields:
        raise RecordProblem("no captions", code="missing_field")
    return {**record.fields, "tags": record.fields["captions"][0].split()[1:]}


def stream(
    *,
    header: bytes = b"[head]\n",
    rejects: bool = True,
    **options,
) -> Callable[[], int]:
    """A run of the loop that all record commands share, over in.jsonl."""
    if rejects:
        options["rejects"] = "rejects"
    return partial(_stream, Path("out"), options, header)


def _stream(output: Path, options: dict, header: bytes) -> int:
    report = Report("test", quiet=True)
    settings = StreamOptions(output, batch=1, progress=False, **options)
    source = read_inputs(["in.jsonl"], None, "test")
    try:
        return run_stream(report, source, each(words_of), settings, form=Format(header)).exit_code
    except Interrupted as stopped:
        return stopped.exit_code
    except RunProblem as problem:
        report.warn(problem.message)
        return 1
