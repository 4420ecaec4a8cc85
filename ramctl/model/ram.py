"""RAM, the paper's figure 2: a photo and label queries to logits, a photo and tags to a caption.

B batch, T tokens, C channels, D width, L labels, E text width, S caption tokens,
V vocabulary.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ramctl.model.attention import joined, map_tensors
from ramctl.model.captioning import Captioning, CaptionInputs
from ramctl.model.encoder import ImageEncoder
from ramctl.model.global_branch import GlobalBranch, GlobalFeatures
from ramctl.model.label_queries import DescriptionWeighting, LabelParts, LabelQueries, LabelTable
from ramctl.model.tag_decoder import Queries, TagDecoder

# Labels are independent, so long lists go through the decoder in pieces: the feed-forward's
# intermediate result then stays in the cache, and memory does not grow with the list.
ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch of photos as the decoders take it."""

    tokens: Tensor  # (B, T, D)
    photo: GlobalFeatures | None  # None for a model without a global feature

    def __getitem__(self, photos: slice | Tensor) -> "Encoded":
        return map_tensors(lambda part: part[photos], self)

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class PreparedLabels:
    """Labels with everything computed that does not depend on the photo."""

    parts: LabelParts
    queries: Queries | None  # (1, L, D); None where the photo weighs descriptions
    absent: Tensor | None  # (L, M) missing descriptions
    likeness: Tensor | None = None  # (L, K) to the backbone's class names

    def __len__(self) -> int:
        return len(self.parts.text)

    def __getitem__(self, part: slice) -> "PreparedLabels":
        rows = map_tensors(lambda tensor: tensor[part], replace(self, queries=None))
        return replace(rows, queries=map_tensors(lambda tensor: tensor[:, part], self.queries))


class TagLogits(NamedTuple):
    """Logits of labels as a sum: by their texts, and by the vectors that trained labels have.

    The second part is 0.0 for words that were not trained on.
    """

    text: Tensor  # (B, L)
    by_label: Tensor | float  # (B, L) or (L)

    @property
    def total(self) -> Tensor:
        """(B, L)."""
        return self.text + self.by_label


@dataclass(frozen=True, slots=True)
class RamOutput:
    features: Tensor  # (B, T, C) of the image encoder
    encoded: Encoded
    logits: TagLogits
    caption_logits: Tensor | None  # (B, S, V)


class RAM(nn.Module):
    """Image encoder, label queries, tag decoder and captioning branch; `build_ram` makes them.

    `prior` is `mini`'s global branch, `weighting` is RAM++'s. The label table's text is zero until
    `labels.set_text`.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        token_projection: nn.Module,
        labels: LabelTable,
        label_queries: LabelQueries,
        tag_decoder: TagDecoder,
        weighting: DescriptionWeighting | None,
        prior: GlobalBranch | None,
        captioning: Captioning | None,
        scores_cells: bool,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.token_projection = token_projection
        self.labels = labels
        self.label_queries = label_queries
        self.tag_decoder = tag_decoder
        self.weighting = weighting
        self.prior = prior
        self.captioning = captioning
        self.scores_cells = scores_cells

    def forward(
        self,
        photos: Tensor,
        labels: Tensor | PreparedLabels | None = None,
        captions: CaptionInputs | None = None,
        captioned: Tensor | None = None,
    ) -> RamOutput:
        """Tag logits of `labels` and logits of `captions` for a batch of photos.

        `photos` is (B, 3, H, W), or the output of the encoder's frozen stages (B, N, K).
        `labels` are rows of the label table (default: all). `captioned` marks the photos that the
        captions belong to (default: all, in order).
        """
        features = self.encoder(photos)
        encoded = self.encode(features)
        rows = self.labels() if labels is None else labels
        logits = self.tag_logits(encoded, rows)
        caption_logits = None
        if captions is not None:
            assert self.captioning is not None
            photos_with_captions = encoded if captioned is None else encoded[captioned]
            caption_logits = self.captioning(photos_with_captions.tokens, captions)
        return RamOutput(features, encoded, logits, caption_logits)

    def encode(self, features: Tensor, tokens: Tensor | None = None) -> Encoded:
        """The decoders' tokens and the global feature of the encoder's features (B, T, C).

        `tokens` (B, T, D) are given where they are not the projected features.
        """
        if tokens is None:
            tokens = self.token_projection(features)
        if self.prior is not None:
            photo = self.prior(features)
            if photo.token is not None:
                tokens = torch.cat([tokens, photo.token], 1)
            return Encoded(tokens, photo)
        return Encoded(tokens, GlobalFeatures(tokens[:, 0]) if self.encoder.mean_token else None)

    def prepare_labels(self, rows: Tensor) -> PreparedLabels:
        """The labels with everything computed that does not depend on the photo.

        `rows` (L, row width), text embeddings alone (L, E), or descriptions (L, M, E).
        """
        parts = self.labels.split(rows)
        if rows.dim() == 2:
            queries = self.tag_decoder.prepare(self.label_queries(parts.text)[None])
            likeness = None if self.prior is None else self.prior.prepare(parts.text)
            return PreparedLabels(parts, queries, None, likeness)
        # Rows of zeros. A comparison of each number would be a copy of all in the exported graph.
        absent = torch.linalg.vector_norm(parts.text, ord=1, dim=-1) == 0
        return PreparedLabels(parts, None, absent)

    def tag_logits(
        self, encoded: Encoded, labels: Tensor | PreparedLabels, maps: list[Tensor] | None = None
    ) -> TagLogits:
        """Logits (B, L) of rows or prepared labels.

        Each layer's attention (B, heads, L, T) is appended to `maps`, which changes logits by 1e-5
        at most: the first `encoder.extra_tokens` and, with a class token, the last one stand for no
        place in the photo; the others are its grid, row by row.
        """
        contexts = self.tag_decoder.contexts(encoded.tokens)
        size = max(1, ROWS_AT_ONCE // len(encoded.tokens))
        at_once = torch.is_grad_enabled() or torch.onnx.is_in_onnx_export() or maps is not None
        pieces: list[Tensor | PreparedLabels] = [labels]
        if not at_once and len(labels) > size:
            pieces = [labels[start : start + size] for start in range(0, len(labels), size)]
        logits = []
        for piece in pieces:
            prepared = self.prepare_labels(piece) if isinstance(piece, Tensor) else piece
            by_text, by_label = self.branch_logits(encoded, prepared)
            states = self.tag_decoder(self._queries(encoded, prepared), contexts, maps=maps)
            by_text = by_text + self.tag_decoder.head(states, prepared.parts.head)
            logits.append(TagLogits(by_text, by_label))
        return joined(logits, -1)

    def branch_logits(
        self, encoded: Encoded, labels: PreparedLabels
    ) -> tuple[Tensor | float, Tensor | float]:
        """The logits (B, L) or (L,) by labels' texts and own vectors, without the tag decoder."""
        by_text: Tensor | float = 0.0
        bias = labels.parts.bias
        by_label: Tensor | float = bias.squeeze(-1) if bias.shape[-1] else 0.0
        if self.prior is not None and encoded.photo is not None:
            by_text, learnt = self.prior.logits(encoded.photo, labels.parts, labels.likeness)
            by_label = by_label + learnt
        return by_text, by_label

    def _queries(self, encoded: Encoded, labels: PreparedLabels) -> Queries:
        """The labels' queries; with weighted descriptions one for each label and photo."""
        if labels.queries is not None:
            return labels.queries
        assert self.weighting is not None and encoded.photo is not None
        text = self.weighting(labels.parts.text, labels.absent, encoded.photo.feature)
        return self.tag_decoder.prepare(self.label_queries(text))
