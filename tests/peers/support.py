"""Labels, random weights and small models for the tests of the peers and of text encoders."""

from pathlib import Path

import torch

LABELS = ["dog", "living room", "red", "traffic light", "umbrella"]


TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 77,
}  # fmt: skip
VISION = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": 32, "patch_size": 16,
}  # fmt: skip


def randomise(model: torch.nn.Module, *, seed: int = 0, scale: float = 1.0) -> torch.nn.Module:
    """Weights large enough that photos and texts get clearly different outputs."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.dim() > 1:
                fan_in = tensor[0].numel()
                tensor.normal_(0, scale / fan_in**0.5, generator=generator)
            elif "norm" not in name.lower() and tensor.dim() == 1:
                tensor.normal_(0, 0.1, generator=generator)
    return model.eval()


def small_swin(*stages: int):
    """The settings of a small Swin that gives those stages."""
    from transformers import SwinConfig

    return SwinConfig(
        image_size=64, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], window_size=4,
        out_features=[f"stage{stage}" for stage in stages],
    )  # fmt: skip


def clip_text_config(tokenizer, width: int) -> dict[str, int]:
    """The settings of a CLIP's text half whose vectors have that width."""
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    return TEXT | ends | {"vocab_size": len(tokenizer), "projection_dim": width}


def save_clip(folder: Path, tokenizer, width: int = 24) -> Path:
    """Write a CLIP of a few thousand random weights, as its authors do."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    config = CLIPConfig(
        text_config=clip_text_config(tokenizer, width),
        vision_config=VISION | {"projection_dim": width}, projection_dim=width,
    )  # fmt: skip
    randomise(CLIPModel(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return folder


def save_clip_text(folder: Path, tokenizer, width: int = 24) -> Path:
    """Write only the text half, as small hub repositories hold it."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(**clip_text_config(tokenizer, width))
    randomise(CLIPTextModelWithProjection(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
