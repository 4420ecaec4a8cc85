"""The text of captions, cleaned for the parser; whether it is English; the result of parsing."""

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter

from ramctl.parsing.english.lexicon import AFTER_LATIN, Lexicon, word_set

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
# Text in single quotes; an apostrophe inside a word does not count as one.
SINGLE_QUOTED = re.compile(r"(?<!\w)'(?!(?:s|t|m|re|ve|ll|d)\b)((?:[^'\n]|(?<=\w)'(?=\w))+)'(?!\w)")
WORD = re.compile(r"[^\W\d_]{2,}")
# The minimum fraction of known words in a text that has more function words of other languages
# than English ones, and in one that has neither.
MIN_KNOWN_AMONG_FOREIGN = 0.6
MIN_KNOWN = 0.5
MIN_WORDS = 4  # fewer without function words tell no language: "tennis racke", "Sonnenuntergang"
# Words of English that are not also words of other languages.
ENGLISH_ALONE = word_set("english") - word_set("shared_words")


def clean(text: str) -> str:
    """The caption without mark-up, entities, URLs and strings too long for a word; in NFC.

    Single quotes become double ones.
    """
    text = URL.sub(" ", MARKUP.sub(" ", html.unescape(text)))
    if " " in text:
        text = PLAIN_FILE.sub(r"\1", text)
    text = unicodedata.normalize("NFC", FILE_NAME.sub(" ", text)).translate(CURLY_APOSTROPHE)
    text = NO_WORD.sub(" ", text.replace("``", '"').replace("''", '"'))
    text = " ".join(text.split())
    return SINGLE_QUOTED.sub(r'"\1"', text) if text.count("'") > 1 else text


def without_accents(word: str) -> str:
    """The word as dictionaries have it: "coupe" for "coupé"."""
    return "".join(x for x in unicodedata.normalize("NFD", word) if not unicodedata.combining(x))


def is_english(text: str) -> bool:
    """Whether a text is English, or too short to tell: names and slips are no other language."""
    lexicon = Lexicon.shared()
    words = WORD.findall(text.lower())
    if lexicon.foreign.isdisjoint(words) and not ENGLISH_ALONE.isdisjoint(words):
        return True
    words = WORD.findall(clean(text))
    n_english = sum(word.lower() in ENGLISH_ALONE for word in words)
    n = Counter(_kinds(words, lexicon))
    n_words = n["known"] + n["unknown"] + n["foreign"]
    if n["foreign"] > n_english:
        return len(words) == 1 or n["known"] >= MIN_KNOWN_AMONG_FOREIGN * n_words
    is_unknown = n_words >= MIN_WORDS and n_english < 2 and n["known"] < MIN_KNOWN * n_words
    return n["other script"] <= n["known"] and not is_unknown


def _kinds(words: list[str], lexicon: Lexicon) -> Iterator[str]:
    """The kind of each word: known, foreign (a function word), name, other script or unknown."""
    for i, word in enumerate(words):
        form = word.lower()
        forms = (form, lexicon.noun(form), lexicon.verb(form))
        if form in lexicon.foreign:
            in_name = 0 < i < len(words) - 1 and (words[i - 1][0] + words[i + 1][0]).isupper()
            yield "name" if in_name else "foreign"  # "Sangre de Cristo"
        elif form[0] >= AFTER_LATIN:
            yield "other script"
        elif form in lexicon.english or any(map(lexicon.is_known, forms)):
            yield "known"
        else:
            yield "unknown" if word == form else "name"


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
