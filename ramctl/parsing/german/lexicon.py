"""What is known of German words: the lists of `data/lexicon.toml`, and the endings of words."""

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources

# The shortest word that may be the first or the last part of a compound: "Ei" is in many words.
MIN_PART = 3


class Lexicon:
    """German words by their forms; the lists are `words`."""

    def __init__(self, text: str) -> None:
        lists = [named for section in tomllib.loads(text).values() for named in section.items()]
        self.words: Mapping[str, list[str]] = {
            name: [entry.replace("_", " ") for entry in entries.split()] for name, entries in lists
        }
        self.plain_words = _pairs(self.words["plain_words"])
        self._nouns = _pairs(self.words["objects"] + self.words["scenes"])
        self._scenes = frozenset(_pairs(self.words["scenes"]).values())
        self._verbs = _pairs(self.words["actions"])
        self._adjectives = frozenset(self.words["colors"] + self.words["attributes"])

    @staticmethod
    @cache
    def shared() -> "Lexicon":
        """The lexicon of the package, opened once per process."""
        data = resources.files("ramctl.parsing.german").joinpath("data/lexicon.toml")
        return Lexicon(data.read_text("utf-8"))

    def known_noun(self, word: str) -> str | None:
        """The singular of a noun that the lists have, or of a compound that ends in one."""
        for form in (word, word.removesuffix("n"), word.removesuffix("s"), word.removesuffix("es")):
            if form in self._nouns:
                return self._nouns[form]
        for cut in range(MIN_PART, len(word) - MIN_PART + 1):
            last = self._nouns.get(word[cut:]) or self._nouns.get(word[cut:].removesuffix("n"))
            if last and self._is_first_part(word[:cut]):
                return word[:cut] + last
        return None

    def _is_first_part(self, part: str) -> bool:
        """Whether a word of the lists, with or without a link, is the first part of a compound."""
        known = (self._nouns, self._verbs, self._adjectives)
        parts = [part, *(part.removesuffix(link) for link in self.words["links"]), f"{part}e"]
        parts.append(f"{part}en")  # "Reithelm"
        return any(len(one) >= MIN_PART and one in words for one in parts for words in known)

    def known_verb(self, word: str) -> str | None:
        """The infinitive of a doing that the lists have."""
        stems = [word.removesuffix(end) for end in self.words["verb_endings"] if word.endswith(end)]
        forms = [word, *(stem + end for stem in stems for end in ("en", "n"))]
        return next((self._verbs[form] for form in forms if form in self._verbs), None)

    def known_adjective(self, word: str) -> str | None:
        """The base form of an attribute that the lists have; of "dunkelblau" the colour."""
        forms = [word, *(word.removesuffix(end) for end in self.words["adjective_endings"])]
        for form in forms:
            for light in ("", *self.words["lightness"]):
                if form.startswith(light) and form[len(light) :] in self._adjectives:
                    return form[len(light) :]
        return None

    def noun(self, word: str) -> str:
        """The singular of a noun; the word itself where nothing better is known."""
        return self.known_noun(word) or word

    def verb(self, word: str) -> str:
        """The base form of a verb; the word itself where nothing better is known."""
        return self.known_verb(word) or word

    def noun_kind(self, lemma: str) -> str:
        """Scene for places and for compounds that end in one, else object."""
        places = (lemma.endswith(place) for place in self._scenes if len(place) >= MIN_PART)
        is_listed = lemma in self._nouns
        is_place = lemma in self._scenes if is_listed else any(places)
        return "scene" if is_place else "object"

    def kind(self, tag: str) -> str:
        """The kind of a tag by itself; object where nothing is known about it."""
        if self.known_noun(tag) == tag:
            return self.noun_kind(tag)
        if self.known_adjective(tag) == tag:
            return "attribute"
        return "action" if self.known_verb(tag) == tag else "object"

    def material(self, adjective: str) -> str:
        """Empty: the lists name no materials."""
        return ""

    def synonyms(self, tag: str, kind: str) -> Iterator[str]:
        """None but the plain words."""
        return iter(())

    def may_be(self, compound: str, head: str) -> bool:
        """True: a compound of several words is a kind of its last."""
        return True


def _pairs(entries: list[str]) -> dict[str, str]:
    """Words by their forms; "lemma" is a form of itself."""
    pairs = (entry.partition("=") for entry in entries)
    return {form: lemma or form for form, _, lemma in pairs}
