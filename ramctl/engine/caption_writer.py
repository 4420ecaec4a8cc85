"""Captions: written by the model, and withheld where the scores do not support them."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from math import inf

import numpy as np

from ramctl.checkpoints.bundle import Bundle
from ramctl.checkpoints.load import load_caption_tokenizer
from ramctl.engine.torch_engine import Floats, TorchEngine
from ramctl.errors import UsageProblem
from ramctl.model.generation import Decoding, Ends
from ramctl.model.ram import Encoded
from ramctl.parsing.parsed_caption import ParsedCaption
from ramctl.parsing.parser import CaptionParser

MAX_TOKENS = 30  # of a caption; authors' tag2text.py
DRAW_BITS = 23  # of the random numbers: what single precision holds below 1
MIN_SCORE = 0.001  # of a label: lower ones count as this
SCORE_OF_NONE = 0.05  # of a caption that names no label


class CaptionWriter:
    """Writes a caption a photo.

    `decode` is as in `read_decoding`; None: the number of beams in the model's configuration.
    `style` is one of caption_tokenizer.STYLES; None: short, or the only one that the model has.
    UsageProblem for an unknown search or style, RunProblem for a model that writes no captions.
    """

    def __init__(self, bundle: Bundle, decode: str | None = None, style: str | None = None) -> None:
        self._labels = bundle.labels
        self._tokenizer = load_caption_tokenizer(bundle)
        config = self._tokenizer.config
        self.in_label_order = config.tag_order == "labels"  # the tags that guide a caption
        if style and not config.styles:
            raise UsageProblem(f"--caption-style {style}: {bundle.path} knows one style only")
        self._style = style or "short"
        usual = config.caption_tokens if config.tidy else MAX_TOKENS
        max_length = min(usual, config.max_positions, config.caption_tokens)
        decoding = Decoding(beams=config.beams, max_length=max_length)
        if decode is not None:
            decoding = read_decoding(decode, max_length)
        is_search = decoding.top_p is None
        # Sampled captions are less likely by their nature than those that the limit was chosen on.
        limit = float(bundle.meta.get("thresholds", {}).get("caption", -inf))
        self._min_worth = limit if is_search else -inf
        self._agreement = config.agreement if is_search else 0.0
        self.decoding = replace(
            decoding, candidates=decoding.beams if self._agreement else 1,
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
        self, engine: TorchEngine, encoded: Encoded, tags: Sequence[Sequence[str]],
        seeds: Sequence[int] = (),
    ) -> list[str | None]:  # fmt: skip
        """The captions of `drafts`; None for those below the threshold."""
        drafts = self.drafts(engine, encoded, tags, seeds)
        return [text if text and worth >= self._min_worth else None for text, worth in drafts]

    def drafts(
        self, engine: TorchEngine, encoded: Encoded, tags: Sequence[Sequence[str]],
        seeds: Sequence[int] = (),
    ) -> list[tuple[str, float]]:  # fmt: skip
        """Captions of a batch's first photos, guided by the tags of each, with their worth.

        A caption's worth is its likelihood (`TorchEngine.write`) plus the configured weight times
        its `agreement`. Of the captions that a search finds, the best one is returned. Each sampled
        caption has a seed, so that it does not depend on the other photos.
        """
        tokenizer, draws = self._tokenizer, None
        if self.decoding.top_p is not None:
            draws = np.zeros((len(encoded), self.decoding.max_length), np.float32)
            for row, seed in zip(draws, seeds, strict=False):
                row[:] = np.random.default_rng(seed).integers(2**DRAW_BITS, size=row.shape)
            draws /= 2**DRAW_BITS
        texts = [*tags, *[()] * (len(encoded) - len(tags))]
        guides = tokenizer.encode_tags(texts)
        prompts = tokenizer.prompts(len(texts), self._style)
        ends = Ends(tokenizer.end, tokenizer.pad)
        written = engine.write(encoded, guides, prompts, self.decoding, ends, draws)[: len(tags)]
        drafts = [
            [(tokenizer.decode(ids[None])[0].strip(), likelihood) for ids, likelihood in found]
            for found in written
        ]
        if not self._agreement:
            return [found[0] for found in drafts]
        best = []
        label_scores = engine.score_encoded(encoded, engine.model_labels)
        for found, scores in zip(drafts, label_scores, strict=False):
            agreements = self.agreement([text for text, _ in found], scores)
            weighed = [
                (text, likelihood + self._agreement * agreement)
                for (text, likelihood), agreement in zip(found, agreements, strict=True)
            ]
            best.append(max(weighed, key=lambda draft: draft[1]))
        return best

    def agreement(self, captions: Sequence[str], scores: Floats) -> list[float]:
        """The mean log of the scores (L) of the labels that each caption names."""
        logs = np.log(np.maximum(scores, MIN_SCORE))
        found = []
        for parsed in self.parsed(captions):
            tag_logs = [logs[list(self._labels.ids(tag))].max() for tag in parsed.tags]
            found.append(float(np.mean(tag_logs)) if tag_logs else float(np.log(SCORE_OF_NONE)))
        return found


def read_decoding(text: str, max_length: int = MAX_TOKENS) -> Decoding:
    """The search that `beam:K` or `nucleus:P` names; UsageProblem for anything else."""
    kind, _, number = text.partition(":")
    try:
        if kind == "beam" and int(number) >= 1:
            return Decoding(beams=int(number), max_length=max_length)
        if kind == "nucleus" and 0 < float(number) <= 1:
            return Decoding(beams=1, max_length=max_length, top_p=float(number))
    except ValueError:
        pass
    raise UsageProblem(f"--decode {text}: expected beam:K or nucleus:P, as beam:3 or nucleus:0.9")
