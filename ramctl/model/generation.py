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
    tokens that holds this fraction of the probability (of the `top_k` best).
    """

    beams: int = 3
    max_length: int = 30  # tokens, prompt included
    min_length: int = 10
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0  # of tokens: none comes twice; 0: all may
    prefer_ended: bool = False  # beams cut at `max_length` count only where none has ended
    top_p: float | None = None
    top_k: int = 50  # transformers' default, which the authors' sampling inherits
    candidates: int = 1  # captions returned for each photo


@dataclass(frozen=True, slots=True)
class Ends:
    """The tokens that end and pad a caption."""

    end: int
    pad: int


class Written(NamedTuple):
    """The C candidates of each photo, the best first, and their likelihoods."""

    ids: Tensor  # (N * C, length) from the prompt on, padded after their end
    likelihoods: Tensor  # (N * C) mean natural logarithm of a token's probability, its end included


def generate(
    step: Step,
    state: State,
    prompt: Tensor,
    decoding: Decoding,
    ends: Ends,
    draws: Tensor | None = None,
) -> Written:
    """Captions that start with `prompt` (N, P).

    `step(ids, state)` returns logits (N, positions, V) and the next state. Sampling takes `draws`
    (N, max_length), uniform on [0, 1), so that a caption depends only on its own row.
    """
    search = _one_by_one if decoding.top_p is not None or decoding.beams == 1 else _beam_search
    return search(step, state, prompt, decoding, ends, draws)


def _one_by_one(
    step: Step, state: State, ids: Tensor, decoding: Decoding, ends: Ends, draws: Tensor | None
) -> Written:
    logits, state = step(ids, state)
    open_rows = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
    log_likelihood, lengths = logits.new_zeros(2, len(ids), dtype=torch.float)
    while True:
        last = logits[:, -1].float()
        scores = _penalise(last, ids, decoding, ends)
        if decoding.top_p is None:
            word = scores.argmax(-1)
        else:
            assert draws is not None
            word = _drawn(scores, decoding.top_p, decoding.top_k, draws[:, ids.shape[1]])
        log_likelihood += last.log_softmax(-1).gather(1, word[:, None])[:, 0].where(open_rows, 0)
        lengths += open_rows
        word = word.where(open_rows, ends.pad)
        ids = torch.cat([ids, word[:, None]], 1)
        open_rows &= word != ends.end
        if ids.shape[1] >= decoding.max_length or not open_rows.any():
            return Written(ids, log_likelihood / lengths)
        logits, state = step(word[:, None], state)


@dataclass(slots=True)
class _Finished:
    """The best finished captions of one photo, the worst of them first."""

    beams: int
    # The score, the tokens, and the likelihood as in `Written`.
    captions: list[tuple[float, Tensor, float]] = field(default_factory=list)

    def add(self, ids: Tensor, log_probability: float, likelihood: float) -> None:
        score = log_probability / len(ids)
        if len(self.captions) < self.beams or score > self.worst:
            # Among equal scores the last one is the best: the authors sort stably and pop.
            captions = [*self.captions, (score, ids, likelihood)]
            self.captions = sorted(captions, key=itemgetter(0))[-self.beams :]

    def is_done(self, best_log_probability: float, length: int) -> bool:
        """Whether no running beam can still beat the worst finished caption."""
        full = len(self.captions) >= self.beams
        return full and self.worst >= best_log_probability / length

    def best(self, number: int) -> list[tuple[float, Tensor, float]]:
        """The `number` best captions, the best first, which is repeated where there are fewer."""
        found = self.captions[::-1][:number]
        return found + found[:1] * (number - len(found))

    @property
    def worst(self) -> float:
        return self.captions[0][0]


def _beam_search(
    step: Step, state: State, prompt: Tensor, decoding: Decoding, ends: Ends, draws: Tensor | None
) -> Written:
    (photos, start), beams = prompt.shape, decoding.beams
    rows = torch.arange(photos, device=prompt.device).repeat_interleave(beams)
    logits, state = step(prompt, state)
    ids, logits, state = prompt[rows], logits[rows], state.select(rows)
    first_rows = torch.arange(0, photos * beams, beams, device=prompt.device)[:, None]
    # All beams of a photo start alike, so only the first may win the first step.
    sums = torch.full((photos, beams), -1e9, device=prompt.device)
    sums[:, 0] = 0
    plain_sums = torch.zeros_like(sums)  # the same sums without penalties
    finished = [_Finished(beams) for _ in range(photos)]
    done = [False] * photos
    while True:
        logs = logits[:, -1].float().log_softmax(-1)
        scores = _penalise(logs, ids, decoding, ends) + sums.view(-1, 1)
        # Each photo's 2K best: words (N, 2K), the rows that they continue, sums.
        sums, place = scores.view(photos, -1).topk(2 * beams, sorted=True)
        words, origin = place % scores.shape[-1], place // scores.shape[-1] + first_rows
        plain_sums = plain_sums.view(-1)[origin] + logs[origin, words]  # (N, 2K)
        length = ids.shape[1]
        for photo, rank in (words[:, :beams] == ends.end).nonzero().tolist():
            if not done[photo]:
                mean = float(plain_sums[photo, rank]) / (length + 1 - start)
                finished[photo].add(ids[origin[photo, rank]], float(sums[photo, rank]), mean)
        for photo, highest in enumerate(sums[:, 0].tolist()):
            done[photo] = done[photo] or finished[photo].is_done(highest, length)
        # The K best of those that do not end a caption go on.
        going_on = (words == ends.end).int().argsort(dim=1, stable=True)[:, :beams]
        tensors = (words, origin, sums, plain_sums)
        words, origin, sums, plain_sums = (x.gather(1, going_on) for x in tensors)
        ids = torch.cat([ids[origin.view(-1)], words.view(-1, 1)], 1)
        if all(done) or ids.shape[1] >= decoding.max_length:
            break
        logits, state = step(words.view(-1, 1), state.reorder(origin.view(-1)))
    for photo, hypotheses in enumerate(finished):
        if not done[photo] and not (decoding.prefer_ended and hypotheses.captions):
            for beam in range(beams):
                mean = float(plain_sums[photo, beam]) / (ids.shape[1] - start)
                hypotheses.add(ids[photo * beams + beam], float(sums[photo, beam]), mean)
    best = [caption for photo in finished for caption in photo.best(decoding.candidates)]
    ended = [F.pad(ids, (0, 1), value=ends.end) for _, ids, _ in best]
    padded = pad_sequence(ended, batch_first=True, padding_value=ends.pad)
    return Written(padded[:, : decoding.max_length], sums.new_tensor([mean for *_, mean in best]))


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
