"""Captions as text: searched for, compared with the scores of the tags that they name, or none."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from math import inf

import numpy as np

from ramctl.checkpoints.bundle import Bundle
from ramctl.checkpoints.load import load_caption_tokenizer
from ramctl.errors import UsageProblem
from ramctl.inference.torch_engine import Floats, TorchEngine
from ramctl.model.generation import Decoding, Ends
from ramctl.model.ram import Encoded
from ramctl.parsing.parsed_caption import ParsedCaption
from ramctl.parsing.parser import CaptionParser

LONGEST = 30  # tokens of a caption; authors' tag2text.py
DRAW_BITS = 23  # of the random numbers: what single precision holds below 1
LEAST_SCORE = 0.001  # of a label: lower ones count as this
SCORE_OF_NONE = 0.05  # of a caption that names no label


class CaptionWriter:
    """Writes a caption a photo.

    `decode` is as in `read_decoding`; None: as many beams as the model's configuration says.
    `style` is one of caption_tokenizer.STYLES; None: short, or the only one that the model has.
    UsageProblem for an unknown search or a style that was not learnt, RunProblem without a branch.
    """

    def __init__(self, bundle: Bundle, decode: str | None = None, style: str | None = None) -> None:
        self._labels = bundle.labels
        self._tokenizer = load_caption_tokenizer(bundle)
        config = self._tokenizer.config
        self.in_label_order = config.tag_order == "labels"  # the tags that guide a caption
        if style and not config.styles:
            raise UsageProblem(f"--caption-style {style}: {bundle.path} has learnt one style only")
        self._style = style or "short"
        most = config.caption_tokens if config.tidy else LONGEST
        longest = min(most, config.max_positions, config.caption_tokens)
        decoding = Decoding(beams=config.beams, max_length=longest)
        if decode is not None:
            decoding = read_decoding(decode, longest)
        is_search = decoding.top_p is None
        # What a caption must be worth to be given. Sampled captions are less likely by their nature
        # than those that the limit was chosen on.
        limit = float(bundle.meta.get("thresholds", {}).get("caption", -inf))
        self._least = limit if is_search else -inf
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
        """Tags of the label system by falling score, in the order that the branch has learnt."""
        return sorted(tags, key=self._labels.ids) if self.in_label_order else list(tags)

    def parsed(self, texts: Iterable[str]) -> list[ParsedCaption]:
        """The labels that each text names."""
        with self._parsing:
            return list(self._parser.parse(texts))

    def write(
        self, engine: TorchEngine, encoded: Encoded, tags: Sequence[Sequence[str]],
        seeds: Sequence[int] = (),
    ) -> list[str | None]:  # fmt: skip
        """As `drafts`; None in place of those that are worth too little."""
        drafts = self.drafts(engine, encoded, tags, seeds)
        return [text if text and worth >= self._least else None for text, worth in drafts]

    def drafts(
        self, engine: TorchEngine, encoded: Encoded, tags: Sequence[Sequence[str]],
        seeds: Sequence[int] = (),
    ) -> list[tuple[str, float]]:  # fmt: skip
        """Captions of a batch's first photos from the tags of each; the rest only fills it.

        With each what it is worth: its likelihood (`TorchEngine.write`) and, times the number that
        the configuration calls agreement, what `agreement` gives. Of a search's captions the best
        by that is taken. A sampled caption has a seed of its own, and does not depend on its
        neighbours.
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
            [(tokenizer.decode(ids[None])[0].strip(), likely) for ids, likely in of_photo]
            for of_photo in written
        ]
        if not self._agreement:
            return [of_photo[0] for of_photo in drafts]
        best = []
        for of_photo, scores in zip(drafts, engine.own_scores(encoded), strict=False):
            agreements = self.agreement([text for text, _ in of_photo], scores)
            worth = [
                (text, likely + self._agreement * agreement)
                for (text, likely), agreement in zip(of_photo, agreements, strict=True)
            ]
            best.append(max(worth, key=lambda draft: draft[1]))
        return best

    def agreement(self, captions: Sequence[str], scores: Floats) -> list[float]:
        """The mean natural logarithm of the scores (L) of the labels that each caption names."""
        logs = np.log(np.maximum(scores, LEAST_SCORE))
        found = []
        for parsed in self.parsed(captions):
            named = [logs[list(self._labels.ids(tag))].max() for tag in parsed.tags]
            found.append(float(np.mean(named)) if named else float(np.log(SCORE_OF_NONE)))
        return found


def read_decoding(text: str, longest: int = LONGEST) -> Decoding:
    """The search that `beam:K` or `nucleus:P` names; UsageProblem for anything else."""
    kind, _, number = text.partition(":")
    try:
        if kind == "beam" and int(number) >= 1:
            return Decoding(beams=int(number), max_length=longest)
        if kind == "nucleus" and 0 < float(number) <= 1:
            return Decoding(beams=1, max_length=longest, top_p=float(number))
    except ValueError:
        pass
    raise UsageProblem(f"--decode {text}: expected beam:K or nucleus:P, as beam:3 or nucleus:0.9")
