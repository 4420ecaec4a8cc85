"""Tags as image trainers read them: one line, after the caption where it is wanted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ramctl.errors import RecordProblem, UsageProblem
from ramctl.photos.finding import is_photo_name
from ramctl.records.record import JsonObject, Record

_TAKEN = (".xmp", ".jsonl", ".tar")


@dataclass(frozen=True, slots=True)
class TextStyle:
    """How a photo's text is written; the choices are those of sd-scripts' tagger."""

    with_caption: bool = False  # before the tags
    first: str = ""  # tags, with commas between them, that come first where they are given
    separator: str = ", "
    underscores: bool = False  # hot_dog
    extension: str = ".txt"

    def check(self) -> None:
        """UsageProblem for an extension that other files have, or no separator."""
        name = f"photo{self.suffix}"
        is_taken = is_photo_name(name) or self.suffix in _TAKEN
        if is_taken or Path(name).suffix != self.suffix:
            raise UsageProblem(f"--txt-extension {self.extension}: not the name of a text file")
        if not self.separator or "\n" in self.separator:
            raise UsageProblem("--txt-separator is one line, and not empty")

    @property
    def suffix(self) -> str:
        """The extension with its dot."""
        return self.extension if self.extension.startswith(".") else f".{self.extension}"

    def tags(self, tags: Sequence[str]) -> list[str]:
        """The tags in their order and spelling."""
        wanted = [tag.strip() for tag in self.first.split(",")]
        leading = [tag for tag in wanted if tag in tags]
        ordered = dict.fromkeys([*leading, *tags])
        return [tag.replace(" ", "_") if self.underscores else tag for tag in ordered]

    def join(self, tags: Sequence[str]) -> str:
        """The tags in one line; a tag's own separator is escaped by a backslash."""
        return self.separator.join(tag.replace(self._mark, f"\\{self._mark}") for tag in tags)

    def split(self, line: str) -> list[str]:
        """The tags of a line that `join` made."""
        # NUL stands for an escaped separator while the line is split at the others.
        parts = line.replace(f"\\{self._mark}", "\0").split(self._mark)
        return [tag.strip().replace("\0", self._mark) for tag in parts if tag.strip()]

    def caption(self, record: JsonObject) -> str:
        """The caption that comes before the tags, empty where none is wanted."""
        return caption_of(record) if self.with_caption else ""

    def line(self, record: JsonObject) -> str:
        """All of a record's text."""
        parts = (self.caption(record), self.join(self.tags(record["tags"])))
        return self.separator.join(part for part in parts if part)

    @property
    def _mark(self) -> str:
        return self.separator.strip() or self.separator


def caption_of(record: JsonObject) -> str:
    """A record's first caption, of those that a model wrote or its own; empty without any."""
    captions = record.get("generated_captions") or record.get("captions") or [""]
    return " ".join(str(captions[0]).split())


def require_caption(_: Record, fields: JsonObject) -> None:
    """RecordProblem for a record that has no caption."""
    if not caption_of(fields):
        message = "no caption for --txt-caption; --caption writes one"
        raise RecordProblem(message, code="missing_field")
