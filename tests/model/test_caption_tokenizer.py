"""Captions in tokens and back: prompts, and words joined as people write them."""

import json
import re
from dataclasses import replace

import pytest

from ramctl.model.caption_tokenizer import (
    IGNORED,
    CaptionTokenizer,
    bert_tokenizer,
    clean_caption,
    tidied,
)
from ramctl.model.preset import load_preset

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
        ("a dog on a beach, and", "a dog on a beach"),
        ("a kitchen with a sink, of the", "a kitchen with a sink"),
        ("a red t -", "a red t"),
        ("two people walking with trees behind", "two people walking with trees behind"),
        ("a toy plane is in the sand", "a toy plane is in the sand"),
        ("a the with", ""),
        ("", ""),
    ],
)
def test_words_are_joined_and_ends_cut_back_to_one_that_can_be_the_last(written, expected):
    assert tidied(written) == expected
    assert tidied(expected) == expected


@pytest.mark.shared
def test_captions_of_people_come_back_as_they_were(shared):
    """Those with an apostrophe or a hyphen, but the few with a space of their own beside it."""
    tokenizer = CaptionTokenizer(bert_tokenizer(), replace(CAPTIONING, caption_tokens=99))
    odd = differ = 0
    for line in (shared / "data/photos/diverse-captioned.jsonl").open():
        text = clean_caption(json.loads(line)["captions"][0])
        if text.isascii() and re.search(r"\w['-]\w", text):
            odd += 1
            ids = tokenizer.encode_captions([text]).ids
            differ += tokenizer.decode(ids) != [text]
    assert odd > 500
    assert differ < 0.02 * odd


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
