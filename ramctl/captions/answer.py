"""The answer of a vision-language model, and the plain caption in it."""

import re
from typing import Any, NamedTuple

from ramctl.errors import RecordProblem

_MARKDOWN = (
    (re.compile(r"^(?:```.*$|#{1,6} |[-*+>] |\d{1,2}[.)] )", re.MULTILINE), ""),
    (re.compile(r"(\*{1,3}|`|\b_{1,2})(?=\S)([^\n]+?)(?<=\S)\1"), r"\2"),
)
_PHOTO = "(?:image|photo(?:graph)?|picture|scene)"
_INTRODUCTION = re.compile(
    r"(?:^|(?<=[.!?] ))(?:caption: )?"
    rf"(?:(?:the|this) {_PHOTO} (?:shows|depicts|features|captures)|this is an? {_PHOTO} of"
    rf"|in (?:the|this) {_PHOTO},?|caption:) (\w)",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"(?:i(?:['\u2019]m| am) (?:sorry|unable|not able)|i can(?:['\u2019]t|not)\b"
    r"|(?:i apologi[sz]e|sorry|unfortunately|as an ai)\b)",
    re.IGNORECASE,
)


class Answer(NamedTuple):
    """A model's answer as it came."""

    text: str
    is_cut: bool = False  # at the maximum number of tokens
    is_refused: bool = False

    @classmethod
    def of(cls, completion: Any) -> "Answer":
        """The answer in a chat completion; LookupError and others for what is none."""
        choice = completion.choices[0]
        text, refusal = choice.message.content or "", getattr(choice.message, "refusal", None)
        text = text.encode("utf-8", "ignore").decode()  # half a character is none
        is_refused = bool(refusal) or choice.finish_reason == "content_filter"
        return cls(text or refusal or "", choice.finish_reason == "length", is_refused)


def caption_in(answer: Answer) -> str:
    """The plain sentences of an answer; RecordProblem (refused, no_caption) without any."""
    text = re.split("</think(?:ing)?>", answer.text)[-1]  # a template may have written the start
    text = re.split("<think(?:ing)?>", text)[0]  # of a thought that is cut off
    for pattern, kept in _MARKDOWN:
        text = pattern.sub(kept, text)
    text = " ".join(text.split())
    if answer.is_refused or _REFUSAL.match(text):
        raise RecordProblem(f"the model refuses: {text[:100] or 'no reason'}", code="refused")
    text = _INTRODUCTION.sub(lambda found: found[1].upper(), text)
    if answer.is_cut:
        text = text[: max(map(text.rfind, ".!?")) + 1]
    if not re.search(r"[^\W\d_]", text):
        reason = "cut off" if answer.is_cut else "empty"
        raise RecordProblem(f"the model's answer is {reason}", code="no_caption")
    return text
