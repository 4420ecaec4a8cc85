"""RAM: the paper's figure 2, joined from its parts.

B batch, T tokens, C channels, D width, L labels, E text width, S caption word pieces, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ramctl.model.attention import KeysValues
from ramctl.model.captioning import Captioning, CaptionInputs, TextLayer
from ramctl.model.encoder import ImageEncoder
from ramctl.model.generation import Decoding, Ends, generate
from ramctl.model.global_branch import GlobalBranch, GlobalFeatures
from ramctl.model.label_queries import DescriptionWeighting, LabelParts, LabelQueries, LabelTable
from ramctl.model.tag_decoder import Queries, TagDecoder, TagDecoderLayer

# Labels are independent, so that long lists go through the decoder in pieces: the feed-forward's
# intermediate then stays in the cache, and memory does not grow with the list.
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


@dataclass(frozen=True, slots=True)
class PreparedLabels:
    """Labels with all work done that no photo changes."""

    parts: LabelParts
    queries: Queries | None  # (1, L, D); None where the photo weighs descriptions
    absent: Tensor | None  # (L, M) missing descriptions
    likeness: Tensor | None = None  # (L, K) to the backbone's class names

    def __len__(self) -> int:
        return len(self.parts.text)


@dataclass(frozen=True, slots=True)
class RamOutput:
    """What one pass gives."""

    encoded: Encoded
    tag_logits: Tensor  # (B, L)
    caption_logits: Tensor | None  # (B, S, V)
    alignment_logits: Tensor | None  # (B, number of texts)


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
        texts: Tensor | None = None,
    ) -> RamOutput:
        """Tag logits of `labels`, logits of `captions`, and of `texts` asked as if labels.

        `photos` is (B, 3, H, W), or what the encoder keeps of them (B, N, K). `labels` are rows of
        the label table (default: all); `texts` (B, E) are RAM++'s caption embeddings.
        """
        encoded = self.encode(self.encoder(photos))
        tag_logits = self.tag_logits(encoded, self.labels() if labels is None else labels)
        caption_logits = None if captions is None else self.caption_logits(encoded, captions)
        alignment_logits = None if texts is None else self.tag_logits(encoded, texts)
        return RamOutput(encoded, tag_logits, caption_logits, alignment_logits)

    def recompute_activations(self) -> None:
        """Let every layer compute its activations again in the backward pass: less memory.

        Gradients stay as they are; a step takes about a third longer.
        """
        self.encoder.set_checkpointing()
        for module in self.modules():
            if isinstance(module, TagDecoderLayer | TextLayer):
                module.recompute = True

    def encode(self, features: Tensor) -> Encoded:
        """The decoders' tokens and the global feature of the encoder's features (B, T, C)."""
        project = self.token_projection
        tokens = features if project is None else project(features)
        if self.prior is not None:
            photo = self.prior(features)
            if photo.token is not None:
                tokens = torch.cat([tokens, photo.token], 1)
            return Encoded(tokens, photo)
        if self.encoder.mean_token:
            return Encoded(tokens, GlobalFeatures(tokens[:, 0], None, None, None))
        return Encoded(tokens, None)

    def prepare_labels(self, rows: Tensor) -> PreparedLabels:
        """Everything about the labels that no photo changes; keep it for a label set.

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
        if isinstance(labels, Tensor):
            labels = self.prepare_labels(labels)
        contexts = self.tag_decoder.contexts(encoded.tokens)
        if torch.is_grad_enabled() or torch.onnx.is_in_onnx_export():
            return self._tag_logits(encoded, contexts, labels)
        size = max(1, ROWS_AT_ONCE // len(encoded.tokens))
        starts = range(0, len(labels), size)
        pieces = [self._tag_logits(encoded, contexts, _slice(labels, i, i + size)) for i in starts]
        return torch.cat(pieces, 1) if pieces else encoded.tokens.new_zeros(len(encoded.tokens), 0)

    def _tag_logits(
        self, encoded: Encoded, contexts: list[KeysValues], labels: PreparedLabels
    ) -> Tensor:
        states = self.tag_decoder(self._queries(encoded, labels), contexts)
        return self._logits(encoded, labels, states)

    def tag_logit_parts(self, encoded: Encoded, rows: Tensor) -> tuple[Tensor, Tensor | float]:
        """The same logits as a sum: what the labels' texts say, and what labels own besides.

        The second part is 0 for words that were not trained on.
        """
        labels = self.prepare_labels(rows)
        contexts = self.tag_decoder.contexts(encoded.tokens)
        states = self.tag_decoder(self._queries(encoded, labels), contexts)
        text = self._text_logits(encoded, labels, states)
        return text, self._own_logits(encoded, labels)

    def tag_logits_with_maps(
        self, encoded: Encoded, labels: Tensor | PreparedLabels
    ) -> tuple[Tensor, Tensor]:
        """The same logits (to 1e-5), and the attention (B, layers, heads, L, T) behind them.

        The first `encoder.extra_tokens` and, with a class token, the last token have no place in
        the photo; the others are its grid, row by row.
        """
        if isinstance(labels, Tensor):
            labels = self.prepare_labels(labels)
        queries = self._queries(encoded, labels)
        contexts = self.tag_decoder.contexts(encoded.tokens)
        states, maps = self.tag_decoder.forward_with_maps(queries, contexts)
        return self._logits(encoded, labels, states), maps

    def caption_logits(self, encoded: Encoded, inputs: CaptionInputs) -> Tensor:
        """Logits (B, S, V): position i tells word piece i + 1."""
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

    def _logits(self, encoded: Encoded, labels: PreparedLabels, states: Tensor) -> Tensor:
        return self._text_logits(encoded, labels, states) + self._own_logits(encoded, labels)

    def _text_logits(self, encoded: Encoded, labels: PreparedLabels, states: Tensor) -> Tensor:
        logits = self.tag_decoder.head(states, labels.parts.head)
        if self.prior is not None and encoded.photo is not None:
            logits = logits + self.prior.text_logits(encoded.photo, labels.parts, labels.likeness)
        return logits

    def _own_logits(self, encoded: Encoded, labels: PreparedLabels) -> Tensor | float:
        parts = labels.parts
        total: Tensor | float = parts.bias.squeeze(-1) if parts.bias.shape[-1] else 0.0
        if self.prior is not None and encoded.photo is not None:
            total = total + self.prior.own_logits(encoded.photo, parts)
        return total


def _slice(labels: PreparedLabels, start: int, end: int) -> PreparedLabels:
    parts = LabelParts(*(part[start:end] for part in labels.parts))
    queries = labels.queries
    if queries is not None:
        queries = Queries(*(states[:, start:end] for states in queries))
    absent = None if labels.absent is None else labels.absent[start:end]
    likeness = None if labels.likeness is None else labels.likeness[start:end]
    return PreparedLabels(parts, queries, absent, likeness)
