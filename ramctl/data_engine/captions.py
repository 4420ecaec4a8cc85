"""Several captions per photo, written by the baseline from the tags that it predicts."""

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from ramctl.data_engine.baseline import Baseline
from ramctl.inference.captions import CaptionWriter
from ramctl.model.ram import Encoded
from ramctl.parsing.parser import CaptionParser


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption with its own tags."""

    text: str
    tags: list[str]


class Captioner:
    """Gives each photo up to `number` different captions.

    Sampled captions share their prompt, the predicted tags. Beam search would find the same
    caption again, so each further one is prompted by the tags that no caption has named yet.
    """

    def __init__(self, baseline: Baseline, *, number: int, decode: str, seed: int) -> None:
        self.writer = CaptionWriter(baseline.bundle, decode)
        self.number = number
        self.seed = seed
        self._baseline = baseline
        self._parsing = threading.Lock()  # captions of one batch at a time

    @cached_property
    def _parser(self) -> CaptionParser:
        """What turns captions into tags of the label system; loaded for the first caption."""
        return CaptionParser.closed(self._baseline.labels)

    def captions(
        self, encoded: Encoded, tags: Sequence[list[str]], names: Sequence[str]
    ) -> list[list[Caption]]:
        """The captions of the first photos of a full batch.

        `tags` are their predicted tags by falling probability. Each photo samples by its own name
        of `names`, so that its captions depend on the seed alone, not on its neighbours.
        """
        if self.writer.decoding.top_p is not None:
            return self._sampled(encoded, tags, names)
        captions: list[list[Caption]] = [[] for _ in names]
        prompts = [list(of_photo) for of_photo in tags]
        for _ in range(self.number):
            guides = [self.writer.ordered(of_photo) for of_photo in prompts]
            texts = self.writer.write(self._baseline.engine, encoded, guides)
            for index, caption in enumerate(self._parsed(texts)):
                if caption.text not in {earlier.text for earlier in captions[index]}:
                    captions[index].append(caption)
                prompts[index] = [tag for tag in prompts[index] if tag not in caption.tags]
        return captions

    def _sampled(
        self, encoded: Encoded, tags: Sequence[list[str]], names: Sequence[str]
    ) -> list[list[Caption]]:
        number = self.number
        rows = torch.arange(len(encoded), device=encoded.tokens.device).repeat_interleave(number)
        prompts = [self.writer.ordered(of_photo) for of_photo in tags for _ in range(number)]
        seeds = [_seed(self.seed, name, which) for name in names for which in range(number)]
        photos = Encoded(encoded.tokens[rows], None)
        parsed = self._parsed(self.writer.write(self._baseline.engine, photos, prompts, seeds))
        by_photo = [parsed[i : i + number] for i in range(0, len(parsed), number)]
        return [list({caption.text: caption for caption in few}.values()) for few in by_photo]

    def _parsed(self, texts: list[str]) -> list[Caption]:
        with self._parsing:
            parsed = list(self._parser.parse(texts))
        return [Caption(text, result.tags) for text, result in zip(texts, parsed, strict=True)]


def _seed(seed: int, name: str, which: int) -> int:
    digest = hashlib.blake2b(f"{seed}:{which}:{name}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")
