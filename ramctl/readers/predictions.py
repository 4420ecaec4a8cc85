"""Which form the predictions of a tagger have, and their records with `scores` or `tags`."""

import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from pathlib import Path

from ramctl.errors import RunProblem
from ramctl.readers import exports
from ramctl.readers.source import Source
from ramctl.records.files import unpacked_name
from ramctl.records.inputs import STDIN, open_input, unread_inputs
from ramctl.records.record import Item
from ramctl.records.remote import photo_base

READERS: dict[str, Callable[[Source], Iterator[Item]]] = {
    "fiftyone": exports.read_fiftyone,
    "fiftyone-labels": exports.read_fiftyone_labels,
    "list": exports.read_list,
}
FORMS = ("jsonl", *READERS)
_HEADS = {
    "fiftyone": re.compile(rb'\{\s*"samples"\s*:\s*\['),
    "fiftyone-labels": re.compile(rb'\{\s*("classes"\s*:\s*(\[|null)|"labels"\s*:\s*\{)'),
}
LISTS = (".txt", ".csv")
PEEK = 1 << 16


def read_predictions(name: str, stage: str, form: str | None = None) -> Iterator[Item]:
    """The records of a file, a FiftyOneDataset's folder or, for `-`, standard input.

    `form` None means that it is recognised.
    """
    form = form or recognise(name)
    if form == "jsonl":
        yield from (make(stamped=False) for make in unread_inputs([name], None, stage))
        return
    if form == "fiftyone" and Path(name).is_dir():
        name = str(Path(name) / exports.SAMPLES)
    yield from READERS[form](Source(name, photo_base(name), stage))


def recognise(name: str) -> str:
    """The form of predictions by name and content; `jsonl` for what can be read only once."""
    path = Path(name)
    if path.is_dir():
        if (path / exports.SAMPLES).is_file():
            return "fiftyone"
        raise RunProblem(f"{path}: no predictions that are recognised (see --from)")
    if Path(unpacked_name(name)).suffix in LISTS:
        return "list"
    if name == STDIN or not path.is_file():
        return "jsonl"
    with open_input(name) as stream:
        start = stream.read(PEEK).removeprefix(BOM_UTF8).lstrip()
    return next((form for form, head in _HEADS.items() if head.match(start)), "jsonl")
