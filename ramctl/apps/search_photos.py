"""`ramctl search`: a file of vectors or a folder of photos, and a question, in; photos out."""

import sys
from dataclasses import dataclass
from pathlib import Path

from ramctl.apps.photo_index import index_folder
from ramctl.apps.photo_search import DECIMALS, PhotoSearch
from ramctl.errors import RecordProblem, UsageProblem, escaped
from ramctl.photos.finding import is_photo_name
from ramctl.records.files import is_folder
from ramctl.records.jsonl import dumps
from ramctl.records.output_formats import table_row
from ramctl.records.record import JsonObject
from ramctl.records.report import Report
from ramctl.records.resume import records_to_stdout


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """The options of `ramctl search`."""

    file: Path  # of records, or a folder of photos
    words: tuple[str, ...] = ()
    like: str | None = None
    duplicates: bool = False
    number: int = 20
    language: str | None = None  # of the words; None: of most of them
    format: str = ""  # jsonl, text; empty: text on a terminal, else jsonl
    model: str = "mini"
    quiet: bool = False


def run(options: SearchOptions) -> Report:
    """Answer on standard output; the report of the run."""
    text = " ".join(options.words).strip()
    if (bool(text), options.like is not None, options.duplicates).count(True) != 1:
        raise UsageProblem("name what to search for: words, --like PHOTO or --duplicates")
    report = Report("search", quiet=options.quiet, unit="photos")
    search = open_search(options.file, options.model, report)
    rows: list[JsonObject]
    if options.duplicates:
        rows = [{"images": names} for names in search.duplicates()]
    else:
        try:
            if text:
                language, notify = options.language or "", report.notify
                found = search.words(text, options.number, language=language, notify=notify)
            else:
                found = search.like(options.like or "", options.number)
        except RecordProblem as problem:
            raise UsageProblem(f"--like: {problem.message}") from problem
        rows = search.rows(found)
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    form = options.format or ("text" if is_terminal else "jsonl")
    with records_to_stdout() as stream:
        stream.writelines(map(_text_line if form == "text" else dumps, rows))
    what = f"group{'s' * (len(rows) != 1)} of copies in" if options.duplicates else "of"
    report.notify(f"{len(rows)} {what} {len(search)} photos")
    return report


def _text_line(row: JsonObject) -> bytes:
    names = [escaped(name) for name in row.get("images") or [row["image"]]]
    score = [f"{row['score']:.{DECIMALS}f}"] if "score" in row else []
    return table_row([*score, *names], "\t")


def open_search(source: Path, model: str, report: Report) -> PhotoSearch:
    """The search in a file of records, or in a folder of photos, which is indexed."""
    if is_folder(source):
        tags, keywords = index_folder(source, model, report)
        return PhotoSearch(tags, model, keywords=keywords)
    if is_photo_name(str(source)):
        raise UsageProblem(f"{source} is a photo; search takes a folder of photos, or records")
    return PhotoSearch(source, model)
