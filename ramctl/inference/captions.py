"""Captions by the model, guided by the tags of each photo."""

from collections.abc import Sequence

import numpy as np

from ramctl.checkpoints.bundle import Bundle
from ramctl.checkpoints.load import load_caption_tokenizer
from ramctl.errors import UsageProblem
from ramctl.inference.torch_engine import TorchEngine
from ramctl.model.generation import Decoding, Ends
from ramctl.model.ram import Encoded

LONGEST = 30  # tokens; authors' tag2text.py
BEAM_SEARCH = "beam:3"  # authors' tag2text.py
DRAW_BITS = 23  # of the random numbers: what single precision holds below 1


class CaptionWriter:
    """Writes a caption a photo, of `length` tokens at most, those of the prompt included.

    UsageProblem for an unknown search or an impossible length, RunProblem without a branch.
    """

    def __init__(
        self, bundle: Bundle, decode: str = BEAM_SEARCH, length: int | None = None
    ) -> None:
        self._labels = bundle.labels
        self._tokenizer = load_caption_tokenizer(bundle)
        config, prompt = self._tokenizer.config, len(self._tokenizer.prompt_ids)
        self.in_label_order = config.tag_order == "labels"  # the tags that guide a caption
        if length is None:
            length = min(LONGEST, config.max_positions, config.caption_tokens)
        elif not prompt < length <= config.max_positions:
            possible = f"{prompt + 1} to {config.max_positions} tokens are possible"
            raise UsageProblem(f"--caption-length {length}: {possible}")
        self.decoding = read_decoding(decode, length)

    def ordered(self, tags: Sequence[str]) -> list[str]:
        """Tags of the label system by falling score, in the order that the branch has learnt."""
        if not self.in_label_order:
            return list(tags)
        return sorted(tags, key=self._labels.ids)

    def write(
        self,
        engine: TorchEngine,
        encoded: Encoded,
        tags: Sequence[Sequence[str]],
        seeds: Sequence[int] = (),
    ) -> list[str]:
        """Captions of a batch's first photos from the tags of each; the rest only fills it.

        A sampled caption has a seed of its own, and does not depend on its neighbours.
        """
        tokenizer, draws = self._tokenizer, None
        if self.decoding.top_p is not None:
            draws = np.zeros((len(encoded), self.decoding.max_length), np.float32)
            for row, seed in zip(draws, seeds, strict=False):
                row[:] = np.random.default_rng(seed).integers(2**DRAW_BITS, size=row.shape)
            draws /= 2**DRAW_BITS
        texts = [*tags, *[()] * (len(encoded) - len(tags))]
        ends = Ends(tokenizer.end, tokenizer.pad)
        rows = engine.write(
            encoded, tokenizer.encode_tags(texts), tokenizer.prompts(len(texts)),
            self.decoding, ends, draws,
        )  # fmt: skip
        return [tokenizer.decode(row[None])[0].strip() for row in rows[: len(tags)]]


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
