"""Labels in prompts for Grounding DINO: which labels go together, and where each one's tokens are.

T tokens of a prompt (at most 256).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ramctl.errors import UsageProblem

MAX_TOKENS = 256  # fixed in the model
_FRAME = 2  # [CLS] and [SEP]
# Where the model's text encoder cuts a prompt into phrases that do not see each other.
_DELIMITERS = str.maketrans({".": " ", "?": " "})

Tokenize = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One text for the detector, and what it asks for.

    `labels`: positions in the list of labels. `spans`: for each of them the first token and the
    one after the last, without the full stop.
    """

    text: str
    labels: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]


def pack_prompts(labels: Sequence[str], tokenize: Tokenize) -> list[Prompt]:
    """Prompts, filled up in the order of the labels, that hold every label whole.

    `tokenize` gives a text's token ids without [CLS] and [SEP]. The grouping depends on the
    labels alone. A label of which nothing can be written is in no prompt. Raises UsageProblem
    for a label that does not fit into a prompt.
    """
    groups: list[list[_Phrase]] = [[]]
    free = MAX_TOKENS - _FRAME
    for index, label in enumerate(labels):
        text = " ".join(label.translate(_DELIMITERS).lower().split())
        n_tokens = len(tokenize(text))
        if n_tokens + 1 > MAX_TOKENS - _FRAME:
            raise UsageProblem(f"label {label[:40]!r}...: longer than one prompt of the detector")
        if n_tokens == 0:
            continue
        if n_tokens + 1 > free:
            groups.append([])
            free = MAX_TOKENS - _FRAME
        groups[-1].append(_Phrase(index, text, n_tokens))
        free -= n_tokens + 1  # its full stop
    return [_prompt(group) for group in groups if group]


@dataclass(frozen=True, slots=True)
class _Phrase:
    label: int
    text: str
    n_tokens: int


def _prompt(phrases: Sequence[_Phrase]) -> Prompt:
    spans, start = [], 1  # after [CLS]
    for phrase in phrases:
        spans.append((start, start + phrase.n_tokens))
        start += phrase.n_tokens + 1
    text = ". ".join(phrase.text for phrase in phrases) + "."
    return Prompt(text, tuple(phrase.label for phrase in phrases), tuple(spans))
