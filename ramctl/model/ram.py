"""RAM: the paper's figure 2, assembled from its parts.

B batch, T tokens, C channels, D width, L labels, E text width, S caption tokens,
V vocabulary, P regions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ramctl.model.attention import KeysValues
from ramctl.model.captioning import Captioning, CaptionInputs, TextLayer
from ramctl.model.config import ModelConfig, check_model
from ramctl.model.encoder import ImageEncoder
from ramctl.model.generation import Decoding, Ends, generate
from ramctl.model.global_branch import GlobalBranch, GlobalFeatures
from ramctl.model.label_queries import (
    DescriptionWeighting,
    LabelParts,
    LabelQueries,
    LabelTable,
    RowLayout,
)
from ramctl.model.nested import map_tensors
from ramctl.model.tag_decoder import Queries, TagDecoder, TagDecoderLayer

# Labels are independent, so long lists go through the decoder in pieces: the feed-forward's
# intermediate result then stays in the cache, and memory does not grow with the list.
ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch of photos as the decoders see it."""

    tokens: Tensor  # (B, T, D)
    photo: GlobalFeatures | None

    @property
    def global_feature(self) -> Tensor | None:
        """(B, E), what distillation acts on; None for a model without one."""
        return None if self.photo is None else self.photo.feature

    def __getitem__(self, photos: slice | Tensor) -> "Encoded":
        """Some photos of the batch."""
        return map_tensors(lambda part: part[photos], self)

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def join(cls, parts: Sequence["Encoded"]) -> "Encoded":
        """The photos of several batches as one."""
        return parts[0] if len(parts) == 1 else map_tensors(lambda *part: torch.cat(part), *parts)


@dataclass(frozen=True, slots=True)
class PreparedLabels:
    """Labels with everything computed that does not depend on the photo."""

    parts: LabelParts
    queries: Queries | None  # (1, L, D); None where the photo weighs descriptions
    absent: Tensor | None  # (L, M) missing descriptions
    likeness: Tensor | None = None  # (L, K) to the backbone's class names

    def __len__(self) -> int:
        return len(self.parts.text)

    def __getitem__(self, some: slice) -> "PreparedLabels":
        rows = map_tensors(lambda part: part[some], replace(self, queries=None))
        return replace(rows, queries=map_tensors(lambda part: part[:, some], self.queries))


@dataclass(frozen=True, slots=True)
class RamOutput:
    """What one forward pass gives."""

    features: Tensor  # (B, T, C) of the image encoder
    encoded: Encoded
    text_logits: Tensor  # (B, L) what the labels' texts say
    own_logits: Tensor | float  # (B, L) or (L): what trained labels own besides; 0.0 for nothing
    caption_logits: Tensor | None  # (B, S, V)

    @property
    def tag_logits(self) -> Tensor:
        """(B, L)."""
        return self.text_logits + self.own_logits


@dataclass(frozen=True, slots=True)
class Regions:
    """Boxes in the photos of a batch, each asked for one label."""

    photo: Tensor  # (P) which photo a region belongs to
    cover: Tensor  # (P, tokens of the grid) how much each token counts; 0 hides it
    label: Tensor  # (P) which of the prepared labels

    def __len__(self) -> int:
        return len(self.photo)

    def __getitem__(self, some: slice) -> "Regions":
        return map_tensors(lambda part: part[some], self)

    def to(self, device: torch.device) -> "Regions":
        """The same on another device."""
        return map_tensors(lambda part: part.to(device), self)


class RAM(nn.Module):
    """The model for `n_labels` labels and photos of `image_size` px, with random weights.

    `vocabulary` is the caption tokenizer's size; `description_counts` the number of descriptions
    of each label, for a model that weighs them. The label table's text is zero until
    `labels.set_text`. Raises UsageProblem when the configuration contradicts itself.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        image_size: int,
        n_labels: int,
        vocabulary: int = 0,
        description_counts: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_model(config, n_labels, vocabulary, description_counts)
        encoder, labels, width = config.encoder, config.labels, config.tag_decoder.width
        channels, token_width = encoder.width, encoder.projection or encoder.width
        described = labels.kind == "descriptions"
        # The tag decoder draws its weights first: seeds keep giving what they gave.
        tag_decoder = TagDecoder(config.tag_decoder, token_width, shared_head=not labels.own_head)
        self.encoder = ImageEncoder(encoder, image_size)
        self.token_projection: nn.Module = (
            nn.Linear(channels, token_width) if encoder.projection else nn.Identity()
        )
        self.labels = LabelTable(
            RowLayout.of(labels, width),
            n_labels,
            counts=description_counts if described else None,
            train_text=labels.kind == "learnt",
        )
        self.label_queries = LabelQueries(labels.width, width, labels.projection)
        self.tag_decoder = tag_decoder
        self.weighting = DescriptionWeighting() if described else None
        self.prior = self.captioning = None
        self.scores_cells = config.scores_cells
        if config.prior is not None:
            self.prior = GlobalBranch(config.prior, labels, channels, token_width)
        if config.captioning is not None:
            self.captioning = Captioning(config.captioning, vocabulary, token_width, tag_decoder)

    def forward(
        self,
        photos: Tensor,
        labels: "Tensor | PreparedLabels | None" = None,
        captions: CaptionInputs | None = None,
        captioned: Tensor | None = None,
    ) -> RamOutput:
        """Tag logits of `labels` and logits of `captions` for a batch of photos.

        `photos` is (B, 3, H, W), or what the encoder's frozen stages give for them (B, N, K).
        `labels` are rows of the label table (default: all). `captioned` says which photos the
        captions belong to (default: all, in order).
        """
        features = self.encoder(photos)
        encoded = self.encode(features)
        text, own = self.tag_logit_parts(encoded, self.labels() if labels is None else labels)
        caption_logits = None
        if captions is not None:
            seen = encoded if captioned is None else encoded[captioned]
            caption_logits = self.caption_logits(seen, captions)
        return RamOutput(features, encoded, text, own, caption_logits)

    def recompute_activations(self) -> None:
        """Recompute activations in the backward pass: less memory, but steps a third longer."""
        self.encoder.backbone.set_grad_checkpointing(True)
        for module in self.modules():
            if isinstance(module, TagDecoderLayer | TextLayer):
                module.recompute = True

    def encode(self, features: Tensor) -> Encoded:
        """The decoders' tokens and the global feature of the encoder's features (B, T, C)."""
        return self._with_global(self.token_projection(features), features)

    def _with_global(self, tokens: Tensor, features: Tensor) -> Encoded:
        """Projected tokens with the global features, which the prior takes from `features`."""
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
        parts = self.labels.layout.split(rows)
        if rows.dim() == 2:
            states = self.label_queries(parts.text)[None]
            likeness = None if self.prior is None else self.prior.prepare(parts.text)
            return PreparedLabels(parts, self.tag_decoder.prepare(states), None, likeness)
        # Rows of zeros. A comparison of each number would be a copy of all in the exported graph.
        absent = torch.linalg.vector_norm(parts.text, ord=1, dim=-1) == 0
        return PreparedLabels(parts, None, absent)

    def tag_logits(self, encoded: Encoded, labels: Tensor | PreparedLabels) -> Tensor:
        """Logits (B, L) of rows or prepared labels."""
        text, own = self.tag_logit_parts(encoded, labels)
        return text + own

    def tag_logit_parts(
        self, encoded: Encoded, labels: Tensor | PreparedLabels, maps: list[Tensor] | None = None
    ) -> tuple[Tensor, Tensor | float]:
        """The same logits as a sum: what the labels' texts say, and what labels own besides.

        The second part is 0 for words that were not trained on. Each layer's attention (B, heads,
        L, T) is appended to `maps`, which changes logits by 1e-5 at most: the first
        `encoder.extra_tokens` and, with a class token, the last one stand for no place in the
        photo; the others are its grid, row by row.
        """
        contexts = self.tag_decoder.contexts(encoded.tokens)
        size = max(1, ROWS_AT_ONCE // len(encoded.tokens))
        at_once = torch.is_grad_enabled() or torch.onnx.is_in_onnx_export() or maps is not None
        if at_once or len(labels) <= size:
            return self._tag_logit_parts(encoded, contexts, labels, maps)
        pieces = (labels[i : i + size] for i in range(0, len(labels), size))
        text, own = zip(*(self._tag_logit_parts(encoded, contexts, p) for p in pieces), strict=True)
        return torch.cat(text, 1), torch.cat(own, -1) if isinstance(own[0], Tensor) else 0.0

    def _tag_logit_parts(
        self,
        encoded: Encoded,
        contexts: list[KeysValues],
        labels: Tensor | PreparedLabels,
        maps: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | float]:
        if isinstance(labels, Tensor):
            labels = self.prepare_labels(labels)
        states = self.tag_decoder(self._queries(encoded, labels), contexts, maps=maps)
        parts, photo = labels.parts, encoded.photo
        text = self.tag_decoder.head(states, parts.head)
        if self.prior is not None and photo is not None:
            text = text + self.prior.text_logits(photo, parts, labels.likeness)
        own: Tensor | float = parts.bias.squeeze(-1) if parts.bias.shape[-1] else 0.0
        if self.prior is not None and photo is not None:
            own = own + self.prior.own_logits(photo, parts)
        return text, own

    def cell_logits(self, features: Tensor, labels: PreparedLabels) -> Tensor:
        """What the global branch says of each cell of the grid alone, (B, L, cells) row by row.

        The class activation of Zhou et al. 2016 (arXiv 1512.04150) for a branch that need not be
        linear: a cell is pooled as a photo that has no other. `features` (B, T, C) are the
        encoder's; only for a model that `scores_cells`.
        """
        assert self.prior is not None
        grid = features[:, self.encoder.extra_tokens :]
        cells = self.prior(grid.flatten(0, 1)[:, None])
        logits = self.prior.logits(cells, labels.parts, labels.likeness)
        assert isinstance(logits, Tensor)
        return logits.unflatten(0, grid.shape[:2]).transpose(1, 2)

    def look_at_regions(
        self, features: Tensor, regions: Regions, labels: PreparedLabels
    ) -> tuple[Tensor, Tensor]:
        """Logits (P) of regions, each of its label, and what regions are compared by, (P, F).

        `features` (B, T, C) are the encoder's. A token counts as much as `regions.cover` says: the
        tag decoder attends to it and the global branch pools it accordingly.
        """
        pooled, encoded = self._encode_regions(features, regions)
        # Class and mean token stand for the region as a whole, and are always seen.
        n_before = self.encoder.extra_tokens
        n_after = encoded.tokens.shape[1] - n_before - regions.cover.shape[1]
        mask = F.pad(regions.cover.log(), (n_before, n_after))[:, None, None]  # (P, 1, 1, T)
        queries = self._queries(encoded, labels, regions.label)
        states = self.tag_decoder(queries, self.tag_decoder.contexts(encoded.tokens), mask)
        parts, photo = labels.parts, encoded.photo
        logits = self.tag_decoder.head(states, parts.head[regions.label][:, None]).squeeze(1)
        if parts.bias.shape[-1]:
            logits = logits + parts.bias[regions.label].squeeze(-1)
        if self.prior is not None and photo is not None:
            of_all = self.prior.logits(photo, parts, labels.likeness)
            if isinstance(of_all, Tensor):  # (P, L)
                logits = logits + of_all.gather(1, regions.label[:, None]).squeeze(1)
        return logits, _region_feature(pooled, photo)

    def _encode_regions(self, features: Tensor, regions: Regions) -> tuple[Tensor, Encoded]:
        """The features pooled under each box (P, C), and the region as the decoders see it."""
        weights = regions.cover / regions.cover.sum(1, keepdim=True)
        grid = features[:, self.encoder.extra_tokens :]
        pooled = torch.einsum("pt,ptc->pc", weights, grid[regions.photo])
        tokens = self.token_projection(features)[regions.photo]
        if self.encoder.mean_token:
            mean = self.token_projection(pooled)
            tokens = torch.cat([mean[:, None], tokens[:, 1:]], 1)
        return pooled, self._with_global(tokens, pooled[:, None])

    def caption_logits(self, encoded: Encoded, inputs: CaptionInputs) -> Tensor:
        """Logits (B, S, V); those at position i are of token i + 1."""
        return self._captioner(encoded.tokens, inputs)

    @torch.no_grad()
    def generate(
        self,
        encoded: Encoded,
        tag_ids: Tensor,
        tag_mask: Tensor,
        prompt: Tensor,
        decoding: Decoding,
        ends: Ends,
        draws: Tensor | None = None,
    ) -> Tensor:
        """Captions (B, length) as tokens, from tags (B, G) and a prompt (B, P)."""
        state = self._captioner.start(encoded.tokens, tag_ids, tag_mask)
        return generate(self._captioner.decoder, state, prompt, decoding, ends, draws)

    @property
    def _captioner(self) -> Captioning:
        if self.captioning is None:
            raise ValueError("this model has no captioning branch")
        return self.captioning

    def _queries(
        self, encoded: Encoded, labels: PreparedLabels, one: Tensor | None = None
    ) -> Queries:
        """The labels' queries (1 or B, L, D), or those of `one` (B) label a photo, (B, 1, D)."""
        if labels.queries is not None:
            if one is None:
                return labels.queries
            return self.tag_decoder.prepare(labels.queries.states[0, one][:, None])
        if self.weighting is None or encoded.global_feature is None:
            raise ValueError("only a model with weighted descriptions takes rows (L, M, E)")
        text = self.weighting(labels.parts.text, labels.absent, encoded.global_feature)
        if one is not None:
            text = text.gather(1, one[:, None, None].expand(-1, 1, text.shape[-1]))
        return self.tag_decoder.prepare(self.label_queries(text))


def _region_feature(pooled: Tensor, photo: GlobalFeatures | None) -> Tensor:
    """What regions are compared by, (P, F) of unit length.

    The spaces in which the model has learnt to tell labels apart, side by side: on planted errors
    distances in them rank wrong tags better than distances in the backbone's own channels, and the
    two together better than either (scripts/reproduce/planted.mk).
    """
    if photo is None:
        return F.normalize(pooled, dim=-1)
    learnt = [part for part in (photo.own, photo.feature) if part is not None]
    return F.normalize(torch.cat([F.normalize(part, dim=-1) for part in learnt], -1), dim=-1)
