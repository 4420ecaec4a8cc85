"""Join the records of each photo, in any order, in bounded memory."""

import pickle
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import groupby

import orjson

from ramctl.errors import RunProblem, attempt
from ramctl.records.jsonl import content_stamp, dumps
from ramctl.records.record import Item, JsonObject, Reject, captions_of, listed

_TABLE = "CREATE TABLE records (number INTEGER PRIMARY KEY, photo BLOB, row BLOB)"
_BY_PHOTO = """
    SELECT min(number) OVER (PARTITION BY photo) AS first, row FROM records ORDER BY first, number
"""


def group_by_image(items: Iterator[Item], stage: str) -> Iterator[Item]:
    """One record per photo, in the place of its first, with the captions of all in order.

    Other fields are those of the first record. Rejects pass at once; records without an image stay
    alone. A temporary file holds all text until the last input is read.
    """
    try:
        with closing(sqlite3.connect("")) as database:
            database.execute(_TABLE)
            yield from _spool(items, database, stage)
            for _, group in groupby(database.execute(_BY_PHOTO), lambda row: row[0]):
                first, *others = (pickle.loads(row) for _, row in group)
                for other in others:
                    _join(first.fields, other.fields)
                first.stamp = content_stamp(dumps(first.fields))
                yield first
    except sqlite3.Error as error:
        raise RunProblem(f"temporary file of --group: {error}") from error


def _spool(items: Iterator[Item], database: sqlite3.Connection, stage: str) -> Iterator[Item]:
    for number, item in enumerate(items):
        if isinstance(item, Reject):
            yield item
            continue
        problem = attempt(_join, {**item.fields}, {})  # looks at the fields that are joined
        if problem is not None:
            yield Reject.of(item, problem, stage)
            continue
        image = item.fields.get("image")
        photo = orjson.dumps(image if image is not None else ["no image", number])
        row = (number, photo, pickle.dumps(item))
        database.execute("INSERT INTO records VALUES (?, ?, ?)", row)


def _join(first: JsonObject, other: JsonObject) -> None:
    captions = [*captions_of(first), *captions_of(other)]
    if captions:
        first.pop("caption", None)
        first["captions"] = captions
    tags = [*listed(first, "tags"), *listed(other, "tags")]
    if tags:
        first["tags"] = list(dict.fromkeys(tags))
