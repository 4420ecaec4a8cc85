"""Captions: written by the model, and withheld where the scores do not support them."""

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from math import inf

import numpy as np

from ramctl.checkpoints.bundle import Bundle
from ramctl.checkpoints.load import load_caption_tokenizer
from ramctl.inference.torch_engine import Floats, TorchEngine
from ramctl.model.generation import Decoding, Ends
from ramctl.model.ram import Encoded
from ramctl.parsing.parsed_caption import ParsedCaption
from ramctl.parsing.parser import CaptionParser

MAX_TOKENS = 30  # of a caption; authors' tag2text.py
MIN_SCORE = 0.001  # of a label: lower ones count as this
SCORE_OF_NONE = 0.05  # of a caption that names no label
Score = Callable[[Encoded], Floats]  # the labels' probabilities


class CaptionWriter:
    """Writes a caption a photo; RunProblem for a model that writes none."""

    def __init__(self, bundle: Bundle) -> None:
        self._labels = bundle.labels
        self._tokenizer = load_caption_tokenizer(bundle)
        config = self._tokenizer.config
        self.in_label_order = config.tag_order == "labels"  # the tags that guide a caption
        usual = config.caption_tokens if config.tidy else MAX_TOKENS
        self._limit = float(bundle.meta.get("thresholds", {}).get("caption", -inf))
        self._is_chosen = config.by_labels or self._limit > -inf
        self.decoding = Decoding(
            beams=config.beams, candidates=config.beams if config.by_labels else 1,
            max_length=min(usual, config.max_positions, config.caption_tokens),
            no_repeat_ngram_size=config.no_repeat_ngram_size, prefer_ended=config.tidy,
        )  # fmt: skip
        self._parsing = threading.Lock()  # captions of one batch at a time

    @cached_property
    def _parser(self) -> CaptionParser:
        return CaptionParser.closed(self._labels)  # when the first caption is there

    def ordered(self, tags: Sequence[str]) -> list[str]:
        """Tags, given by falling score, in the order that the branch was trained with."""
        return sorted(tags, key=self._labels.ids) if self.in_label_order else list(tags)

    def parsed(self, texts: Iterable[str]) -> list[ParsedCaption]:
        """The labels that each text names."""
        with self._parsing:
            return list(self._parser.parse(texts))

    def write(
        self, engine: TorchEngine, score: Score, encoded: Encoded,
        tags: Sequence[Sequence[str]],
    ) -> list[str | None]:  # fmt: skip
        """The captions of `drafts`; None for those below the limit of confidence."""
        drafts = self.drafts(engine, score, encoded, tags)
        return [text if text and worth >= self._limit else None for text, worth in drafts]

    def drafts(
        self, engine: TorchEngine, score: Score, encoded: Encoded,
        tags: Sequence[Sequence[str]],
    ) -> list[tuple[str, float]]:  # fmt: skip
        """Captions of a batch's first photos, guided by the tags of each, with their confidence.

        That is the mean log of the scores of the labels that a caption names. The caption is the
        likeliest one, or of the captions that the search finds the one of the highest confidence.
        """
        tokenizer = self._tokenizer
        texts = [*tags, *[()] * (len(encoded) - len(tags))]
        guides, prompts = tokenizer.encode_tags(texts), tokenizer.prompts(len(texts))
        ends = Ends(tokenizer.end, tokenizer.pad)
        written = engine.write(encoded, guides, prompts, self.decoding, ends)[: len(tags)]
        drafts = [[text.strip() for text in tokenizer.decode(ids)] for ids in written]
        if not self._is_chosen:
            return [(text, 0.0) for (text,) in drafts]
        scores = score(encoded)
        return [
            max(zip(found, self._confidences(found, row), strict=True), key=lambda draft: draft[1])
            for found, row in zip(drafts, scores, strict=False)
        ]

    def _confidences(self, captions: Sequence[str], scores: Floats) -> list[float]:
        logs = np.log(np.maximum(scores, MIN_SCORE))
        found = []
        for parsed in self.parsed(captions):
            tag_logs = [logs[list(self._labels.ids(tag))].max() for tag in parsed.tags]
            found.append(float(np.mean(tag_logs)) if tag_logs else float(np.log(SCORE_OF_NONE)))
        return found
