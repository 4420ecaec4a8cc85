"""WordNet 3.0 as parsing and label building need it, from one compiled file.

Source: Princeton WordNet 3.0; `scripts/build_lexicon.py` describes the file.
"""

import gzip
import re
from bisect import bisect_left
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Final

import numpy as np

# Parts of speech, and the letters that stand for them in the compiled file.
NOUN, VERB, ADJECTIVE, ADVERB = "n", "v", "a", "r"

# Lexicographer files by number. Source: WordNet's lexnames(5).
LEXICOGRAPHER_FILES: Final = (
    "adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact",
    "noun.attribute", "noun.body", "noun.cognition", "noun.communication", "noun.event",
    "noun.feeling", "noun.food", "noun.group", "noun.location", "noun.motive", "noun.object",
    "noun.person", "noun.phenomenon", "noun.plant", "noun.possession", "noun.process",
    "noun.quantity", "noun.relation", "noun.shape", "noun.state", "noun.substance", "noun.time",
    "verb.body", "verb.change", "verb.cognition", "verb.communication", "verb.competition",
    "verb.consumption", "verb.contact", "verb.creation", "verb.emotion", "verb.motion",
    "verb.perception", "verb.possession", "verb.social", "verb.stative", "verb.weather",
    "adj.ppl",
)  # fmt: skip

COMPOUND_NOUN: Final = re.compile(
    rb"^([^ \t\n]+(?: [^ \t\n]+){1,3})\t(?:[^\t\n]+\t)*n[^\n]*$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Synset:
    """One meaning: its lexicographer file, the more general ones, and its words."""

    number: int
    file: str
    is_named_thing: bool
    hypernyms: tuple[int, ...]
    lemmas: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """The entry of one word, by part of speech."""

    senses: dict[str, tuple[tuple[int, int], ...]]  # (synset number, count), most frequent first
    base_forms: dict[str, tuple[str, ...]]  # the lemmas that it is an irregular form of


def spelled(lemma: str) -> str:
    """A lemma as captions are read: lower case, spaces for hyphens."""
    return lemma.lower().replace("-", " ")


class WordNet:
    """Lookups in the compiled file: 7 MB in memory, about 0.05 s to open."""

    def __init__(self, data: bytes) -> None:
        header, _, _ = data.partition(b"\n")
        self._data = data
        self._ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n"))
        self._n_words = int(header.split()[2])
        self.entry = lru_cache(maxsize=50_000)(self._entry)
        self.synset = lru_cache(maxsize=50_000)(self._synset)

    @staticmethod
    @cache
    def shared() -> "WordNet":
        """The WordNet of the package, opened once per process."""
        packed = resources.files("ramctl.parsing.english").joinpath("data/wordnet.gz").read_bytes()
        return WordNet(gzip.decompress(packed))

    def has(self, word: str, pos: str) -> bool:
        """Whether the word has a sense in this part of speech."""
        return pos in self.entry(word).senses

    def synsets(self, word: str, pos: str) -> list[Synset]:
        """The word's senses in this part of speech, most frequent first."""
        return [self.synset(number) for number, _ in self.entry(word).senses.get(pos, ())]

    def count(self, word: str, pos: str) -> int:
        """How often WordNet's sense-tagged texts use the word as this part of speech."""
        return sum(count for _, count in self.entry(word).senses.get(pos, ()))

    def hypernym_path(self, number: int) -> list[int]:
        """The first hypernym, its first hypernym, and so on to the root; without the synset."""
        path: list[int] = []
        while (above := self.synset(number).hypernyms) and above[0] not in path:
            number = above[0]
            path.append(number)
        return path

    def is_kind_of(self, noun: str, lemma: str) -> bool:
        """Whether the noun's first sense is below a synset that has the lemma."""
        senses = self.entry(noun).senses.get(NOUN, ())
        path = self.hypernym_path(senses[0][0]) if senses else []
        return any(lemma in self.synset(above).lemmas for above in path)

    def compounds(self) -> set[str]:
        """The nouns of two to four words."""
        words = self._data[int(self._ends[0]) + 1 : int(self._ends[self._n_words])]
        return {found.decode() for found in COMPOUND_NOUN.findall(words)}

    def _line(self, i: int) -> bytes:
        return self._data[int(self._ends[i - 1]) + 1 : int(self._ends[i])]

    def _entry(self, word: str) -> Entry:
        key = word.encode("utf-8", "replace")
        words = range(1, self._n_words + 1)  # the lines that hold them, sorted by their bytes
        place = bisect_left(words, key, key=lambda i: self._line(i).partition(b"\t")[0])
        if place == len(words) or not self._line(words[place]).startswith(key + b"\t"):
            return Entry({}, {})
        senses: dict[str, tuple[tuple[int, int], ...]] = {}
        base_forms: dict[str, tuple[str, ...]] = {}
        for field in self._line(words[place]).decode().split("\t")[1:]:
            pos, value = field[0], field[1:]
            if pos.isupper():
                base_forms[pos.lower()] = tuple(value.split("|"))
            else:
                pairs = (sense.partition(":") for sense in value.split())
                senses[pos] = tuple((int(number), int(count or 0)) for number, _, count in pairs)
        return Entry(senses, base_forms)

    def _synset(self, number: int) -> Synset:
        file, hypernyms, lemmas = self._line(self._n_words + 1 + number).decode().split("\t")
        return Synset(
            number,
            LEXICOGRAPHER_FILES[int(file.removesuffix("i"))],
            file.endswith("i"),
            tuple(map(int, hypernyms.split())),
            tuple(lemmas.split("|")),
        )
