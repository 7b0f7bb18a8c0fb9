"""Devices by name, and the memory budget.

Torch is imported where it is needed: keys are checked without it.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from skerch.budget import default_memory_budget
from skerch.errors import InputError

from .keys import key

if TYPE_CHECKING:
    import torch


#: Bytes that programs count in 64 bits.
_ADDRESSES = 2**63


def default_device() -> str:
    """Return ``cuda`` where it is available, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_key() -> Any:
    """Return the key ``DEVICE``."""
    return key("cpu, cuda, cuda:1, ...", default_device, shown="cuda if available")


def parse_device(name: str) -> torch.device:
    """Return the device called ``name``.

    Raises:
        InputError: If there is no such device on this machine.
    """
    import torch

    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError):
        there = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise InputError(
            f"DEVICE={name} is not available here; there is {', '.join(there)}"
        ) from None
    return device


def budget_bytes(gigabytes: float | None) -> int:
    """Return a memory budget in bytes; ``None`` means a quarter of the machine.

    Raises:
        InputError: If it is not a positive number, or more than any machine can address.
    """
    if gigabytes is None:
        return default_memory_budget()
    size = gigabytes * 1e9
    if not 0 < size < _ADDRESSES:  # nor NaN
        raise InputError(
            f"MEMORY_BUDGET_GB must be a positive number below {_ADDRESSES / 1e9:.1e}, "
            f"got {gigabytes}"
        )
    return int(size)


#: Parameters of glibc's ``mallopt``, from ``malloc.h``.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def _mallopt(parameter: int, value: int) -> None:
    # Other C libraries have no such settings; there is nothing to be done there.
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(parameter, value)


def return_freed_memory() -> None:
    """Let blocks from 16 MB on go back to the system as soon as they are freed, with glibc.

    Otherwise it keeps freed blocks of up to 32 MB, and twice as much of the end of its memory, for
    later, and what is resident exceeds what is in use by hundreds of MB. For analyses, which
    stream. The blocks that they stream are smaller: they are used again, not cleared each time.
    """
    _mallopt(_M_MMAP_THRESHOLD, 2**24)
    _mallopt(_M_TRIM_THRESHOLD, 2**26)


def keep_freed_memory() -> None:
    """Let the process keep freed blocks of up to 1 GB for later, with glibc.

    Otherwise blocks of more than 32 MB, such as the activations of a convolution, come from the
    system each time, which clears them first. For networks, which need the same blocks again and
    again.
    """
    _mallopt(_M_MMAP_THRESHOLD, 2**30)
    _mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def allow_tf32(allowed: bool) -> None:
    """Say whether GPUs may round factors of matrix products and convolutions to TensorFloat-32.

    PyTorch allows it for convolutions unless told otherwise. It has 10 bits of mantissa: products
    of curvature then have errors of about 1e-3 instead of 1e-6.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
