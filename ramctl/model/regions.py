"""Scores of labels for parts of a photo: boxes, and the cells of the grid.

B batch, T tokens, C channels, L labels, P regions, F width of the regions' features.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ramctl.model.ram import RAM, PreparedLabels


@dataclass(frozen=True, slots=True)
class Regions:
    """Boxes in the photos of a batch, each with one label to score."""

    photo: Tensor  # (P) which photo a region belongs to
    cover: Tensor  # (P, tokens of the grid) how much each token counts; 0 hides it
    label: Tensor  # (P) which of the prepared labels


def region_logits(
    model: RAM, features: Tensor, regions: Regions, labels: PreparedLabels
) -> tuple[Tensor, Tensor]:
    """Logits (P,) of the regions' labels, and features (P, F) by which regions are compared.

    `features` (B, T, C) are the encoder's. `regions.cover` weighs the tokens: the
    tag decoder attends to it and the global branch pools it accordingly.
    """
    pooled = pool_regions(model, features, regions)
    tokens = model.token_projection(features)[regions.photo]
    if model.encoder.mean_token:
        tokens = torch.cat([model.token_projection(pooled)[:, None], tokens[:, 1:]], 1)
    encoded = model.encode(pooled[:, None], tokens)
    # Class and mean token stand for the region as a whole, and are always visible.
    n_before = model.encoder.extra_tokens
    n_after = encoded.tokens.shape[1] - n_before - regions.cover.shape[1]
    mask = F.pad(regions.cover.log(), (n_before, n_after))[:, None, None]  # (P, 1, 1, T)
    parts, photo, decoder = labels.parts, encoded.photo, model.tag_decoder
    if labels.queries is not None:
        queries = labels.queries.states[0, regions.label][:, None]  # (P, 1, D)
    else:
        assert model.weighting is not None and photo is not None
        text = model.weighting(parts.text, labels.absent, photo.feature)  # (P, L, E)
        label = regions.label[:, None, None].expand(-1, 1, text.shape[-1])
        queries = model.label_queries(text.gather(1, label))
    states = decoder(decoder.prepare(queries), decoder.contexts(encoded.tokens), mask)
    logits = decoder.head(states, parts.head[regions.label][:, None]).squeeze(1)
    if parts.bias.shape[-1]:
        logits = logits + parts.bias[regions.label].squeeze(-1)
    if model.prior is not None and photo is not None:
        by_text, by_label = model.prior.logits(photo, parts, labels.likeness)
        if isinstance(by_branch := by_text + by_label, Tensor):  # (P, L)
            logits = logits + by_branch.gather(1, regions.label[:, None]).squeeze(1)
    if photo is None:
        return logits, F.normalize(pooled, dim=-1)
    # The spaces in which the model separates labels, side by side: distances in them rank wrong
    # tags better than distances in the backbone's channels.
    learnt = [F.normalize(p, dim=-1) for p in (photo.own, photo.feature) if p is not None]
    return logits, F.normalize(torch.cat(learnt, -1), dim=-1)


def pool_regions(model: RAM, features: Tensor, regions: Regions) -> Tensor:
    """The features under each box (P, C): their mean, weighted by how much it covers them."""
    weights = regions.cover / regions.cover.sum(1, keepdim=True)
    grid = features[:, model.encoder.extra_tokens :]
    return torch.einsum("pt,ptc->pc", weights, grid[regions.photo])


def cell_logits(model: RAM, features: Tensor, labels: PreparedLabels) -> Tensor:
    """The global branch's logits of each cell of the grid, (B, L, cells) row by row.

    The class activation map of Zhou et al. 2016 (arXiv 1512.04150) for a branch that need not be
    linear: each cell is scored like a photo of one cell. `features` (B, T, C) are the encoder's;
    only for a model that `scores_cells`.
    """
    assert model.prior is not None
    grid = features[:, model.encoder.extra_tokens :]
    cells = model.prior(grid.flatten(0, 1)[:, None])
    by_text, by_label = model.prior.logits(cells, labels.parts, labels.likeness)
    logits = by_text + by_label
    assert isinstance(logits, Tensor)
    return logits.unflatten(0, grid.shape[:2]).transpose(1, 2)
