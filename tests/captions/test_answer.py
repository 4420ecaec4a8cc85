"""The caption in an answer: what models write around it goes, plain sentences stay."""

import pytest

from ramctl.captions.answer import Answer, caption_in
from tests.support import problem_of

DOG = "A brown dog lies on a red sofa."
SAME = [
    f"<think>A dog? The image shows a cat.</think>\n\n{DOG}",
    f"It may be a cat.\n</think>\n{DOG}",  # the template wrote the start
    "A **brown dog** lies on a *red* sofa.",
    "A _brown dog_ lies on a __red sofa__.",
    f"## {DOG}",
    f"```text\n{DOG}\n```",
    f"1. {DOG}",
    f"- {DOG}",
    f"**Caption:** {DOG}",
    "The image shows a brown dog lies on a red sofa.",
    "This is a photo of a brown dog lies on a red sofa.",
    "In the picture, a brown dog lies on a red sofa.",
]
KEPT = [
    "A dog that can't swim. I see a sign: I am sorry.",
    "A sign with the words 'The image shows' hangs on a wall.",
    '"STOP" is written on a wall. Below: "No entry." A man looks on.',
    "The photo of a bride stands on a table.",
    "3 dogs run. 2 cats look on.",
    "一只棕色的狗躺在红色的沙发上。",
    "A snake_case word and 2 * 3 * 4 on a board.",
]
REFUSALS = [
    "I\u2019m sorry, I can\u2019t help identify people.",
    "As an AI, I have no eyes.",
    "**I can't** do that.",
]


@pytest.mark.parametrize("text", SAME)
def test_what_stands_around_a_caption_goes(text):
    assert caption_in(Answer(text)) == DOG


@pytest.mark.parametrize("text", KEPT)
def test_a_caption_stays_as_it_is(text):
    assert caption_in(Answer(text)) == text


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal_is_none(text):
    problem = problem_of(caption_in, Answer(text))
    assert problem.code == "refused" and problem.message.startswith("the model refuses: ")


def test_whole_sentences_of_a_cut_answer_stay():
    assert caption_in(Answer(f"{DOG} Behind it a wh", is_cut=True)) == DOG


@pytest.mark.parametrize(
    ("text", "is_cut", "reason"),
    [
        (" \n", False, "empty"), ("...", False, "empty"), ("<think>Hm.</think>", False, "empty"),
        ("A brown dog lies on a", True, "cut off"), ("<think>A dog, or", True, "cut off"),
    ],
)  # fmt: skip
def test_no_caption_is_a_reject(text, is_cut, reason):
    problem = problem_of(caption_in, Answer(text, is_cut))
    assert (problem.code, problem.message) == ("no_caption", f"the model's answer is {reason}")
