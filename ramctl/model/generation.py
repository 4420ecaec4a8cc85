"""Beam search, greedy search and nucleus sampling over an incremental decoder.

N photos, K beams, V vocabulary. Lengths count the prompt: the convention of transformers 4.25.1,
the version that the authors' captions come from (later versions leave the prompt out).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

NEVER = float("-inf")


State = Any  # of a decoder; `select` and `reorder` give that of other sequences
Step = Callable[[Tensor, State], tuple[Tensor, State]]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How to search for captions. Defaults: the authors' tag2text.py.

    One beam is greedy search; with `top_p` set the caption is sampled from the smallest set of
    tokens that holds this share of the probability (of the `top_k` best).
    """

    beams: int = 3
    max_length: int = 30  # tokens, prompt included
    min_length: int = 10
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0  # of tokens: none comes twice; 0: all may
    prefer_ended: bool = False  # beams that `max_length` stops count only where none has ended
    top_p: float | None = None
    top_k: int = 50  # transformers' default, which the authors' sampling inherits


@dataclass(frozen=True, slots=True)
class Ends:
    """The tokens that end and pad a caption."""

    end: int
    pad: int


class Written(NamedTuple):
    """Captions, and how likely the model finds them."""

    ids: Tensor  # (N, length) from the prompt on, padded after their end
    likelihoods: Tensor  # (N) mean natural logarithm of a token's probability, its end included


def generate(
    step: Step,
    state: State,
    prompt: Tensor,
    decoding: Decoding,
    ends: Ends,
    draws: Tensor | None = None,
) -> Written:
    """Captions that start with `prompt` (N, P).

    `step(ids, state)` gives logits (N, positions, V) and the next state. Sampling takes `draws`
    (N, max_length), uniform on [0, 1): a row of them alone decides about its caption.
    """
    if decoding.top_p is not None or decoding.beams == 1:
        ids = _one_by_one(step, state, prompt, decoding, ends, draws)
    else:
        ids = _beam_search(step, state, prompt, decoding, ends)
    start = prompt.shape[1]
    # All as long as they may be, so that rounding does not depend on a photo's neighbours.
    padded = F.pad(ids, (0, decoding.max_length - ids.shape[1]), value=ends.pad)
    # In a pass of its own: a search's sums hold its penalties, and sampling has none.
    logits, _ = step(padded[:, :-1], state)
    logs = logits.float().log_softmax(-1).gather(2, padded[:, 1:, None])[:, start - 1 :, 0]
    ended = (padded[:, start:] == ends.end).int()
    written = (ended.cumsum(1) - ended == 0).float()  # (N, length - P) up to the end
    return Written(ids, (logs * written).sum(1) / written.sum(1))


def _one_by_one(
    step: Step, state: State, ids: Tensor, decoding: Decoding, ends: Ends, draws: Tensor | None
) -> Tensor:
    logits, state = step(ids, state)
    open_rows = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
    while True:
        scores = _penalise(logits[:, -1].float(), ids, decoding, ends)
        if decoding.top_p is None:
            word = scores.argmax(-1)
        else:
            assert draws is not None
            word = _drawn(scores, decoding.top_p, decoding.top_k, draws[:, ids.shape[1]])
        word = word.where(open_rows, ends.pad)
        ids = torch.cat([ids, word[:, None]], 1)
        open_rows &= word != ends.end
        if ids.shape[1] >= decoding.max_length or not open_rows.any():
            return ids
        logits, state = step(word[:, None], state)


@dataclass(slots=True)
class _Finished:
    """The best finished captions of one photo, the worst of them first."""

    beams: int
    captions: list[tuple[float, Tensor]] = field(default_factory=list)

    def add(self, ids: Tensor, log_probability: float) -> None:
        score = log_probability / len(ids)
        if len(self.captions) < self.beams or score > self.worst:
            # Among equal scores the last one is the best: the authors sort stably and pop.
            self.captions = sorted([*self.captions, (score, ids)], key=itemgetter(0))[-self.beams :]

    def is_done(self, best_log_probability: float, length: int) -> bool:
        """Whether no running beam can still beat the worst finished caption."""
        full = len(self.captions) >= self.beams
        return full and self.worst >= best_log_probability / length

    @property
    def worst(self) -> float:
        return self.captions[0][0]


def _beam_search(
    step: Step, state: State, prompt: Tensor, decoding: Decoding, ends: Ends
) -> Tensor:
    photos, beams = len(prompt), decoding.beams
    rows = torch.arange(photos, device=prompt.device).repeat_interleave(beams)
    logits, state = step(prompt, state)
    ids, logits, state = prompt[rows], logits[rows], state.select(rows)
    # All beams of a photo start alike, so only the first may win the first step.
    sums = torch.full((photos, beams), -1e9, device=prompt.device)
    sums[:, 0] = 0
    finished = [_Finished(beams) for _ in range(photos)]
    done = [False] * photos
    while True:
        scores = logits[:, -1].float().log_softmax(-1)
        scores = _penalise(scores, ids, decoding, ends) + sums.view(-1, 1)
        words, origin, sums = _advance(scores, ids, finished, done, ends)
        ids = torch.cat([ids[origin], words[:, None]], 1)
        if all(done) or ids.shape[1] >= decoding.max_length:
            break
        logits, state = step(words[:, None], state.reorder(origin))
    for photo, hypotheses in enumerate(finished):
        if not done[photo] and not (decoding.prefer_ended and hypotheses.captions):
            for beam in range(beams):
                hypotheses.add(ids[photo * beams + beam], float(sums[photo, beam]))
    best = (hypotheses.captions[-1][1] for hypotheses in finished)
    ended = [F.pad(caption, (0, 1), value=ends.end) for caption in best]
    return pad_sequence(ended, batch_first=True, padding_value=ends.pad)[:, : decoding.max_length]


def _advance(
    scores: Tensor, ids: Tensor, finished: list[_Finished], done: list[bool], ends: Ends
) -> tuple[Tensor, Tensor, Tensor]:
    """Each beam's next token, the row it continues, and its sum; marks photos as done.

    Of the 2K best candidates those that end a caption are finished (if among the K best), and the
    K best of the others go on.
    """
    photos, beams = len(finished), finished[0].beams
    best, place = scores.view(photos, -1).topk(2 * beams, sorted=True)  # (N, 2K)
    words = place % scores.shape[-1]
    rows = place // scores.shape[-1] + beams * torch.arange(photos, device=ids.device)[:, None]
    for photo, rank in (words[:, :beams] == ends.end).nonzero().tolist():
        if not done[photo]:
            finished[photo].add(ids[rows[photo, rank]], float(best[photo, rank]))
    for photo, highest in enumerate(best[:, 0].tolist()):
        done[photo] = done[photo] or finished[photo].is_done(highest, ids.shape[1])
    going_on = (words == ends.end).int().argsort(dim=1, stable=True)[:, :beams]
    words, rows, sums = (x.gather(1, going_on) for x in (words, rows, best))
    return words.view(-1), rows.view(-1), sums


def _penalise(scores: Tensor, ids: Tensor, decoding: Decoding, ends: Ends) -> Tensor:
    penalty = decoding.repetition_penalty
    if penalty != 1.0:
        used = scores.gather(1, ids)
        used = torch.where(used < 0, used * penalty, used / penalty)
        scores = scores.scatter(1, ids, used)
    size = decoding.no_repeat_ngram_size
    if 0 < size <= ids.shape[1]:
        ngrams = ids.unfold(1, size, 1)  # (rows, positions, size)
        begun = ids[:, ids.shape[1] - size + 1 :]
        rows, places = (ngrams[..., :-1] == begun[:, None]).all(-1).nonzero(as_tuple=True)
        scores = scores.index_put((rows, ngrams[rows, places, -1]), scores.new_tensor(NEVER))
    if ids.shape[1] < decoding.min_length:
        scores = scores.index_fill(1, torch.tensor([ends.end], device=ids.device), NEVER)
    return scores


def _drawn(scores: Tensor, top_p: float, top_k: int, draws: Tensor) -> Tensor:
    """The token (N) at each draw (N) on the scale of the nucleus's cumulated probability."""
    if 0 < top_k < scores.shape[-1]:
        scores = scores.masked_fill(scores < scores.topk(top_k).values[:, -1:], NEVER)
    ordered, order = scores.sort(descending=True)
    probabilities = ordered.softmax(-1)
    outside = probabilities.cumsum(-1) - probabilities >= top_p  # the best always stays
    scores = scores.masked_fill(torch.zeros_like(outside).scatter(1, order, outside), NEVER)
    below = scores.softmax(-1).cumsum(-1)
    # Draws of 23 bits stay below the total in single precision, so that one is always above.
    return (below > draws[:, None] * below[:, -1:]).int().argmax(-1)
