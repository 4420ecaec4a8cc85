"""The items of a long JSON list, one at a time: a file of any size in constant memory."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import Any, BinaryIO

import orjson

CHUNK = 1 << 18
#: One item must fit: far beyond any caption record.
MAX_ITEM = 1 << 26
#: What ends or nests a value; strings are passed over whole.
_MARK = re.compile(rb'["{}\[\],:]')
_NESTED_MARK = re.compile(rb'[{}\[\]]|"(?:[^"\\]|\\.)*"?', re.DOTALL)
_CONTENT = re.compile(b"[^ \t\r\n," + BOM_UTF8 + b"]")


class JsonScanner:
    """Reads through a JSON text and knows, at each mark, how deep it is and under which key."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._buffer = b""
        self._at = 0
        self._ended = False

    def items(self, key: str | None) -> Iterator[Any]:
        """The items of the top-level list, or of the list under `key` of the top-level object.

        Raises ValueError where the text is no such JSON; yields nothing if the key is absent.
        """
        if not self._enter(key):
            return
        while True:
            start = self._skip_space_and_commas()
            if start == b"]":
                return
            if not start:
                raise ValueError("the list has no end")
            yield orjson.loads(self._value())

    def _enter(self, key: str | None) -> bool:
        """Move behind the `[` of the wanted list; whether there is one."""
        start = self._skip_space_and_commas()
        if key is None:
            if start != b"[":
                raise ValueError("not a JSON list")
            self._at += 1
            return True
        if start != b"{":
            raise ValueError("not a JSON object")
        self._at += 1
        while (start := self._skip_space_and_commas()) == b'"':
            name = orjson.loads(self._value())
            if self._skip_space_and_commas() != b":":
                raise ValueError("a key without a value")
            self._at += 1
            if self._skip_space_and_commas() == b"[" and name == key:
                self._at += 1
                return True
            self._skip_value()
        return False

    def _more(self) -> bool:
        """Read on, forgetting what lies before the present place; False at the end."""
        if not self._ended:
            chunk = self._stream.read(CHUNK)
            self._ended = not chunk
            self._buffer = self._buffer[self._at :] + chunk
            self._at = 0
        return not self._ended

    def _skip_space_and_commas(self) -> bytes:
        """The next byte that is neither white space nor a comma; empty at the end."""
        while True:
            found = _CONTENT.search(self._buffer, self._at)
            if found:
                self._at = found.start()
                return found[0]
            self._at = len(self._buffer)
            if not self._more():
                return b""

    def _value(self) -> bytes:
        """The text of the value that starts here, moved past."""
        depth, length = 0, 0
        while True:
            pattern = _NESTED_MARK if depth else _MARK
            found = pattern.search(self._buffer, self._at + length)
            if found is None:
                length = len(self._buffer) - self._at
                if length > MAX_ITEM:
                    raise ValueError(f"an item of more than {MAX_ITEM} bytes")
                if not self._more():
                    return self._take(length)
                continue
            mark, length = found[0], found.end() - self._at
            if (
                depth
                and mark[:1] == b'"'
                and self._buffer[found.end() : found.end() + 1] not in (b"", b"\\")
            ):
                continue
            if mark[:1] == b'"':
                length = self._end_of_string(found.start() + 1 - self._at)
                if depth == 0:
                    return self._take(length)
            elif mark in b"{[":
                depth += 1
            elif mark in b"}]" and depth > 1:
                depth -= 1
            elif mark in b"}]":
                return self._take(length if depth else length - 1)
            elif depth == 0:
                return self._take(length - 1)

    def _skip_value(self) -> None:
        """Move past the value that starts here; a list of any length, item by item."""
        if self._skip_space_and_commas() != b"[":
            self._value()
            return
        self._at += 1
        while self._skip_space_and_commas() not in (b"]", b""):
            self._value()
        self._at += 1

    def _end_of_string(self, length: int) -> int:
        """How far the closing quote is of the string that starts before `length`."""
        while True:
            end = self._buffer.find(b'"', self._at + length)
            if end < 0:
                length = len(self._buffer) - self._at
                if length > MAX_ITEM or not self._more():
                    raise ValueError("a string has no end")
                continue
            length = end + 1 - self._at
            before = self._buffer[self._at : end]
            if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:
                return length

    def _take(self, length: int) -> bytes:
        value = self._buffer[self._at : self._at + length]
        self._at += length
        return value
