"""Parquet: any file is read as JSON lines; records are written by columns, in row groups.

`photos.archives` reads the photos that such a file may hold.
"""

import base64
import io
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from ramctl.errors import RunProblem
from ramctl.records.extras import require
from ramctl.records.jsonl import dumps, loads
from ramctl.records.record import JsonObject, listed, numbers_in

SUFFIX = ".parquet"
_LISTS = ("tags", "captions", "generated_captions")
_OTHER = "other"  # the rest of a record, as JSON
_GROUP_ROWS = 1000
_BATCH_ROWS = 64
_PHOTOS = ("image", "image_bytes", "jpg", "jpeg", "png", "webp", "bytes", "content")
DAMAGE = (  # bases of the errors of pyarrow too
    ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError, struct.error,
)  # fmt: skip


class ParquetWriter:
    """Encode records as a Parquet file; `encode` and `footer` return its finished parts.

    `dense` and `embedding` become lists of float16; fields without a column are JSON in `other`.
    """

    def __init__(self) -> None:
        require("parquet", "Parquet")
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter as Writer

        texts, halves = pa.list_(pa.string()), pa.list_(pa.float16())
        fields = {"image": pa.string()} | dict.fromkeys(_LISTS, texts)
        fields |= {
            "scores": pa.list_(pa.float64()),
            "dense": halves,
            "embedding": halves,
            "embedding_model": pa.string(),
        }
        self._schema = pa.schema(fields | {_OTHER: pa.string()})
        self._table = pa.Table.from_pylist
        self._done = io.BytesIO()
        self._writer = Writer(self._done, self._schema, compression="zstd")
        self._rows: list[JsonObject] = []

    def encode(self, record: JsonObject) -> bytes:
        """Add a record."""
        self._rows.append(_to_row({**record}))
        if len(self._rows) == _GROUP_ROWS:
            self._write_group()
        return self._taken()

    def footer(self) -> Iterator[bytes]:
        """The rest of the file."""
        self._write_group()
        self._writer.close()
        yield self._taken()

    def _write_group(self) -> None:
        self._writer.write_table(self._table(self._rows, self._schema))
        self._rows = []

    def _taken(self) -> bytes:
        content = self._done.getvalue()
        self._done.seek(0)  # pyarrow itself counts the position in the file
        self._done.truncate()
        return content


def _to_row(record: JsonObject) -> JsonObject:
    """The columns of a record; `other` holds fields that fit no column."""
    import numpy as np

    row: JsonObject = {}
    if isinstance(record.get("image"), str):
        row["image"] = record.pop("image")
    for name in _LISTS:
        if record.get(name) is not None:
            row[name] = listed(record, name)
            del record[name]
    tags = row.get("tags", [])
    scores = numbers_in(record, "scores")
    if scores and [*scores] == [tag for tag in tags if tag in scores]:
        row["scores"] = [scores.get(tag) for tag in tags]  # null for a tag without one
        del record["scores"]
    with suppress(ValueError, TypeError):  # another program's
        if record.get("dense") is not None:
            row["dense"] = np.array(record["dense"], np.float16)
            del record["dense"]
        if isinstance(record.get("embedding"), str):
            model, _, text = record["embedding"].partition(":")
            row["embedding"] = np.frombuffer(base64.b64decode(text), "<f2")
            row["embedding_model"] = model
            del record["embedding"]
    return row | ({_OTHER: dumps(record).decode().strip()} if record else {})


def _to_record(row: JsonObject) -> JsonObject:
    """The record of a row that `_to_row` made."""
    record = {name: value for name, value in row.items() if value is not None}
    if "scores" in record:
        pairs = zip(record["tags"], record["scores"], strict=True)
        record["scores"] = {tag: score for tag, score in pairs if score is not None}
    if (model := record.pop("embedding_model", None)) is not None:
        halves = struct.pack(f"<{len(record['embedding'])}e", *record["embedding"])
        record["embedding"] = f"{model}:{base64.b64encode(halves).decode()}"
    return record | loads(record.pop(_OTHER, "{}").encode())


def opened(name: str) -> Any:
    """Open a Parquet file with pyarrow; RunProblem where it is none."""
    require("parquet", name)
    from pyarrow import ArrowException, parquet

    try:
        return parquet.ParquetFile(name)
    except (ArrowException, *DAMAGE) as error:
        raise RunProblem(f"{name}: {str(error).splitlines()[0]}") from error


def json_lines(name: str) -> Iterator[bytes]:
    """The rows of a file as JSON lines, without bytes; RunProblem where it is damaged."""
    file = opened(name)
    names, photos = file.schema_arrow.names, photo_column(file)
    is_ours = {"embedding_model", _OTHER} <= {*names}
    # `datasets` keeps the names of photos beside them.
    has_paths = any(leaf.path == f"{photos}.path" for leaf in file.metadata.schema)
    columns = [column for column in names if column != photos]
    columns += [f"{photos}.path"] if has_paths else []
    number = 0
    try:
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            for fields in batch.to_pylist():
                if photos:
                    path = (fields.pop(photos, None) or {}).get("path")
                    place = {"image": f"{Path(name).name}#{number}", "path": path}
                    fields = {key: value for key, value in place.items() if value} | fields
                if is_ours:
                    with suppress(*DAMAGE):  # other programs have columns of these names, too
                        fields = _to_record(fields)
                number += 1
                yield orjson.dumps(fields, default=_text) + b"\n"
    except DAMAGE as error:
        raise RunProblem(f"{name}: {str(error).splitlines()[0]}") from error


def _text(value: object) -> str | None:
    return None if isinstance(value, bytes) else str(value)


def photo_column(file: Any) -> str | None:
    """The column whose values, or their parts `bytes`, are photos; None where there is none."""
    for leaf in file.metadata.schema:
        name, _, part = leaf.path.partition(".")
        is_bytes = leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type == "NONE"
        if name in _PHOTOS and part in ("", "bytes") and is_bytes:
            return str(name)
    return None
