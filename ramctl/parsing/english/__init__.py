"""The English pack: a part-of-speech tagger, WordNet, word lists and rules."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from ramctl.labels import LabelSystem, normalise
from ramctl.parsing.captions import ParsedCaption
from ramctl.parsing.english.dictionary.lexicon import Lexicon
from ramctl.parsing.english.pos_tagger import PosTagger
from ramctl.parsing.english.readings import FrequentReadings
from ramctl.parsing.english.rules.apply import apply_rules, tag_of_whole_text
from ramctl.parsing.english.rules.sentence import clean


@dataclass(frozen=True, slots=True)
class English:
    """English captions; nouns of `vague` are things although the lists call them vague."""

    vocabulary: Lexicon
    vague: frozenset[str] = frozenset()

    def clean(self, text: str) -> str:
        """The caption without mark-up, its single quotes as double ones."""
        return clean(text)

    def read(self, texts: list[str]) -> Iterator[ParsedCaption]:
        """Every tag of each caption, by part-of-speech tags and rules."""
        for written, tags in PosTagger.shared().tag(texts):
            findings = apply_rules(written, tags, self.vocabulary)
            if alone := tag_of_whole_text(findings.sentence, self.vocabulary):
                yield ParsedCaption((alone,))
            else:
                yield ParsedCaption.of(findings.found, findings.phrases)

    def read_at_once(self, text: str) -> ParsedCaption | None:
        """The frequent reading of a caption; None where a word is ambiguous."""
        return _frequent_readings(self.vague).read(text)

    def for_labels(self, labels: LabelSystem) -> "English":
        """English in which the vague nouns that a word list asks for are things."""
        vague = _vague_nouns(labels, self.vocabulary)
        return English(Lexicon(self.vocabulary.wordnet, vague), vague) if vague else self


@cache
def open_pack() -> English:
    """English with the tagger's model loaded; RunProblem where none is installed."""
    PosTagger.shared()
    return English(Lexicon.shared())


@cache
def _frequent_readings(vague: frozenset[str]) -> FrequentReadings:
    readings = FrequentReadings.shared()
    return readings.without(vague) if vague else readings


def _vague_nouns(labels: LabelSystem, lexicon: Lexicon) -> frozenset[str]:
    """The vague nouns that a word list asks for; systems built of captions have them as actions."""
    if any(label.count for label in labels):
        return frozenset()
    things = [label for label in labels if label.kind != "action"]
    names = {normalise(name) for label in things for name in (label.tag, *label.synonyms)}
    return (lexicon.stop_nouns & names) - lexicon.noun_actions - lexicon.standalone_actions
