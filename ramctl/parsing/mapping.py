"""Open tags to the tags of a label system."""

from __future__ import annotations

from dataclasses import replace

from ramctl.labels import Label, LabelSystem, normalise
from ramctl.parsing.found import Found
from ramctl.parsing.lexicon import Lexicon
from ramctl.parsing.parser import ParsedCaption
from ramctl.parsing.wordnet import NOUN


class LabelMapper:
    """Maps parsed captions: free compounds that are labels first, synonyms, then senses.

    A word that is a doing here and a thing in the label system ("train") is no label; so
    the system's kinds decide.
    """

    def __init__(self, labels: LabelSystem, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        if all(label.kind == "object" for label in labels):
            # A plain word list says no kinds.
            labels = LabelSystem(replace(x, kind=lexicon.kind(normalise(x.tag))) for x in labels)
        self._by_string: dict[str, Label] = {}
        for label in labels:
            for synonym in label.synonyms:
                self._by_string.setdefault(normalise(synonym), label)
        for label in reversed(labels.labels):
            self._by_string[normalise(label.tag)] = label

        self._longest = max(map(len, self._by_string), default=0)

    def find(self, text: str) -> Label | None:
        """The label that a string stands for, whatever its kind."""
        return self._by_string.get(normalise(text))

    def label_alone(self, text: str) -> ParsedCaption | None:
        """The label that the whole text names, also one that is no tag in a sentence."""
        label = self.find(text) if len(text) <= self._longest else None
        if label is None:
            return None
        return ParsedCaption((Found(0, label.tag, label.kind, text, "the whole text"),))

    def map(self, parsed: ParsedCaption) -> ParsedCaption:
        """The caption's labels in order of first mention, with the labels' kinds."""
        whole = {phrase.rpartition(" ")[2]: phrase for phrase in parsed.phrases}
        unique: dict[str, Found] = {}
        for found in parsed.found:
            label = self._label(whole.get(found.tag, ""), found) or self._label(found.tag, found)
            if label is None:
                label = self._kind_of(found)
            if label is not None:
                new = Found(found.place, label.tag, label.kind, found.words, found.rule)
                unique.setdefault(label.tag, new)
        return ParsedCaption(tuple(unique.values()))

    def _label(self, text: str, found: Found) -> Label | None:
        label = self._by_string.get(text)
        if label is not None and (label.kind == "action") == (found.kind == "action"):
            return label
        if found.kind == "action" and " " not in found.words:
            activity = self._by_string.get(found.words.lower())
            if activity is not None and activity.kind == "action":
                return activity
        return None

    def _kind_of(self, found: Found) -> Label | None:
        """The label of the last word of a compound that is a kind of it."""
        head = found.tag.rpartition(" ")[2]
        if head == found.tag:
            return None
        wordnet = self._lexicon.wordnet
        senses = wordnet.entry(found.tag).senses.get(NOUN, ())
        if senses:
            path = wordnet.hypernym_path(senses[0][0])
            if not any(head in wordnet.synset(number).lemmas for number in path):
                return None
        return self._label(head, found)
