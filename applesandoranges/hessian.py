"""The loss Hessian as a linear operator: the one place that builds it on CurvLinOps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from skerch.errors import InputError

from .hessian_engines import BlockHessian, ProductPlan, ProductSettings


def trainable(net: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that span the Hessian, by name and in order."""
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


def make_hessian(
    net: nn.Module,
    criterion: nn.Module,
    data: Iterable[tuple[Tensor, Tensor]],
    num_data: int,
    settings: ProductSettings | None = None,
    plan: ProductPlan | None = None,
) -> BlockHessian:
    """Return the ``[D, D]`` Hessian of the mean ``criterion`` over ``data``.

    The network is put into evaluation mode, so that dropout and BatchNorm do not make the loss
    random. Whether the data do, is checked by :mod:`applesandoranges.checks`, not here: CurvLinOps'
    own check reads the data five times.

    Args:
        net: The network.
        criterion: Loss with ``reduction="mean"``.
        data: Mini-batches ``(X, y)``, iterable again and again.
        num_data: Number of data points in all mini-batches.
        settings: How products are made.
        plan: The plan of an operator of the same sizes, which saves the trial for another one.
    """
    net.eval()
    return BlockHessian(
        net,
        criterion,
        list(trainable(net).values()),
        data,
        check_deterministic=False,
        num_data=num_data,
        settings=settings,
        plan=plan,
    )


def parameter_vector(net: nn.Module) -> Tensor:
    """Return all trainable parameters as one vector, ``[D]``."""
    return parameters_to_vector(trainable(net).values()).detach()


def buffer_state(net: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the buffers (BatchNorm statistics) by name."""
    return {name: value.detach().clone() for name, value in net.named_buffers()}


def load_state(net: nn.Module, params: Tensor, buffers: Mapping[str, Tensor]) -> None:
    """Set parameters and buffers of ``net``.

    Raises:
        InputError: If they are not those of this network.
    """
    targets = trainable(net)
    dim = sum(p.numel() for p in targets.values())
    if tuple(params.shape) != (dim,):
        raise InputError(f"expected {dim} parameters, got {tuple(params.shape)}")
    load_buffers(net, buffers)
    first = next(iter(targets.values()))
    with torch.no_grad():
        vector_to_parameters(params.to(first), targets.values())


@torch.no_grad()
def load_buffers(net: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    """Set the buffers of ``net``.

    Raises:
        InputError: If they are not those of this network.
    """
    own = dict(net.named_buffers())
    if own.keys() != buffers.keys():
        wrong = sorted(own.keys() ^ buffers.keys())
        raise InputError(f"the recorded buffers are not those of the network: {wrong[:5]}")
    for name, value in buffers.items():
        own[name].copy_(value)


def tensor_hash(*tensors: Tensor) -> str:
    """Return a SHA-256 over dtypes, shapes and contents, the same on every device."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
