"""Networks as people have them: wrapped, compiled, shared; and copies in another precision."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from skerch.errors import InputError

from ..problems.minibatch import tensors
from .batches import to_dtype


def unwrap(net: nn.Module) -> nn.Module:
    """Return the network inside DataParallel, DistributedDataParallel and torch.compile."""
    while True:
        if isinstance(net, nn.DataParallel | DistributedDataParallel):
            net = net.module
        elif isinstance(inner := getattr(net, "_orig_mod", None), nn.Module):
            net = inner
        else:
            return net


def check_parameters(params: Iterable[Tensor]) -> None:
    """Check that parameters can span a Hessian.

    Raises:
        InputError: If there are none, or they are on several devices, of several dtypes, or not
            real.
    """
    params = list(params)
    devices = sorted({str(p.device) for p in params})
    dtypes = sorted({str(p.dtype) for p in params})
    if not params:
        raise InputError("the network has no trainable parameters (requires_grad)")
    if len(devices) > 1 or devices == ["meta"]:
        raise InputError(
            f"expected a network on one device, found parameters on {', '.join(devices)}: "
            "net.to(device)"
        )
    if len(dtypes) > 1 or not params[0].is_floating_point():
        raise InputError(
            f"expected parameters of one real dtype, found {', '.join(dtypes)}: net.to(dtype)"
        )


def copy_of(module: nn.Module) -> nn.Module:
    """Return a deep copy.

    Some modules keep results of their last forward pass (the former weight_norm does), which
    PyTorch refuses to copy: the copy has their values. Parameters of a TorchScript copy depend on
    the original ones; here, they do not.
    """
    results = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    copied = copy.deepcopy(module, results)
    for new, old in zip(copied.parameters(), module.parameters(), strict=True):
        if not new.is_leaf:
            new.detach_().requires_grad_(old.requires_grad)
    return copied


def in_float64(module: nn.Module) -> nn.Module:
    """Return a copy in float64, with the tensors in plain attributes of modules."""
    twin = copy_of(module).double()
    for part in twin.modules():
        plain = {name: v for name, v in vars(part).items() if not name.startswith("_")}
        for name, value in plain.items():
            if tensors(value):
                setattr(part, name, to_dtype(value, torch.float64))
    return twin


@torch.no_grad()
def displace(net: nn.Module, relative: float, seed: int) -> None:
    """Move each parameter by about ``relative`` of its size; zeros by as much of the typical size.

    Signs stay, as some parameters must be positive.
    """
    params = [p for p in net.parameters() if p.is_floating_point()]
    squares = sum(float(p.double().square().sum()) for p in params)
    typical = (squares / max(1, sum(p.numel() for p in params))) ** 0.5 or 1.0
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        noise = torch.randn(p.shape, generator=generator).clamp(-4, 4).to(p)
        p.add_(relative * noise * torch.where(p == 0, typical, p))
