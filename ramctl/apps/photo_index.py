"""The index of a folder for `ramctl search`: the vectors and keywords of its photos."""

import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from ramctl import __version__
from ramctl.checkpoints.bundle import Bundle, resolve_model
from ramctl.errors import Interrupted, RunProblem
from ramctl.photos.finding import PhotoInputs, photo_items
from ramctl.records.files import user_folder, write_atomic
from ramctl.records.report import Report


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
