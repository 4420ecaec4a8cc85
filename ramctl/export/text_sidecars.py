"""Texts for image trainers, `IMG.txt`: tags on one line, after a trigger word and a caption.

A text cannot state who wrote a word, so each folder has a record of what ramctl wrote into its
texts. A word of that record that is no longer in the text was deleted by somebody: it is refused.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from ramctl.errors import escaped
from ramctl.labels import normalise
from ramctl.records.record import JsonObject
from ramctl.tagging.output_formats import join_tags

MAX_USUAL = 0.8  # a fraction of the texts; a tag in more of them is reported
_COMMA = re.compile(r"(?<!\\),")
_CAPTIONS = ("caption", "human_caption")  # by a model or a person
#: The parts of a text besides tags, in its row.
TEXTS_OF_ROW = (*_CAPTIONS, "trigger")


@dataclass(frozen=True, slots=True)
class TextOptions:
    """The form of texts, and what happens to existing ones."""

    trigger: str = ""  # the first word of every text
    with_caption: bool = False  # before the tags
    caption_last: bool = False  # after them
    existing_text: Literal["append", "replace", "keep"] = "append"

    def caption(self, record: JsonObject) -> str:
        """The caption beside the tags; empty where none is to be written."""
        return caption_of(record) if self.with_caption or self.caption_last else ""

    def line(self, record: JsonObject) -> str:
        """The whole text of a record."""
        parts = (self.caption(record), join_tags(record["tags"]))
        return ", ".join(filter(None, (self.trigger, *parts[:: -1 if self.caption_last else 1])))


class TextCounts(Counter[str]):
    """The number of texts that hold each word, without trigger words and captions."""

    def add(self, content: bytes, row: JsonObject) -> None:
        """Count a text with its row in TextRecords; the empty word counts all texts."""
        text = without(as_text(content), [row.get("trigger", ""), *_captions(row)])
        self.update({"", *split_tags(text)})

    def lines(self) -> Iterator[str]:
        """A line for each word, the most frequent first."""
        n_texts = self.pop("", 0)
        yield f"{n_texts} texts\n"
        for word, n in sorted(self.items(), key=lambda pair: (-pair[1], pair[0])):
            mark = f"  over {100 * MAX_USUAL:.0f} %" if n > MAX_USUAL * n_texts else ""
            yield f"{n:6} {100 * n / n_texts:5.0f} %  {escaped(word)}{mark}\n"


def caption_of(record: JsonObject) -> str:
    """A record's first generated caption, else its first caption; empty without any."""
    captions = record.get("generated_captions") or record.get("captions") or [""]
    return " ".join(str(captions[0]).split())


def split_tags(line: str) -> list[str]:
    """The tags of a line that `join_tags` made."""
    tags = (part.replace("\\,", ",").strip() for part in _COMMA.split(line))
    return [tag for tag in tags if tag]


def as_text(content: bytes | None) -> str:
    """A text without surrounding white space; ValueError for what is not UTF-8."""
    return (content or b"").decode("utf-8-sig").strip()


def text_decisions(text: str, earlier: JsonObject) -> tuple[list[str], list[str]]:
    """The words that ramctl wrote into a text and that are still there, and the refused ones.

    `earlier` is the row of the text in TextRecords.
    """
    present = set(map(normalise, split_tags(text)))
    given, refused = earlier.get("given", []), earlier.get("refused", [])
    refused = [word for word in [*refused, *given] if normalise(word) not in present]
    written = [word for word in given if word not in earlier.get("existing", ())]
    return [word for word in written if normalise(word) in present], refused


def without(text: str, phrases: Iterable[str]) -> str:
    """The text without these phrases, where they stand between commas as they were written."""
    parts = _COMMA.split(text)
    words = [part.strip() for part in parts]
    for phrase in filter(None, phrases):
        cut = [part.strip() for part in _COMMA.split(phrase)]
        starts = (n for n in range(len(words)) if words[n : n + len(cut)] == cut)
        if (start := next(starts, None)) is not None:
            del parts[start : start + len(cut)], words[start : start + len(cut)]
    return ",".join(parts).strip()


def words_of_person(text: str, earlier: JsonObject) -> str:
    """The text without what ramctl wrote into it."""
    written = map(join_tags, ([word] for word in _written(earlier)))
    return without(text, [earlier.get("trigger", ""), *_captions(earlier), *written])


def _written(earlier: JsonObject) -> list[str]:
    """The tags that ramctl wrote; in rows of older versions a person's may be among them."""
    given: list[str] = earlier.get("given", [])
    return [word for word in given if word not in earlier.get("existing", given)]


def _captions(row: JsonObject) -> list[str]:
    return [row[name] for name in _CAPTIONS if name in row]


def merged_text(
    content: bytes | None, record: JsonObject, options: TextOptions, earlier: JsonObject,
    *, forget: bool = False,
) -> tuple[bytes, JsonObject]:  # fmt: skip
    """The new content of a text, and what its folder is to record of it.

    The text has the record's tags on one line, with its caption where requested. `append` keeps a
    person's words and replaces those that ramctl wrote before. Refused words are never written
    again, unless `forget`, nor a caption that a person changed. ValueError for content that is not
    UTF-8.
    """
    text = as_text(content)
    refused = earlier.get("refused", []) if content is None else text_decisions(text, earlier)[1]
    refused = [] if forget else list(dict.fromkeys(refused))
    excluded = {"", *map(normalise, refused)}
    tags = [tag for tag in record["tags"] if normalise(tag) not in excluded]
    text = text if options.existing_text == "append" else ""
    by_person = set(map(normalise, split_tags(words_of_person(text, earlier))))
    row: JsonObject = {
        "given": tags,
        "refused": refused,
        "existing": [tag for tag in tags if normalise(tag) in by_person],
    }

    caption, earlier_captions = options.caption(record), _captions(earlier)
    is_changed = bool(text) and any(part not in text for part in earlier_captions)
    if is_changed and not forget:
        row |= {name: earlier[name] for name in _CAPTIONS if name in earlier}
        caption = ""
    text = without(text, [earlier.get("trigger", ""), *earlier_captions])
    if caption and caption not in text:
        row["caption" if record.get("generated_captions") else "human_caption"] = caption
    else:
        caption = ""

    staying = set(map(normalise, tags))
    written = {join_tags([word]): normalise(word) in staying for word in _written(earlier)}
    text = without(text, [word for word, stays in written.items() if not stays])
    present = set(map(normalise, split_tags(text)))
    if options.trigger and normalise(options.trigger) not in present:
        row["trigger"] = options.trigger
    new = [tag for tag in tags if normalise(tag) not in present]
    # A caption comes before the first tag that ramctl wrote.
    parts = _COMMA.split(text)
    ours = (n for n, part in enumerate(parts) if part.strip() in written)
    first = len(parts) if options.caption_last else next(ours, len(parts))
    before, after = (",".join(half).strip() for half in (parts[:first], parts[first:]))
    tail = ", ".join(filter(None, (after, join_tags(new))))
    ordered = (tail, caption) if options.caption_last else (caption, tail)
    line = ", ".join(filter(None, (row.get("trigger"), before, *ordered)))
    return f"{line}\n".encode(), row
