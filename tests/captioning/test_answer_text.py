"""The caption in an answer: what models write around it goes, plain sentences stay."""

import time

import pytest

from ramctl.captions.answer_text import caption_in
from ramctl.captions.endpoint import Answer
from tests.captioning.recorded_server import ANSWERS, CAPTION
from tests.support import problem_of, read_rows

DOG = "A brown dog lies on a red sofa."
SAME = {
    "thought": f"<think>A dog? The image shows a cat.</think>\n\n{DOG}",
    "a thought whose start the template wrote": f"It may be a cat.\n</think>\n{DOG}",
    "several thoughts": f"<think>A dog.</think> A cat. <think>No.</think> {DOG}",
    "another spelling": f"◁think▷A dog◁/think▷{DOG}",
    "marks of a template": f"<|im_start|>{DOG}<|im_end|></s>",
    "bold": "A **brown dog** lies on a *red* sofa.",
    "underscores": "A _brown dog_ lies on a __red sofa__.",
    "heading": f"## Caption\n\n{DOG}",
    "code": f"```text\n{DOG}\n```",
    "quotation": f"> “{DOG}”",
    "quoted": f'"{DOG}"',
    "list": f"1. {DOG}",
    "bullet": f"- {DOG}",
    "link": "A [brown dog](https://dogs.example/1) lies on a red sofa.",
    "lines": "A brown dog lies\ton a red sofa.\n",
    "introduced": f"Sure! Here's a dense caption for the photo: {DOG}",
    "labelled": f"**Caption:** {DOG}",
    "the image shows": "The image shows a brown dog lies on a red sofa.",
    "this photo": "This close-up photo clearly depicts a brown dog lies on a red sofa.",
    "a photo of": "This is a photo of a brown dog lies on a red sofa.",
    "in the picture": "In the picture, there is a brown dog lies on a red sofa.",
    "twice introduced": f"Here it is:\n\n**Description:** The image shows {DOG.lower()}",
    "repeated": " ".join([DOG] * 5),
    "a loop of words": "A brown " + "brown " * 30 + "dog lies on a red sofa.",
}
KEPT = [
    "A dog that can't swim. I see a sign: I am sorry.",
    "A sign with the words 'The image shows' hangs on a wall.",
    'A sign that says "OPEN" and "CLOSED"',
    '"STOP" is written on a wall. Below: "No entry." A man looks on.',
    "Two dogs, two cats, two birds.",
    "The photo of a bride stands on a table.",
    "A man in a suit, a man in a coat and a man in a hat.",
    "3 dogs run. 2 cats look on.",
    "Ein brauner Hund liegt auf einem roten Sofa.",
    "一只棕色的狗躺在红色的沙发上。",
    "A snake_case word and 2 * 3 * 4 on a board.",
    "No images hang on the wall.",
]
REFUSALS = [
    "I'm sorry, but I can't assist with that.",
    "I\u2019m sorry, I can\u2019t help identify people.",
    "I cannot describe this photo.",
    "I am unable to view images.",
    "I'm unable to see the picture.",
    "As an AI, I have no eyes.",
    "Sorry, that is not something I can do.",
    "Unfortunately, there is no photo.",
    "Please provide the image you would like me to describe.",
    "I don't see any image.",
    "**I can't** do that.",
]


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
def test_what_stands_around_a_caption_goes(text):
    assert caption_in(Answer(text)) == DOG


@pytest.mark.parametrize("text", KEPT)
def test_a_caption_stays_as_it_is(text):
    assert caption_in(Answer(text)) == text


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal_is_none(text):
    problem = problem_of(caption_in, Answer(text))
    assert problem.code == "refused" and problem.message.startswith("the model refuses: ")


@pytest.mark.parametrize(
    ("text", "is_cut", "left"),
    [
        (f"{DOG} Behind it a wh", True, DOG),
        (f"{DOG} Behind it a white wall.", True, f"{DOG} Behind it a white wall."),
        ("A table with a dog" + ", a cup, a plate" * 50 + ", a c", True,
         "A table with a dog, a cup, a plate."),
        ("A table with a dog" + ", a cup" * 50 + ".", False, "A table with a dog, a cup."),
        ("Dogs and cats\nBirds on a wall", False, "Dogs and cats. Birds on a wall"),
        ("- dogs\n- cats\n- birds", False, "Dogs. Cats. Birds"),
    ],
)  # fmt: skip
def test_what_is_whole_of_a_cut_or_looping_answer_stays(text, is_cut, left):
    assert caption_in(Answer(text, is_cut)) == left


@pytest.mark.parametrize(
    ("text", "is_cut", "reason"),
    [
        ("", False, "empty"), (" \n", False, "empty"), ("...", False, "empty"),
        ("A brown dog lies on a", True, "cut off"), ("<think>A dog, or", True, "cut off"),
        ("!" * 5000, True, "cut off"), ("<think>Hm.</think>", False, "empty"),
        ("**", False, "empty"),
    ],
)  # fmt: skip
def test_no_caption_is_a_reject(text, is_cut, reason):
    problem = problem_of(caption_in, Answer(text, is_cut))
    assert (problem.code, problem.message) == ("no_caption", f"the model's answer is {reason}")


def test_what_the_endpoint_calls_refused_is_refused():
    problem = problem_of(caption_in, Answer("", is_refused=True))
    assert (problem.code, problem.message) == ("refused", "the model refuses: no reason")


@pytest.mark.parametrize("text", ["a b " * 5000, "ab" * 10_000, "a" * 20_000, "(a " * 5000,
                                  "*a" * 8000, "<think>" * 3000, "[a](" * 4000, "a dog, " * 3000,
                                  "The " * 5000, "\n" * 20_000, "x_" * 8000])  # fmt: skip
def test_no_answer_takes_long(text):
    begun = time.perf_counter()
    try:
        caption_in(Answer(text, is_cut=True))
    except Exception as problem:
        assert getattr(problem, "code", "") == "no_caption"
    assert time.perf_counter() - begun < 1


@pytest.mark.shared
@pytest.mark.parametrize("name", ["clothing", "dishes"])
def test_real_captions_stay_as_they_are(name, shared):
    for row in read_rows(shared / "data" / "collections" / f"{name}.jsonl"):
        assert caption_in(Answer(row["captions"][0])) == row["captions"][0]


def test_the_recorded_faults_end_as_they_should():
    ends = {}
    for name, (text, end) in ANSWERS.items():
        answer = Answer(text, end == "length", end == "content_filter")
        try:
            ends[name] = caption_in(answer)
        except Exception as problem:
            ends[name] = problem.code
    assert ends == {
        **dict.fromkeys(("cut", "think", "markdown", "introduction"), CAPTION),
        **dict.fromkeys(("cut early", "empty", "blank", "thinks too long", "noise"), "no_caption"),
        **dict.fromkeys(("refusal", "filtered"), "refused"),
        "loop": "A brown horse stands in a green field, a white fence.",
    }
