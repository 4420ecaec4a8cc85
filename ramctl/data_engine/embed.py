"""What the baseline makes of a region: does it see the tag there, and what does it look like.

B photos, P regions, T tokens of the grid, C channels of the backbone, D width of the tag decoder.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ramctl.model.prior import GlobalFeatures
from ramctl.model.ram import RAM, PreparedLabels


@dataclass(frozen=True, slots=True)
class RegionView:
    """Regions on token grids: each sees one photo (or crop), weighted by what the box covers."""

    features: Tensor  # (B, extra + T, C) of the image encoder
    photo: Tensor  # (P) which of the B a region belongs to
    cover: Tensor  # (P, T) share of each token's cell under the box

    def __len__(self) -> int:
        return len(self.photo)


@dataclass(frozen=True, slots=True)
class Embedded:
    """The regions as the baseline sees them."""

    score: Tensor  # (P) probability of the region's own tag
    feature: Tensor  # (P, F) of unit length


@torch.inference_mode()
def embed_regions(model: RAM, view: RegionView, labels: PreparedLabels, label: Tensor) -> Embedded:
    """Score and feature of each region, from the tokens under its box alone.

    `label` (P) says which of the prepared labels a region is asked for. The tag decoder attends
    to the covered tokens only (a token half covered has half the weight), and the global branch
    pools them only.
    """
    pooled, tokens, photo = _decoder_inputs(model, view)
    bias = torch.cat(
        [
            view.cover.new_zeros(len(view), tokens.shape[1] - view.cover.shape[1] - _tail(photo)),
            view.cover.log(),
            view.cover.new_zeros(len(view), _tail(photo)),
        ],
        1,
    )[:, None, None]  # (P, 1, 1, all tokens), added to the attention scores
    states = _queries(model, labels, label, photo)
    for layer in model.tag_decoder.layers:
        context = layer.cross_attention.keys_values(tokens, layer.heads)
        states = layer.feed_forward(layer.cross_attention(states, context, mask=bias))
    logits = model.tag_decoder.head(states, labels.parts.head[label][:, None]).squeeze(1)
    if labels.parts.bias.shape[-1]:
        logits = logits + labels.parts.bias[label].squeeze(-1)
    if model.prior is not None and photo is not None:
        by_label = model.prior.logits(photo, labels.parts)
        if isinstance(by_label, Tensor):
            logits = logits + by_label.gather(1, label[:, None]).squeeze(1)
    return Embedded(logits.sigmoid(), F.normalize(pooled, dim=-1))


def _tail(photo: GlobalFeatures | None) -> int:
    return 0 if photo is None or photo.token is None else 1


def _decoder_inputs(model: RAM, view: RegionView) -> tuple[Tensor, Tensor, GlobalFeatures | None]:
    """The pooled features (P, C), the decoder's tokens (P, all, D) and the global features."""
    extra = model.encoder.extra_tokens
    weights = view.cover / view.cover.sum(1, keepdim=True)
    grid = view.features[:, extra:]
    pooled = torch.einsum("pt,ptc->pc", weights, grid[view.photo])
    project = model.token_projection
    tokens = (view.features if project is None else project(view.features))[view.photo]
    if model.encoder.mean_token:
        mean = pooled if project is None else project(pooled)
        tokens = torch.cat([mean[:, None], tokens[:, 1:]], 1)
        return pooled, tokens, GlobalFeatures(mean, None, None)
    if model.prior is None:
        return pooled, tokens, None
    photo = model.prior(pooled[:, None])
    if photo.token is not None:
        tokens = torch.cat([tokens, photo.token], 1)
    return pooled, tokens, photo


def _queries(
    model: RAM, labels: PreparedLabels, label: Tensor, photo: GlobalFeatures | None
) -> Tensor:
    """Each region's own label query, (P, 1, D)."""
    if labels.queries is not None:
        return labels.queries.states[0, label][:, None]
    assert model.weighting is not None and photo is not None
    absent = None if labels.absent is None else labels.absent
    text = model.weighting(labels.parts.text, absent, photo.feature)  # (P, L, E)
    own = text.gather(1, label[:, None, None].expand(-1, 1, text.shape[-1]))
    queries: Tensor = model.label_queries(own)
    return queries
