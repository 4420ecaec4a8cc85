"""Build a model from its configuration, and check that its parts fit together."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from ramctl.errors import UsageProblem
from ramctl.model.captioning import Captioning
from ramctl.model.encoder import ImageEncoder
from ramctl.model.global_branch import GlobalBranch
from ramctl.model.label_queries import DescriptionWeighting, LabelQueries, LabelTable
from ramctl.model.preset import ModelConfig, write_table
from ramctl.model.ram import RAM
from ramctl.model.tag_decoder import TagDecoder

MAX_SIZE, MAX_LAYERS = 1_000_000, 1000
_POSITIVE = (".width", ".heads", ".ffn_width")


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
    problems, counts = list(model_contradictions(config)), description_counts
    has_counts = counts is not None and len(counts) == n_labels and min(counts, default=0) > 0
    if config.labels.kind == "descriptions" and not has_counts:
        problems.append("every label needs one description or more")
    if config.captioning is not None and vocabulary < 1:
        problems.append("a captioning branch needs a tokenizer")
    if problems:
        raise UsageProblem("; ".join(problems))
    try:
        return _built(config, image_size, n_labels, vocabulary, description_counts)
    except (ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        # Sizes that fit neither each other nor into memory, as timm and torch report them.
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageProblem(f"no model can be built of these sizes: {reason}") from error


def _check_numbers(value: Any, name: str) -> None:
    """UsageProblem for a number that no model has: building it could take all time or memory."""
    if isinstance(value, dict):
        for key, part in value.items():
            _check_numbers(part, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for part in value:
            _check_numbers(part, name)
    elif isinstance(value, int | float):
        low = 1 if name.endswith(_POSITIVE) else 0
        high = MAX_LAYERS if name.endswith(("layers", "depths")) else MAX_SIZE
        if not low <= value <= high:
            raise UsageProblem(f"{name} is {value}, not from {low} to {high}")


def _built(
    config: ModelConfig, image_size: int, n_labels: int, vocabulary: int,
    description_counts: Sequence[int] | None,
) -> RAM:  # fmt: skip
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


def model_contradictions(config: ModelConfig) -> Iterator[str]:
    """All contradictions in the configuration; UsageProblem for a number that no model has."""
    _check_numbers(write_table(config), "model")
    labels, prior = config.labels, config.prior
    decoder, captioning = config.tag_decoder, config.captioning
    has_own = labels.own_width or labels.own_head or labels.own_bias
    if labels.kind == "descriptions" and (has_own or prior or not config.encoder.mean_token):
        yield "described labels need a mean token, no prior and nothing else"
    if labels.projection == "none" and labels.width != decoder.width:
        yield "model.labels.projection none: width must be the tag decoder's"
    if labels.own_width and prior is None:
        yield "model.labels.own_width needs [model.prior]"
    if prior and not prior.classes and (prior.class_token or prior.class_sharpness):
        yield "model.prior: class_token and class_sharpness need classes"
    if decoder.width % decoder.heads or (captioning and captioning.width % captioning.heads):
        yield "the width of a decoder must be a multiple of its heads"
    if captioning is not None:
        names = ("width", "ffn_width", "layer_norm_eps")
        differ = any(getattr(captioning, name) != getattr(decoder, name) for name in names)
        if captioning.tie_tag_decoder and differ:
            yield "model.captioning.tie_tag_decoder: widths must be the tag decoder's"
