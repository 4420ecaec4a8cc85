"""A model from its configuration: the parts of the figure, and whether they fit together."""

from collections.abc import Iterator, Sequence

from torch import nn

from ramctl.errors import UsageProblem
from ramctl.model.captioning import Captioning
from ramctl.model.config import ModelConfig
from ramctl.model.encoder import ImageEncoder
from ramctl.model.global_branch import GlobalBranch
from ramctl.model.label_queries import DescriptionWeighting, LabelQueries, LabelTable, RowLayout
from ramctl.model.ram import RAM
from ramctl.model.tag_decoder import TagDecoder


def build_ram(
    config: ModelConfig,
    *,
    image_size: int,
    n_labels: int,
    vocabulary: int = 0,
    description_counts: Sequence[int] | None = None,
) -> RAM:
    """The model for `n_labels` labels and photos of `image_size` px, with random weights.

    `vocabulary` is the caption tokenizer's size; `description_counts` the number of descriptions
    of each label, for a model that weighs them. Raises UsageProblem when the configuration
    contradicts itself.
    """
    _check(config, n_labels, vocabulary, description_counts)
    encoder, labels, width = config.encoder, config.labels, config.tag_decoder.width
    channels, token_width = encoder.width, encoder.projection or encoder.width
    described = labels.kind == "descriptions"
    # In the order in which weights are drawn.
    tag_decoder = TagDecoder(config.tag_decoder, token_width, shared_head=not labels.own_head)
    image_encoder = ImageEncoder(encoder, image_size)
    projection = nn.Linear(channels, token_width) if encoder.projection else nn.Identity()
    table = LabelTable(
        RowLayout.of(labels, width),
        n_labels,
        counts=description_counts if described else None,
        train_text=labels.kind == "learnt",
    )
    queries = LabelQueries(labels.width, width, labels.projection)
    weighting = DescriptionWeighting() if described else None
    prior = captioning = None
    if config.prior is not None:
        prior = GlobalBranch(config.prior, labels, channels, token_width)
    if config.captioning is not None:
        captioning = Captioning(config.captioning, vocabulary, token_width, tag_decoder)
    return RAM(
        image_encoder, projection, table, queries, tag_decoder, weighting, prior, captioning,
        scores_cells=config.scores_cells,
    )  # fmt: skip


def _check(
    config: ModelConfig, n_labels: int, vocabulary: int, counts: Sequence[int] | None
) -> None:
    """UsageProblem for the first contradiction in what a model is to be built of."""
    if config.labels.kind == "descriptions" and (
        counts is None or len(counts) != n_labels or min(counts, default=0) < 1
    ):
        raise UsageProblem("every label needs one description or more")
    for is_contradiction, message in _contradictions(config, vocabulary):
        if is_contradiction:
            raise UsageProblem(message)


def _contradictions(config: ModelConfig, vocabulary: int) -> Iterator[tuple[object, str]]:
    labels, prior = config.labels, config.prior
    decoder, captioning = config.tag_decoder, config.captioning
    has_own = labels.own_width or labels.own_head or labels.own_bias
    yield (
        labels.kind == "descriptions" and (has_own or prior),
        "described labels have no parts of their own and no prior",
    )
    yield (
        labels.projection == "none" and labels.width != decoder.width,
        "model.labels.projection none: width must be the tag decoder's",
    )
    yield (
        labels.kind == "descriptions" and not config.encoder.mean_token,
        "described labels need model.encoder.mean_token",
    )
    yield labels.own_width and prior is None, "model.labels.own_width needs [model.prior]"
    if prior is not None and not prior.classes:
        for name in ("class_token", "class_sharpness"):
            yield getattr(prior, name), f"model.prior.{name} needs model.prior.classes"
    yield decoder.width % decoder.heads, "model.tag_decoder.width must be a multiple of its heads"
    if captioning is None:
        return
    yield vocabulary < 1, "a captioning branch needs a tokenizer"
    yield (
        captioning.width % captioning.heads,
        "model.captioning.width must be a multiple of its heads",
    )
    names = ("width", "ffn_width", "layer_norm_eps")
    differ = any(getattr(captioning, name) != getattr(decoder, name) for name in names)
    yield (
        captioning.tie_tag_decoder and differ,
        "model.captioning.tie_tag_decoder: widths must be the tag decoder's",
    )
