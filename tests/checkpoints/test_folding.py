"""Folded batch norms change a backbone's output by rounding only."""

import timm
import torch
from torch import nn

from ramctl.checkpoints.folding import fold_batchnorms


def settled(model: nn.Module) -> nn.Module:
    """The model in evaluation mode with statistics that are not the initial ones."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.weight.data, module.bias.data):
                values.copy_(torch.randn(values.shape, generator=generator) * 0.3 + 1)
            module.running_var.copy_(
                torch.rand(module.running_var.shape, generator=generator) + 0.5
            )
    return model.eval()


def test_an_efficientnet_gives_the_same_without_its_batch_norms():
    torch.manual_seed(0)
    model = settled(timm.create_model("test_efficientnet", num_classes=7))
    photos = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        before = model(photos)
        assert fold_batchnorms(model, photos) > 10
        assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
        torch.testing.assert_close(model(photos), before, rtol=1e-4, atol=1e-4)


def test_a_batch_norm_after_something_else_stays():
    model = settled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)))
    assert fold_batchnorms(model, torch.zeros(1, 3, 8, 8)) == 0
    assert isinstance(model[2], nn.BatchNorm2d)
