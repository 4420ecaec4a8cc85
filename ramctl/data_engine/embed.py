"""What the baseline makes of a region: does it see the tag there, and what does it look like.

B photos, P regions, T tokens of the grid, C channels of the backbone, D width of the tag decoder.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ramctl.model.global_branch import GlobalFeatures
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
    """Score and feature of each region, every token weighted by `cover`.

    `label` (P) says which of the prepared labels a region is asked for. A weight of 0 hides a
    token: the tag decoder does not attend to it and the global branch does not pool it.
    """
    pooled, tokens, photo = _decoder_inputs(model, view)
    # Class and mean token stand for the region as a whole, and are always seen.
    n_before = model.encoder.extra_tokens
    n_after = tokens.shape[1] - n_before - view.cover.shape[1]
    mask = F.pad(view.cover.log(), (n_before, n_after))[:, None, None]  # (P, 1, 1, all tokens)
    states = _queries(model, labels, label, photo)
    for layer in model.tag_decoder.layers:
        attended = layer.cross_attention(states, layer.context(tokens), mask=mask)
        states = layer.feed_forward(attended)
    logits = model.tag_decoder.head(states, labels.parts.head[label][:, None]).squeeze(1)
    if labels.parts.bias.shape[-1]:
        logits = logits + labels.parts.bias[label].squeeze(-1)
    if model.prior is not None and photo is not None:
        of_all = model.prior.text_logits(photo, labels.parts, labels.likeness)
        of_all = of_all + model.prior.own_logits(photo, labels.parts)
        if isinstance(of_all, Tensor):  # (P, L)
            logits = logits + of_all.gather(1, label[:, None]).squeeze(1)
    return Embedded(logits.sigmoid(), _feature(pooled, photo))


def _feature(pooled: Tensor, photo: GlobalFeatures | None) -> Tensor:
    """What regions are compared by, (P, F) of unit length.

    The spaces that the model has learnt to tell labels apart in, side by side: on planted errors
    distances in them rank wrong tags better than in the backbone's own channels, and the two
    together better than either (scripts/reproduce/planted.mk).
    """
    if photo is None:
        return F.normalize(pooled, dim=-1)
    learnt = [part for part in (photo.own, photo.feature) if part is not None]
    return F.normalize(torch.cat([F.normalize(part, dim=-1) for part in learnt], -1), dim=-1)


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
        return pooled, tokens, GlobalFeatures(mean, None, None, None)
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
