"""Which form the predictions of a tagger have, and their records with `scores` or `tags`."""

import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from ramctl.errors import RunProblem
from ramctl.readers import exports
from ramctl.readers.services import SERVICES, read_responses, response_files, service_of
from ramctl.readers.source import Source
from ramctl.records.files import unpacked_name
from ramctl.records.inputs import STDIN, open_input, unread_inputs
from ramctl.records.jsonl import MAX_LINE
from ramctl.records.record import Item
from ramctl.records.remote import photo_base

READERS: dict[str, Callable[[Source], Iterator[Item]]] = {
    **{service: partial(read_responses, service=service) for service in SERVICES},
    "fiftyone": exports.read_fiftyone,
    "fiftyone-labels": exports.read_fiftyone_labels,
    "panoptic": exports.read_panoptic,
    "list": exports.read_list,
    "mkt": exports.read_mkt,
}
FORMS = ("jsonl", *READERS, "logits")
_HEADS = {
    "fiftyone": re.compile(rb'\{\s*"samples"\s*:\s*\['),
    "fiftyone-labels": re.compile(rb'\{\s*("classes"\s*:\s*(\[|null)|"labels"\s*:\s*\{)'),
    "panoptic": re.compile(rb'\{\s*"(info|images|licenses|annotations|categories)"\s*:\s*[\[{]'),
}
LISTS = (".txt", ".csv")
PEEK = 1 << 16
_FIRST_FILES = 10  # of a folder, by which it is recognised


def read_predictions(
    name: str, stage: str, form: str | None = None, label_lists: Sequence[Sequence[str]] = ()
) -> Iterator[Item]:
    """The records of a file or folder or, for `-`, of standard input.

    `form` None means that it is recognised; the columns of `logits` are the labels of one of the
    lists.
    """
    form = form or recognise(name)
    if form == "jsonl":
        yield from (make(stamped=False) for make in unread_inputs([name], None, stage))
        return
    if form == "fiftyone" and Path(name).is_dir():
        name = str(Path(name) / exports.SAMPLES)
    source = Source(name, Path(name) if Path(name).is_dir() else photo_base(name), stage)
    read = partial(exports.read_logits, label_lists=label_lists)
    yield from (read if form == "logits" else READERS[form])(source)


def recognise(name: str) -> str:
    """The form of predictions by name and content; `jsonl` for what can be read only once."""
    path = Path(name)
    if path.is_dir():
        return _recognise_folder(path)
    suffix = Path(unpacked_name(name)).suffix
    if name == STDIN or not path.is_file():
        return "list" if suffix in LISTS else "jsonl"
    if suffix == ".pth":
        return "logits"
    with open_input(name) as stream:
        first = stream.readline(MAX_LINE).removeprefix(BOM_UTF8)
        start = first if len(first) > PEEK else first + stream.read(PEEK)
        if suffix in LISTS:
            return "mkt" if exports.MKT_TITLE.encode() in start else "list"
        for form, head in _HEADS.items():
            if head.match(start.lstrip()):
                return form
        document = _parsed(first)
        if document is None:  # JSON of many lines, or no JSON
            document = _parsed(start + stream.read(MAX_LINE))
    if isinstance(document, dict) and document.keys() >= {"dataset", "model", "metrics"}:
        what = "figures of CLIP_benchmark, which does not write what it says of each photo"
        raise RunProblem(f"{name}: {what}")
    return service_of(document) or "jsonl"


def _parsed(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return None


def _recognise_folder(folder: Path) -> str:
    for form, file in (("fiftyone", exports.SAMPLES), ("logits", exports.LOGITS)):
        if (folder / file).is_file():
            return form
    for path in islice(response_files(folder), _FIRST_FILES):
        service = service_of(_parsed(path.read_bytes()))
        if service is not None:
            return service
    if any(folder.rglob("*.txt")):
        return "mkt"
    raise RunProblem(f"{folder}: no predictions that are recognised (see --from)")
