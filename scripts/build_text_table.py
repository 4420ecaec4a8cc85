#!/usr/bin/env python3
"""Build a static text embedding from the packaged sentence encoder.

    scripts/build_text_table.py --out text captions.jsonl more.jsonl.gz

Reads captions (JSONL records, plain or gzip) for the words and phrases that matter, adds the names
of ImageNet-21k's classes, fits the table and writes it. Prints how well a first fit agrees with the
encoder on phrases that were held out of it.
"""

import argparse
import gzip
import json
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from venv_python import use_venv

use_venv("torch")

import numpy as np
import torch
from sentence_encoder import SentenceEncoder
from text_distillation import (
    agreement,
    build_tokenizer,
    choose_vocabulary,
    count_phrases,
    fit_table,
    principal_projection,
    quantise_table,
    training_texts,
)

from ramctl.checkpoints.static_table import StaticTextEncoder, unit

HELD_OUT = 0.1
MEASURED = 3000  # texts a group, so that the table of neighbours stays small


def captions_of(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield from json.loads(line)["captions"]


def imagenet_names() -> Iterator[str]:
    table = resources.files("timm.data") / "_info" / "imagenet_synset_to_lemma.txt"
    for line in table.read_text(encoding="utf-8").splitlines():
        yield from (name.strip() for name in line.split("\t")[1].split(","))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captions", nargs="+", type=Path, metavar="CAPTIONS")
    parser.add_argument("--out", type=Path, required=True, help="folder for the two files")
    parser.add_argument("--dim", type=int, default=192)
    parser.add_argument("--rows", type=int, default=16000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)

    encoder = SentenceEncoder()
    counts = count_phrases(captions_of(args.captions), imagenet_names())
    vocabulary = choose_vocabulary(counts, encoder.tokenizer.get_vocab(), args.rows)
    tokenizer = build_tokenizer(vocabulary)
    texts = training_texts(counts, vocabulary)
    print(f"{len(vocabulary)} entries, {len(texts)} texts", file=sys.stderr)
    vectors = encoder.encode(texts)
    projection = principal_projection(vectors, args.dim)
    targets = unit(vectors @ projection)

    def table_of(chosen: np.ndarray) -> StaticTextEncoder:
        rows = fit_table([texts[i] for i in chosen], targets[chosen], tokenizer, seed=args.seed)
        return quantise_table(rows, projection, tokenizer.to_str())

    split = np.array([len(piece.ids) > 1 for piece in tokenizer.encode_batch(texts)])
    random = np.random.default_rng(args.seed)
    held = split & (random.random(len(texts)) < HELD_OUT)
    trial = table_of(np.flatnonzero(~held))
    spaced = np.array([" " in text for text in texts])
    groups = {"phrases": held & spaced, "split words": held & ~spaced, "single": ~split & ~spaced}
    for name, group in groups.items():
        chosen = np.flatnonzero(group)
        chosen = random.permutation(chosen)[:MEASURED]
        measured = agreement(trial, [texts[i] for i in chosen], vectors[chosen])
        print(json.dumps({"group": name, **measured}))
    table_of(np.arange(len(texts))).save(args.out)


if __name__ == "__main__":
    main()
