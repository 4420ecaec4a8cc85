"""The captioning branch's tokenizer. It needs tokenizers and numpy, not torch.

B captions, S tokens, G tag tokens.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from ramctl.errors import RunProblem
from ramctl.model.preset import CaptioningConfig
from ramctl.records.files import read_text

PAD, UNKNOWN, START, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
DECODE, ENCODE = "[DEC]", "[ENC]"  # first piece of a caption, first piece of the tags
_SPECIAL = [PAD, UNKNOWN, START, END, MASK, DECODE, ENCODE]
CONTINUED = "##"  # precedes pieces inside a word
MAX_WORDS = 30  # of a caption; authors' max_words
IGNORED = -100  # targets that the caption loss leaves out

# BERT's (Devlin et al. 2018, Apache-2.0), with which the authors' models write captions.
_BERT = files("ramctl.model") / "bert_uncased.txt"

# Ends of a caption that need another word after them. Not those that often end captions by people:
# behind, outside, her.
_UNFINISHED = re.compile(
    r"""(
    (^|\s)(a|an|the|his|its|their|our|my|your|this|these|those|some|every|and|or|but|nor|as|because|
    if|while|that|which|who|whose|where|when|with|without|of|to|into|onto|from|at|by|for|in|on|upon|
    between|among|amid|against|beside|beneath|under|during|towards?|through|like|than|via|next|such|
    very|is|are|was|were|be|being|has|have|having|wearing|holding|featuring|showing|including|
    containing)\b | [\s,/&-]
    )+$""",
    re.VERBOSE,
)
_JOINED = [
    (re.compile(pattern), joined)
    for pattern, joined in (
        (r"(?<=\w) ' (?=(s|t|d|m|re|ve|ll|clock)\b)", "'"),
        (r"(?<!\w)' ([^']*[^' ]) '(?!\w)", r"'\1'"),  # a word in quotes
        (r"(?<=s) ' ", "' "),
        (r"(?<=\w) ([-/]) (?=\w)", r"\1"),
        (r" (?=[,.;:!?%])", ""),
    )
]

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CaptionBatch:
    """Captions as tokens, padded to the longest."""

    ids: Ids  # (B, S)
    mask: Ids  # (B, S) 1 where not padding
    targets: Ids  # (B, S) IGNORED at the prompt and at padding


class CaptionTokenizer:
    """Text to tokens and back, in the shapes that the captioning branch takes.

    Source: authors' tag2text.py (ram_official A3): tags joined by " | " and padded to a fixed
    length; `[ENC]` and `[DEC]` replace the first token.
    """

    def __init__(self, tokenizer: Tokenizer, config: CaptioningConfig) -> None:
        self.tokenizer = tokenizer
        self.config = config
        numbers = tokenizer.get_vocab()
        self.pad, self.end = numbers[PAD], numbers[END]
        self.start_caption, self.start_tags = numbers[DECODE], numbers[ENCODE]
        self.prompt_ids = [self.start_caption, *self._pieces(config.prompt)]
        self._shown = len(tokenizer.decode(self.prompt_ids))  # of the prompt, in a caption

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()

    def encode_captions(self, captions: Sequence[str]) -> CaptionBatch:
        """Captions with the prompt in front, which is not a target.

        Deviates: the authors skip as many first tokens of the caption as the prompt has.
        """
        longest, prompt = self.config.caption_tokens - 1, self.config.prompt
        rows = [
            [*[self.start_caption, *self._pieces(prompt + text)][:longest], self.end]
            for text in captions
        ]
        ids, mask = self._pad(rows, max(map(len, rows)))
        targets = np.where(mask == 1, ids, IGNORED)
        targets[:, : len(self.prompt_ids)] = IGNORED
        return CaptionBatch(ids, mask, targets)

    def encode_tags(self, tags: Sequence[Sequence[str] | str]) -> tuple[Ids, Ids]:
        """Tokens and mask (B, G) of each photo's tags, truncated to the configured length."""
        longest = self.config.tag_tokens
        texts = [names if isinstance(names, str) else " | ".join(names) for names in tags]
        rows = [[self.start_tags, *self._pieces(text)[: longest - 2], self.end] for text in texts]
        return self._pad(rows, longest)

    def prompts(self, number: int) -> Ids:
        """The first tokens (number, P) of `number` captions."""
        return np.tile(np.array(self.prompt_ids, np.int64), (number, 1))

    def decode(self, ids: Ids) -> list[str]:
        """The captions of tokens (B, S), without prompt and special pieces."""
        texts = self.tokenizer.decode_batch(ids.tolist())
        shown = self._shown + bool(self._shown)  # and the space after it
        captions = [text[shown:] for text in texts]
        return [tidied(caption) for caption in captions] if self.config.tidy else captions

    def _pieces(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _pad(self, rows: list[list[int]], length: int) -> tuple[Ids, Ids]:
        """Tokens (B, length), and 1 where they are not padding."""
        ids = np.full((len(rows), length), self.pad, np.int64)
        mask = np.zeros_like(ids)
        for row, pieces in enumerate(rows):
            ids[row, : len(pieces)] = pieces
            mask[row, : len(pieces)] = 1
        return ids, mask


def bert_tokenizer(vocabulary: Path | None = None) -> Tokenizer:
    """BERT's uncased WordPiece vocabulary, or a file's in its format, with `[DEC]`, `[ENC]`.

    RunProblem when the file is not such a vocabulary: one piece a line.
    """
    lines = (read_text(vocabulary) if vocabulary else _BERT.read_text("utf-8")).splitlines()
    if lines[:1] != [PAD] or not {UNKNOWN, START, END, MASK}.issubset(lines):
        raise RunProblem(f"{vocabulary}: not BERT's vocabulary, one token per line from [PAD] on")
    return _word_piece_tokenizer({piece: i for i, piece in enumerate(lines)})


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Tokens learnt from captions and tags, at most `vocabulary`; the result is repeatable."""
    tokenizer = _word_piece_tokenizer({piece: i for i, piece in enumerate(_SPECIAL)})
    words: Counter[str] = Counter()
    for text in texts:
        clean = tokenizer.normalizer.normalize_str(text)
        words.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(clean))
    # The trainer numbers the characters inside words in the order of a hash table, which differs
    # between runs, and breaks ties by these numbers: it must find them numbered already.
    signs = [CONTINUED + sign for sign in sorted(set("".join(words)))]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary, special_tokens=[*_SPECIAL, *signs], show_progress=False
    )
    tokenizer.train_from_iterator((" ".join([word] * n) for word, n in words.items()), trainer)
    return _word_piece_tokenizer(tokenizer.get_vocab())


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json; raises RunProblem when it cannot be read."""
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises plain Exception
        raise RunProblem(f"{path}: not a tokenizer file: {error}") from error


def clean_caption(text: str) -> str:
    """Normalise a caption for training: lower case, little punctuation, at most 30 words.

    Source: authors' pre_caption (ram_official A5).
    """
    text = re.sub(r"[.!\"()*#:;~]", " ", text.lower())
    text = re.sub(r"\s{2,}", " ", text).rstrip("\n").strip(" ")
    return " ".join(text.split(" ")[:MAX_WORDS])


def tidied(text: str) -> str:
    """The caption with words joined as people write them, cut back to a word that can end it."""
    for pattern, joined in _JOINED:
        text = pattern.sub(joined, text)
    return _UNFINISHED.sub("", text)


def _word_piece_tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(_SPECIAL)
    return tokenizer
