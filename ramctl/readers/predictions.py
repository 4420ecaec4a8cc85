"""The predictions of a tagger: records, or the RAM authors' lists of tags."""

from collections.abc import Iterator
from pathlib import Path

from ramctl.errors import RunProblem
from ramctl.readers.source import Source
from ramctl.records.files import unpacked_name
from ramctl.records.inputs import open_input, unread_inputs
from ramctl.records.record import Item
from ramctl.records.remote import photo_base

FORMS = ("jsonl", "list")


def read_predictions(name: str, stage: str, form: str | None = None) -> Iterator[Item]:
    """The records of a file or, for `-`, standard input; `form` None: told by the name."""
    if (form or recognise(name)) == "jsonl":
        yield from (make(stamped=False) for make in unread_inputs([name], None, stage))
    else:
        yield from read_list(Source(name, photo_base(name, None), stage))


def recognise(name: str) -> str:
    """The form of predictions by name: `list` for .txt and .csv."""
    return "list" if Path(unpacked_name(name)).suffix in (".txt", ".csv") else "jsonl"


def read_list(source: Source) -> Iterator[Item]:
    """One record per line `id,tag,tag`: the RAM authors' annotations, and their `pred.txt`."""
    with open_input(source.name) as stream:
        for number, line in enumerate(stream, 1):
            try:
                image, *tags = line.decode("utf-8-sig").rstrip("\r\n").split(",")
            except UnicodeDecodeError as error:
                raise RunProblem(f"{source.name}:{number}: not UTF-8 text") from error
            if image.strip():
                yield source.record({"image": image, "tags": [tag for tag in tags if tag]}, number)
