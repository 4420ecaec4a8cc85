"""The text of captions, cleaned for the parser, and the result of parsing."""

import html
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter

URL = re.compile(r"(?:https?://|www\.)\S+")
MARKUP = re.compile(r"<[^<>]{1,200}>")
# IMG_4821, DSC_0192.JPG, profile_pic_v2, London.jpg.
FILE_NAME = re.compile(
    r"(?<!\S)(?:\w*_\w*\d\w*|\S*\.(?:jpe?g|png|gif|webp|tiff?|svg|eps|psd))(?:\.\w{3,4})?(?!\w)",
    re.IGNORECASE,
)
CURLY_APOSTROPHE = str.maketrans({"\u2019": "'", "\u2018": "'", "\u00a0": " ", "_": " "})
# The name of a file that is a plain word names a thing: "beach.jpg".
PLAIN_FILE = re.compile(r"(?<![\w.-])([a-z]{3,})\.(?:jpe?g|png|gif|webp|tiff?)(?!\w)")
# Longer strings are no words, and the tokenizer's time grows with the square of their length.
MAX_WORD = 100
NO_WORD = re.compile(rf"\S{{{MAX_WORD + 1},}}")


def clean(text: str) -> str:
    """The caption without mark-up, entities, URLs and strings too long for a word; in NFC."""
    text = html.unescape(text) if "&" in text else text
    if "<" in text:
        text = MARKUP.sub(" ", text)
    if "://" in text or "www." in text:
        text = URL.sub(" ", text)
    if "_" in text or "." in text:
        if " " in text:
            text = PLAIN_FILE.sub(r"\1", text)
        text = FILE_NAME.sub(" ", text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    text = text.translate(CURLY_APOSTROPHE).replace("``", '"').replace("''", '"')
    if len(text) > MAX_WORD:
        text = NO_WORD.sub(" ", text)
    return " ".join(text.split())


def without_accents(word: str) -> str:
    """The word as dictionaries have it: "coupe" for "coupé"."""
    if word.isascii():
        return word
    parts = unicodedata.normalize("NFD", word)
    return "".join(part for part in parts if not unicodedata.combining(part))


@dataclass(frozen=True, slots=True)
class Mention:
    """A tag with its kind, the index and the words of the caption it comes from, and the rule."""

    place: int
    tag: str
    kind: str
    words: str
    rule: str


@dataclass(frozen=True, slots=True)
class ParsedCaption:
    """A caption's tags in order of first mention, each with its evidence."""

    mentions: tuple[Mention, ...]
    phrases: tuple[str, ...] = ()  # free compounds, such as "soccer field"

    @classmethod
    def of(cls, mentions: Iterable[Mention], phrases: Iterable[str]) -> "ParsedCaption":
        """The caption with each tag once, where it is mentioned first."""
        unique: dict[str, Mention] = {}
        for mention in sorted(mentions, key=attrgetter("place")):
            unique.setdefault(mention.tag, mention)
        return cls(tuple(unique.values()), tuple(phrases))

    @property
    def tags(self) -> list[str]:
        """The tags in order of first mention, each once."""
        return [mention.tag for mention in self.mentions]

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each tag."""
        return {mention.tag: mention.kind for mention in self.mentions}
