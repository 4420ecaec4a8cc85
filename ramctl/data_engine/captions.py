"""New captions for photos, written by the baseline from the tags that it predicts.

B photos, N captions a photo, G tag word pieces.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ramctl.checkpoints.load import load_caption_tokenizer
from ramctl.data_engine.baseline import Baseline
from ramctl.errors import UsageProblem
from ramctl.model.generation import Decoding, Ends
from ramctl.model.ram import Encoded

LONGEST = 30  # word pieces; authors' tag2text.py
ParseTags = Callable[[list[str]], list[list[str]]]


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption with its own tags."""

    text: str
    tags: list[str]


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


class CaptionWriter:
    """Writes up to N different captions a photo.

    Sampled captions share their prompt, the predicted tags. Beam search would find the same
    caption again, so that every further one is prompted by the tags that no caption named yet.
    """

    def __init__(
        self, baseline: Baseline, parse: ParseTags, *, number: int, decode: str, seed: int
    ) -> None:
        tokenizer = load_caption_tokenizer(baseline.bundle)
        longest = min(LONGEST, tokenizer.config.max_positions, tokenizer.config.caption_tokens)
        self.decoding = read_decoding(decode, longest)
        self.number = number
        self.seed = seed
        self._baseline = baseline
        self._parse = parse
        self._tokenizer = tokenizer

    def write(
        self, encoded: Encoded, tags: Sequence[list[str]], names: Sequence[str]
    ) -> list[list[Caption]]:
        """The captions of each photo; `tags` are its predicted tags, the surest first.

        `names` tell photos apart: each samples by its own, so that a photo's captions depend on
        the seed alone, never on its neighbours. Photos without a name only fill up the batch.
        """
        if self.decoding.top_p is not None:
            return self._sampled(encoded, tags, names)
        captions: list[list[Caption]] = [[] for _ in names]
        prompts = [list(own) for own in tags]
        for _ in range(self.number):
            texts = self._generate(encoded.tokens, prompts)
            for index, caption in enumerate(self._parsed(texts[: len(names)])):
                if caption.text not in {earlier.text for earlier in captions[index]}:
                    captions[index].append(caption)
                prompts[index] = [tag for tag in prompts[index] if tag not in caption.tags]
        return captions

    def _sampled(
        self, encoded: Encoded, tags: Sequence[list[str]], names: Sequence[str]
    ) -> list[list[Caption]]:
        texts: list[str] = []
        for index, (own, name) in enumerate(zip(tags, names, strict=False)):
            tokens = encoded.tokens[index : index + 1].expand(self.number, -1, -1)
            generator = torch.Generator(tokens.device).manual_seed(_seed(self.seed, name))
            texts += self._generate(tokens, [own] * self.number, generator)
        parsed = self._parsed(texts)
        rows = [parsed[i : i + self.number] for i in range(0, len(parsed), self.number)]
        return [list({caption.text: caption for caption in row}.values()) for row in rows]

    def _generate(
        self, tokens: Tensor, tags: Sequence[list[str]], generator: torch.Generator | None = None
    ) -> list[str]:
        baseline, tokenizer = self._baseline, self._tokenizer
        on = baseline.device
        tag_ids, tag_mask = (torch.from_numpy(x).to(on) for x in tokenizer.encode_tags(tags))
        prompt = torch.from_numpy(tokenizer.prompts(len(tags))).to(on)
        ends = Ends(tokenizer.end, tokenizer.pad)
        with torch.inference_mode(), baseline.precision():
            ids = baseline.model.generate(
                Encoded(tokens, None), tag_ids, tag_mask, prompt, self.decoding, ends, generator
            )
        return [text.strip() for text in tokenizer.decode(ids.cpu().numpy())]

    def _parsed(self, texts: list[str]) -> list[Caption]:
        tags = self._parse(texts)
        return [Caption(text, own) for text, own in zip(texts, tags, strict=True)]


def _seed(seed: int, name: str) -> int:
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")
