"""The blocks of all decoders: attention and feed-forward, both post-norm; and nested tensors.

B batch, L queries, T keys, D width, h heads.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Nested = TypeVar("Nested")


class KeysValues(NamedTuple):
    """Keys and values of the context, split into heads."""

    keys: Tensor  # (B, h, T, D/h)
    values: Tensor  # (B, h, T, D/h)


class AttentionBlock(nn.Module):
    """Multi-head attention, residual connection, layer norm.

    The caller chooses the number of heads: RAM uses the same block with 4 heads in the tag decoder
    and with 12 in the tag encoder. Source: authors' bert.py (BLIP); ties in ram_official A1.
    """

    def __init__(self, width: int, context_width: int, *, dropout: float, eps: float) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width, width)
        self.value = nn.Linear(context_width, width)
        self.output = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.dropout = dropout

    def keys_values(self, context: Tensor, heads: int) -> KeysValues:
        """Keys and values of `context` (B, T, C)."""
        keys, values = self.key(context), self.value(context)
        return KeysValues(split_heads(keys, heads), split_heads(values, heads))

    def forward(
        self,
        x: Tensor,
        context: KeysValues,
        *,
        mask: Tensor | None = None,
        query: Tensor | None = None,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """(B, L, D) after attending to `context`.

        `mask`, broadcastable to (B, h, L, T), is true where a key is visible, or a number added to
        the scores; `query` is `self.query(x)` if it is already computed. The attention
        probabilities (B, h, L, T) are appended to `maps`, which excludes a mask.
        """
        q = split_heads(self.query(x) if query is None else query, context.keys.shape[1])
        dropout_p = self.dropout if self.training else 0.0
        is_plain = torch.onnx.is_in_onnx_export() or (dropout_p and x.is_cpu)
        if maps is not None or (mask is None and is_plain):
            # Plain products broadcast one set of queries over the photos, where the exporter's form
            # of fused attention would copy and scale the queries for each photo. And with dropout
            # torch has no fused attention on a CPU.
            scores = q @ context.keys.transpose(-1, -2) / math.sqrt(q.shape[-1])  # (B, h, L, T)
            probabilities = scores.softmax(-1)
            if maps is not None:
                maps.append(probabilities)
            mixed = F.dropout(probabilities, self.dropout, self.training) @ context.values
        else:
            q = q.expand(len(context.keys), -1, -1, -1)
            mixed = F.scaled_dot_product_attention(q, *context, attn_mask=mask, dropout_p=dropout_p)
        mixed = self.output(mixed.transpose(1, 2).flatten(2))  # (B, L, D)
        return self.norm(F.dropout(mixed, self.dropout, self.training) + x)


class FeedForwardBlock(nn.Module):
    """Two linear maps with GELU between them, residual connection, layer norm."""

    def __init__(self, width: int, hidden: int, *, dropout: float, eps: float) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D), each position independent of the others."""
        out = self.contract(F.gelu(self.expand(x)))
        return self.norm(F.dropout(out, self.dropout, self.training) + x)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, L, D) as (B, h, L, D/h)."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads).transpose(1, 2)


def initialise_bert(module: nn.Module) -> None:
    """Weights as BERT draws them: normal(0, 0.02), biases 0; for `Module.apply`."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def map_tensors(do: Callable[..., Tensor], *values: Nested) -> Nested:
    """Apply `do` to the tensors in the same place of nested values, and return a value like them.

    Parts without a tensor are those of the first value.
    """
    first: Any = values[0]
    if isinstance(first, Tensor):
        return do(*values)  # type: ignore[return-value]
    kind: Any = type(first)
    if dataclasses.is_dataclass(first):
        parts = ([getattr(v, f.name) for v in values] for f in dataclasses.fields(first))
        return kind(*(map_tensors(do, *part) for part in parts))
    if isinstance(first, list | tuple):
        items: Any = values
        inner = [map_tensors(do, *part) for part in zip(*items, strict=True)]
        first = kind(*inner) if hasattr(kind, "_fields") else kind(inner)
    return first


def joined(parts: Sequence[Nested], axis: int = 0) -> Nested:
    """Several nested values as one, their tensors concatenated along an axis."""
    return parts[0] if len(parts) == 1 else map_tensors(lambda *x: torch.cat(x, axis), *parts)
