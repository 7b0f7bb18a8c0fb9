"""Parameters and buffers of a network: as vectors, by name, and their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from skerch.errors import InputError


def trainable(net: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that span the Hessian, by name and in order."""
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


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
