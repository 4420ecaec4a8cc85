"""Builds a RAM from a configuration that does not contradict itself."""

from collections.abc import Iterator, Sequence

from ramctl.errors import UsageProblem
from ramctl.model.config import ModelConfig
from ramctl.model.ram import RAM


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
    of each label, for a model that weighs them. The label table's text is zero until
    `labels.set_text`. Raises UsageProblem when the configuration contradicts itself.
    """
    _check(config, n_labels, vocabulary, description_counts)
    return RAM(config, image_size, n_labels, vocabulary, description_counts)


def _check(
    config: ModelConfig, n_labels: int, vocabulary: int, counts: Sequence[int] | None
) -> None:
    """UsageProblem for the first contradiction."""
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
    own = labels.own_width or labels.own_head or labels.own_bias
    yield (
        labels.kind == "descriptions" and (own or prior),
        "described labels have no parts of their own and no prior",
    )
    yield (
        labels.projection == "none" and labels.width != decoder.width,
        "model.labels.projection none: width must be the tag decoder's",
    )
    yield labels.own_width and prior is None, "model.labels.own_width needs [model.prior]"
    if prior is not None and not prior.classes:
        for name in ("class_token", "class_residual", "class_sharpness"):
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
