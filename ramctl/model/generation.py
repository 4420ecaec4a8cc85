"""Beam search and greedy search over an incremental decoder.

N photos, K beams, V vocabulary. Lengths count the prompt: the convention of transformers 4.25.1,
the version that the authors' captions come from (later versions leave the prompt out).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

NEVER = float("-inf")


State = Any  # of a decoder; `select` and `reorder` give that of other sequences
Step = Callable[[Tensor, State], tuple[Tensor, State]]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How to search for captions. Defaults: the authors' tag2text.py. One beam is greedy search."""

    beams: int = 3
    max_length: int = 30  # tokens, prompt included
    min_length: int = 10
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0  # of tokens: none comes twice; 0: all may
    prefer_ended: bool = False  # beams cut at `max_length` count only where none has ended
    candidates: int = 1  # captions returned for each photo


@dataclass(frozen=True, slots=True)
class Ends:
    """The tokens that end and pad a caption."""

    end: int
    pad: int


def generate(step: Step, state: State, prompt: Tensor, decoding: Decoding, ends: Ends) -> Tensor:
    """The tokens (N * C, length) of captions that start with `prompt` (N, P), padded at their end.

    The C candidates of a photo follow each other, the best first. `step(ids, state)` returns logits
    (N, positions, V) and the next state.
    """
    search = _greedy_search if decoding.beams == 1 else _beam_search
    return search(step, state, prompt, decoding, ends)


def _greedy_search(step: Step, state: State, ids: Tensor, decoding: Decoding, ends: Ends) -> Tensor:
    logits, state = step(ids, state)
    open_rows = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
    while True:
        word = _penalise(logits[:, -1].float(), ids, decoding, ends).argmax(-1)
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
    captions: list[tuple[float, Tensor]] = field(default_factory=list)  # the score, the tokens

    def add(self, ids: Tensor, log_probability: float) -> None:
        score = log_probability / len(ids)
        if len(self.captions) < self.beams or score > self.worst:
            # Among equal scores the last one is the best: the authors sort stably and pop.
            captions = [*self.captions, (score, ids)]
            self.captions = sorted(captions, key=itemgetter(0))[-self.beams :]

    def is_done(self, best_log_probability: float, length: int) -> bool:
        """Whether no running beam can still beat the worst finished caption."""
        full = len(self.captions) >= self.beams
        return full and self.worst >= best_log_probability / length

    def best(self, number: int) -> list[Tensor]:
        """The `number` best captions, the best first, which is repeated where there are fewer."""
        found = [ids for _, ids in self.captions[::-1][:number]]
        return found + found[:1] * (number - len(found))

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
    first_rows = torch.arange(0, photos * beams, beams, device=prompt.device)[:, None]
    # All beams of a photo start alike, so only the first may win the first step.
    sums = torch.full((photos, beams), -1e9, device=prompt.device)
    sums[:, 0] = 0
    finished = [_Finished(beams) for _ in range(photos)]
    done = [False] * photos
    while True:
        logs = logits[:, -1].float().log_softmax(-1)
        scores = _penalise(logs, ids, decoding, ends) + sums.view(-1, 1)
        # Each photo's 2K best: words (N, 2K), the rows that they continue, sums.
        sums, place = scores.view(photos, -1).topk(2 * beams, sorted=True)
        words, origin = place % scores.shape[-1], place // scores.shape[-1] + first_rows
        length = ids.shape[1]
        for photo, rank in (words[:, :beams] == ends.end).nonzero().tolist():
            if not done[photo]:
                finished[photo].add(ids[origin[photo, rank]], float(sums[photo, rank]))
        for photo, highest in enumerate(sums[:, 0].tolist()):
            done[photo] = done[photo] or finished[photo].is_done(highest, length)
        # The K best of those that do not end a caption go on.
        going_on = (words == ends.end).int().argsort(dim=1, stable=True)[:, :beams]
        words, origin, sums = (x.gather(1, going_on) for x in (words, origin, sums))
        ids = torch.cat([ids[origin.view(-1)], words.view(-1, 1)], 1)
        if all(done) or ids.shape[1] >= decoding.max_length:
            break
        logits, state = step(words.view(-1, 1), state.reorder(origin.view(-1)))
    for photo, hypotheses in enumerate(finished):
        if not done[photo] and not (decoding.prefer_ended and hypotheses.captions):
            for beam in range(beams):
                hypotheses.add(ids[photo * beams + beam], float(sums[photo, beam]))
    best = [caption for photo in finished for caption in photo.best(decoding.candidates)]
    ended = [F.pad(ids, (0, 1), value=ends.end) for ids in best]
    padded = pad_sequence(ended, batch_first=True, padding_value=ends.pad)
    return padded[:, : decoding.max_length]


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
