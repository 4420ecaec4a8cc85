"""Build a model from its configuration, and check that its parts fit together."""

from collections.abc import Sequence

from torch import nn

from ramctl.errors import UsageProblem
from ramctl.model.captioning import Captioning
from ramctl.model.encoder import ImageEncoder
from ramctl.model.global_branch import GlobalBranch
from ramctl.model.label_queries import DescriptionWeighting, LabelQueries, LabelTable
from ramctl.model.preset import ModelConfig
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
    of each label, for a model that weighs them. UsageProblem for a backbone that timm cannot build.
    """
    encoder, labels, width = config.encoder, config.labels, config.tag_decoder.width
    channels, token_width = encoder.width, encoder.projection or encoder.width
    described = labels.kind == "descriptions"
    # The order of construction decides the random weights.
    tag_decoder = TagDecoder(config.tag_decoder, token_width, shared_head=not labels.own_head)
    image_encoder = ImageEncoder(encoder, image_size)
    if (actual := image_encoder.backbone.num_features) != channels:
        raise UsageProblem(f"model.encoder.width is {channels}, {encoder.backbone} has {actual}")
    projection = nn.Linear(channels, token_width) if encoder.projection else nn.Identity()
    head_width = width if labels.own_head else 0
    table = LabelTable(
        [labels.width, labels.own_width, head_width, int(labels.own_bias)],
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
