"""The tag decoder: label queries attend to the photo's tokens, each label on its own.

B batch, L labels, T tokens, D width, h heads.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ramctl.model.attention import AttentionBlock, FeedForwardBlock, KeysValues, initialise_bert
from ramctl.model.preset import CaptioningConfig, TagDecoderConfig


class Queries(NamedTuple):
    """Label queries, and the part of the first layer that does not depend on the photo."""

    states: Tensor  # (1 or B, L, D)
    first: Tensor  # (1 or B, L, D) the first layer's query projection of them


class TagDecoderLayer(nn.Module):
    """Cross-attention to the tokens, then a feed-forward block; no self-attention.

    Labels never attend to each other, so a score does not depend on the other labels.
    """

    def __init__(self, config: TagDecoderConfig | CaptioningConfig, token_width: int) -> None:
        super().__init__()
        self.heads = config.heads
        width, dropout, eps = config.width, config.dropout, config.layer_norm_eps
        self.cross_attention = AttentionBlock(width, token_width, dropout=dropout, eps=eps)
        self.feed_forward = FeedForwardBlock(width, config.ffn_width, dropout=dropout, eps=eps)

    def forward(
        self,
        x: Tensor,
        context: KeysValues,
        query: Tensor | None = None,
        mask: Tensor | None = None,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """(B, L, D); `query`, `mask` and `maps` as in `AttentionBlock.forward`."""
        x = self.cross_attention(x, context, mask=mask, query=query, maps=maps)
        return self.feed_forward(x)


class TagDecoder(nn.Module):
    """A few layers, and one linear map from a label's state to its logit, shared by all labels.

    Source: paper, figure 2; authors' q2l_config.json. Labels with a last layer of their own
    (Tag2Text's group-wise linear) pass it to `head`.
    """

    def __init__(self, config: TagDecoderConfig, token_width: int, *, shared_head: bool) -> None:
        super().__init__()
        self.layers: Sequence[TagDecoderLayer] = nn.ModuleList(  # type: ignore[assignment]
            TagDecoderLayer(config, token_width) for _ in range(config.layers)
        )
        self.shared_head = nn.Linear(config.width, 1) if shared_head else None
        self.apply(initialise_bert)

    def prepare(self, states: Tensor) -> Queries:
        """The queries (1 or B, L, D) with the first layer's projection of them."""
        return Queries(states, self.layers[0].cross_attention.query(states))

    def contexts(self, tokens: Tensor) -> list[KeysValues]:
        """Keys and values of the tokens for each layer, computed once for all labels."""
        return [layer.cross_attention.keys_values(tokens, layer.heads) for layer in self.layers]

    def forward(
        self,
        queries: Queries,
        contexts: Sequence[KeysValues],
        mask: Tensor | None = None,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """The labels' states (B, L, D); each layer's attention is appended to `maps`.

        `mask` (..., T) is added to the attention's scores.
        """
        x, projected = queries.states, [queries.first, *[None] * (len(self.layers) - 1)]
        for layer, context, query in zip(self.layers, contexts, projected, strict=True):
            x = layer(x, context, query, mask, maps)
        return x

    def head(self, states: Tensor, layers: Tensor) -> Tensor:
        """Logits (B, L); `layers` (L, D) are the last layers of the labels, (L, 0) where shared."""
        if self.shared_head is not None:
            return self.shared_head(states).squeeze(-1)
        return (states * layers).sum(-1)
