"""Decompositions of measurements in a store, under the names of the user's document."""

from . import INNER_FMT, LO_FMT, RO_FMT
from .a_priori import check_sizes
from .core.orthogonal import cholesky_qr, householder_basis, orthogonalize, triangular_factor, tsqr
from .core.row_blocks import RowBlocks
from .core.sketch import (
    apply_ssrft_to_columns,
    budget_beside_core,
    core_pinv_solve,
    solve_core_seigh,
    solve_core_ssvd,
)
from .results import Eigh, truncate_core
from .store.layout import create_hdf5_layout
from .store.measurements import DistributedHDF5

__all__ = [
    "INNER_FMT",
    "LO_FMT",
    "RO_FMT",
    "DistributedHDF5",
    "Eigh",
    "RowBlocks",
    "apply_ssrft_to_columns",
    "budget_beside_core",
    "check_sizes",
    "cholesky_qr",
    "core_pinv_solve",
    "create_hdf5_layout",
    "householder_basis",
    "orthogonalize",
    "solve_core_seigh",
    "solve_core_ssvd",
    "triangular_factor",
    "truncate_core",
    "tsqr",
]
