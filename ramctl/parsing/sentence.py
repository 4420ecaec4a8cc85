"""One caption as the rules see it: words, repaired part-of-speech tags, muted words, compounds."""

from __future__ import annotations

import html
import re
import unicodedata
from dataclasses import dataclass, field

NOUNS = frozenset({"NN", "NNS", "NNP", "NNPS"})
ADJECTIVES = frozenset({"JJ", "JJR", "JJS"})
VERBS = frozenset({"VB", "VBD", "VBG", "VBN", "VBP", "VBZ"})
FINITE = frozenset({"VBD", "VBP", "VBZ", "MD"})
DETERMINERS = frozenset({"DT", "PRP$", "PDT", "WP$", "CD", "POS"})
BOUNDARIES = frozenset({".", ":", "``", "''", "-LRB-", "-RRB-"})

URL = re.compile(r"(?:https?://|www\.)\S+")
MARKUP = re.compile(r"<[^<>]{1,200}>")
CURLY_APOSTROPHE = str.maketrans({"\u2019": "'", "\u2018": "'", "\u00a0": " ", "_": " "})
#: Text in single quotes; an apostrophe inside of a word is none.
SINGLE_QUOTED = re.compile(r"(?<!\w)'(?!(?:s|t|m|re|ve|ll|d)\b)((?:[^'\n]|(?<=\w)'(?=\w))+)'(?!\w)")
#: What has more characters is no word; the tokenizer's time grows with their square.
MAX_WORD = 100
NO_WORD = re.compile(rf"\S{{{MAX_WORD + 1},}}")


def clean(text: str) -> str:
    """The caption without mark-up, entities, addresses and what is too long for a word; NFC."""
    text = html.unescape(text) if "&" in text else text
    if "<" in text:
        text = MARKUP.sub(" ", text)
    if "://" in text or "www." in text:
        text = URL.sub(" ", text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    text = text.translate(CURLY_APOSTROPHE).replace("``", '"').replace("''", '"')
    if text.count("'") > 1:
        text = SINGLE_QUOTED.sub(r'"\1"', text)
    if len(text) > MAX_WORD:
        text = NO_WORD.sub(" ", text)
    return " ".join(text.split())


@dataclass(slots=True)
class Sentence:
    """A caption's words; the four lists are parallel.

    `muted` names the rule by which a word gives no tag (empty: it may). `units` maps the
    place where a compound starts to the place after its end and to its lemma.
    """

    shown: list[str]
    words: list[str]
    tags: list[str]
    muted: list[str]
    units: dict[int, tuple[int, str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.words)

    def tag(self, i: int) -> str:
        """The tag at a place; empty outside of the caption."""
        return self.tags[i] if 0 <= i < len(self.tags) else ""

    def word(self, i: int) -> str:
        """The word at a place; empty outside of the caption."""
        return self.words[i] if 0 <= i < len(self.words) else ""

    def mute(self, start: int, end: int, rule: str) -> None:
        """Let the words of a span give no tags."""
        for i in range(max(start, 0), min(end, len(self.words))):
            self.muted[i] = self.muted[i] or rule

    def phrase_end(self, i: int) -> int:
        """The place after the noun phrase that starts at a place."""
        n = len(self.words)
        while i < n and (
            self.tags[i] in DETERMINERS
            or self.tags[i] in ADJECTIVES
            or (
                self.tags[i] in ("VBN", "VBG", "RB", "HYPH")
                and self.tag(i + 1) in NOUNS | ADJECTIVES
            )
        ):
            i += 1
        while i < n and (self.tags[i] in NOUNS or i in self.units):
            i = self.units[i][0] if i in self.units else i + 1
        return i


def sentence(shown: list[str], tags: list[str], spelling: dict[str, str]) -> Sentence:
    """The caption's words in lower case with known slips mended; hyphens are left out."""
    kept_shown: list[str] = []
    words: list[str] = []
    kept_tags: list[str] = []
    for word, tag in zip(shown, tags, strict=True):
        if (tag in ("HYPH", "_SP", "AFX") and not word.isalpha()) or word == "-":
            continue
        lower = word.lower()
        lower = spelling.get(lower, lower)
        for part in lower.split():
            kept_shown.append(word)
            words.append(part)
            kept_tags.append(tag)
    return Sentence(kept_shown, words, kept_tags, [""] * len(words))
