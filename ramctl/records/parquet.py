"""Parquet: any file is read as JSON lines; records are written by columns, in row groups.

Photos whose bytes are in a file, as `datasets` and img2dataset write them, are named by their rows,
`FILE.parquet#17` (from 0), as those in archives are by their members.
"""

import base64
import io
import struct
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, cast

import orjson

from ramctl.errors import RecordProblem, RunProblem, one_line
from ramctl.parts import require
from ramctl.records.jsonl import MAX_LINE, dumps, loads
from ramctl.records.pipes import stream_of
from ramctl.records.record import JsonObject

SUFFIX = ".parquet"
_LISTS = ("tags", "captions", "generated_captions")  # of texts
_PER_TAG = ("scores", "salience")  # parallel to `tags`, null for a tag without one
_OTHER = "other"  # the rest of a record, as JSON
_GROUP_BYTES = 1 << 22  # of JSON in a row group
_ROWS_AT_ONCE, _HELD = 256, 8  # rows of texts, photos
_MOST_BYTES = 1 << 22  # of the JSON of rows that become Python's objects at a time
# What a column may take in a row group, all of which may be in one row: so many bytes, or so many
# times its bytes in the file.
MAX_UNFOLDED, MAX_UNFOLDING = 1 << 28, 128
_BUFFER = 1 << 20  # bytes of a column that are read at a time
_PHOTOS = ("image", "image_bytes", "jpg", "jpeg", "png", "webp", "bytes", "content")
_DAMAGE = (  # pyarrow's own are among them
    ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError, struct.error,
)  # fmt: skip


class ParquetWriter:
    """Turns records into a Parquet file, of which `encode` and `footer` give what is complete.

    `dense` and `embedding` become lists of float16; the other fields come back as they were.
    """

    def __init__(self) -> None:
        require("parquet", "Parquet")
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter as Writer

        texts, halves = pa.list_(pa.string()), pa.list_(pa.float16())
        fields = {"image": pa.string()} | dict.fromkeys(_LISTS, texts)
        fields |= dict.fromkeys(_PER_TAG, pa.list_(pa.float64()))
        fields |= {"dense": halves, "embedding": halves, "embedding_model": pa.string()}
        self._schema = pa.schema(fields | {_OTHER: pa.string()})
        self._table = pa.Table.from_pylist
        self._done = io.BytesIO()
        self._writer = Writer(self._done, self._schema, compression="zstd")
        self._rows: list[JsonObject] = []
        self._n_bytes = 0

    def encode(self, record: JsonObject) -> bytes:
        """Add a record."""
        line = dumps(record)
        self._rows.append(_row_of(orjson.loads(line)))
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
        self._done.seek(0)  # pyarrow counts for itself where it is in the file
        self._done.truncate()
        return content


def _row_of(record: JsonObject) -> JsonObject:
    """The columns of a record; what does not fit them stays in `other`."""
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
    return row | ({_OTHER: dumps(record).decode().strip()} if record else {})


def _record_of(row: JsonObject) -> JsonObject:
    """The record of a row that `_row_of` made."""
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
    """pyarrow's file; RunProblem where it is no Parquet."""
    require("parquet", name)
    from pyarrow import ArrowException, parquet

    try:
        # Texts stay in the file's dictionary until their row comes: a few bytes may stand for many.
        texts = [
            leaf.path for leaf in _leaves(parquet.read_metadata(name)) if _kind(leaf) == "text"
        ]
        return parquet.ParquetFile(name, read_dictionary=texts, buffer_size=_BUFFER)
    except (ArrowException, *_DAMAGE) as error:
        raise RunProblem(f"{name}: {str(error).splitlines()[0]}") from error


def _leaves(metadata: Any) -> list[Any]:
    """The columns as they are in the file, each part of a table by itself."""
    return [metadata.schema.column(place) for place in range(metadata.num_columns)]


def _kind(leaf: Any) -> str:
    """Whether a column holds `text`, `bytes`, or something `else`."""
    kinds = {"STRING": "text", "JSON": "text", "ENUM": "text", "NONE": "bytes"}
    is_bytes = leaf.physical_type == "BYTE_ARRAY"
    return kinds.get(leaf.logical_type.type, "else") if is_bytes else "else"


def open_lines(name: str) -> BinaryIO:
    """The rows of a file as JSON lines; RunProblem where it is no Parquet."""
    return stream_of(_lines(name))


def _lines(name: str) -> Iterator[bytes]:
    file = opened(name)
    photos, is_ours = _photo_column(file), {"embedding_model", _OTHER} <= {*file.schema_arrow.names}
    try:
        for number, row in enumerate(_rows(file, photos, cache(partial(_say_left_out, name)))):
            fields = {} if row is None else row
            if photos:
                path = (fields.pop(photos, None) or {}).get("path")
                fields = {"image": f"{Path(name).name}#{number}", "path": path} | fields
            if is_ours and row is not None:
                with suppress(*_DAMAGE):  # others have columns of these names, too
                    fields = _record_of(fields)
            line = orjson.dumps(fields, default=_text)
            yield (line if row is not None else line.ljust(MAX_LINE + 1)) + b"\n"
    except _DAMAGE as error:
        raise RunProblem(f"{name}: {str(error).splitlines()[0]}") from error


def _text(value: object) -> str | None:
    return None if isinstance(value, bytes) else str(value)


def _say_left_out(name: str, column: str) -> None:
    message = f"{name}: column {column!r} left out: unpacked it may not fit into memory"
    sys.stderr.write(f"ramctl: {one_line(message)}\n")


def _rows(file: Any, photos: str | None, say: Callable[[str], None]) -> Iterator[JsonObject | None]:
    """The rows without the photos themselves, and without other bytes; None for a row without end.

    `say` is told of columns that cannot be read in memory's bounds.
    """
    leaves = _leaves(file.metadata)
    # `datasets` also keeps the photos' names.
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
                say(leaf.path)
                continue
            total += size
            columns.append(leaf.path)
        at_once = min(max(_MOST_BYTES * facts.num_rows // total, 1), _ROWS_AT_ONCE)
        for batch in file.iter_batches(at_once, row_groups=[group], columns=columns):
            yield from _rows_of(batch)


def _rows_of(batch: Any) -> Iterator[JsonObject | None]:
    """The rows of a batch, a few at a time; one as wide as all of it may come in each of them."""
    size, n_rows = sum(map(_fewest_bytes, batch.columns)), batch.num_rows
    if size > _MOST_BYTES and n_rows > 1:
        yield from _rows_of(batch.slice(0, n_rows // 2))
        yield from _rows_of(batch.slice(n_rows // 2))
    elif size > MAX_LINE:
        yield None
    else:
        columns = dict(zip(batch.schema.names, map(_values, batch.columns), strict=True))
        for place in range(n_rows):
            row = {key: values[place] for key, values in columns.items()}
            yield {key: value for key, value in row.items() if not isinstance(value, bytes)}


def _fewest_bytes(array: Any) -> int:
    """What the array's values take as JSON, at the least."""
    import pyarrow as pa
    from pyarrow import compute, types

    if isinstance(array, pa.ExtensionArray):
        return _fewest_bytes(array.storage)
    if isinstance(array, pa.StructArray):
        return sum(map(_fewest_bytes, array.flatten()))
    if isinstance(array, pa.MapArray):  # which has no `flatten`
        start, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return sum(
            _fewest_bytes(part.slice(start, end - start)) for part in (array.keys, array.items)
        )
    if types.is_nested(array.type):
        return _fewest_bytes(array.flatten()) + 2 * len(array)
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
    except _DAMAGE:
        return [*map(_value, array)]


def _value(scalar: Any) -> Any:
    """A value as Python's; one that Python cannot hold as text, or None."""
    import pyarrow as pa

    with suppress(*_DAMAGE):
        return scalar.as_py()
    kind = scalar.type
    with suppress(*_DAMAGE):
        if isinstance(scalar, pa.StructScalar):
            return {name: _value(scalar[name]) for name in scalar}
        if isinstance(scalar, pa.ListScalar):
            return [*map(_value, scalar.values)]
        if isinstance(scalar, pa.DictionaryScalar):
            return _value(scalar.value)
        if isinstance(scalar, pa.StringScalar | pa.LargeStringScalar):
            return scalar.as_buffer().to_pybytes().decode("utf-8", "backslashreplace")
        if isinstance(scalar, pa.TimestampScalar) and kind.tz not in (None, "UTC"):
            return _value(scalar.cast(pa.timestamp(kind.unit, "UTC")))
        return scalar.cast(pa.string()).as_py()
    return None


def _photo_column(file: Any) -> str | None:
    """The column with the photos' bytes, its own or those of its part `bytes`; None without."""
    for leaf in _leaves(file.metadata):
        name, _, part = leaf.path.partition(".")
        if name in _PHOTOS and part in ("", "bytes") and _kind(leaf) == "bytes":
            return str(name)
    return None


class ParquetPhotos:
    """The photos in a file, by the numbers of their rows: read on from the last one, if they can.

    Row by row, as a few bytes may stand for the same photo many times.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = opened(str(path))
        except RunProblem as problem:
            raise RecordProblem(problem.message, code="unreadable_image") from problem
        self._column = _photo_column(self._file)
        groups = range(self._file.num_row_groups)
        n_rows = (self._file.metadata.row_group(index).num_rows for index in groups)
        self._starts = [0, *accumulate(n_rows)]
        self._lock = Lock()
        self._next, self._rows = self._starts[-1], iter(())  # what is read next, and from where
        self._held: dict[int, Any] = {}  # the last photos: threads ask for them out of order

    def members(self) -> Iterator[str]:
        """The names of all photos."""
        return map(str, range(self._starts[-1] if self._column else 0))

    def stamp(self, member: str) -> str:
        """The same while the photo is there; RecordProblem where it is not."""
        if not (self._column and member.isdecimal() and int(member) < self._starts[-1]):
            raise RecordProblem("no such photo in the file", code="missing_image")
        return member

    def read(self, member: str, max_bytes: int) -> bytes:
        """The bytes of a row's photo; RecordProblem where there are none, or they are too many."""
        row = int(self.stamp(member))
        with self._lock:
            try:
                while row not in self._held:
                    self._read_on(row, max_bytes)
            except _DAMAGE as error:
                raise RecordProblem(str(error).splitlines()[0], code="unreadable_image") from error
            photo = self._held[row]
        content = photo.get("bytes") if isinstance(photo, dict) else photo
        if content is None:
            raise RecordProblem("the row has no photo", code="missing_image")
        return cast(bytes, content)

    def _read_on(self, row: int, max_bytes: int) -> None:
        group = bisect_right(self._starts, row) - 1
        start = self._starts[group]
        if not start < self._next <= row:
            if (size := self._file.metadata.row_group(group).total_byte_size) > max_bytes:
                message = f"its row group has {size} bytes, more than the limit of {max_bytes}"
                raise RecordProblem(message, code="too_large")
            self._rows = self._file.iter_batches(1, row_groups=[group], columns=[self._column])
            self._next = start
        if (batch := next(self._rows, None)) is None:
            raise ValueError("fewer rows than the file says")
        self._held[self._next] = batch.column(0)[0].as_py()
        self._next += 1
        for oldest in list(self._held)[:-_HELD]:
            del self._held[oldest]
