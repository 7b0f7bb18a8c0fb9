"""Random measurements of an operator, one or a block at a time.

Every measurement is a function of its index and the seeds alone, so it does not matter which job
takes which index, or in which blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..adapters import adapt
from ..errors import InputError, NumericalError
from ..operands import check_dtype
from ..ssrft import SSRFT
from ..utils import same_memory

__all__ = [
    "InnerMeasurements",
    "MatrixColumns",
    "innermeas_batch_torch",
    "innermeas_idx_torch",
    "linmeas_batch_torch",
    "linmeas_idx_torch",
    "ssrft_batch_torch",
    "ssrft_idx_torch",
]


class MeasurementRows(Protocol):
    """Anything that makes measurement vectors by index, such as :class:`~skerch.ssrft.SSRFT`."""

    def rows(self, idxs: Sequence[int], dtype: torch.dtype = ...) -> Tensor:
        """Return measurement vectors ``idxs`` as rows."""
        ...


class MatrixColumns:
    """Columns of a matrix ``[D, n]`` (tensor or HDF5 data set) as measurement vectors."""

    def __init__(self, matrix: Any, device: torch.device | str = "cpu"):
        self.matrix = matrix
        self.device = device

    def rows(self, idxs: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Return columns ``idxs`` as rows, ``[len(idxs), D]``."""
        num = self.matrix.shape[1]
        if wrong := [i for i in idxs if not 0 <= i < num]:
            raise InputError(f"column indices must lie in [0, {num}), got {wrong}")
        # A column that is read alone costs HDF5 as much as a run of neighbours.
        breaks = [k for k in range(1, len(idxs)) if idxs[k] != idxs[k - 1] + 1]
        runs = zip([0, *breaks], [*breaks, len(idxs)], strict=True)
        parts = [self.matrix[:, idxs[begin] : idxs[end - 1] + 1] for begin, end in runs]
        columns = torch.cat([same_memory(part) for part in parts], dim=1)
        return columns.T.to(self.device, dtype).contiguous()


def linmeas_batch_torch(
    idxs: Sequence[int],
    op: Any,
    vectors: MeasurementRows,
    dtype: torch.dtype = torch.float32,
    adjoint: bool = False,
) -> Tensor:
    """Multiply ``op`` (``[H, W]``) with the measurement vectors ``idxs``.

    Cost: ``len(idxs)`` products, in one block.

    Args:
        idxs: Indices of the vectors.
        op: The operator, whatever :func:`skerch.as_linop` takes.
        vectors: Makes the vectors, of length ``W`` (``H`` if ``adjoint``).
        dtype: In which to compute.
        adjoint: Multiply from the left instead.

    Returns:
        ``[H, K]``, or ``[W, K]`` if ``adjoint``.

    Raises:
        InputError: If dtypes or shapes are not what they should be.
        NumericalError: If a product is not finite; the line names the index.
    """
    check_dtype(dtype)
    A = adapt(op, dtype=dtype)
    V = vectors.rows(list(idxs), dtype)
    result = (V @ A).T if adjoint else A @ V.T
    finite = torch.isfinite(result).all(dim=0)
    if not bool(finite.all()):
        bad = [idx for idx, ok in zip(idxs, finite.tolist(), strict=True) if not ok]
        raise NumericalError(
            f"the operator's product is NaN or infinite for measurements {bad}", bad
        )
    return result


def linmeas_idx_torch(
    idx: int,
    op: Any,
    vectors: MeasurementRows,
    dtype: torch.dtype = torch.float32,
    adjoint: bool = False,
) -> Tensor:
    """Return linear measurement ``idx``, ``[H]``; see :func:`linmeas_batch_torch`."""
    return linmeas_batch_torch([idx], op, vectors, dtype, adjoint)[:, 0]


def ssrft_batch_torch(
    idxs: Sequence[int],
    op: Any,
    num_measurements: int,
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    adjoint: bool = False,
) -> Tensor:
    """Return SSRFT measurements ``idxs`` out of ``num_measurements``, ``[H, K]``.

    Draws the transform anew; jobs that take several blocks make one
    :class:`~skerch.ssrft.SSRFT` and call :func:`linmeas_batch_torch`.
    """
    dim = op.shape[0] if adjoint else op.shape[1]
    return linmeas_batch_torch(
        idxs, op, SSRFT((num_measurements, dim), seed, device), dtype, adjoint
    )


def ssrft_idx_torch(
    idx: int,
    op: Any,
    num_measurements: int,
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    adjoint: bool = False,
) -> Tensor:
    """Return SSRFT measurement ``idx``, ``[H]``; see :func:`ssrft_batch_torch`."""
    return ssrft_batch_torch([idx], op, num_measurements, seed, dtype, device, adjoint)[:, 0]


@dataclass(frozen=True)
class InnerMeasurements:
    """A block of ``K`` inner measurements and the vectors that they come from.

    Attributes:
        outer: ``A psi_i``, ``[H, K]``: outer measurements for free.
        inner: ``Phi A psi_i``, ``[n_i, K]``.
    """

    outer: Tensor
    inner: Tensor


def innermeas_batch_torch(
    idxs: Sequence[int], op: Any, Phi: SSRFT, Psi: SSRFT, dtype: torch.dtype = torch.float32
) -> InnerMeasurements:
    """Return inner measurements ``Phi A psi_i`` with the products ``A psi_i`` themselves.

    Cost: ``len(idxs)`` products, in one block, and as many transforms from each side.

    Args:
        idxs: Indices in ``[0, n_i)``.
        op: Operator of shape ``[H, W]``.
        Phi: Left SSRFT, ``[n_i, H]``.
        Psi: Right SSRFT, ``[n_i, W]``.
        dtype: In which to compute.
    """
    outer = linmeas_batch_torch(idxs, op, Psi, dtype)
    return InnerMeasurements(outer, Phi @ outer)


def innermeas_idx_torch(
    idx: int, op: Any, Phi: SSRFT, Psi: SSRFT, dtype: torch.dtype = torch.float32
) -> InnerMeasurements:
    """Return one inner measurement; see :func:`innermeas_batch_torch`."""
    return innermeas_batch_torch([idx], op, Phi, Psi, dtype)
