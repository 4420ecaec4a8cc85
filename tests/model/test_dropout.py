"""Dropout by wide draws of random numbers."""

import pytest
import torch

from ramctl.model.attention import AttentionBlock, dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_dropout_drops_its_share_and_keeps_the_mean(share, dtype):
    torch.manual_seed(0)
    x = torch.ones(301, 1003, dtype=dtype)
    y = dropout(x, share, True)
    assert y.dtype == dtype
    assert float((y == 0).float().mean()) == pytest.approx(share, abs=0.003)
    if share < 1:
        assert float(y.float().mean()) == pytest.approx(1, abs=0.01)
        assert len(y.unique()) == 1 + (share > 0)


def test_dropout_depends_on_the_seed_alone_and_every_element_is_drawn_by_itself():
    x = torch.ones(64, 1001)
    torch.manual_seed(3)
    first = dropout(x, 0.3, True)
    second = dropout(x, 0.3, True)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.3, True), first)
    assert not torch.equal(first, second)
    both = ((first == 0) & (second == 0)).float().mean()
    assert float(both) == pytest.approx(0.09, abs=0.01)
    columns = (first == 0).float()
    neighbours = (columns[:, 1:] * columns[:, :-1]).mean()
    assert float(neighbours) == pytest.approx(0.09, abs=0.01)


def test_dropout_s_gradient_is_its_mask():
    x = torch.randn(50, 7, requires_grad=True)
    y = dropout(x, 0.4, True)
    y.sum().backward()
    assert torch.allclose(x.grad, y.detach() / x.detach())


def test_no_dropout_in_evaluation():
    x = torch.randn(3, 4)
    assert dropout(x, 0.5, False) is x


def test_attention_without_dropped_maps_is_the_fused_attention():
    """A share too small to drop anything takes the path with dropout."""
    torch.manual_seed(0)
    block = AttentionBlock(16, 12, dropout=1e-9, eps=1e-5)
    x, context = torch.randn(1, 5, 16), block.keys_values(torch.randn(3, 7, 12), 4)
    with_dropout = block.train()(x, context)
    assert torch.allclose(with_dropout, block.eval()(x, context), atol=1e-6)
