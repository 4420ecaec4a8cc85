"""The captioning branch: tags and image tokens become a memory, and the memory becomes text.

B batch, T image tokens, G tag tokens, S caption tokens, D width, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ramctl.model.attention import AttentionBlock, KeysValues, initialise_bert, map_tensors
from ramctl.model.preset import CaptioningConfig
from ramctl.model.tag_decoder import TagDecoder, TagDecoderLayer


@dataclass(frozen=True, slots=True)
class CaptionInputs:
    """One caption per photo and the tags that guide it, as tokens."""

    tag_ids: Tensor  # (B, G)
    tag_mask: Tensor  # (B, G) 1 where not padding
    caption_ids: Tensor  # (B, S)
    caption_mask: Tensor  # (B, S)


class TextEmbedding(nn.Module):
    """Word and position embeddings, layer norm; no token types (as BLIP's BERT)."""

    def __init__(self, config: CaptioningConfig, vocabulary: int) -> None:
        super().__init__()
        # Word piece 0 is padding in every tokenizer here; as input it is not learnt.
        self.words = nn.Embedding(vocabulary, config.width, padding_idx=0)
        self.positions = nn.Embedding(config.max_positions, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.dropout = config.dropout

    def forward(self, ids: Tensor, start: int = 0) -> Tensor:
        """(B, S, D) of tokens (B, S), the first of them at position `start`."""
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)
        x = self.norm(self.words(ids) + self.positions(positions))
        return F.dropout(x, self.dropout, self.training)


class TextLayer(nn.Module):
    """One BERT layer: self-attention, then cross-attention and feed-forward as in the tag decoder.

    RAM and Tag2Text share the modules of a `tied` layer, with this branch's number of heads.
    """

    def __init__(
        self, config: CaptioningConfig, context_width: int, tied: TagDecoderLayer | None = None
    ) -> None:
        super().__init__()
        self.heads = config.heads
        width, eps = config.width, config.layer_norm_eps
        self.self_attention = AttentionBlock(width, width, dropout=config.dropout, eps=eps)
        rest = tied or TagDecoderLayer(config, context_width)
        self.cross_attention, self.feed_forward = rest.cross_attention, rest.feed_forward

    def forward(
        self,
        x: Tensor,
        context: KeysValues,
        mask: Tensor | None,
        context_mask: Tensor | None,
        past: KeysValues | None = None,
    ) -> tuple[Tensor, KeysValues]:
        """(B, S, D), and the self-attention's keys and values of all positions so far."""
        current = self.self_attention.keys_values(x, self.heads)
        if past is not None:
            current = map_tensors(lambda *both: torch.cat(both, 2), past, current)
        x = self.self_attention(x, current, mask=mask)
        return self.feed_forward(self.cross_attention(x, context, mask=context_mask)), current


class TagEncoder(nn.Module):
    """The tags' tokens attend to each other and to the photo's tokens."""

    def __init__(
        self,
        config: CaptioningConfig,
        embedding: TextEmbedding,
        token_width: int,
        tied: Sequence[TagDecoderLayer],
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.layers: Sequence[TextLayer] = nn.ModuleList(  # type: ignore[assignment]
            TextLayer(config, token_width, tied[i] if i < len(tied) else None)
            for i in range(config.tag_layers)
        )

    def forward(self, tag_ids: Tensor, tag_mask: Tensor, tokens: Tensor) -> Tensor:
        """(B, G, D), the memory that the caption decoder reads."""
        x = self.embedding(tag_ids)
        mask = tag_mask.bool()[:, None, None]  # (B, 1, 1, G)
        for layer in self.layers:
            x, _ = layer(x, layer.cross_attention.keys_values(tokens, layer.heads), mask, None)
        return x


@dataclass(slots=True)
class DecoderState:
    """The state of incremental decoding: keys and values of memory and past positions."""

    memory: list[KeysValues]
    memory_mask: Tensor | None  # (B, 1, 1, G)
    past: list[KeysValues | None]
    length: int

    def select(self, rows: Tensor) -> "DecoderState":
        """The state of the sequences `rows`."""
        return map_tensors(lambda tensor: tensor[rows], self)

    def reorder(self, rows: Tensor) -> "DecoderState":
        """As `select`, but the memory stays: all beams of a photo have the same."""
        return replace(self, past=map_tensors(lambda tensor: tensor[rows], self.past))


class CaptionDecoder(nn.Module):
    """A causal language model that attends to the tag encoder's memory."""

    def __init__(self, config: CaptioningConfig, embedding: TextEmbedding, vocabulary: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.layers: Sequence[TextLayer] = nn.ModuleList(  # type: ignore[assignment]
            TextLayer(config, config.width) for _ in range(config.layers)
        )
        self.transform = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.word_bias = nn.Parameter(torch.zeros(vocabulary))

    def start(self, memory: Tensor, memory_mask: Tensor | None) -> DecoderState:
        """The state before the first token of captions of `memory` (B, G, D)."""
        contexts = [layer.cross_attention.keys_values(memory, layer.heads) for layer in self.layers]
        mask = None if memory_mask is None else memory_mask.bool()[:, None, None]
        return DecoderState(contexts, mask, [None] * len(self.layers), 0)

    def forward(
        self, ids: Tensor, state: DecoderState, mask: Tensor | None = None
    ) -> tuple[Tensor, DecoderState]:
        """Logits (B, S, V) of the token after each of `ids`, and the state after them.

        `mask` (B, S) is 0 at padding, for whole captions only.
        """
        x = self.embedding(ids, state.length)
        visible, length = None, ids.shape[1]
        if length > 1 or mask is not None:
            shape = length, state.length + length  # (S, all positions so far)
            causal = torch.ones(shape, dtype=torch.bool, device=ids.device).tril(state.length)
            visible = causal if mask is None else causal & mask.bool()[:, None, None]
        past = []
        for layer, memory, before in zip(self.layers, state.memory, state.past, strict=True):
            x, current = layer(x, memory, visible, state.memory_mask, before)
            past.append(current)
        x = self.norm(F.gelu(self.transform(x)))
        logits = F.linear(x, self.embedding.words.weight, self.word_bias)
        return logits, DecoderState(state.memory, state.memory_mask, past, state.length + length)


class Captioning(nn.Module):
    """Tag encoder and caption decoder.

    Source: paper, figure 2 (image-tag interaction encoder, generation decoder); authors'
    tag2text.py. Without `mask_tag_padding` the decoder also attends to padded tag positions, as the
    authors' does.
    """

    def __init__(
        self, config: CaptioningConfig, vocabulary: int, token_width: int, tag_decoder: TagDecoder
    ) -> None:
        super().__init__()
        self.mask_tag_padding = config.mask_tag_padding
        embedding = decoder_embedding = TextEmbedding(config, vocabulary)
        if not config.share_embeddings:
            decoder_embedding = TextEmbedding(config, vocabulary)
        tied = tag_decoder.layers if config.tie_tag_decoder else ()
        self.tag_encoder = TagEncoder(config, embedding, token_width, tied)
        self.decoder = CaptionDecoder(config, decoder_embedding, vocabulary)
        self.apply(initialise_bert)

    def forward(self, tokens: Tensor, inputs: CaptionInputs) -> Tensor:
        """Logits (B, S, V); those at position i are of token i + 1."""
        state = self.start(tokens, inputs.tag_ids, inputs.tag_mask)
        logits, _ = self.decoder(inputs.caption_ids, state, inputs.caption_mask)
        return logits

    def start(self, tokens: Tensor, tag_ids: Tensor, tag_mask: Tensor) -> DecoderState:
        """The decoder's state before the first token, for `generation`."""
        memory = self.tag_encoder(tag_ids, tag_mask, tokens)
        return self.decoder.start(memory, tag_mask if self.mask_tag_padding else None)
