"""Load, speed up and write the model and the caption tokenizer of a bundle."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ramctl.checkpoints.bundle import TOKENIZER, WEIGHTS, Bundle, problems_of
from ramctl.checkpoints.weights import NoInitialValues, load_weights, save_weights
from ramctl.errors import RunProblem
from ramctl.model.build_ram import build_ram
from ramctl.model.preset import Preset, preset_to_meta
from ramctl.model.ram import RAM
from ramctl.records.record import JsonObject

if TYPE_CHECKING:
    from ramctl.model.caption_tokenizer import CaptionTokenizer


WORDS = "captioning.decoder.word_bias"  # one number a token


def load_model(
    bundle: Bundle,
    *,
    preset: Preset | None = None,
    captioning: bool = True,
    products: torch.dtype | None = None,
) -> RAM:
    """Load the bundle's model in evaluation mode; RunProblem names what does not fit.

    `preset` is that of the bundle with other sizes (`finetuning_preset`); Swin's window is resized
    to it. Without `captioning` that branch is not loaded. `products` is the type of the weights of
    linear layers and convolutions: that of autocast, which would else copy them in each pass.
    """
    config = bundle.preset if preset is None else preset
    counts = bundle.tensors(["labels.counts"])["labels.counts"].tolist()
    vocabulary = 0
    if captioning and config.model.captioning is not None:
        vocabulary = len(bundle.tensors([WORDS])[WORDS])
    with problems_of(bundle.path), NoInitialValues():
        model = build_ram(
            config.model if captioning else replace(config.model, captioning=None),
            image_size=config.preprocess.size,
            n_labels=len(counts),
            vocabulary=vocabulary,
            description_counts=counts,
        )
    if products is not None:
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(products)
    without = None if captioning else "captioning."
    load_weights(model, bundle.path / WEIGHTS, without=without, resize=preset is not None)
    return model.eval()


def fold_batchnorms(module: nn.Module, photos: Tensor) -> int:
    """Fold batch norms into the convolutions before them, and count them; for inference only.

    `photos` (B, 3, H, W) run through the module once, which shows the batch norms whose input is
    the output of a convolution. Results change by rounding only.
    """
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def mark(convolution: nn.Module, _: Any, output: Any) -> None:
        output.convolution = convolution

    def note(norm: Any, inputs: tuple[Tensor, ...]) -> None:
        if hasattr(inputs[0], "convolution"):
            pairs.append((inputs[0].convolution, norm))

    parts = list(module.modules())
    hooks = [x.register_forward_hook(mark) for x in parts if isinstance(x, nn.Conv2d)]
    hooks += [x.register_forward_pre_hook(note) for x in parts if isinstance(x, nn.BatchNorm2d)]
    with torch.inference_mode():
        module(photos)
    for hook in hooks:
        hook.remove()
    for convolution, norm in pairs:
        folded = fuse_conv_bn_eval(convolution, norm)
        convolution.weight, convolution.bias = folded.weight, folded.bias
    norms = {norm for _, norm in pairs}
    for parent in parts:
        for name, child in parent.named_children():
            if child in norms:
                setattr(parent, name, getattr(child, "act", nn.Identity()))
    return len(pairs)


def load_caption_tokenizer(bundle: Bundle) -> "CaptionTokenizer":
    """Load the tokenizer of the captioning branch; RunProblem for a bundle without one."""
    # Imported here: tagging without captions needs no tokenizer.
    from ramctl.model.caption_tokenizer import CaptionTokenizer, load_tokenizer

    captioning = bundle.preset.model.captioning
    if captioning is None or not bundle.has(TOKENIZER):
        raise RunProblem(f"{bundle.path}: this model writes no captions")
    return CaptionTokenizer(load_tokenizer(bundle.path / TOKENIZER), captioning)


def write_model(
    folder: Path,
    preset: Preset,
    model: RAM,
    tokenizer: "CaptionTokenizer | None" = None,
    *,
    half: bool = False,
) -> JsonObject:
    """Write weights and tokenizer into a bundle's folder; return the model's part of its `meta`."""
    save_weights(model, folder / WEIGHTS, half=half)
    if tokenizer is not None:
        tokenizer.tokenizer.save(str(folder / TOKENIZER))
    return preset_to_meta(preset)
