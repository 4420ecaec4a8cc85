"""Searching captions: against exhaustive search, and step by step against whole captions."""

import itertools
from dataclasses import replace

import pytest
import torch

from ramctl.model.build_ram import build_ram
from ramctl.model.generation import Decoding, Ends, generate
from ramctl.model.preset import load_preset

END, PAD = 3, 0


class Table:
    """A language model whose next word depends on the last one: a state without content."""

    def select(self, rows):
        return self

    reorder = select


def step_of(table):
    """Logits of a bigram table (V, V) for whole prefixes."""

    def step(ids, state):
        return table[ids], state

    return step


def found(table, decoding, prompts=1):
    """The captions of prompts of one token, 1."""
    prompt = torch.ones(prompts, 1, dtype=torch.long)
    return generate(step_of(table), Table(), prompt, decoding, Ends(END, PAD))


def exhaustive(table, prompt, length, allowed=lambda ids: True):
    """All captions that end by `length`, the best first, by log probability over length."""
    log_p, found = table.log_softmax(-1), []
    for n in range(1, length - len(prompt) + 1):
        for words in itertools.product(range(len(table)), repeat=n):
            ended = words[-1] == END
            if END in words[:-1] or (not ended and n < length - len(prompt)):
                continue
            ids = [*prompt, *words]
            if not allowed(ids):
                continue
            total = sum(log_p[a, b].item() for a, b in itertools.pairwise(ids))
            # The length counts the prompt, and not the end.
            found.append((total / (len(ids) - 1 if ended else len(ids)), ids))
    return [ids for _, ids in sorted(found, reverse=True)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ngram", [0, 1, 2])
def test_wide_beams_find_the_best_captions_of_all(seed, ngram):
    table = torch.randn(5, 5, generator=torch.Generator().manual_seed(seed)) * 2
    decoding = Decoding(200, candidates=3, max_length=5, min_length=0, no_repeat_ngram_size=ngram)

    def allowed(ids):
        ngrams = [tuple(ids[i : i + ngram]) for i in range(len(ids) - ngram + 1)]
        return not ngram or len(set(ngrams)) == len(ngrams)

    # With as many beams as there are captions, beam search is exhaustive.
    wide = torch.cat([table, torch.full((5, 400), -1e4)], 1)
    wide = torch.cat([wide, torch.full((400, 405), -1e4)], 0)
    best = [ids[: [*ids, END].index(END) + 1] for ids in found(wide, decoding).tolist()]
    assert best == exhaustive(table, [1], 5, allowed)[:3]


def test_a_caption_that_ended_can_come_before_likelier_ones_that_the_limit_stops():
    table = torch.full((12, 12), -1e4)
    table[1, 4], table[1, 5] = torch.tensor([0.9, 0.1]).log()
    table[4, 4], table[5, END] = 0.0, 0.0  # 4 never ends
    stopped = Decoding(beams=2, max_length=5, min_length=0)
    assert found(table, stopped)[0].tolist() == [1, 4, 4, 4, 4]
    assert found(table, replace(stopped, prefer_ended=True))[0].tolist() == [1, 5, END]
    table[5, END], table[5, 5] = -1e4, 0.0  # nor does 5
    assert found(table, replace(stopped, prefer_ended=True))[0].tolist() == [1, 4, 4, 4, 4]


@pytest.mark.parametrize("beams", [1, 3])
def test_step_by_step_logits_equal_those_of_whole_captions(beams):
    preset = load_preset("tiny")
    model = build_ram(preset.model, image_size=64, n_labels=3, vocabulary=30).eval()
    with torch.no_grad():
        for parameter in model.captioning.parameters():
            parameter.mul_(8)  # so that captions differ
        encoded = model.encode(model.encoder(torch.randn(3, 3, 64, 64)))
        tags, mask = torch.randint(1, 30, (3, 24)), torch.ones(3, 24)

        def whole(ids, state):
            rows = state.rows
            start = model.captioning.start(encoded.tokens[rows], tags[rows], mask[rows])
            prefix = torch.cat([state.ids, ids], 1)
            logits, _ = model.captioning.decoder(prefix, start)
            return logits, Prefix(prefix, rows)

        class Prefix:
            def __init__(self, ids, rows):
                self.ids, self.rows = ids, rows

            def select(self, places):
                return Prefix(self.ids[places], self.rows[places])

            def reorder(self, places):
                return Prefix(self.ids[places], self.rows)

        prompt = torch.tensor([[5, 6]] * 3)
        decoding, ends = Decoding(beams, 12, 4, candidates=beams), Ends(END, PAD)
        slow = generate(whole, Prefix(prompt[:, :0], torch.arange(3)), prompt, decoding, ends)
        start = model.captioning.start(encoded.tokens, tags, mask)
        quick = generate(model.captioning.decoder, start, prompt, decoding, ends)
    assert torch.equal(slow, quick)
    assert len(set(map(tuple, quick.tolist()))) > 1
