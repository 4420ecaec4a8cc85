"""The training objective of a batch: every loss, its weight, and what the teachers say.

B photos, L labels, E text width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ramctl.errors import UsageProblem
from ramctl.model.config import TrainingConfig
from ramctl.model.losses import (
    IGNORED,
    LossTerm,
    alignment_loss,
    asymmetric_loss,
    caption_loss,
    class_memory_loss,
    distillation_loss,
    ram_official_total,
)
from ramctl.model.ram import RAM, Encoded
from ramctl.training.batches import Batch
from ramctl.training.teachers import ClipTeacher, FormerBackbone

LEAST_SHARE_OF_OTHERS = 4  # of the sampled labels at least one in four is not in the batch


@dataclass(frozen=True, slots=True)
class SampledLabels:
    """The labels of one pass, and the weight that makes each one stand for those left out."""

    ids: Tensor  # (n,)
    weights: Tensor  # (n,)


def sample_labels(
    targets: Tensor, number: int, generator: torch.Generator, trained: Tensor | None = None
) -> SampledLabels | None:
    """All labels that are in the batch, and random others up to `number`; None for all labels.

    A label that was drawn weighs as many as it was drawn from, so that the expected loss is that
    over all labels, or over those that are `trained` (L,).
    """
    n_labels = targets.shape[1] if trained is None else int(trained.sum())
    everything = None if trained is None else _unweighted(trained.nonzero()[:, 0])
    if not number or number >= n_labels:
        return everything
    present, absent = targets.any(0), ~targets.any(0)
    if trained is not None:
        present, absent = present & trained, absent & trained
    own, others = present.nonzero()[:, 0], absent.nonzero()[:, 0]
    n_drawn = max(number - len(own), number // LEAST_SHARE_OF_OTHERS)
    if n_drawn >= len(others):
        return everything
    order = torch.randperm(len(others), generator=generator)[:n_drawn]
    drawn = others[order.to(others.device)]
    weights = torch.cat([torch.ones(len(own)), torch.full((n_drawn,), len(others) / n_drawn)])
    return SampledLabels(torch.cat([own, drawn]), weights.to(targets.device))


def _unweighted(ids: Tensor) -> SampledLabels:
    return SampledLabels(ids, torch.ones(len(ids), device=ids.device))


class Objective(nn.Module):
    """The model with its losses: one forward gives the sum of each loss over the batch.

    It is the module that is wrapped for several processes, so that all that has a gradient happens
    in its forward.
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
        self.register_buffer("trained", trained, persistent=False)  # (L,) bool; None: all labels
        self.model = model
        self.config = config
        self.clip = clip
        self.teachers = [name.partition(":")[0] for name in config.distill]
        _check(model, config, self.teachers)
        # A frozen encoder is its own former self.
        is_asked = "imagenet" in self.teachers or config.classes_weight > 0
        is_trained = config.backbone_lr_factor > 0
        self.former = FormerBackbone(model) if is_asked and is_trained else None
        self.weights = self._weights()

    def _weights(self) -> dict[str, float]:
        config = self.config
        weights = {"tag": config.tag_weight}
        if config.decouple_own:
            weights["tag text"] = config.tag_weight
        if self.model.captioning is not None and config.caption_weight:
            weights["caption"] = config.caption_weight
        if config.distill_weight:
            weights |= {f"distill {name}": config.distill_weight for name in self.teachers}
        if self.former is not None and config.classes_weight:
            weights["classes"] = config.classes_weight
        if config.alignment_weight:
            weights["alignment"] = config.alignment_weight
        return weights

    def forward(self, batch: Batch, sampled: SampledLabels | None) -> dict[str, Tensor]:
        """The sum of each loss over the batch, by name; divide by `counts` for the means."""
        return {name: term.total for name, term in self.terms(batch, sampled).items()}

    def terms(self, batch: Batch, sampled: SampledLabels | None) -> dict[str, LossTerm]:
        """Each loss of the batch as a sum and a count."""
        model, config = self.model, self.config
        features = model.encoder(batch.photos)
        encoded = model.encode(features)
        terms = self._tag_terms(encoded, batch, sampled)
        if "caption" in self.weights and batch.captions is not None:
            rows = batch.caption_rows
            captioned = Encoded(encoded.tokens[rows], None)
            logits = model.caption_logits(captioned, batch.captions)
            assert batch.caption_targets is not None
            terms["caption"] = caption_loss(
                logits, batch.caption_targets, smoothing=config.label_smoothing
            )
        mixture, class_logits = self._known_classes(features, batch)
        if "classes" in self.weights:
            assert model.prior is not None and class_logits is not None
            terms["classes"] = class_memory_loss(model.prior.class_logits(features), class_logits)
        for name in self.teachers:
            if config.distill_weight:
                terms[f"distill {name}"] = self._distill_term(name, mixture, encoded, batch)
        if "alignment" in self.weights and batch.caption_rows is not None:
            terms["alignment"] = self._alignment_term(encoded, batch)
        if not batch.is_real:
            terms = {name: LossTerm(t.total * 0, t.count * 0) for name, t in terms.items()}
        return terms

    def counts(self, batch: Batch) -> dict[str, float]:
        """What each loss's sum is over: photos or word pieces."""
        counts = dict.fromkeys(self.weights, float(batch.n_photos))
        if "caption" in counts:
            targets = batch.caption_targets
            counts["caption"] = 0.0 if targets is None else float((targets[:, 1:] != IGNORED).sum())
        if "distill caption" in counts:
            taught = batch.taught
            counts["distill caption"] = 0.0 if taught is None else float(taught.sum())
        if "alignment" in counts:
            counts["alignment"] = float(len(batch.caption_texts))
        return counts

    def total(self, sums: Mapping[str, Tensor], counts: Mapping[str, float]) -> Tensor:
        """The weighted sum of the means, with counts over all passes and ranks."""
        parts = [
            self.weights[name] / max(counts[name], 1.0) * value for name, value in sums.items()
        ]
        return torch.stack(parts).sum()

    def official_total(self, terms: Mapping[str, LossTerm]) -> Tensor:
        """The authors' objective of one pass of one rank."""
        merged = {name.partition(" ")[0]: term for name, term in terms.items()}
        return ram_official_total(self.config.objective, merged)

    def _tag_terms(
        self, encoded: Encoded, batch: Batch, sampled: SampledLabels | None
    ) -> dict[str, LossTerm]:
        rows, targets, weights = self.model.labels(), batch.targets, batch.weights
        if sampled is not None:
            rows = self.model.labels(sampled.ids)
            targets = targets[:, sampled.ids]
            weights = None if weights is None else weights[:, sampled.ids]
            weights = sampled.weights if weights is None else weights * sampled.weights
        config = self.config

        def term(logits: Tensor) -> LossTerm:
            return asymmetric_loss(
                logits, targets, gamma_neg=config.gamma_neg, gamma_pos=config.gamma_pos,
                clip=config.clip, weights=weights,
            )  # fmt: skip

        if not config.decouple_own:
            return {"tag": term(self.model.tag_logits(encoded, rows))}
        # The gradient of the first term does not reach the text logits: they cannot lean on what
        # labels own, so that words that were not trained on fare better.
        text, own = self.model.tag_logit_parts(encoded, rows)
        return {"tag": term(text.detach() + own), "tag text": term(text)}

    def _known_classes(self, features: Tensor, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
        """What the backbone knew before training: class mixture (B, E), class logits (B, K)."""
        prior = self.model.prior
        if self.former is not None:
            return self.former(batch.photos)
        if prior is None or "imagenet" not in self.teachers:
            return None, None
        return prior.class_mixture(features).detach(), prior.class_logits(features).detach()

    def _distill_term(
        self, name: str, mixture: Tensor | None, encoded: Encoded, batch: Batch
    ) -> LossTerm:
        feature = encoded.global_feature
        assert feature is not None
        kind, present = self.config.distill_loss, None
        if name == "caption":
            if batch.teacher is None:
                zero = feature.sum() * 0
                return LossTerm(zero, zero.detach())
            teacher, present = batch.teacher, batch.taught
        elif name == "imagenet":
            assert mixture is not None
            teacher = mixture
        else:
            assert self.clip is not None
            teacher = self.clip.photo_features(batch.photos)
        return distillation_loss(feature, teacher, kind=kind, present=present)

    def _alignment_term(self, encoded: Encoded, batch: Batch) -> LossTerm:
        """Each photo against all captions of the pass: RAM++'s image-text alignment."""
        assert self.clip is not None
        texts = self.clip.text_features(batch.caption_texts)
        captioned = _rows(encoded, batch.caption_rows)
        logits = self.model.tag_logits(captioned, texts)
        same = torch.tensor(
            [[a == b for b in batch.caption_texts] for a in batch.caption_texts],
            device=logits.device,
        )
        official = self.config.loss == "ram-official"
        return alignment_loss(
            logits, None if official else same,
            gamma_neg=self.config.alignment_gamma_neg, clip=self.config.clip,
        )  # fmt: skip


def _rows(encoded: Encoded, rows: Tensor | None) -> Encoded:
    if rows is None or encoded.photo is None:
        return encoded
    photo = encoded.photo
    parts = [
        None if part is None else part[rows] for part in (photo.token, photo.own, photo.classes)
    ]
    return Encoded(encoded.tokens[rows], type(photo)(photo.feature[rows], *parts))


def _check(model: RAM, config: TrainingConfig, teachers: Sequence[str]) -> None:
    known = ("caption", "imagenet", "clip")
    unknown = [name for name in teachers if name not in known]
    if unknown:
        raise UsageProblem(f"--distill {unknown[0]}: known are clip:FOLDER, caption, imagenet")
    if teachers and model.prior is None and not model.encoder.mean_token:
        raise UsageProblem("--distill needs a model with a global feature")
    has_classes = model.prior is not None and model.prior.classifier is not None
    if "imagenet" in teachers and not has_classes:
        raise UsageProblem("--distill imagenet needs model.prior.classes: the backbone's own head")
    if config.classes_weight and (not has_classes or not config.backbone_lr_factor):
        raise UsageProblem(
            "training.classes_weight needs model.prior.classes and a backbone that is trained"
        )
    if config.alignment_weight and "clip" not in teachers:
        raise UsageProblem("training.alignment_weight needs --distill clip:FOLDER: captions' texts")
    if config.decouple_own and not (model.labels.own.numel() or model.labels.bias.numel()):
        raise UsageProblem("training.decouple_own: this model's labels own nothing")
    if config.loss == "ram-official" and config.decouple_own:
        raise UsageProblem("training.loss ram-official does not decouple what labels own")
    if config.loss == "ram-official" and config.objective != "ram-plus" and not model.captioning:
        raise UsageProblem("training.loss ram-official needs the captioning branch")
