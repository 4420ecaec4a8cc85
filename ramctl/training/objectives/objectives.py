"""What a model is trained on: each objective gives sums of a loss and what they run over.

B photos, S pixels a side, L labels, n labels of a pass, E text width, K classes of the backbone.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ramctl.errors import RunProblem, UsageProblem
from ramctl.model.caption_tokenizer import IGNORED
from ramctl.model.config import LossConfig, PreprocessConfig, TrainingConfig
from ramctl.model.ram import RAM, RamOutput
from ramctl.training.data.batches import Batch
from ramctl.training.objectives.losses import (
    alignment_loss,
    asymmetric_loss,
    caption_loss,
    class_memory_loss,
    distillation_loss,
)

LEAST_SHARE_OF_OTHERS = 4  # at least one in four sampled labels is absent from the batch
LIKELY = 0.1  # with a target above it, a label counts as present in the batch


@dataclass(frozen=True, slots=True)
class SampledLabels:
    """The labels of one pass, and the weight that makes each stand for those left out."""

    ids: Tensor  # (n,)
    weights: Tensor  # (n,)


@dataclass(frozen=True, slots=True)
class Forward:
    """One forward pass. B photos, E text width, K classes of the backbone."""

    batch: Batch
    sampled: SampledLabels | None  # None: all labels
    output: RamOutput
    # What the backbone's own classifier said before training: the class names' embeddings, mixed
    # by its probabilities (B, E), and its logits (B, K).
    former: tuple[Tensor, Tensor] | None


class Objective(nn.Module):
    """A loss as a sum and a count, so that its mean does not depend on how a batch is split.

    The constructor raises UsageProblem when the model cannot be trained so. `names` are those of
    the sums, as logs show them.
    """

    def __init__(self, *names: str, weight: float) -> None:
        super().__init__()
        self.names = names
        self.weight = weight

    def count(self, batch: Batch) -> float:
        """What the sums run over: photos, unless an objective counts otherwise."""
        return float(batch.n_photos)

    def sums(self, model: RAM, forward: Forward) -> dict[str, Tensor]:
        """The sums of a batch by name; a name may be missing when the batch has none of it."""
        raise NotImplementedError


class Tagging(Objective):
    """Which labels a photo shows: of all labels, or of a sample of them."""

    trained: Tensor | None

    def __init__(self, model: RAM, config: LossConfig, trained: Tensor | None) -> None:
        if config.decouple_own and not (model.labels.own.numel() or model.labels.bias.numel()):
            raise UsageProblem("training.decouple_own: this model's labels own nothing")
        names = ("tag", "tag text") if config.decouple_own else ("tag",)
        super().__init__(*names, weight=config.tag_weight)
        self.config = config
        self.register_buffer("trained", trained, persistent=False)  # (L,) bool; None: all labels

    def sample(self, targets: Tensor) -> SampledLabels | None:
        """The labels of a pass; None for all of them. Without a weight nobody asks for any."""
        if self.config.captions_alone:
            return SampledLabels(torch.zeros(0, dtype=torch.long), torch.zeros(0))
        # Not torch's own stream: sampling must not shift the random numbers of dropout.
        generator = torch.Generator().manual_seed(torch.initial_seed() & 0x7FFFFFFF)
        return sample_labels(targets, self.config.sampled_labels, generator, self.trained)

    def sums(self, model: RAM, forward: Forward) -> dict[str, Tensor]:
        """The sum over photos and labels; twice where what labels own is decoupled."""
        sampled, output = forward.sampled, forward.output
        targets, weights = forward.batch.targets, forward.batch.weights
        if sampled is not None:
            targets = targets[:, sampled.ids]
            weights = None if weights is None else weights[:, sampled.ids]
            weights = sampled.weights if weights is None else weights * sampled.weights
        loss = partial(
            asymmetric_loss, targets=targets, gamma_neg=self.config.gamma_neg,
            gamma_pos=self.config.gamma_pos, clip=self.config.clip, weights=weights,
        )  # fmt: skip
        if not self.config.decouple_own:
            return {"tag": loss(output.tag_logits)}
        # The gradient of the first sum does not reach the text logits: they cannot lean on what
        # labels own, so that words that were not trained on are scored better.
        text, own = output.logits
        return {"tag": loss(text.detach() + own), "tag text": loss(text)}


def sample_labels(
    targets: Tensor, number: int, generator: torch.Generator, trained: Tensor | None = None
) -> SampledLabels | None:
    """All labels that are in the batch, and random others up to `number`; None for all labels.

    A drawn label weighs as much as the labels it was drawn from, so that the expected loss is that
    over all labels, or over those that are `trained` (L,).
    """
    n_labels = targets.shape[1] if trained is None else int(trained.sum())
    everything = None
    if trained is not None:
        ids = trained.nonzero()[:, 0]
        everything = SampledLabels(ids, torch.ones(len(ids), device=ids.device))
    if not number or number >= n_labels:
        return everything
    present = (targets > LIKELY).any(0)
    absent = ~present
    if trained is not None:
        present, absent = present & trained, absent & trained
    named, others = present.nonzero()[:, 0], absent.nonzero()[:, 0]
    n_drawn = max(number - len(named), number // LEAST_SHARE_OF_OTHERS, 1)
    if n_drawn >= len(others):
        return everything
    order = torch.randperm(len(others), generator=generator)[:n_drawn]
    drawn = others[order.to(others.device)]
    weights = torch.cat([torch.ones(len(named)), torch.full((n_drawn,), len(others) / n_drawn)])
    return SampledLabels(torch.cat([named, drawn]), weights.to(targets.device))


class Captioning(Objective):
    """The caption of a photo, given its tags."""

    def __init__(self, config: LossConfig) -> None:
        super().__init__("caption", weight=config.caption_weight)
        self.smoothing = config.label_smoothing

    def count(self, batch: Batch) -> float:
        """Tokens that are learnt."""
        targets = batch.caption_targets
        return 0.0 if targets is None else float((targets[:, 1:] != IGNORED).sum())

    def sums(self, model: RAM, forward: Forward) -> dict[str, Tensor]:
        """The sum over tokens; nothing where no photo has a caption."""
        targets, logits = forward.batch.caption_targets, forward.output.caption_logits
        if targets is None or logits is None:
            return {}
        return {"caption": caption_loss(logits, targets, smoothing=self.smoothing)}


class ClipTeacher(nn.Module):
    """A frozen CLIP model from a local folder in transformers' format.

    It sees the student's crop in its own size and normalisation. Source: the authors distil from
    CLIP ViT-B/16, photo features not normalised, texts normalised (ram_official A4).
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, folder: Path, preprocess: PreprocessConfig) -> None:
        super().__init__()
        if not (folder / "config.json").is_file():
            raise RunProblem(
                f"{folder}: no CLIP model there (config.json is missing); "
                "--distill clip:FOLDER takes a folder in transformers' format"
            )
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

        self.clip: Any = CLIPModel.from_pretrained(folder, local_files_only=True)
        self.clip.requires_grad_(False)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        processor: Any = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
        config: Any = self.clip.config
        self.size = int(config.vision_config.image_size)
        student_mean, student_std = _column(preprocess.mean), _column(preprocess.std)
        mean, std = _column(processor.image_mean), _column(processor.image_std)
        self.register_buffer("scale", student_std / std, persistent=False)
        self.register_buffer("shift", (student_mean - mean) / std, persistent=False)

    def train(self, mode: bool = True) -> "ClipTeacher":
        return super().train(False)  # stays in evaluation mode

    @torch.no_grad()
    def photo_features(self, photos: Tensor) -> Tensor:
        """(B, E) of the student's normalised photos (B, 3, S, S)."""
        photos = photos * self.scale + self.shift
        if photos.shape[-1] != self.size:
            photos = F.interpolate(photos, (self.size, self.size), mode="bicubic", antialias=True)
        pooled = self.clip.vision_model(pixel_values=photos).pooler_output
        return self.clip.visual_projection(pooled)

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """(len(texts), E), unit length; long texts are cut."""
        device = next(self.clip.parameters()).device
        pieces = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        pooled = self.clip.text_model(**pieces.to(device)).pooler_output
        return F.normalize(self.clip.text_projection(pooled), dim=-1)


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values)).view(1, -1, 1, 1)


class Distillation(Objective):
    """The global feature is drawn to what a teacher says: captions, the own classifier, or CLIP."""

    def __init__(
        self, model: RAM, config: LossConfig, teacher: str, clip: ClipTeacher | None
    ) -> None:
        if teacher not in ("caption", "imagenet", "clip"):
            raise UsageProblem(f"--distill {teacher}: known are clip:FOLDER, caption, imagenet")
        if teacher == "clip" and clip is None:
            raise UsageProblem("--distill clip names no folder: clip:FOLDER")
        if model.prior is None and not model.encoder.mean_token:
            raise UsageProblem("--distill needs a model with a global feature")
        if teacher == "imagenet" and not has_classes(model):
            raise UsageProblem(
                "--distill imagenet needs model.prior.classes: the backbone's own head"
            )
        super().__init__(f"distill {teacher}", weight=config.distill_weight)
        self.teacher = teacher
        self.clip = clip if teacher == "clip" else None
        self.kind = config.distill_loss

    def count(self, batch: Batch) -> float:
        """Photos that the teacher knows: those with a caption, or all."""
        if self.teacher != "caption":
            return float(batch.n_photos)
        return 0.0 if batch.taught is None else float(batch.taught.sum())

    def sums(self, model: RAM, forward: Forward) -> dict[str, Tensor]:
        """The distance to the teacher, summed over photos."""
        feature, batch = forward.output.encoded.global_feature, forward.batch
        assert feature is not None
        vector, present = batch.teacher, batch.taught if self.teacher == "caption" else None
        if self.clip is not None:
            vector = self.clip.photo_features(batch.photos)
        elif self.teacher == "imagenet":
            assert forward.former is not None
            vector, _ = forward.former
        if vector is None:  # a stand-in batch: the loss must still reach the global feature
            return {self.names[0]: feature.sum() * 0}
        return {self.names[0]: distillation_loss(feature, vector, kind=self.kind, present=present)}


class ClassMemory(Objective):
    """The backbone's own class probabilities stay near those from before training."""

    def __init__(self, model: RAM, config: TrainingConfig) -> None:
        if not has_classes(model) or not config.backbone.backbone_lr_factor:
            raise UsageProblem(
                "training.classes_weight needs model.prior.classes and a backbone that is trained"
            )
        super().__init__("classes", weight=config.losses.classes_weight)

    def sums(self, model: RAM, forward: Forward) -> dict[str, Tensor]:
        """The divergence from the former probabilities, summed over photos."""
        assert model.prior is not None and forward.former is not None
        logits = model.prior.class_logits(forward.output.features)
        return {"classes": class_memory_loss(logits, forward.former[1])}


class Alignment(Objective):
    """Each photo against all captions of the pass, asked as if they were labels."""

    def __init__(self, config: LossConfig, clip: ClipTeacher | None) -> None:
        if clip is None:
            raise UsageProblem(
                "training.alignment_weight needs --distill clip:FOLDER: captions' texts"
            )
        super().__init__("alignment", weight=config.alignment_weight)
        self.config = config
        self.clip = clip

    def count(self, batch: Batch) -> float:
        """Photos with a caption."""
        return float(len(batch.caption_texts))

    def sums(self, model: RAM, forward: Forward) -> dict[str, Tensor]:
        """The sum over pairs of a photo and a text; nothing where no photo has a caption."""
        batch, same = forward.batch, None
        if batch.caption_rows is None:
            return {}
        texts = self.clip.text_features(batch.caption_texts)
        logits = model.tag_logits(forward.output.encoded[batch.caption_rows], texts).total
        if self.config.loss != "ram-official":
            same = torch.tensor(
                [[a == b for b in batch.caption_texts] for a in batch.caption_texts],
                device=logits.device,
            )
        return {
            "alignment": alignment_loss(
                logits, same, gamma_neg=self.config.alignment_gamma_neg, clip=self.config.clip
            )
        }


class FormerBackbone(nn.Module):
    """A copy of the encoder and its classifier from before training."""

    def __init__(self, model: RAM) -> None:
        super().__init__()
        assert model.prior is not None
        self.encoder = copy.deepcopy(model.encoder)
        self.prior = copy.deepcopy(model.prior)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> "FormerBackbone":
        return super().train(False)  # stays in evaluation mode


def has_classes(model: RAM) -> bool:
    """Whether the model keeps the backbone's own classifier."""
    return model.prior is not None and model.prior.classifier is not None
