"""`ramctl search`: a file of vectors or a folder of photos, and a question, in; photos out."""

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from ramctl import __version__
from ramctl.apps.photo_search import DECIMALS, PhotoSearch
from ramctl.checkpoints.bundle import Bundle, resolve_model
from ramctl.errors import Interrupted, RecordProblem, RunProblem, UsageProblem, escaped
from ramctl.photos.finding import PhotoInputs, is_photo_name, photo_items
from ramctl.records.files import is_folder, user_folder, write_atomic
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


def index_folder(folder: Path, model: str, report: Report) -> tuple[Path, Path]:
    """Tag and import what is new or changed below a folder; both files, in the user's cache.

    They hold absolute names.
    """
    root = str(folder.resolve())
    made_by = f"{__version__} {Bundle.open(resolve_model(model)).fingerprint}"
    key = blake2b(os.fsencode(root) + made_by.encode(), digest_size=8).hexdigest()
    index = user_folder("XDG_CACHE_HOME", ".cache") / "search" / key
    tags, keywords, stamp_file = (index / x for x in ("tags.jsonl", "keywords.jsonl", "stamp"))
    stamp = _stamp_of(root)
    if all(map(Path.is_file, (tags, keywords, stamp_file))) and stamp_file.read_bytes() == stamp:
        return tags, keywords
    from ramctl.apps import import_photos  # not for each answer: they take a while
    from ramctl.inference import tag_photos
    from ramctl.inference.tagger import TaggerOptions
    from ramctl.records.stream import StreamOptions

    photos = PhotoInputs((root,), recursive=True)
    if next(photo_items(photos), None) is None:
        raise RunProblem(f"{folder}: no photos in it (is the disk mounted?)")
    report.notify(f"{folder}: new or changed photos; the index is {index}")
    index.mkdir(parents=True, exist_ok=True)
    tag_options = tag_photos.TagOptions(
        (root,), photos, model=model, format="jsonl", quiet=report.quiet,
        tagger=TaggerOptions(embedding=True), stream=StreamOptions(output=tags, resume=True),
    )  # fmt: skip
    import_options = import_photos.ImportOptions(
        (root,), photos, quiet=report.quiet,
        stream=StreamOptions(output=keywords, resume=True),
    )  # fmt: skip
    try:
        tag_photos.run(tag_options)
        import_photos.run(import_options)
    except Interrupted as stop:  # its message names an option that search does not have
        raise Interrupted(stop.signum, "the same command continues") from None
    write_atomic(stamp_file, stamp)
    return tags, keywords


def _stamp_of(root: str) -> bytes:
    """A hash that changes with any file below a folder."""
    digest = blake2b(digest_size=16)
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)  # noqa: PTH118 (fast)
            with suppress(FileNotFoundError):  # deleted meanwhile
                facts = os.lstat(path)
                digest.update(os.fsencode(path) + f"{facts.st_size}-{facts.st_mtime_ns}".encode())
    return digest.digest()
