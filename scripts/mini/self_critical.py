#!/usr/bin/env python3
"""Train a bundle's short captions for CIDEr-D: sampled ones against each other.

    scripts/mini/self_critical.py --model MODEL --root PHOTOS --cache CACHE --out OUT guided.jsonl

Self-critical training (Rennie et al. 2017, arXiv 1612.00563) with the mean of a photo's other
samples as the baseline (Luo 2020, arXiv 2003.09971). Only the captioning branch learns. References
are a photo's captions in the short style; the usual loss on any of its captions keeps the dense
style.
What is done is kept beside OUT: the same command goes on, after --max-minutes too.
"""

import argparse
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("torch")

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ramctl.checkpoints.bundle import GRAPH, INT8_GRAPH, WEIGHTS, Bundle, BundleWriter
from ramctl.checkpoints.load import CAPTIONING, load_caption_tokenizer, load_model
from ramctl.model.caption_tokenizer import MOST_SHORT_WORDS, clean_caption
from ramctl.model.generation import Decoding, Ends, generate
from ramctl.training.data.features import FeatureCache
from ramctl.training.data.record_file import Source
from ramctl.training.data.record_scan import scan_records
from ramctl.training.data.targets import read_annotation
from ramctl.training.losses import caption_loss

N, SIGMA = 4, 6.0  # of CIDEr-D: longest n-gram, and how fast other lengths count less
SAMPLES, LENGTH, PHOTOS = 5, 24, 48  # captions a photo, tokens of one, photos a step
USUAL = 0.2  # weight of the usual loss
SAVE_EVERY = 25
Gram = tuple[str, ...]
Grams = list[Counter[Gram]]
Vector = tuple[list[dict[Gram, float]], list[float], int]  # by n, their lengths, number of words


def grams(words: Sequence[str]) -> Grams:
    """The n-grams of a caption, of each n. The end is a word too, or captions would lose theirs."""
    words = [*words, "."]
    return [Counter(zip(*(words[i:] for i in range(n)), strict=False)) for n in range(1, N + 1)]


class CiderD:
    """CIDEr-D (Vedantam et al. 2015) of captions against those of their photo."""

    def __init__(self, references: Sequence[Sequence[Sequence[str]]]) -> None:
        self._references = [[grams(words) for words in captions] for captions in references]
        counts: Counter[Gram] = Counter()
        for captions in self._references:
            counts.update({gram for caption in captions for of_n in caption for gram in of_n})
        logs = math.log(len(references))
        self._weights = {gram: logs - math.log(count) for gram, count in counts.items()}
        self._unseen = logs
        self._vectors = [[self._vector(c) for c in captions] for captions in self._references]

    def _vector(self, caption: Grams) -> Vector:
        weigh = self._weights
        vectors = [{g: n * weigh.get(g, self._unseen) for g, n in of.items()} for of in caption]
        norms = [math.sqrt(sum(x * x for x in vector.values())) for vector in vectors]
        return vectors, norms, sum(caption[0].values())

    def __call__(self, photo: int, words: Sequence[str]) -> float:
        """Of one caption; 10 at most."""
        mine, my_norms, my_length = self._vector(grams(words))
        total = 0.0
        for theirs, norms, length in self._vectors[photo]:
            fits = math.exp(-((my_length - length) ** 2) / (2 * SIGMA**2))
            for a, b, norm_a, norm_b in zip(mine, theirs, my_norms, norms, strict=True):
                if norm_a and norm_b:
                    dot = sum(min(x, b[g]) * b[g] for g, x in a.items() if g in b)
                    total += fits * dot / (norm_a * norm_b)
        return 10 * total / N / len(self._vectors[photo])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--max-minutes", type=float, default=math.inf)
    parser.add_argument("records", type=Path)
    args = parser.parse_args()
    deadline = time.monotonic() + 60 * args.max_minutes
    bundle = Bundle.open(args.model)
    tokenizer, model = load_caption_tokenizer(bundle), load_model(bundle)
    model.requires_grad_(False)
    branch = model.captioning
    assert branch is not None
    branch.requires_grad_(True)
    copy = args.out.with_suffix(".records.jsonl")
    copy.write_bytes(args.records.read_bytes())
    source = Source.of(str(args.records), args.root, copy)
    records = scan_records([source], on_reject=print, stage="train", hold_out=False).records
    notes = [read_annotation(records[index]) for index in range(len(records))]
    cache = FeatureCache(args.cache, model.encoder, bundle.preprocess, flip=False)
    features = cache.fill(notes, lambda *_: None, lambda _: None, print)

    def words(text: str) -> list[str]:
        ids = np.array([tokenizer.encode_captions([text]).targets[0]])
        return tokenizer.decode(np.where(ids < 0, tokenizer.pad, ids))[0].split()

    texts = [[clean_caption(caption.text) for caption in note.captions] for note in notes]
    short = [[words(t) for t in of if len(t.split()) <= MOST_SHORT_WORDS] for of in texts]
    usable = [i for i, of in enumerate(short) if of and features.rows[i, 0] >= 0]
    cider = CiderD([short[i] for i in usable])
    place = {index: at for at, index in enumerate(usable)}
    print(f"{len(usable)} photos with short captions", flush=True)

    optimizer = torch.optim.AdamW(branch.parameters(), args.lr, weight_decay=0.0)
    kept, step = args.out.with_suffix(".work.pt"), 0
    if kept.is_file():
        state = torch.load(kept)
        branch.load_state_dict(state["branch"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    ends = Ends(tokenizer.end, tokenizer.pad)
    sampling = Decoding(beams=1, max_length=LENGTH, min_length=5, top_p=1.0, top_k=0)
    mean_reward = 0.0
    while step < args.steps:
        if time.monotonic() > deadline:
            raise SystemExit("not finished: the same command goes on")
        draw = random.Random(step)
        torch.manual_seed(step)
        photos = draw.sample(usable, PHOTOS)
        seen = torch.from_numpy(np.stack([features.of(i) for i in photos])).float()
        with torch.no_grad():
            tokens = model.encode(seen).tokens
        guides = [notes[i].captions[0].tags for i in photos]
        tag_ids, tag_mask = map(torch.from_numpy, tokenizer.encode_tags(guides))
        rows = torch.arange(PHOTOS).repeat_interleave(SAMPLES)
        prompt = torch.from_numpy(tokenizer.prompts(len(rows)))
        with torch.no_grad():
            branch.eval()
            begun = branch.start(tokens, tag_ids, tag_mask).select(rows)
            draws = torch.rand(len(rows), LENGTH)
            ids = generate(branch.decoder, begun, prompt, sampling, ends, draws).ids
        said = [text.split() for text in tokenizer.decode(ids.numpy())]
        reward = torch.tensor([cider(place[photos[r]], s) for r, s in zip(rows, said, strict=True)])
        by_photo = reward.view(PHOTOS, SAMPLES)
        others = (by_photo.sum(1, keepdim=True) - by_photo) / (SAMPLES - 1)
        gain = (by_photo - others).flatten()
        branch.train()
        begun = branch.start(tokens, tag_ids, tag_mask)
        logits, _ = branch.decoder(ids[:, :-1], begun.select(rows))
        start = prompt.shape[1]
        logs = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[:, start - 1 :, 0]
        ended = (ids[:, start:] == tokenizer.end).int()
        written = (ended.cumsum(1) - ended == 0).float()
        loss = -(gain[:, None] * logs * written).sum() / written.sum()
        usual = tokenizer.encode_captions([draw.choice(texts[i]) for i in photos])
        targets = torch.from_numpy(usual.targets)
        logits, _ = branch.decoder(torch.from_numpy(usual.ids), begun, torch.from_numpy(usual.mask))
        n_targets = (targets[:, 1:] >= 0).sum()
        loss = loss + USUAL * caption_loss(logits, targets, smoothing=0.1) / n_targets
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(branch.parameters(), 1.0)
        optimizer.step()
        step += 1
        mean_reward += (float(reward.mean()) - mean_reward) / min(step, SAVE_EVERY)
        if step % SAVE_EVERY == 0 or step == args.steps:
            print(f"step {step}: CIDEr-D of samples {100 * mean_reward:.1f}", flush=True)
            state = {
                "branch": branch.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
            }
            torch.save(state, kept)
    learnt = {CAPTIONING + name: value for name, value in branch.state_dict().items()}
    stored = load_file(bundle.path / WEIGHTS)
    with BundleWriter(args.out) as writer:
        writer.link_files(bundle, without={WEIGHTS, GRAPH, INT8_GRAPH})
        weights = {n: learnt.get(n, value).to(value.dtype) for n, value in stored.items()}
        save_file(weights, writer.path / WEIGHTS, metadata={"format": "pt"})
        writer.meta = bundle.meta
    kept.unlink()


if __name__ == "__main__":
    main()
