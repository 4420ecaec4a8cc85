"""What the image side is held to: the vectors of teachers, and the classes it came with.

B photos, E text width, K classes of the backbone.
"""

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from ramctl.errors import UsageProblem
from ramctl.model.config import LossConfig, TrainingConfig
from ramctl.model.ram import RAM
from ramctl.training.data.batches import Batch
from ramctl.training.objectives.base import Forward, Objective
from ramctl.training.objectives.clip_teacher import ClipTeacher


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


class FormerBackbone(nn.Module):
    """A copy of the encoder and its classifier from before training."""

    def __init__(self, model: RAM) -> None:
        super().__init__()
        assert model.prior is not None
        self.encoder = copy.deepcopy(model.encoder)
        self.prior = copy.deepcopy(model.prior)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> "FormerBackbone":
        """Stay in evaluation mode."""
        return super().train(False)


def has_classes(model: RAM) -> bool:
    """Whether the model keeps the backbone's own classifier."""
    return model.prior is not None and model.prior.classifier is not None


def distillation_loss(
    feature: Tensor, teacher: Tensor, *, kind: str = "l1", present: Tensor | None = None
) -> Tensor:
    """The distance of the global feature (B, E) to the teacher's, summed over photos.

    `l1`: mean absolute difference over E (the authors', neither side normalised); `cosine`: one
    minus the cosine. `present` (B) is 0 at photos without a teacher's vector.
    """
    feature, teacher = feature.float(), teacher.detach().float()
    if kind == "l1":
        distance = (feature - teacher).abs().mean(-1)
    else:
        distance = 1 - F.cosine_similarity(feature, teacher, dim=-1)
    return (distance if present is None else distance * present.float()).sum()


def class_memory_loss(logits: Tensor, former: Tensor) -> Tensor:
    """Kullback-Leibler divergence of class logits (B, K) from the former ones, over photos."""
    said = former.detach().float().log_softmax(-1)
    now = logits.float().log_softmax(-1)
    return F.kl_div(now, said, reduction="sum", log_target=True)
