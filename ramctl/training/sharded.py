"""A model whose weights are spread over the processes of a run, by torch's FSDP2.

Each process keeps its rows of every weight, with their gradients and the optimiser's numbers. It
has a part's whole weights only while it computes that part. What is asked for as a whole must be
asked for by all processes together.
"""

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from ramctl.checkpoints.weights import weights_of
from ramctl.model.attention import FeedForwardBlock
from ramctl.model.encoder import ImageEncoder, stages_of
from ramctl.model.ram import RAM
from ramctl.training.checkpoint import State


class ShardedModel:
    """Spreads a task's weights, in place; its model is the same as before but for that."""

    def __init__(self, task: Any, model: RAM, device: torch.device) -> None:
        self._shapes = {name: tensor.shape for name, tensor in weights_of(model).items()}
        hollow = [(own, torch.empty_like(own, device="meta")) for own in weights_of(model).values()]
        self._hollow = _copy_with(model, hollow)
        task.to(memory_format=torch.contiguous_format)
        _make_scalars_rows(task)
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        for unit in (*_units(task), task):
            fully_shard(unit, mesh=mesh)
        self._task, self._weights = task, weights_of(model)

    def whole(self, averaged: Mapping[str, Tensor]) -> RAM:
        """A copy of the model that is not spread, with `averaged` weights where there are some."""
        tensors = []
        for name, own in weights_of(self._hollow).items():
            spread = averaged.get(name, self._weights[name])
            value = self._whole(name, spread)
            if not isinstance(spread, DTensor):  # statistics of each process's own photos
                value = value.clone()
                dist.broadcast(value, 0)
            tensors.append((own, value))
        return _copy_with(self._hollow, tensors)

    def state(self, optimiser: torch.optim.Optimizer, averaged: Mapping[str, Tensor]) -> State:
        """Weights and the optimiser's numbers as a run of one process has them, on the host.

        Only the first process gets them.
        """
        names = {id(tensor): name for name, tensor in self._weights.items()}
        trained = [names[id(p)] for group in optimiser.param_groups for p in group["params"]]
        table = optimiser.state_dict()
        table["state"] = {
            index: self._on_host({key: (trained[index], t) for key, t in numbers.items()})
            for index, numbers in table["state"].items()
        }
        return {
            "model": self._on_host({name: (name, t) for name, t in self._weights.items()}),
            "averaged": self._on_host({name: (name, t) for name, t in averaged.items()}),
            "optimiser": table,
        }

    @contextmanager
    def exchanging(self, is_wanted: bool) -> Iterator[None]:
        """A pass that hands gradients to the processes that keep them, if that is wanted."""
        self._task.set_requires_gradient_sync(is_wanted)
        with warnings.catch_warnings():
            # Of views that are changed in place: Swin returns views, but nobody changes them.
            warnings.filterwarnings("ignore", "FSDP2-wrapped module")
            yield

    def _on_host(self, named: Mapping[str, tuple[str, Tensor]]) -> dict[str, Tensor]:
        found = {}
        for key, (name, tensor) in named.items():
            value = self._whole(name, tensor) if isinstance(tensor, DTensor) else tensor
            if dist.get_rank() == 0:
                found[key] = value.detach().to("cpu", copy=True)
        return found

    def _whole(self, name: str, tensor: Tensor) -> Tensor:
        return whole(tensor.detach()).reshape(self._shapes[name])


def whole(tensor: Tensor) -> Tensor:
    """The tensor, put together from all processes if it is spread over them."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def spread_state(table: State, optimiser: torch.optim.Optimizer) -> None:
    """Leave of a whole optimiser's state, in place, what this process keeps."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for index, numbers in table["state"].items():
        for key, tensor in numbers.items():
            if key != "step":
                numbers[key] = local_part(tensor, parameters[index])


def local_part(whole: Tensor, like: Tensor) -> Tensor:
    """What this process keeps of a tensor that is spread as `like` is, if it is."""
    if not isinstance(like, DTensor):
        return whole
    if not whole.numel():  # whose shape FSDP changes
        return like.detach().clone()
    rows = whole.reshape(like.shape).chunk(like.device_mesh.size())
    rank = like.device_mesh.get_local_rank()
    own = (rows[rank] if rank < len(rows) else rows[0][:0]).to(like.device, copy=True)
    return DTensor.from_local(
        own, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
    )


def _copy_with(model: RAM, tensors: list[tuple[Tensor, Tensor]]) -> RAM:
    """A copy of the model in which each first tensor is replaced by the second."""
    return copy.deepcopy(
        model,
        {
            id(own): nn.Parameter(other, own.requires_grad)
            if isinstance(own, nn.Parameter)
            else other
            for own, other in tensors
        },
    )


def _make_scalars_rows(task: nn.Module) -> None:
    """Make a row of each number that is learnt: it computes the same, and can be spread."""
    for module in task.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.dim() == 0:
                row = nn.Parameter(parameter.detach()[None], parameter.requires_grad)
                module.register_parameter(name, row)


def _units(task: nn.Module) -> Iterator[nn.Module]:
    """The parts that are whole only while they compute: the encoders' blocks, and feed-forward.

    These hold most of the weights, and are used by their forward alone. The rest, such as attention
    whose keys are computed ahead, is whole throughout a pass.
    """
    for module in task.modules():
        if isinstance(module, ImageEncoder):
            for stage in stages_of(module.backbone):
                yield from getattr(stage, "blocks", [stage])
        elif isinstance(module, FeedForwardBlock):
            yield module
