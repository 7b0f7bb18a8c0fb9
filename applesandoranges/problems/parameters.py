"""Parameters and buffers of a network: as vectors, by name, and their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from skerch.errors import InputError


def trainable(net: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that span the Hessian, by name and in order."""
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


def parameter_vector(net: nn.Module, names: Iterable[str] | None = None) -> Tensor:
    """Return all trainable parameters, or those of some ``names``, as one vector, ``[D]``."""
    own = trainable(net)
    return parameters_to_vector(own[name] for name in (own if names is None else names)).detach()


def parameter_shapes(net: nn.Module, names: Iterable[str] | None = None) -> dict[str, list[int]]:
    """Return the shapes of all trainable parameters, or those of some ``names``, in their order."""
    own = trainable(net)
    return {name: list(own[name].shape) for name in (own if names is None else names)}


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__


def _of_group(name: str, param: nn.Parameter, module: nn.Module) -> str:
    if _is_norm(module):
        return "norms"
    return "biases" if "bias" in name.rpartition(".")[2] or param.ndim < 2 else "weights"


def select(net: nn.Module, patterns: str) -> list[str]:
    """Return the names of the trainable parameters that patterns choose, in their order.

    Args:
        net: The network.
        patterns: Separated by commas, maybe in brackets: shell-style patterns of names
            (``*.weight``) or of layers (``layer1``), or the groups ``weights``, ``biases`` and
            ``norms`` (all of normalisations). Those with a leading ``-`` or ``!`` are left out of
            what the others choose, which is all if there are no others.

    Raises:
        InputError: If a pattern matches nothing, or nothing is left.
    """
    own = trainable(net)
    modules = dict(net.named_modules())
    groups = {n: _of_group(n, p, modules[n.rpartition(".")[0]]) for n, p in own.items()}
    text = patterns.strip()
    inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    words = [word.strip().strip("'\"") for word in inside.split(",") if word.strip()]
    chosen, left_out = set[str](), set[str]()
    for word in words:
        pattern = word.lstrip("-!")
        found = {name for name in own if groups[name] == pattern or _matches(name, pattern)}
        if not found:
            some = ", ".join([*own][:5]) + (", ..." if len(own) > 5 else "")
            raise InputError(f"PARAMETERS: {word!r} matches none of the parameters {some}")
        if pattern == word:
            chosen |= found
        else:
            left_out |= found
    if all(word[0] in "-!" for word in words):
        chosen = set(own)
    names = [name for name in own if name in chosen - left_out]
    if not names:
        raise InputError(f"PARAMETERS={patterns}: no parameters are left")
    return names


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def untrained_state(net: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the buffers (BatchNorm statistics) and frozen parameters by name.

    Those of dtypes that files do not know (``bfloat16``) are ``float32`` in it.
    """
    return {name: storable(value).detach().clone() for name, value in _untrained(net).items()}


def storable(value: Tensor) -> Tensor:
    """Return a tensor in a dtype that NumPy and HDF5 know: ``float32`` instead of shorter ones."""
    is_known = value.dtype in (torch.float16, torch.float32, torch.float64)
    return value if is_known or not value.is_floating_point() else value.float()


def _untrained(net: nn.Module) -> dict[str, Tensor]:
    frozen = {name: p for name, p in net.named_parameters() if not p.requires_grad}
    return {**frozen, **dict(net.named_buffers())}


def load_state(net: nn.Module, params: Tensor, untrained: Mapping[str, Tensor]) -> None:
    """Set all parameters and buffers of ``net``.

    Raises:
        InputError: If they are not those of this network.
    """
    targets = trainable(net)
    dim = sum(p.numel() for p in targets.values())
    if tuple(params.shape) != (dim,):
        raise InputError(f"expected {dim} parameters, got {tuple(params.shape)}")
    load_untrained(net, untrained)
    first = next(iter(targets.values()))
    with torch.no_grad():
        vector_to_parameters(params.to(first), targets.values())


@torch.no_grad()
def load_untrained(net: nn.Module, untrained: Mapping[str, Tensor]) -> None:
    """Set buffers and frozen parameters of ``net``.

    Raises:
        InputError: If they are not those of this network.
    """
    own = _untrained(net)
    if own.keys() != untrained.keys():
        wrong = sorted(own.keys() ^ untrained.keys())
        raise InputError(
            "the recorded buffers and frozen parameters are not those of the network: "
            f"{wrong[:5]}; record again what earlier versions recorded without frozen parameters"
        )
    for name, value in untrained.items():
        own[name].copy_(value)


def named_hash(tensors: Mapping[str, Tensor], text: str) -> str:
    """Return a SHA-256 over named tensors, whatever their order, and a text."""
    names = sorted(tensors)
    labels = torch.frombuffer(bytearray(f"{names}{text}".encode()), dtype=torch.uint8)
    return tensor_hash(labels, *(tensors[name] for name in names))


def state_hash(params: Tensor, untrained: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 over a state, whatever the order of its buffers and frozen parameters."""
    return tensor_hash(params, *(untrained[name] for name in sorted(untrained)))


def tensor_hash(*tensors: Tensor) -> str:
    """Return a SHA-256 over dtypes, shapes and contents, the same on every device."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
