"""Sketched, matrix-free decompositions of linear operators with PyTorch.

The mathematics follows Tropp, Yurtsever, Udell and Cevher 2019, "Streaming Low-rank Matrix
Approximation with an Application to Scientific Simulation" (arXiv 1902.08651), quoted as
[TYUC2019] throughout, specialised to symmetric operators.

What the public names need is imported when they are first used: file names and errors take no
torch, decompositions in memory no HDF5.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .store_names import BASIS_FMT, INNER_FMT, LO_FMT, RO_FMT

if TYPE_CHECKING:
    from .adapters import as_linop
    from .decompositions import block_krylov, hmt, nystrom, seigh, ssvd
    from .results import Eigh, Ssvd
    from .ssrft import SSRFT
    from .store.results import load

__all__ = [
    "BASIS_FMT",
    "INNER_FMT",
    "LO_FMT",
    "RO_FMT",
    "SSRFT",
    "Eigh",
    "Ssvd",
    "as_linop",
    "block_krylov",
    "hmt",
    "load",
    "nystrom",
    "seigh",
    "ssvd",
]

_HOMES = {
    **dict.fromkeys(("block_krylov", "hmt", "nystrom", "seigh", "ssvd"), "decompositions"),
    **dict.fromkeys(("Eigh", "Ssvd"), "results"),
    "SSRFT": "ssrft",
    "as_linop": "adapters",
    "load": "store.results",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
