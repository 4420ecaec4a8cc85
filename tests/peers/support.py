"""Labels and random weights for the tests of the peers."""

import torch

LABELS = ["dog", "living room", "red", "traffic light", "umbrella"]


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
