"""Labels as the model takes them: rows, and the label queries computed from them.

A label's row holds everything that the model needs of it. Rows are an input of the tagging graph,
so any label can be scored. B batch, L labels, M descriptions, E text width, D query width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ramctl.errors import RunProblem


class LabelParts(NamedTuple):
    """A row split into its parts; parts that the model lacks are empty."""

    text: Tensor  # (L, E) or (L, M, E)
    own: Tensor  # (L, R) multiplied by the pooled image feature
    head: Tensor  # (L, D) or (L, 0): the label's own last layer
    bias: Tensor  # (L, 1) or (L, 0)


class LabelTable(nn.Module):
    """The rows of a label system: text embeddings, and the vectors that trained labels have.

    `text` (L, E), or with descriptions (sum of M, E) in label order, M of each in `counts`. It is
    a constant unless `train_text` (Tag2Text's learnt queries). `widths` are those of `LabelParts`.
    """

    text: Tensor
    counts: Tensor

    def __init__(
        self, widths: Sequence[int], n_labels: int, *, counts: Sequence[int] | None,
        train_text: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.widths = list(widths)
        text, own, head, bias = widths
        self.described = counts is not None
        counts = [1] * n_labels if counts is None else counts
        self.register_buffer("counts", torch.tensor(counts, dtype=torch.long))
        self.text = nn.Parameter(torch.zeros(sum(counts), text), requires_grad=train_text)
        self.own = nn.Parameter(torch.zeros(n_labels, own))
        self.head = nn.Parameter(torch.zeros(n_labels, head))
        self.bias = nn.Parameter(torch.zeros(n_labels, bias))
        if train_text:
            nn.init.normal_(self.text, std=0.02)
        nn.init.normal_(self.head, std=0.02)

    def __len__(self) -> int:
        return len(self.counts)

    def set_text(self, embeddings: Tensor) -> None:
        """Set the text embeddings, in label order; RunProblem if their shape does not fit."""
        if embeddings.shape != self.text.shape:
            shape, expected = tuple(embeddings.shape), tuple(self.text.shape)
            raise RunProblem(f"label embeddings have shape {shape}, the model expects {expected}")
        with torch.no_grad():
            self.text.copy_(embeddings)

    def split(self, rows: Tensor) -> LabelParts:
        """The parts of rows (..., width); rows of text alone are unseen labels."""
        text, width = self.widths[0], sum(self.widths)
        if width == text:  # an exported split would copy hundreds of MB of descriptions
            nothing = rows[..., :0]
            return LabelParts(rows, nothing, nothing, nothing)
        if rows.shape[-1] == text:
            rows = F.pad(rows, (0, width - text))
        return LabelParts(*torch.split(rows, self.widths, -1))

    def forward(self, ids: Tensor | None = None) -> Tensor:
        """Rows (L, width) of all labels or of those with `ids`.

        Described labels have (L, M, E), padded with rows of zeros.
        """
        chosen = slice(None) if ids is None else ids
        if not self.described:
            parts = [part for part in (self.text, self.own, self.head, self.bias) if part.shape[1]]
            return torch.cat([part[chosen] for part in parts], 1)
        counts = self.counts[chosen]
        longest = int(self.counts.max())
        if len(self.text) == longest * len(self):
            return self.text.view(len(self), longest, -1)[chosen]
        starts = (self.counts.cumsum(0) - self.counts)[chosen]
        place = torch.arange(longest, device=counts.device)
        present = place < counts[:, None]  # (L, M)
        return self.text[(starts[:, None] + place).where(present, 0)] * present[..., None]


class LabelQueries(nn.Module):
    """Text embeddings to label queries: a linear map and ReLU (RAM), or unchanged (Tag2Text)."""

    def __init__(self, text_width: int, width: int, projection: str) -> None:
        super().__init__()
        self.projection = nn.Linear(text_width, width) if projection == "relu" else None

    def forward(self, text: Tensor) -> Tensor:
        """Queries (..., D) of text embeddings (..., E)."""
        return text if self.projection is None else F.relu(self.projection(text))


class DescriptionWeighting(nn.Module):
    """RAM++: a label's embedding is the mean of its descriptions, weighted by the photo.

    Source: authors' ram_plus.py, ram_official A2; missing descriptions (rows of zeros) weigh 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(1 / 0.07).log())

    def forward(self, descriptions: Tensor, absent: Tensor | None, photo: Tensor) -> Tensor:
        """(B, L, E) of descriptions (L, M, E) and photos' global features (B, E)."""
        weights = self.weights(descriptions, absent, photo)
        # One product a label over the whole batch, without a tensor (B, L, M, E).
        return (weights.transpose(0, 1) @ descriptions).transpose(0, 1)  # (L, B, M) x (L, M, E)

    def weights(self, descriptions: Tensor, absent: Tensor | None, photo: Tensor) -> Tensor:
        """Softmax over each label's descriptions, (B, L, M); `absent` (L, M) marks missing ones."""
        direction = F.normalize(photo, dim=-1)
        # Descriptions come first: the other way round the exported graph would turn a copy of them.
        scores = descriptions.flatten(0, 1) @ (self.log_scale.exp() * direction).t()  # (L M, B)
        scores = scores.t().unflatten(1, descriptions.shape[:2])
        if absent is not None:
            scores = scores.masked_fill(absent, float("-inf"))
        return scores.softmax(-1)
