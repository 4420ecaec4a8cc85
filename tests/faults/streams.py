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
    inside: str = ".",
    end: str = "",
    rejects: bool = True,
    **options,
) -> Callable[[], int]:
    """A run of the loop that all record commands share, over in.jsonl."""
    if rejects:
        options["rejects"] = str(Path(inside, f"rejects{end}"))
    return partial(_stream, Path(inside, f"out{end}"), options, header)


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


def collection() -> int:
    """A run over the photos of the folder, which drops the records of those that are gone."""
    files = sorted(Path().glob("*.jpg"))
    items = [
        Record(
            {"image": str(f), "captions": ["a " + f.read_text()]}, key=str(f), stamp=f.read_text()
        )
        for f in files
    ]
    settings = StreamOptions(Path("out"), resume=True, batch=1, progress=False)
    report, is_gone = Report("test", quiet=True), lambda key: not Path(key).exists()
    return run_stream(report, items, each(words_of), settings, is_gone=is_gone).exit_code
