"""The caption in a model's answer: no thoughts, Markdown, introductions, loops or refusals."""

import re

from ramctl.captions.endpoint import Answer
from ramctl.errors import RecordProblem

_THOUGHT = re.compile(r"[<◁]think(?:ing)?[>▷]", re.IGNORECASE)
_THOUGHT_END = re.compile(r"[<◁]/think(?:ing)?[>▷]", re.IGNORECASE)
_MARKS = (
    (re.compile(r"<\|[^|<>]*\|>|</?s>|^```.*$", re.MULTILINE), ""),  # of chat templates, code
    (re.compile(r"^#{1,6} [^\n]*\n(?=.)", re.MULTILINE), ""),  # a heading above a text
    (re.compile(r"^(?:#{1,6}|[-*+•>]|\d{1,2}[.)]) ", re.MULTILINE), ""),
    (re.compile(r"!?\[([^\]\n]*)\]\([^)\n]*\)"), r"\1"),  # links
    (re.compile(r"(\*{1,3}|`+|\b_{1,2}|~~)(?=\S)([^\n]+?)(?<=\S)\1"), r"\2"),
    (re.compile(r"(\S)\1{9,}"), ""),  # a loop of one character
    (re.compile(r"(?<=[^.!?,;:\n])\n+(?=.)"), ". "),  # a line without an end
    (re.compile(r"^(?:\"([^\"]*)\"|\u201c([^\u201d]*)\u201d)$"), r"\1\2"),
)
_PHOTO = r"(?:[\w-]+ ){0,3}?(?:image|photo(?:graph)?|picture|scene|snapshot)"
_INTRODUCTION = re.compile(
    r"(?:(?:sure|certainly|of course|okay)\b[!,.]*\s*)?"
    r"(?:here\b[^:.]{0,80}:"
    r"|(?:[\w-]+ ){0,2}?(?:caption|description|answer)\s*:"
    rf"|(?:the|this) {_PHOTO} (?:clearly |also |mainly )?(?:(?:show|depict|feature|display|capture"
    r"|present|contain|portray|showcase)s|is of)\b:?(?: that\b)?"
    rf"|(?:this|it) is an? {_PHOTO} (?:of|showing)\b"
    rf"|in (?:the|this) {_PHOTO}\b,?(?: (?:there (?:is|are)|(?:we|you|one)(?: can)? see)\b)?)\s*",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"(?:i(?:['\u2019]m| am) (?:(?:very |so )?sorry|(?:un|not )able)"
    r"|(?:i apologi[sz]e|sorry|unfortunately|as an ai)\b"
    r"|i (?:(?:ca|wo|do)n['\u2019]t|cannot|(?:can|do) not|must decline)\b"
    r"|no (?:image|photo|picture) (?:was|is|has)|(?:please|could you) (?:provide|upload|share)\b)",
    re.IGNORECASE,
)
_LOOP = re.compile(r"(\b\w[^\n]{2,100}?\w)(?:[\s,;.]+(?:and\s+)?\1\b){2,}", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?]) |(?<=[.!?][\"')]) ")
_SHOWN = 100  # characters of an answer, in a message


def caption_in(answer: Answer) -> str:
    """The plain sentences of an answer; RecordProblem (refused, no_caption) without any."""
    text = _THOUGHT_END.split(answer.text)[-1]  # a template may have written the start
    text = _THOUGHT.split(text)[0]  # of a thought that is cut off
    text = "\n".join(filter(None, map(str.strip, text.splitlines())))
    for pattern, kept in _MARKS:
        text = pattern.sub(kept, text)
    text = " ".join(text.split())
    if answer.is_refused or _REFUSAL.match(text):
        raise RecordProblem(f"the model refuses: {text[:_SHOWN] or 'no reason'}", code="refused")
    is_cut = answer.is_cut
    if loop := _LOOP.search(text):
        text = text[: loop.end(1)] + ("." if is_cut else text[loop.end() :])
        is_cut = False
    sentences = [
        _without_introduction(sentence)
        for sentence in _SENTENCE_END.split(_without_introduction(text))
    ]
    if is_cut and not text.endswith((".", "!", "?")):
        sentences.pop()
    text = " ".join(dict.fromkeys(sentences))
    if not re.search(r"[^\W\d_]", text):
        reason = "cut off" if answer.is_cut else "empty"
        raise RecordProblem(f"the model's answer is {reason}", code="no_caption")
    return text


def _without_introduction(sentence: str) -> str:
    """The sentence without `The image shows` and the like, with a capital."""
    while (found := _INTRODUCTION.match(sentence)) and found.end() < len(sentence):
        sentence = sentence[found.end() :]
    return sentence[:1].upper() + sentence[1:]
