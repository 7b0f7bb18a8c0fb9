"""Measurements of an operator by index, and their store, under the names of the user's document."""

from . import INNER_FMT, LO_FMT, RO_FMT
from .core.products import (
    InnerMeasurements,
    MatrixColumns,
    innermeas_batch_torch,
    innermeas_idx_torch,
    linmeas_batch_torch,
    linmeas_idx_torch,
    ssrft_batch_torch,
    ssrft_idx_torch,
)
from .store.measurements import DistributedHDF5

__all__ = [
    "INNER_FMT",
    "LO_FMT",
    "RO_FMT",
    "DistributedHDF5",
    "InnerMeasurements",
    "MatrixColumns",
    "innermeas_batch_torch",
    "innermeas_idx_torch",
    "linmeas_batch_torch",
    "linmeas_idx_torch",
    "ssrft_batch_torch",
    "ssrft_idx_torch",
]
