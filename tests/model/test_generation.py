"""Captions: searched, against exhaustive search; in tokens and back, as people write them."""

import itertools
from dataclasses import replace

import pytest
import torch

from ramctl.model.caption_tokenizer import IGNORED, CaptionTokenizer, bert_tokenizer, tidied
from ramctl.model.generation import Decoding, Ends, _Finished, generate
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


def found(table, decoding, prompts=(1,)):
    """The captions of prompts of one token."""
    prompt = torch.tensor(prompts)[:, None]
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


@pytest.mark.parametrize(("seed", "ngram"), [(0, 0), (1, 1), (2, 2), (3, 2)])
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


def test_the_best_finished_captions_are_kept():
    finished = _Finished(beams=2)
    for score in (-3.0, -1.0, -2.0, -4.0):
        finished.add(torch.tensor([7]), score)
    assert [score for score, _ in finished.captions] == [-2, -1]
    assert finished.is_done(-2.0, 1) and not finished.is_done(-1.9, 1)


def test_one_beam_takes_the_likeliest_word_until_the_end_or_the_limit():
    table = torch.full((8, 8), -1e4)
    table[1, 4] = table[4, END] = table[2, 5] = table[5, 6] = table[6, 6] = 0.0
    decoding = Decoding(beams=1, max_length=5, min_length=0)
    assert found(table, decoding, (1, 2)).tolist() == [[1, 4, END, PAD, PAD], [2, 5, 6, 6, 6]]
    assert found(table, decoding).tolist() == [[1, 4, END]]


def test_a_caption_that_ended_can_come_before_likelier_ones_that_the_limit_stops():
    table = torch.full((12, 12), -1e4)
    table[1, 4], table[1, 5] = torch.tensor([0.9, 0.1]).log()
    table[4, 4], table[5, END] = 0.0, 0.0  # 4 never ends
    stopped = Decoding(beams=2, max_length=5, min_length=0)
    assert found(table, stopped)[0].tolist() == [1, 4, 4, 4, 4]
    assert found(table, replace(stopped, prefer_ended=True))[0].tolist() == [1, 5, END]
    table[5, END], table[5, 5] = -1e4, 0.0  # nor does 5
    assert found(table, replace(stopped, prefer_ended=True))[0].tolist() == [1, 4, 4, 4, 4]


CAPTIONING = load_preset("tiny").model.captioning


def pieces(tokenizer, ids):
    return [tokenizer.tokenizer.id_to_token(i) for i in ids]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("a cat ' s paw", "a cat's paw"),
        ("the girls ' team doesn ' t play", "the girls' team doesn't play"),
        ("a close - up of a t - shirt", "a close-up of a t-shirt"),
        ("a sign that says ' stop here ' on a pole", "a sign that says 'stop here' on a pole"),
        ("a man , a dog and / or a cat .", "a man, a dog and/or a cat."),
        ("a dog on a beach with a", "a dog on a beach"),
        ("a kitchen with a sink, of the", "a kitchen with a sink"),
        ("two people walking with trees behind", "two people walking with trees behind"),
        ("a the with", ""),
    ],
)
def test_words_are_joined_and_ends_cut_back_to_one_that_can_be_the_last(written, expected):
    assert tidied(written) == expected
    assert tidied(expected) == expected


@pytest.mark.parametrize(
    ("prompt", "begun"),
    [("", ["[DEC]"]), ("[CLS]", ["[DEC]", "[CLS]"]), ("a picture of ", "[DEC] a picture of")],
)
def test_captions_begin_with_the_prompt_that_is_neither_learnt_nor_shown(prompt, begun):
    begun = begun.split() if isinstance(begun, str) else begun
    tokenizer = CaptionTokenizer(bert_tokenizer(), replace(CAPTIONING, prompt=prompt))
    batch, n = tokenizer.encode_captions(["a dog"]), len(begun)
    assert pieces(tokenizer, batch.ids[0]) == [*begun, "a", "dog", "[SEP]"]
    assert tokenizer.prompts(2).tolist() == [batch.ids[0, :n].tolist()] * 2
    assert (batch.targets[0] == IGNORED).tolist() == [True] * n + [False] * 3
    assert tokenizer.decode(batch.ids) == ["a dog"]
