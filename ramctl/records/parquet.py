"""Parquet: any file is read as JSON lines; records are written by columns, in row groups.

`photos.parquet_photos` reads the photos that such a file may hold.
"""

import base64
import io
import re
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import orjson

from ramctl.errors import RunProblem, one_line
from ramctl.parts import require
from ramctl.records.jsonl import MAX_LINE, dumps, loads
from ramctl.records.record import JsonObject

SUFFIX = ".parquet"
_LISTS = ("tags", "captions", "generated_captions")
_PER_TAG = ("scores", "salience")  # parallel to `tags`, null for a tag without one
_OTHER = "other"  # the rest of a record, as JSON
_GROUP_BYTES = 1 << 22  # of JSON in a row group
_MAX_BATCH_ROWS = 256
_MAX_BYTES = 1 << 22  # of the JSON of rows that are Python objects at a time
# Limits of a column in a row group, which may be a single row: bytes, and times its bytes in the
# file.
MAX_UNFOLDED, MAX_UNFOLDING = 1 << 28, 128
_JSON = r"u?int\d+|float|double|bool|(large_)?string"
# The types, as Arrow writes them, whose values come back from JSON.
_TYPED = re.compile(
    rf"{_JSON}|date.*|timestamp.*|decimal.*|(large_)?list<\w+: ({_JSON})( not null)?>"
)
_BUFFER = 1 << 20  # bytes of a column that are read at a time
_PHOTOS = ("image", "image_bytes", "jpg", "jpeg", "png", "webp", "bytes", "content")
DAMAGE = (  # bases of the errors of pyarrow too
    ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError, struct.error,
)  # fmt: skip


class ParquetWriter:
    """Encode records as a Parquet file; `encode` and `footer` return its finished parts.

    `dense` and `embedding` become lists of float16; other fields are read back unchanged. `typed`
    fields have columns of these types of Arrow.
    """

    def __init__(self, typed: Mapping[str, Any] | None = None) -> None:
        require("parquet", "Parquet")
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter as Writer

        texts, halves = pa.list_(pa.string()), pa.list_(pa.float16())
        fields = {"image": pa.string()} | dict.fromkeys(_LISTS, texts)
        fields |= dict.fromkeys(_PER_TAG, pa.list_(pa.float64()))
        fields |= {"dense": halves, "embedding": halves, "embedding_model": pa.string()}
        self._typed = {name: kind for name, kind in (typed or {}).items() if name not in fields}
        self._schema = pa.schema(fields | self._typed | {_OTHER: pa.string()})
        self._table = pa.Table.from_pylist
        self._done = io.BytesIO()
        self._writer = Writer(self._done, self._schema, compression="zstd")
        self._rows: list[JsonObject] = []
        self._n_bytes = 0

    def encode(self, record: JsonObject) -> bytes:
        """Add a record."""
        line = dumps(record)
        self._rows.append(_to_row(orjson.loads(line), self._typed))
        self._n_bytes += len(line)
        if self._n_bytes > _GROUP_BYTES:
            self._write_group()
        return self._taken()

    def footer(self) -> Iterator[bytes]:
        """The rest of the file."""
        self._write_group()
        self._writer.close()
        yield self._taken()

    def _write_group(self) -> None:
        self._writer.write_table(self._table(self._rows, self._schema))
        self._rows, self._n_bytes = [], 0

    def _taken(self) -> bytes:
        content = self._done.getvalue()
        self._done.seek(0)  # pyarrow itself counts the position in the file
        self._done.truncate()
        return content


def column_types(names: Sequence[str]) -> dict[str, Any]:
    """The types of Arrow of the columns of Parquet inputs, but for bytes and nested ones."""
    found: dict[str, Any] = {}
    for name in names:
        if name.endswith(SUFFIX):
            opened(name)  # RunProblem where it is none
            from pyarrow.parquet import read_schema

            for column in read_schema(name):
                is_category = str(column.type).startswith("dictionary")
                kind = column.type.value_type if is_category else column.type
                if _TYPED.fullmatch(str(kind)):
                    found.setdefault(column.name, kind)
    return found


def _typed_value(value: Any, kind: Any) -> Any:
    """A value of JSON as a column's type has it: a date from its text."""
    import pyarrow as pa

    try:
        pa.scalar(value, kind)
    except DAMAGE:
        return pa.scalar(str(value)).cast(kind).as_py()
    return value


def _to_row(record: JsonObject, typed: Mapping[str, Any]) -> JsonObject:
    """The columns of a record; `other` holds fields that fit no column."""
    import numpy as np

    row: JsonObject = {}
    if isinstance(record.get("image"), str):
        row["image"] = record.pop("image")
    for name in _LISTS:
        if record.get(name) is not None:
            row[name] = record.pop(name)
    tags = row.get("tags", [])
    for name in _PER_TAG:
        numbers = record.get(name)
        if numbers is not None and [*numbers] == [tag for tag in tags if tag in numbers]:
            row[name] = [record[name].get(tag) for tag in tags]
            del record[name]
    if record.get("dense") is not None:
        row["dense"] = np.array(record.pop("dense"), np.float16)
    if isinstance(record.get("embedding"), str):
        row["embedding_model"], _, text = record.pop("embedding").partition(":")
        row["embedding"] = np.frombuffer(base64.b64decode(text), "<f2")
    for name in typed.keys() & record.keys():
        with suppress(*DAMAGE):  # another file has a column of the name, of another type
            value = record[name]
            row[name] = None if value is None else _typed_value(value, typed[name])
            del record[name]
    return row | ({_OTHER: dumps(record).decode().strip()} if record else {})


def _to_record(row: JsonObject) -> JsonObject:
    """The record of a row that `_to_row` made."""
    record = {name: value for name, value in row.items() if value is not None}
    for name in _PER_TAG:
        if name in record:
            pairs = zip(record["tags"], record[name], strict=True)
            record[name] = {tag: number for tag, number in pairs if number is not None}
    if (model := record.pop("embedding_model", None)) is not None:
        halves = struct.pack(f"<{len(record['embedding'])}e", *record["embedding"])
        record["embedding"] = f"{model}:{base64.b64encode(halves).decode()}"
    return record | loads(record.pop(_OTHER, "{}").encode())


def opened(name: str) -> Any:
    """Open a Parquet file with pyarrow; RunProblem where it is none."""
    require("parquet", name)
    from pyarrow import ArrowException, parquet

    try:
        # Texts stay in the file's dictionary until their row comes: a few bytes may stand for many.
        leaves = parquet.read_metadata(name).schema  # a nested column has one for each part
        texts = [leaf.path for leaf in leaves if _kind(leaf) == "text"]
        return parquet.ParquetFile(name, read_dictionary=texts, buffer_size=_BUFFER)
    except (ArrowException, *DAMAGE) as error:
        raise RunProblem(f"{name}: {str(error).splitlines()[0]}") from error


def _kind(leaf: Any) -> str:
    """Whether a column holds `text`, `bytes`, or something `else`."""
    kinds = {"STRING": "text", "JSON": "text", "ENUM": "text", "NONE": "bytes"}
    is_bytes = leaf.physical_type == "BYTE_ARRAY"
    return kinds.get(leaf.logical_type.type, "else") if is_bytes else "else"


def json_lines(name: str) -> Iterator[bytes]:
    """The rows of a file as JSON lines; RunProblem where it is not Parquet."""
    file = opened(name)
    photos, is_ours = photo_column(file), {"embedding_model", _OTHER} <= {*file.schema_arrow.names}
    try:
        for number, row in enumerate(_rows(file, photos, partial(_report_left_out, name))):
            fields = {} if row is None else row
            if photos:
                path = (fields.pop(photos, None) or {}).get("path")
                place = {"image": f"{Path(name).name}#{number}", "path": path}
                fields = {key: value for key, value in place.items() if value} | fields
            if is_ours and row is not None:
                with suppress(*DAMAGE):  # other programs have columns of these names, too
                    fields = _to_record(fields)
            line = orjson.dumps(fields, default=_text)
            yield (line if row is not None else line.ljust(MAX_LINE + 1)) + b"\n"
    except DAMAGE as error:
        raise RunProblem(f"{name}: {str(error).splitlines()[0]}") from error


def _text(value: object) -> str | None:
    return None if isinstance(value, bytes) else str(value)


@cache  # a file may be read more than once
def _report_left_out(name: str, column: str) -> None:
    message = f"{name}: column {column!r} left out: unpacked it may not fit into memory"
    sys.stderr.write(f"ramctl: {one_line(message)}\n")


def _rows(
    file: Any, photos: str | None, report: Callable[[str], None]
) -> Iterator[JsonObject | None]:
    """The rows, without photos and other bytes; None for a row that is too long.

    `report` is called with the name of a column that may not fit into memory.
    """
    leaves = [*file.metadata.schema]
    # `datasets` keeps the names of photos beside them.
    apart = [
        leaf.path.partition(".")[0] == photos and leaf.path != f"{photos}.path" for leaf in leaves
    ]
    for group in range(file.num_row_groups):
        facts, total, columns = file.metadata.row_group(group), 1, []
        for place, leaf in enumerate(leaves):
            if apart[place] or _kind(leaf) == "bytes":
                continue
            chunk = facts.column(place)
            size = chunk.total_uncompressed_size
            if leaf.max_repetition_level:
                size += chunk.num_values * (12 + max(leaf.length or 0, 0))
            most = max(MAX_UNFOLDED, MAX_UNFOLDING * chunk.total_compressed_size)
            if size > most:
                report(leaf.path)
                continue
            total += size
            columns.append(leaf.path)
        at_once = min(max(_MAX_BYTES * facts.num_rows // total, 1), _MAX_BATCH_ROWS)
        for batch in file.iter_batches(at_once, row_groups=[group], columns=columns):
            yield from _batch_rows(batch)


def _batch_rows(batch: Any) -> Iterator[JsonObject | None]:
    """The rows of a batch, split until what becomes Python objects at a time is small."""
    size, n_rows = sum(map(_min_bytes, batch.columns)), batch.num_rows
    if size > _MAX_BYTES and n_rows > 1:
        yield from _batch_rows(batch.slice(0, n_rows // 2))
        yield from _batch_rows(batch.slice(n_rows // 2))
    elif size > MAX_LINE:
        yield None
    else:
        columns = dict(zip(batch.schema.names, map(_values, batch.columns), strict=True))
        for place in range(n_rows):
            row = {key: values[place] for key, values in columns.items()}
            yield {key: value for key, value in row.items() if not isinstance(value, bytes)}


def _min_bytes(array: Any) -> int:
    """A lower bound of the bytes of the array's values as JSON."""
    import pyarrow as pa
    from pyarrow import compute, types

    if isinstance(array, pa.ExtensionArray):
        return _min_bytes(array.storage)
    if isinstance(array, pa.StructArray):
        return sum(map(_min_bytes, array.flatten()))
    if isinstance(array, pa.MapArray):  # which has no `flatten`
        start, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return sum(_min_bytes(part.slice(start, end - start)) for part in (array.keys, array.items))
    if types.is_nested(array.type):
        return _min_bytes(array.flatten()) + 2 * len(array)
    size = (2 if types.is_integer(array.type) else 4) * len(array)
    texts = array.dictionary if isinstance(array, pa.DictionaryArray) else array
    if any(map(str(texts.type).startswith, ("string", "large_string", "binary"))):
        lengths = compute.binary_length(texts)
        lengths = lengths if texts is array else lengths.take(array.indices)
        size += int(compute.sum(lengths).as_py() or 0)
    return size


def _values(array: Any) -> list[Any]:
    try:
        return cast(list[Any], array.to_pylist())
    except DAMAGE:
        return [*map(_value, array)]


def _value(scalar: Any) -> Any:
    """A value as a Python object; as text or None where Python has no such value."""
    import pyarrow as pa

    if isinstance(scalar, pa.DictionaryScalar):
        scalar = scalar.value
    ways: list[Callable[[], Any]] = [
        scalar.as_py,
        lambda: scalar.cast(pa.string()).as_py(),
        lambda: scalar.as_buffer().to_pybytes().decode("utf-8", "backslashreplace"),
    ]
    for way in ways:
        with suppress(AttributeError, *DAMAGE):  # only texts have a buffer
            return way()
    return None


def photo_column(file: Any) -> str | None:
    """The column whose values, or their parts `bytes`, are photos; None where there is none."""
    for leaf in file.metadata.schema:
        name, _, part = leaf.path.partition(".")
        if name in _PHOTOS and part in ("", "bytes") and _kind(leaf) == "bytes":
            return str(name)
    return None
