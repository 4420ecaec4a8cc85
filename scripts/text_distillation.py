"""Distil a sentence encoder into a static table of words and tokens.

The table's rows are fitted so that the sum of a phrase's pieces points where the encoder's vector
of the phrase does (cosine loss, Adam), starting from the encoder's vectors of the pieces
themselves. Weights that depend on a piece's place in the phrase were tried and did not help.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch.nn import functional

from ramctl.checkpoints.static_table import StaticTextEncoder, unit

UNKNOWN = "[UNK]"
WORD = re.compile(r"[a-z]+|[^a-z\s]")
# No phrase worth learning begins or ends with one of these.
STOP_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "down",
        "for",
        "from",
        "has",
        "have",
        "he",
        "her",
        "his",
        "in",
        "into",
        "is",
        "it",
        "its",
        "near",
        "of",
        "on",
        "one",
        "or",
        "out",
        "over",
        "she",
        "some",
        "that",
        "the",
        "their",
        "they",
        "this",
        "to",
        "two",
        "under",
        "up",
        "was",
        "were",
        "which",
        "while",
        "who",
        "with",
        "you",
    ]
)
CONTINUED = 0.5  # a continuing piece starts at half the weight of a word


@dataclass(frozen=True)
class PhraseCounts:
    """The words and phrases of the caption corpora and name lists."""

    words: Counter[str]
    phrases: Counter[str]  # two and three words
    names: frozenset[str]  # whole entries of name lists


def count_phrases(captions: Iterable[str], names: Iterable[str]) -> PhraseCounts:
    """The words and short phrases of captions, and the names, lower case."""
    words: Counter[str] = Counter()
    phrases: Counter[str] = Counter()
    for caption in captions:
        tokens = WORD.findall(caption.lower())
        words.update(token for token in tokens if token.isalpha())
        for length in (2, 3):
            for start in range(len(tokens) - length + 1):
                part = tokens[start : start + length]
                ends_well = part[0] not in STOP_WORDS and part[-1] not in STOP_WORDS
                if ends_well and all(token.isalpha() for token in part):
                    phrases[" ".join(part)] += 1
    return PhraseCounts(words, phrases, frozenset(name.lower() for name in names))


def choose_vocabulary(counts: PhraseCounts, pieces: Mapping[str, int], rows: int) -> dict[str, int]:
    """A WordPiece vocabulary of at most ``rows`` entries.

    It has all single Latin characters and continuing pieces of the encoder's vocabulary ``pieces``,
    and the words that captions and names use most, even those that the encoder splits.
    """
    in_names = Counter(word for name in counts.names for word in re.findall(r"[a-z]+", name))
    latin = [p for p in pieces if re.fullmatch(r"(##)?[a-z0-9]+|[!-/:-@\[-`{-~]", p)]
    needed = [p for p in latin if p.startswith("##") or len(p) == 1]
    wholes = [p for p in latin if not p.startswith("##") and len(p) > 1]
    words = {w for w, n in counts.words.items() if n >= 2} | set(in_names) | set(wholes)
    uses = {w: counts.words[w] + 2 * in_names[w] for w in words if len(w) > 1}
    ranked = sorted(uses, key=lambda w: (-uses[w], pieces.get(w, len(pieces)), w))
    entries = [UNKNOWN, *needed, *ranked[: rows - len(needed) - 1]]
    return {entry: row for row, entry in enumerate(entries)}


def build_tokenizer(vocabulary: Mapping[str, int]) -> Tokenizer:
    """A lower-casing WordPiece tokenizer (longest match first) over the vocabulary."""
    tokenizer = Tokenizer(models.WordPiece(dict(vocabulary), unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def training_texts(counts: PhraseCounts, vocabulary: Iterable[str]) -> list[str]:
    """The texts that the table is fitted on: pieces, words, frequent phrases, names."""
    texts = {piece.removeprefix("##") for piece in vocabulary}
    texts |= {word for word, n in counts.words.items() if n >= 2}
    texts |= {p for p, n in counts.phrases.items() if n >= (3 if p.count(" ") == 1 else 5)}
    return sorted((texts | counts.names) - {UNKNOWN, ""})


def principal_projection(vectors: np.ndarray, dim: int) -> np.ndarray:
    """The (F, dim) projection that keeps most of the vectors' energy, not centred.

    Cosines are what is compared, so the mean stays in.
    """
    _, _, axes = np.linalg.svd(vectors, full_matrices=False)
    return np.ascontiguousarray(axes[:dim].T, dtype=np.float32)


def fit_table(
    texts: Sequence[str],
    targets: np.ndarray,
    tokenizer: Tokenizer,
    *,
    epochs: int = 12,
    seed: int = 0,
) -> np.ndarray:
    """Rows (V, E), float32, whose sums over the texts' pieces point to ``targets``.

    ``targets`` are unit vectors (len(texts), E), those of the vocabulary's own entries included.
    """
    generator = torch.Generator().manual_seed(seed)
    bags = [torch.tensor(piece.ids) for piece in tokenizer.encode_batch(list(texts))]
    wanted = torch.from_numpy(targets)
    rows = torch.from_numpy(_initial_rows(texts, targets, tokenizer)).requires_grad_()
    optimizer = torch.optim.Adam([rows])
    batch = 1024
    steps = epochs * -(-len(texts) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(texts), generator=generator).split(batch):
            picked = [bags[i] for i in chosen.tolist()]
            starts = torch.tensor([0, *(len(bag) for bag in picked[:-1])]).cumsum(0)
            sums = functional.embedding_bag(torch.cat(picked), rows, starts, mode="sum")  # (B, E)
            loss = (1 - functional.cosine_similarity(sums, wanted[chosen])).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return rows.detach().numpy()


def _initial_rows(texts: Sequence[str], targets: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    place = {text: i for i, text in enumerate(texts)}
    vocabulary = tokenizer.get_vocab()
    rows = np.zeros((len(vocabulary), targets.shape[1]), np.float32)
    for piece, row in vocabulary.items():
        found = place.get(piece.removeprefix("##"))
        if found is not None:
            rows[row] = targets[found] * (CONTINUED if piece.startswith("##") else 1.0)
    return rows


def quantise_table(
    rows: np.ndarray, projection: np.ndarray, tokenizer_json: str
) -> StaticTextEncoder:
    """The table of float rows (V, E), rounded to int8 with one scale a row."""
    scales = (np.abs(rows).max(1) / 127).astype(np.float16)
    scales = np.maximum(scales, np.finfo(np.float16).tiny)
    steps = np.rint(rows / scales.astype(np.float32)[:, None])
    return StaticTextEncoder(
        vectors=np.clip(steps, -127, 127).astype(np.int8),
        scales=scales,
        projection=projection.astype(np.float16),
        tokenizer_json=tokenizer_json,
    )


def agreement(
    table: StaticTextEncoder, texts: Sequence[str], vectors: np.ndarray, neighbours: int = 5
) -> dict[str, float]:
    """How well the table repeats the encoder's ``vectors`` (n, F) of ``texts``.

    ``cosine``: mean in the table's space; ``neighbours``: share of each text's nearest texts that
    both find; ``retrieved``: share of texts that are nearest to their own encoder vector.
    """
    mine, theirs = table.embed_sentences(texts), table.project(vectors)
    by_table, by_encoder = mine @ mine.T, unit(vectors) @ unit(vectors).T
    for similarity in (by_table, by_encoder):
        np.fill_diagonal(similarity, -np.inf)
    near_table = np.argsort(-by_table, axis=1)[:, :neighbours]
    near_encoder = np.argsort(-by_encoder, axis=1)[:, :neighbours]
    shared = [len(set(a) & set(b)) for a, b in zip(near_table, near_encoder, strict=True)]
    own = (mine @ theirs.T).argmax(axis=1) == np.arange(len(texts))
    return {
        "texts": len(texts),
        "cosine": round(float((mine * theirs).sum(axis=1).mean()), 4),
        "neighbours": round(float(np.mean(shared)) / neighbours, 4),
        "retrieved": round(float(own.mean()), 4),
    }
