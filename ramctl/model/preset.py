"""Presets: every number of a model and its training, as frozen dataclasses read from TOML.

Unknown, missing and ill-typed keys are errors.
"""

import contextlib
import dataclasses
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from ramctl.errors import UsageProblem
from ramctl.model.preprocess import PreprocessConfig
from ramctl.records.record import JsonObject

_PRESETS = files("ramctl.model") / "presets"
T = TypeVar("T")
MAX = 10**9  # of numbers without another limit; it leaves out infinity
Count = Annotated[int, Meta(ge=1)]


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The image encoder: a timm backbone and the projection of its tokens."""

    backbone: str  # a timm model name
    width: int  # channels of its feature map
    options: dict[str, Any]  # passed to timm.create_model
    image_size_option: bool  # the backbone's shape depends on the photo's size (Swin, ViT)
    window_size: int  # Swin's attention window, 0 for other backbones
    mean_token: bool  # put the mean over the tokens in front of them
    projection: int  # width of the decoders' tokens; 0: that of the backbone
    freeze_batchnorm: bool  # use the running statistics in training too, and keep them


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """The content of a label's row, and how it becomes a query."""

    kind: Literal["text", "descriptions", "learnt"]
    width: int  # of the text embedding, E
    projection: Literal["relu", "none"]  # of the embedding to the tag decoder's width
    own_width: int  # of a trained label's vector, multiplied by the pooled feature; 0: none
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
    """The global branch: a prior from the backbone's pooled feature and its ImageNet head."""

    classes: int  # of the backbone's own classifier; 0: without it
    temperature: float  # of the classifier's softmax
    class_token: bool  # the class mixture is one more token for the tag decoder
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
    # Order of the tags that guide a caption. given: in training as in the caption, later by falling
    # score; labels: that of the label system.
    tag_order: Literal["given", "labels"] = "given"
    pieces: Literal["learnt", "bert"] = "learnt"  # from the captions, or BERT's uncased ones
    no_repeat_ngram_size: int = 2  # of tokens: none comes twice in a caption; 0: all may
    tidy: bool = True  # captions end at a word that can be the last, and are joined as people write
    beams: Count = 3  # of the search for captions
    by_labels: bool = False  # of the beams' captions the one whose labels score highest is written


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The architecture, without the sizes that the data decides (labels, tokens)."""

    encoder: EncoderConfig
    labels: LabelConfig
    tag_decoder: TagDecoderConfig
    prior: PriorConfig | None = None
    captioning: CaptioningConfig | None = None

    @property
    def scores_cells(self) -> bool:
        """Whether the global branch scores labels, and so single cells of the grid."""
        if self.prior is None:
            return False
        return bool(self.prior.similarity or self.prior.class_sharpness or self.labels.own_width)


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """Random changes of a training photo; teacher and student see the same crop."""

    crop_scale: tuple[float, float]  # fraction of the area; (1, 1): no random crop
    flip: float  # probability
    operations: int  # random operations a photo, 0: none
    magnitude: int  # of 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """One training run."""

    # Losses: their weights, and the numbers of each.
    objective: Literal["ram", "ram-plus", "tag2text"]
    loss: Literal["mean", "ram-official"]  # global means, or the authors' sums a process
    tag_weight: float  # 0: captions alone
    caption_weight: float
    distill_weight: float
    alignment_weight: float
    gamma_neg: float
    clip: float  # the asymmetric loss's probability margin
    decouple_own: bool  # train what labels own on top of text logits that stand alone
    fewest_positives: int  # a label that fewer photos show has no evidence, without a teacher
    label_smoothing: float
    distill: tuple[str, ...]  # teachers: clip:NAME, caption, imagenet, scores:FILE; empty: none
    distill_loss: Literal["l1", "cosine"]
    sampled_labels: int  # labels a step that the tag decoder sees; 0: all
    classes_weight: float = 0.0  # keeps the backbone's own class probabilities as they were
    absent_weight: float = 1.0  # of labels that neither a caption nor a teacher supports

    # Schedule: how long a run is, and its learning rate at every step.
    epochs: Annotated[float, Meta(ge=0, le=MAX)]
    steps: Annotated[int, Meta(ge=0)]  # if not 0, instead of epochs
    lr: Annotated[float, Meta(ge=0, le=MAX)]
    min_lr: float
    schedule: Literal["cosine", "epoch-cosine", "epoch-decay"]
    decay: float  # factor an epoch of `epoch-decay`
    warmup_steps: int
    warmup_lr: float

    # AdamW and gradient clipping.
    weight_decay: float
    no_decay: bool  # biases, norms and embeddings are exempt from weight decay
    clip_norm: float  # of the gradient; 0: not clipped
    eps: float = 1e-8  # torch's

    # The image encoder: what it starts from, and how it is trained.
    backbone_lr_factor: float  # the encoder's learning rate is lr times this; 0: frozen
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    encoder: str = ""  # weights: timm's name, or a file; empty: what a package or the bundle has
    frozen_stages: int = 0  # counted from the photo on; the stages above are trained

    # Data: what a batch holds, and what becomes of photos on the way into it.
    batch_size: Count  # photos a process and forward pass
    accumulation: Count  # forward passes a step
    drop_last: bool
    workers: int
    seed: int
    augment: AugmentConfig

    @property
    def captions_alone(self) -> bool:
        """Whether only the captioning branch is trained, and the tagger stays as it is."""
        return self.tag_weight == 0


@dataclass(frozen=True, slots=True)
class Preset:
    """A named model with its preprocessing, training and fine-tuning settings."""

    name: str
    description: str
    batch_size: int  # photos a batch when tagging on a CPU
    model: ModelConfig
    preprocess: PreprocessConfig
    training: TrainingConfig
    finetuning: TrainingConfig
    finetuning_size: int  # px of the photos in fine-tuning; 0: as in training
    finetuning_window: int  # Swin's window in fine-tuning; 0: as in training
    # That thresholds are chosen for; 0: the best F1.
    precision: Annotated[float, Meta(ge=0, lt=1)] = 0.0


def preset_names() -> list[str]:
    """The names of the presets that come with the package, sorted."""
    return sorted(p.name[:-5] for p in _PRESETS.iterdir() if p.name.endswith(".toml"))


def load_preset(name_or_path: str, overrides: Sequence[str] = ()) -> Preset:
    """A preset of the package by name, or a TOML file, with `key.key=value` overrides.

    UsageProblem for an unknown preset, unknown or missing keys and values of a wrong kind.
    """
    return preset_from_table(merge_tables(_read_preset(name_or_path), parse_overrides(overrides)))


def preset_from_table(table: Mapping[str, Any]) -> Preset:
    """The preset of a table by `write_table`, or of a merged TOML file.

    Settings missing in the fine-tuning table are those of the training table; a part of the model
    that is `false` is left out.
    """
    if isinstance(model := table.get("model"), Mapping):
        table = {**table, "model": {k: part for k, part in model.items() if part is not False}}
    if isinstance(table.get("training"), Mapping) and isinstance(table.get("finetuning"), Mapping):
        table = {**table, "finetuning": merge_tables(table["training"], table["finetuning"])}
    return read_table(Preset, table, "preset")


_META = {"architecture": "model", "preprocess": "preprocess"}  # bundle.json -> preset's table


def preset_to_meta(preset: Preset) -> JsonObject:
    """The preset as keys of a bundle's bundle.json: `architecture`, `preprocess`, `preset`."""
    table = write_table(preset)
    parts = {name: table.pop(table_name) for name, table_name in _META.items()}
    return parts | {"preset": table}


def preset_from_meta(meta: Mapping[str, Any]) -> Preset:
    """The preset stored by `preset_to_meta`; UsageProblem for settings that do not fit."""
    parts = {table_name: meta[name] for name, table_name in _META.items() if name in meta}
    return preset_from_table(meta.get("preset", {}) | parts)


def finetuning_preset(preset: Preset) -> Preset:
    """The preset for fine-tuning: its sizes and `training` replaced by the fine-tuning ones."""
    size = preset.finetuning_size or preset.preprocess.size
    window = preset.finetuning_window or preset.model.encoder.window_size
    sizes = {"preprocess": {"size": size}, "model": {"encoder": {"window_size": window}}}
    return dataclasses.replace(change_preset(preset, sizes), training=preset.finetuning)


def change_preset(preset: Preset, changes: Mapping[str, Any]) -> Preset:
    """The preset with the keys of a nested table changed."""
    return preset_from_table(merge_tables(write_table(preset), changes))


def override_preset(preset: Preset, overrides: Sequence[str]) -> Preset:
    """The preset with `key.key=value` overrides, as if it had been written with them.

    Fine-tuning has the training settings, except its own ones and the length of a run.
    """
    changes, table = parse_overrides(overrides), write_table(preset)
    if isinstance(training := changes.get("training"), Mapping):
        before, own = table["training"], table["finetuning"]
        shared = {
            key: value for key, value in training.items()
            if before.get(key) == own.get(key) and key not in ("epochs", "steps")
        }  # fmt: skip
        changes = merge_tables({"finetuning": shared}, changes)
    return change_preset(preset, changes)


def _read_preset(name_or_path: str) -> JsonObject:
    file: Traversable = _PRESETS / f"{name_or_path}.toml"
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        file = Path(name_or_path)
    if not file.is_file():
        known = ", ".join(preset_names())
        raise UsageProblem(f"no preset {name_or_path!r}; known: {known}, or a .toml file")
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageProblem(f"{name_or_path}: {error}") from error
    base = table.pop("base", None)
    return table if base is None else merge_tables(_read_preset(base), table)


def parse_overrides(overrides: Sequence[str]) -> JsonObject:
    """`key.key=value` overrides as a nested table; UsageProblem for another form."""
    table: JsonObject = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            expected = "expected KEY=VALUE, for example training.lr=1e-4"
            raise UsageProblem(f"--set {override}: {expected}")
        value: Any = text.strip()
        # A bare word is a string: nobody wants to type --set 'x="word"' into a shell.
        with contextlib.suppress(ValueError):
            value = tomllib.loads(f"value = {value}")["value"]
        for part in reversed(key.strip().split(".")):
            value = {part: value}
        table = merge_tables(table, value)
    return table


def read_table(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """`table` as an instance of the dataclass `cls`, nested dataclasses as nested tables.

    `where` is the dotted name of the table, for UsageProblem of unknown keys, missing keys and
    values of the wrong kind.
    """
    try:
        value = msgspec.convert(table, cls)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        raise UsageProblem(f"{where}{place.rstrip('`')}: {message}") from error
    if unknown := ", ".join(_unknown(table, write_table(value), where)):
        raise UsageProblem(f"unknown setting {unknown}")
    return value


def _unknown(table: Mapping[str, Any], known: Mapping[str, Any], where: str) -> Iterator[str]:
    for key, value in table.items():
        if key not in known:
            yield f"{where}.{key}"
        elif isinstance(value, Mapping):
            yield from _unknown(value, known[key], f"{where}.{key}")


def write_table(value: Any) -> JsonObject:
    """The dataclass `value` as nested tables of plain JSON values; None fields are left out."""

    def plain(pairs: list[tuple[str, Any]]) -> JsonObject:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in pairs if v is not None}

    return dataclasses.asdict(value, dict_factory=plain)


def merge_tables(base: Mapping[str, Any], top: Mapping[str, Any]) -> JsonObject:
    """`base` with the keys of `top` replaced; tables in both are merged, not replaced."""
    merged = {**base, **top}
    for key in base.keys() & top.keys():
        if isinstance(base[key], Mapping) and isinstance(top[key], Mapping):
            merged[key] = merge_tables(base[key], top[key])
    return merged
