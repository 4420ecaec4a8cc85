"""RAM: the paper's figure 2, assembled from its parts.

B batch, T tokens, C channels, D width, L labels, E text width, S caption word pieces,
V vocabulary, P regions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ramctl.model.attention import KeysValues
from ramctl.model.captioning import Captioning, CaptionInputs, TextLayer
from ramctl.model.encoder import ImageEncoder
from ramctl.model.generation import Decoding, Ends, generate
from ramctl.model.global_branch import GlobalBranch, GlobalFeatures
from ramctl.model.label_queries import DescriptionWeighting, LabelParts, LabelQueries, LabelTable
from ramctl.model.tag_decoder import Queries, TagDecoder, TagDecoderLayer

# Labels are independent, so long lists go through the decoder in pieces: the feed-forward's
# intermediate result then stays in the cache, and memory does not grow with the list.
ROWS_AT_ONCE = 2048


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
        return Encoded(self.tokens[photos], None if self.photo is None else self.photo[photos])

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def join(cls, parts: Sequence["Encoded"]) -> "Encoded":
        """The photos of several batches as one."""
        if len(parts) == 1:
            return parts[0]
        photos = [part.photo for part in parts if part.photo is not None]
        photo = GlobalFeatures.join(photos) if photos else None
        return cls(torch.cat([part.tokens for part in parts]), photo)


@dataclass(frozen=True, slots=True)
class PreparedLabels:
    """Labels with everything computed that does not depend on the photo."""

    parts: LabelParts
    queries: Queries | None  # (1, L, D); None where the photo weighs descriptions
    absent: Tensor | None  # (L, M) missing descriptions
    likeness: Tensor | None = None  # (L, K) to the backbone's class names

    def __len__(self) -> int:
        return len(self.parts.text)


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
        return Regions(self.photo[some], self.cover[some], self.label[some])

    def to(self, device: torch.device) -> "Regions":
        """The same on another device."""
        return Regions(self.photo.to(device), self.cover.to(device), self.label.to(device))


@dataclass(frozen=True, slots=True)
class RegionOutput:
    """Regions as the model sees them."""

    logits: Tensor  # (P) of each region's label
    feature: Tensor  # (P, F) of unit length: what regions are compared by


class RAM(nn.Module):
    """Image encoder, label queries, tag decoder and captioning branch.

    The parts are built outside (`build.build_ram`); a part that a model does not have is None.
    """

    def __init__(
        self,
        *,
        encoder: ImageEncoder,
        token_projection: nn.Linear | None,
        labels: LabelTable,
        label_queries: LabelQueries,
        tag_decoder: TagDecoder,
        weighting: DescriptionWeighting | None = None,
        prior: GlobalBranch | None = None,
        captioning: Captioning | None = None,
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
        """Recompute every layer's activations in the backward pass, to save memory.

        Gradients are unchanged; a step takes about a third longer.
        """
        self.encoder.set_checkpointing()
        for module in self.modules():
            if isinstance(module, TagDecoderLayer | TextLayer):
                module.recompute = True

    def encode(self, features: Tensor) -> Encoded:
        """The decoders' tokens and the global feature of the encoder's features (B, T, C)."""
        project = self.token_projection
        return self._with_global(features if project is None else project(features), features)

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
        return PreparedLabels(parts, None, (parts.text == 0).all(-1))

    def tag_logits(self, encoded: Encoded, labels: Tensor | PreparedLabels) -> Tensor:
        """Logits (B, L) of rows or prepared labels."""
        text, own = self.tag_logit_parts(encoded, labels)
        return text + own

    def tag_logit_parts(
        self, encoded: Encoded, labels: Tensor | PreparedLabels
    ) -> tuple[Tensor, Tensor | float]:
        """The same logits as a sum: what the labels' texts say, and what labels own besides.

        The second part is 0 for words that were not trained on.
        """
        if isinstance(labels, Tensor):
            labels = self.prepare_labels(labels)
        contexts = self.tag_decoder.contexts(encoded.tokens)
        size = max(1, ROWS_AT_ONCE // len(encoded.tokens))
        if torch.is_grad_enabled() or torch.onnx.is_in_onnx_export() or len(labels) <= size:
            return self._tag_logit_parts(encoded, contexts, labels)
        pieces = [_slice(labels, i, i + size) for i in range(0, len(labels), size)]
        text, own = zip(*(self._tag_logit_parts(encoded, contexts, p) for p in pieces), strict=True)
        return torch.cat(text, 1), torch.cat(own, -1) if isinstance(own[0], Tensor) else 0.0

    def _tag_logit_parts(
        self,
        encoded: Encoded,
        contexts: list[KeysValues],
        labels: PreparedLabels,
        maps: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | float]:
        states = self.tag_decoder(self._queries(encoded, labels), contexts, maps=maps)
        parts, photo = labels.parts, encoded.photo
        text = self.tag_decoder.head(states, parts.head)
        if self.prior is not None and photo is not None:
            text = text + self.prior.text_logits(photo, parts, labels.likeness)
        own: Tensor | float = parts.bias.squeeze(-1) if parts.bias.shape[-1] else 0.0
        if self.prior is not None and photo is not None:
            own = own + self.prior.own_logits(photo, parts)
        return text, own

    def tag_logits_with_maps(
        self, encoded: Encoded, labels: Tensor | PreparedLabels
    ) -> tuple[Tensor, Tensor]:
        """The same logits (to 1e-5), and the attention (B, layers, heads, L, T) behind them.

        The first `encoder.extra_tokens` and, with a class token, the last one stand for no place
        in the photo; the others are its grid, row by row.
        """
        if isinstance(labels, Tensor):
            labels = self.prepare_labels(labels)
        maps: list[Tensor] = []
        contexts = self.tag_decoder.contexts(encoded.tokens)
        text, own = self._tag_logit_parts(encoded, contexts, labels, maps)
        return text + own, torch.stack(maps, 1)

    def look_at_regions(
        self, features: Tensor, regions: Regions, labels: PreparedLabels
    ) -> RegionOutput:
        """What the model makes of regions of photos with features (B, T, C) of the encoder.

        A token counts as much as `regions.cover` says: the tag decoder attends to it and the
        global branch pools it accordingly.
        """
        pooled, encoded = self._encode_regions(features, regions)
        # Class and mean token stand for the region as a whole, and are always seen.
        n_before = self.encoder.extra_tokens
        n_after = encoded.tokens.shape[1] - n_before - regions.cover.shape[1]
        mask = F.pad(regions.cover.log(), (n_before, n_after))[:, None, None]  # (P, 1, 1, T)
        queries = self._own_queries(encoded, labels, regions.label)
        states = self.tag_decoder(queries, self.tag_decoder.contexts(encoded.tokens), mask)
        parts, photo = labels.parts, encoded.photo
        logits = self.tag_decoder.head(states, parts.head[regions.label][:, None]).squeeze(1)
        if parts.bias.shape[-1]:
            logits = logits + parts.bias[regions.label].squeeze(-1)
        if self.prior is not None and photo is not None:
            of_all = self.prior.text_logits(photo, parts, labels.likeness)
            of_all = of_all + self.prior.own_logits(photo, parts)
            if isinstance(of_all, Tensor):  # (P, L)
                logits = logits + of_all.gather(1, regions.label[:, None]).squeeze(1)
        return RegionOutput(logits, _region_feature(pooled, photo))

    def _encode_regions(self, features: Tensor, regions: Regions) -> tuple[Tensor, Encoded]:
        """The features pooled under each box (P, C), and the region as the decoders see it."""
        weights = regions.cover / regions.cover.sum(1, keepdim=True)
        grid = features[:, self.encoder.extra_tokens :]
        pooled = torch.einsum("pt,ptc->pc", weights, grid[regions.photo])
        project = self.token_projection
        tokens = (features if project is None else project(features))[regions.photo]
        if self.encoder.mean_token:
            mean = pooled if project is None else project(pooled)
            tokens = torch.cat([mean[:, None], tokens[:, 1:]], 1)
        return pooled, self._with_global(tokens, pooled[:, None])

    def caption_logits(self, encoded: Encoded, inputs: CaptionInputs) -> Tensor:
        """Logits (B, S, V); those at position i are of word piece i + 1."""
        if self.captioning is None:
            raise ValueError("this model has no captioning branch")
        return self.captioning(encoded.tokens, inputs)

    @torch.no_grad()
    def generate(
        self,
        encoded: Encoded,
        tag_ids: Tensor,
        tag_mask: Tensor,
        prompt: Tensor,
        decoding: Decoding,
        ends: Ends,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Captions (B, length) as word pieces, from tags (B, G) and a prompt (B, P)."""
        if self.captioning is None:
            raise ValueError("this model has no captioning branch")
        state = self.captioning.start(encoded.tokens, tag_ids, tag_mask)
        return generate(self.captioning.decoder, state, prompt, decoding, ends, generator)

    def _queries(self, encoded: Encoded, labels: PreparedLabels) -> Queries:
        if labels.queries is not None:
            return labels.queries
        if self.weighting is None or encoded.global_feature is None:
            raise ValueError("only a model with weighted descriptions takes rows (L, M, E)")
        text = self.weighting(labels.parts.text, labels.absent, encoded.global_feature)
        return self.tag_decoder.prepare(self.label_queries(text))

    def _own_queries(self, encoded: Encoded, labels: PreparedLabels, label: Tensor) -> Queries:
        """The query (P, 1, D) of one label a region."""
        if labels.queries is not None:
            return self.tag_decoder.prepare(labels.queries.states[0, label][:, None])
        assert self.weighting is not None and encoded.photo is not None
        text = self.weighting(labels.parts.text, labels.absent, encoded.photo.feature)  # (P, L, E)
        own = text.gather(1, label[:, None, None].expand(-1, 1, text.shape[-1]))
        return self.tag_decoder.prepare(self.label_queries(own))


def _slice(labels: PreparedLabels, start: int, end: int) -> PreparedLabels:
    parts = LabelParts(*(part[start:end] for part in labels.parts))
    queries = labels.queries
    if queries is not None:
        queries = Queries(*(states[:, start:end] for states in queries))
    absent = None if labels.absent is None else labels.absent[start:end]
    likeness = None if labels.likeness is None else labels.likeness[start:end]
    return PreparedLabels(parts, queries, absent, likeness)


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
