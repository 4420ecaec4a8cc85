"""The model with its objectives: a forward pass gives the sum of each loss over the batch.

The sums become the loss of a pass: global means, or the authors' sums of one process.
B photos, S pixels a side, L labels, n labels of a pass, E text width, K classes of the backbone.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ramctl.model.caption_tokenizer import IGNORED
from ramctl.model.preset import PreprocessConfig, TrainingConfig
from ramctl.model.ram import RAM, Encoded, RamOutput, TagLogits
from ramctl.pretrained.transformers_folder import (
    load_image_processor,
    load_pretrained,
    load_tokenizer,
)
from ramctl.tagger_scores import PREFIX as SCORES
from ramctl.training.data.batches import Batch
from ramctl.training.losses import (
    alignment_loss,
    asymmetric_loss,
    caption_loss,
    class_memory_loss,
    distillation_loss,
)

ABSENT_DIVISOR = 4  # at least one in four sampled labels is absent from the batch
PRESENT = 0.1  # a label with a target above it counts as present in the batch


@dataclass(frozen=True, slots=True)
class SampledLabels:
    """The labels of one pass; their weights make up for the labels that are not sampled."""

    ids: Tensor  # (n,)
    weights: Tensor  # (n,)


def tag_sums(
    config: TrainingConfig, logits: TagLogits, batch: Batch, sampled: SampledLabels | None
) -> dict[str, Tensor]:
    """The tag loss summed over photos and labels; if decoupled, also that of text logits alone."""
    targets, weights = batch.targets, batch.weights
    if sampled is not None:
        targets = targets[:, sampled.ids]
        weights = None if weights is None else weights[:, sampled.ids]
        weights = sampled.weights if weights is None else weights * sampled.weights
    loss = partial(
        asymmetric_loss, targets=targets, gamma_neg=config.gamma_neg, clip=config.clip,
        weights=weights,
    )  # fmt: skip
    if not config.decouple_own:
        return {"tag": loss(logits.total)}
    # The first sum has no gradient for the text logits. They learn without the labels' own vectors,
    # so that words that were not trained on are scored better.
    text, by_label = logits
    return {"tag": loss(text.detach() + by_label), "tag text": loss(text)}


def sample_labels(
    targets: Tensor, number: int, generator: torch.Generator, trained: Tensor | None = None
) -> SampledLabels | None:
    """All labels present in the batch, and random others up to `number`; None for all labels.

    The others are weighted so that the expected loss is the one over all labels, or over those
    that are `trained` (L,).
    """
    n_labels = targets.shape[1] if trained is None else int(trained.sum())
    everything = None
    if trained is not None:
        ids = trained.nonzero()[:, 0]
        everything = SampledLabels(ids, torch.ones(len(ids), device=ids.device))
    if not number or number >= n_labels:
        return everything
    present = (targets > PRESENT).any(0)
    absent = ~present
    if trained is not None:
        present, absent = present & trained, absent & trained
    present_ids, others = present.nonzero()[:, 0], absent.nonzero()[:, 0]
    n_drawn = max(number - len(present_ids), number // ABSENT_DIVISOR, 1)
    if n_drawn >= len(others):
        return everything
    order = torch.randperm(len(others), generator=generator)[:n_drawn]
    drawn = others[order.to(others.device)]
    weight = len(others) / n_drawn
    weights = torch.cat([torch.ones(len(present_ids)), torch.full((n_drawn,), weight)])
    return SampledLabels(torch.cat([present_ids, drawn]), weights.to(targets.device))


class ClipTeacher(nn.Module):
    """A frozen CLIP model from a local folder in transformers' format.

    It gets the student's crop, at its own size and normalisation. Source: the authors distil from
    CLIP ViT-B/16, photo features not normalised, texts normalised (ram_official A4).
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, folder: Path, preprocess: PreprocessConfig) -> None:
        super().__init__()
        from transformers import CLIPModel  # seconds

        self.clip = load_pretrained(CLIPModel, folder, torch.device("cpu"), kinds=("clip",))
        self.clip.requires_grad_(False)
        self.tokenizer, processor = load_tokenizer(folder), load_image_processor(folder)
        self.size = int(self.clip.config.vision_config.image_size)
        student_mean, student_std = _column(preprocess.mean), _column(preprocess.std)
        mean, std = _column(processor.image_mean), _column(processor.image_std)
        self.register_buffer("scale", student_std / std, persistent=False)
        self.register_buffer("shift", (student_mean - mean) / std, persistent=False)

    @torch.no_grad()
    def photo_features(self, photos: Tensor) -> Tensor:
        """The features (B, E) of photos (B, 3, S, S) as the student gets them."""
        photos = photos * self.scale + self.shift
        if photos.shape[-1] != self.size:
            photos = F.interpolate(photos, (self.size, self.size), mode="bicubic", antialias=True)
        pooled = self.clip.vision_model(pixel_values=photos).pooler_output
        return self.clip.visual_projection(pooled)

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """The unit vectors (len(texts), E) of texts; long ones are truncated."""
        device = next(self.clip.parameters()).device
        pieces = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        pooled = self.clip.text_model(**pieces.to(device)).pooler_output
        return F.normalize(self.clip.text_projection(pooled), dim=-1)


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values)).view(1, -1, 1, 1)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many photos, tokens or pairs the sum of each loss runs over, by its name."""

    local: Mapping[str, float]  # this pass of this process
    step: Mapping[str, float]  # all passes of all processes
    n_passes: int
    n_processes: int


class TrainingTask(nn.Module):
    """The module that is trained, and that is wrapped when there are several processes.

    Everything with a gradient happens in its forward, as DistributedDataParallel needs it. Each
    loss is a sum and a count, so that its mean does not depend on how a batch is split.
    """

    trained: Tensor | None

    def __init__(
        self,
        model: RAM,
        config: TrainingConfig,
        clip: ClipTeacher | None = None,
        trained: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        # Files of scores are in the targets already.
        teachers = [n.partition(":")[0] for n in config.distill if not n.startswith(SCORES)]
        self.model, self.clip = model, clip
        self.register_buffer("trained", trained, persistent=False)  # (L,) bool; None: all labels
        weights = {
            "tag": config.tag_weight,
            "tag text": config.tag_weight * config.decouple_own,
            "caption": config.caption_weight * (model.captioning is not None),
        }
        if not config.captions_alone:
            weights |= {f"distill {name}": config.distill_weight for name in teachers}
            # The classes of a frozen backbone stay as they were.
            classes_weight = config.classes_weight if config.backbone_lr_factor else 0.0
            weights |= {"classes": classes_weight, "alignment": config.alignment_weight}
        # The weights of the losses that are computed, by their names in logs.
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.needs_former = not self.weights.keys().isdisjoint({"distill imagenet", "classes"})
        self.former: Any = None  # encoder and prior from before training
        # A frozen backbone stays as it was: only one that is trained needs a copy.
        if self.needs_former and config.backbone_lr_factor > 0:
            assert model.prior is not None
            parts = nn.ModuleDict({"encoder": model.encoder, "prior": model.prior})
            self.former = copy.deepcopy(parts).requires_grad_(False)

    def train(self, mode: bool = True) -> "TrainingTask":
        """As in torch, but teachers stay in evaluation mode."""
        super().train(mode)
        for teacher in (self.clip, self.former):
            if teacher is not None:
                teacher.eval()
        return self

    def counts(self, batch: Batch) -> dict[str, float]:
        """How many photos or tokens each loss runs over, by its name."""
        targets, taught = batch.caption_targets, batch.taught
        others = {
            "caption": 0 if targets is None else (targets[:, 1:] != IGNORED).sum(),
            "distill caption": 0 if taught is None else taught.sum(),
            "alignment": len(batch.caption_texts),
        }
        return {name: float(others.get(name, batch.n_photos)) for name in self.weights}

    def reduce(self, sums: Mapping[str, Tensor], counts: Counts) -> Tensor:
        """The loss of a pass, by the rule that `training.loss` names."""
        if self.config.loss == "ram-official":
            return ram_official(self.config.objective, sums, counts)
        return global_mean(self.weights, sums, counts)

    def sample(self, targets: Tensor) -> SampledLabels | None:
        """The labels of a pass; None for all, no labels where captions are trained alone."""
        if self.config.captions_alone:
            return SampledLabels(torch.zeros(0, dtype=torch.long), torch.zeros(0))
        # Not torch's own stream: sampling must not shift the random numbers of dropout.
        generator = torch.Generator().manual_seed(torch.initial_seed() & 0x7FFFFFFF)
        return sample_labels(targets, self.config.sampled_labels, generator, self.trained)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The sum of each loss over the batch, by name; `reduce` makes a loss of them.

        A name may be missing when the batch has none of it.
        """
        model, config, sampled = self.model, self.config, self.sample(batch.targets)
        photos = batch.photos
        if model.encoder.frozen_stages and photos.dim() == 4:
            with torch.no_grad():  # the frozen stages are computed once for both backbones
                photos = model.encoder.frozen_features(photos)
        output = model(
            photos,
            labels=None if sampled is None else model.labels(sampled.ids),
            captions=batch.captions if "caption" in self.weights else None,
            captioned=batch.caption_rows,
        )
        former = self._former(photos, output.features) if self.needs_former else None
        sums = {} if config.captions_alone else tag_sums(config, output.logits, batch, sampled)
        if output.caption_logits is not None and batch.caption_targets is not None:
            logits, smoothing = output.caption_logits, config.label_smoothing
            sums["caption"] = caption_loss(logits, batch.caption_targets, smoothing=smoothing)
        for name in self.weights:
            if name.startswith("distill "):
                sums[name] = self._distance(name, batch, output, former)
        if "classes" in self.weights:
            assert model.prior is not None and former is not None
            sums["classes"] = class_memory_loss(
                model.prior.class_logits(output.features), former[1]
            )
        if "alignment" in self.weights and batch.caption_rows is not None:
            sums["alignment"] = self._alignment(batch, output.encoded[batch.caption_rows])
        if not batch.is_real:  # without photos a process still needs every gradient
            return {name: value * 0 for name, value in sums.items()}
        return sums

    @torch.no_grad()
    def _former(self, photos: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """The output of the backbone's classifier before training.

        The embeddings of the class names, mixed by their probabilities (B, E), and logits (B, K).
        """
        prior = self.model.prior
        if self.former is not None:
            prior, features = self.former["prior"], self.former["encoder"](photos)
        assert prior is not None
        mixture = prior.class_probabilities(features) @ prior.class_names
        return mixture, prior.class_logits(features)

    def _distance(
        self, name: str, batch: Batch, output: RamOutput, former: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """The distance of the global feature to a teacher's vector, summed over photos."""
        photo, vector, taught = output.encoded.photo, batch.teacher, batch.taught
        assert photo is not None
        if name == "distill clip":
            assert self.clip is not None
            vector, taught = self.clip.photo_features(batch.photos), None
        elif name == "distill imagenet":
            assert former is not None
            vector, taught = former[0], None
        if vector is None:  # a stand-in batch: the loss must still reach the global feature
            return photo.feature.sum() * 0
        kind = self.config.distill_loss
        return distillation_loss(photo.feature, vector, kind=kind, present=taught)

    def _alignment(self, batch: Batch, captioned: Encoded) -> Tensor:
        """The loss of each photo against all captions of the pass, scored as labels."""
        assert self.clip is not None
        texts, same = self.clip.text_features(batch.caption_texts), None
        logits = self.model.tag_logits(captioned, texts).total
        if self.config.loss != "ram-official":
            rows = [[a == b for b in batch.caption_texts] for a in batch.caption_texts]
            same = torch.tensor(rows, device=logits.device)
        return alignment_loss(logits, same, clip=self.config.clip)


def global_mean(weights: Mapping[str, float], sums: Mapping[str, Tensor], counts: Counts) -> Tensor:
    """This pass's part of the weighted sum of the means over the step.

    The gradients of all passes add up to that of one large batch, however it is split.
    """
    parts = [weights[name] / max(counts.step[name], 1.0) * value for name, value in sums.items()]
    # DDP averages gradients over the processes, but these counts are global already.
    return torch.stack(parts).sum() * counts.n_processes


def ram_official(objective: str, sums: Mapping[str, Tensor], counts: Counts) -> Tensor:
    """The authors' objective of one pass of one process: sums over photos and labels.

    RAM and Tag2Text scale the tag loss to the caption loss's value; RAM++ adds plain sums.
    Source: authors' forward, ram_official A4. Theirs always has captions: in a pass without any
    the tag loss is the mean over photos; a loss of 0 stays 0.
    """

    def mean(name: str) -> Tensor:
        return sums[name] / max(counts.local[name], 1.0)

    tag = sums["tag"]
    if objective == "ram-plus":
        total = tag + sums["alignment"] if "alignment" in sums else tag
    elif counts.local["caption"]:
        caption = mean("caption")
        # 0/0 would be NaN, which spreads to all processes.
        total = caption + tag / torch.where(tag > 0, tag / caption, 1.0).detach()
    else:
        total = mean("tag") + sums.get("caption", 0)  # a stand-in's: 0, with its gradient
    for name in sums:
        if name.startswith("distill"):  # one at most, as the authors have
            total = total + mean(name)
    return total / counts.n_passes
