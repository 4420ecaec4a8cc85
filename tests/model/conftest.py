import pytest
import torch


@pytest.fixture(autouse=True)
def repeatable():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def photos():
    return torch.randn(2, 3, 64, 64)
