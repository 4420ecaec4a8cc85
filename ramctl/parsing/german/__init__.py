"""The German pack: small, by word lists alone. It shows what a language pack takes."""

from collections.abc import Iterator
from functools import cache

from ramctl.labels import LabelSystem
from ramctl.parsing import captions
from ramctl.parsing.captions import ParsedCaption
from ramctl.parsing.german.lexicon import Lexicon
from ramctl.parsing.german.rules import find_tags
from ramctl.parts import require

# spaCy stores every new word it meets; they are freed after each batch of texts.
BATCH = 256


class German:
    """German captions: spaCy's tokenizer, the pack's words, and rules."""

    def __init__(self, lexicon: Lexicon) -> None:
        import spacy

        self.vocabulary = lexicon
        self._nlp = spacy.blank("de")

    def clean(self, text: str) -> str:
        """The caption without mark-up."""
        return captions.clean(text)

    def read(self, texts: list[str]) -> Iterator[ParsedCaption]:
        """Every tag of each caption."""
        for start in range(0, len(texts), BATCH):
            with self._nlp.memory_zone():
                docs = self._nlp.pipe(texts[start : start + BATCH])
                written = [[word.text for word in doc] for doc in docs]
            yield from (
                ParsedCaption.of(find_tags(words, self.vocabulary), ()) for words in written
            )

    def read_at_once(self, text: str) -> ParsedCaption | None:
        """None: all captions are read alike."""
        return None

    def for_labels(self, labels: LabelSystem) -> "German":
        """The pack as it is."""
        return self


@cache
def open_pack() -> German:
    """The pack, opened once; RunProblem without spaCy."""
    require("train", "parsing captions")
    return German(Lexicon.shared())
