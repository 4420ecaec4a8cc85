"""Presets: every number of a model and its training, as frozen dataclasses read from TOML."""

import dataclasses
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from ramctl.errors import UsageProblem
from ramctl.model.tables import FLAT, merge_tables, read_table, write_table
from ramctl.records.record import JsonObject

_PRESETS = files("ramctl.model") / "presets"


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The image encoder: a timm backbone and the projection of its tokens."""

    backbone: str  # a timm model name
    width: int  # channels of its feature map
    options: dict[str, Any]  # passed to timm.create_model
    image_size_option: bool  # the backbone's shape depends on the photo's size (Swin, ViT)
    window_size: int  # Swin's attention window, 0 for other backbones
    mean_token: bool  # put the mean over the tokens in front of them
    projection: int  # width of the tokens that the decoders see; 0: as they come
    freeze_batchnorm: bool  # use the running statistics in training too, and keep them


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """What the model stores of a label (its row), and how the row becomes a query."""

    kind: Literal["text", "descriptions", "learnt"]
    width: int  # of the text embedding, E
    projection: Literal["relu", "none"]  # of the embedding to the tag decoder's width
    own_width: int  # of the vector that a seen label has for the pooled image feature; 0: none
    own_head: bool  # each label has its own last layer instead of the shared linear (Tag2Text)
    own_bias: bool  # each label has its own bias


@dataclass(frozen=True, slots=True)
class TagDecoderConfig:
    """The tag decoder (the paper's image-tag recognition decoder)."""

    width: int
    layers: int
    heads: int
    ffn_width: int
    dropout: float
    layer_norm_eps: float


@dataclass(frozen=True, slots=True)
class PriorConfig:
    """The global branch: what the backbone's pooled feature and its ImageNet head already know."""

    classes: int  # of the backbone's own classifier; 0: without it
    temperature: float  # of the classifier's softmax
    class_token: bool  # the class mixture is one more token for the tag decoder
    class_residual: bool  # the class mixture is added to the global feature
    mlp_width: int  # hidden width of pooled feature -> label space; 0: none
    similarity: bool  # logits get scale * <normalised global feature, text embedding>
    class_sharpness: float  # k of log sum p exp(k <class name, label>) in the logits; 0: without
    dropout: float = 0.0  # of the pooled feature, in training


@dataclass(frozen=True, slots=True)
class CaptioningConfig:
    """The captioning branch (the paper's generation encoder-decoder), BERT-shaped."""

    width: int
    tag_layers: int
    layers: int
    heads: int
    ffn_width: int
    dropout: float
    layer_norm_eps: float
    vocabulary: int  # at most, when tokens are learnt; given ones have their own number
    max_positions: int
    tag_tokens: int  # length of the tag text, padded and cut
    caption_tokens: int  # longest caption, prompt included
    prompt: str  # what every caption starts with
    share_embeddings: bool  # one word embedding for tag encoder and caption decoder
    tie_tag_decoder: bool  # the tag encoder's first layers share the tag decoder's weights
    mask_tag_padding: bool  # the caption decoder does not see padded tag positions
    # Of the tags that guide a caption. given: in training as the caption names them, then by
    # falling score; labels: always that of the label system.
    tag_order: Literal["given", "labels"] = "given"
    pieces: Literal["learnt", "bert"] = "learnt"  # from the captions, or BERT's uncased ones


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The architecture, without the sizes that the data decides (labels, tokens)."""

    encoder: EncoderConfig
    labels: LabelConfig
    tag_decoder: TagDecoderConfig
    prior: PriorConfig | None
    captioning: CaptioningConfig | None

    @property
    def scores_cells(self) -> bool:
        """Whether the global branch scores labels: of a photo, and so of one cell of its grid."""
        if self.prior is None:
            return False
        return bool(self.prior.similarity or self.prior.class_sharpness or self.labels.own_width)


@dataclass(frozen=True, slots=True)
class PreprocessConfig:
    """How `ramctl.model.preprocess` turns a photo into a tensor."""

    size: int  # px, both sides
    fit: Literal["squash", "crop"]  # squash: both sides to `size`; crop: the middle square
    crop_share: float  # of the shorter side, for `crop`
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    # official: as the authors' code; fast: upright, on white, large JPEGs at a reduced scale.
    loader: Literal["fast", "official"] = "fast"


@dataclass(frozen=True, slots=True)
class LossConfig:
    """The objectives of a run: their weights, and the numbers of each loss."""

    objective: Literal["ram", "ram-plus", "tag2text"]
    loss: Literal["mean", "ram-official"]  # global means, or the authors' sums a process
    tag_weight: float  # 0: captions alone
    caption_weight: float
    distill_weight: float
    alignment_weight: float
    gamma_neg: float
    gamma_pos: float
    clip: float  # the asymmetric loss's probability margin
    decouple_own: bool  # train what labels own on top of text logits that stand alone
    single_mention_weight: float  # of positives named by one of several captions, or only generated
    fewest_positives: int  # a label that fewer photos show has no evidence, without a teacher
    alignment_gamma_neg: float
    label_smoothing: float
    distill: tuple[str, ...]  # teachers: clip:NAME, caption, imagenet, scores:FILE; empty: none
    distill_loss: Literal["l1", "cosine"]
    sampled_labels: int  # labels a step that the tag decoder sees; 0: all
    classes_weight: float = 0.0  # keeps the backbone's own class probabilities as they were
    absent_weight: float = 1.0  # of labels that neither a caption nor a teacher supports

    @property
    def captions_alone(self) -> bool:
        """Whether only the captioning branch is trained, and the tagger stays as it is."""
        return self.tag_weight == 0


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """How long a run is, and its learning rate at every step."""

    epochs: float
    steps: int  # if not 0, instead of epochs
    lr: float
    min_lr: float
    schedule: Literal["cosine", "epoch-cosine", "epoch-decay", "constant"]
    decay: float  # factor an epoch of `epoch-decay`
    warmup_steps: int
    warmup_lr: float


@dataclass(frozen=True, slots=True)
class OptimiserConfig:
    """AdamW, gradient clipping and averaged weights."""

    weight_decay: float
    no_decay: bool  # biases, norms and embeddings are exempt from weight decay
    betas: tuple[float, float]
    eps: float
    clip_norm: float  # of the gradient; 0: not clipped
    ema: float  # decay of the averaged weights; 0: none


@dataclass(frozen=True, slots=True)
class BackboneConfig:
    """What the backbone starts from, and how it is trained."""

    backbone_lr_factor: float  # the encoder's learning rate is lr times this; 0: frozen
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    encoder: str = ""  # timm's name, a file or none; empty: what a package or the bundle has
    layer_decay: float = 1.0  # of the encoder's learning rate, from each layer to that below it
    frozen_stages: int = 0  # counted from the photo on; the stages above are trained
    checkpointing: bool = False  # recompute activations in the backward pass to save memory


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """Random changes of a training photo; teacher and student see the same crop."""

    crop_scale: tuple[float, float]  # share of the area; (1, 1): no random crop
    flip: float  # probability
    operations: int  # random operations a photo, 0: none
    magnitude: int  # of 10
    # ram-official: with the authors' AutoContrast, which whitens photos, and their two no-ops.
    style: Literal["plain", "ram-official"] = "plain"


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What a batch holds, and what becomes of photos and captions on the way into it."""

    batch_size: int  # photos a process and forward pass
    accumulation: int  # forward passes a step
    caption_words: int  # longest caption in words
    prompt_in_caption: bool  # captions are trained with the prompt in front (off: as the authors)
    drop_last: bool
    workers: int
    seed: int
    augment: AugmentConfig
    shuffled_shards: int = 0  # archives whose photos are mixed at a time; 0: all photos are
    # clip: train with CLIP's mean and std but tag with those of [preprocess], as the authors do.
    photo_constants: Literal["preprocess", "clip"] = "preprocess"


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """One training run. The groups exist in Python only: `[training]` in a file has flat keys."""

    losses: LossConfig = field(metadata=FLAT)
    schedule: ScheduleConfig = field(metadata=FLAT)
    optimiser: OptimiserConfig = field(metadata=FLAT)
    backbone: BackboneConfig = field(metadata=FLAT)
    data: DataConfig = field(metadata=FLAT)


@dataclass(frozen=True, slots=True)
class Preset:
    """A named model with its preprocessing, training and fine-tuning settings."""

    name: str
    description: str
    open_set_threshold: float
    batch_size: int  # photos a batch when tagging on a CPU
    model: ModelConfig
    preprocess: PreprocessConfig
    training: TrainingConfig
    finetuning: TrainingConfig
    finetuning_size: int  # px of the photos in fine-tuning; 0: as in training
    finetuning_window: int  # Swin's window in fine-tuning; 0: as in training
    precision: float = 0.0  # share of right tags that thresholds are chosen for; 0: the best F1
    most_share: float = 1.0  # of the judged photos: a label is not given on more than these
    eager: tuple[str, ...] = ()  # tags that are given where they are likelier right than not


def preset_names() -> list[str]:
    """The names of the presets that come with the package, sorted."""
    return sorted(p.name[:-5] for p in _PRESETS.iterdir() if p.name.endswith(".toml"))


def load_preset(name_or_path: str, overrides: Sequence[str] = ()) -> Preset:
    """A preset of the package by name, or a TOML file, with `key.key=value` overrides.

    UsageProblem for an unknown preset, unknown or missing keys and values of a wrong kind.
    """
    return preset_from_table(merge_tables(_read_preset(name_or_path), _parse_overrides(overrides)))


def preset_from_table(table: Mapping[str, Any]) -> Preset:
    """The preset that `preset_to_table` wrote, or a merged TOML file.

    The fine-tuning table holds what differs from the training table.
    """
    if isinstance(table.get("training"), Mapping) and isinstance(table.get("finetuning"), Mapping):
        finetuning = merge_tables(table["training"], table["finetuning"])
        table = {**table, "finetuning": finetuning}
    return read_table(Preset, table, "preset")


preset_to_table = write_table  # what `preset_from_table` reads


_META = {"architecture": "model", "preprocess": "preprocess"}  # bundle.json -> preset's table


def preset_to_meta(preset: Preset) -> JsonObject:
    """The preset as keys of a bundle's bundle.json: `architecture`, `preprocess`, `preset`."""
    table = preset_to_table(preset)
    parts = {name: table.pop(table_name) for name, table_name in _META.items()}
    return parts | {"preset": table}


def preset_from_meta(meta: Mapping[str, Any]) -> Preset:
    """What `preset_to_meta` put into a bundle.json; UsageProblem names what does not fit."""
    parts = {table_name: meta[name] for name, table_name in _META.items() if name in meta}
    return preset_from_table(meta.get("preset", {}) | parts)


def finetuning_preset(preset: Preset) -> Preset:
    """The preset for fine-tuning: its sizes and `training` replaced by the fine-tuning ones."""
    size = preset.finetuning_size or preset.preprocess.size
    window = preset.finetuning_window or preset.model.encoder.window_size
    sizes = {"preprocess": {"size": size}, "model": {"encoder": {"window_size": window}}}
    return dataclasses.replace(change_preset(preset, sizes), training=preset.finetuning)


def override_preset(preset: Preset, overrides: Sequence[str]) -> Preset:
    """The preset with `key.key=value` overrides; raises UsageProblem as `load_preset` does."""
    return change_preset(preset, _parse_overrides(overrides))


def change_preset(preset: Preset, changes: Mapping[str, Any]) -> Preset:
    """The preset with the keys of a nested table changed."""
    return preset_from_table(merge_tables(preset_to_table(preset), changes))


def check_model(
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


def _read_preset(name_or_path: str) -> JsonObject:
    file: Traversable = Path(name_or_path)
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        if not file.is_file():
            raise UsageProblem(f"preset file {name_or_path} does not exist")
    elif name_or_path in preset_names():
        file = _PRESETS / f"{name_or_path}.toml"
    else:
        known = ", ".join(preset_names())
        raise UsageProblem(f"unknown preset {name_or_path!r}; known: {known}, or a .toml file")
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageProblem(f"{name_or_path}: {error}") from error
    base = table.pop("base", None)
    return table if base is None else merge_tables(_read_preset(base), table)


def _parse_overrides(overrides: Sequence[str]) -> JsonObject:
    table: JsonObject = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            expected = "expected KEY=VALUE, for example training.lr=1e-4"
            raise UsageProblem(f"--set {override}: {expected}")
        value = _parse_value(text.strip())
        for part in reversed(key.strip().split(".")):
            value = {part: value}
        table = merge_tables(table, value)
    return table


def _parse_value(text: str) -> Any:
    # A bare word is a string: nobody wants to type --set 'x="word"' into a shell.
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
