"""Sketched, matrix-free decompositions of linear operators with PyTorch.

The mathematics follows Tropp, Yurtsever, Udell and Cevher 2019, "Streaming Low-rank Matrix
Approximation with an Application to Scientific Simulation" (arXiv 1902.08651), quoted as
[TYUC2019] throughout, specialised to symmetric operators.

What the public names need is imported when they are first used: file names and errors take no
torch, decompositions in memory no HDF5.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .decompositions import block_krylov, hmt, nystrom, seigh, ssvd
    from .results import Eigh, Ssvd
    from .ssrft import SSRFT

#: File names of the measurements in a store: outer from the left and the right, and inner ones; and
#: of the blocks of a basis.
LO_FMT = "leftouter_{}.h5"
RO_FMT = "rightouter_{}.h5"
INNER_FMT = "inner_{}.h5"
BASIS_FMT = "basis_{}.h5"

__all__ = [
    "BASIS_FMT",
    "INNER_FMT",
    "LO_FMT",
    "RO_FMT",
    "SSRFT",
    "Eigh",
    "Ssvd",
    "block_krylov",
    "hmt",
    "nystrom",
    "seigh",
    "ssvd",
]

_HOMES = {
    **dict.fromkeys(("block_krylov", "hmt", "nystrom", "seigh", "ssvd"), "decompositions"),
    **dict.fromkeys(("Eigh", "Ssvd"), "results"),
    "SSRFT": "ssrft",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
