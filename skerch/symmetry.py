"""Whether an operator is symmetric, for decompositions that only hold then."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

from .errors import InputError

log = logging.getLogger(__name__)

#: ``||A - A^T||_F / ||A||_F`` up to which a matrix counts as symmetric: products in float32 and
#: finite differences leave no more.
MAX_ASYMMETRY = 1e-3
#: Rows that are compared at a time.
ROWS = 1024


def check_symmetric(matrix: Any) -> None:
    """Raise :class:`InputError` for a matrix that is not symmetric.

    Cost: no product; one pass over the numbers. Of operators that are no matrices nothing is known
    before they are multiplied; see :func:`warn_if_asymmetric`.

    Args:
        matrix: Dense or sparse tensor, NumPy array or SciPy matrix; anything else passes.
    """
    if isinstance(matrix, Tensor) and matrix.layout == torch.strided:
        asymmetry = _of_dense(matrix)
    elif isinstance(matrix, np.ndarray):
        asymmetry = _of_dense(torch.as_tensor(np.ascontiguousarray(matrix)))
    elif isinstance(matrix, Tensor):
        A = matrix.to_sparse(sparse_dim=2)
        asymmetry = _ratio(_norm(A - A.T), _norm(A))
    elif scipy.sparse.issparse(matrix):
        norm, matrix = scipy.sparse.linalg.norm, matrix.astype(np.float64)  # of truth values, too
        asymmetry = _ratio(float(norm(matrix - matrix.T)), float(norm(matrix)))
    else:
        return
    if asymmetry > MAX_ASYMMETRY:
        raise InputError(
            f"operator: expected a symmetric matrix, got one with ||A - A^T|| = {asymmetry:.2g} "
            "||A||; ssvd takes others, (A + A.T) / 2 is symmetric"
        )


def relative_asymmetry(A: Tensor) -> float:
    """Return ``||A - A^T||_F / ||A||_F`` of a small matrix, ``[n, n]``; 0 if it is zero."""
    return float((A - A.T).norm() / A.norm().clamp_min(1e-300))


def warn_if_asymmetric(asymmetry: float) -> None:
    """Warn if the products of an operator are not those of a symmetric one.

    Args:
        asymmetry: Of a Rayleigh quotient ``V^T A V``, relative to its norm.
    """
    if asymmetry > MAX_ASYMMETRY:
        log.warning(
            "the operator is not symmetric, or changes from product to product: V^T A V is off by "
            "%.2g, relative to its norm; the result does not hold",
            asymmetry,
        )


def _of_dense(A: Tensor) -> float:
    difference = total = 0.0
    for begin in range(0, len(A), ROWS):
        rows = A[begin : begin + ROWS].double()
        columns = A[:, begin : begin + ROWS].T.double()
        difference += float((rows - columns).square().sum())
        total += float(rows.square().sum())
    return _ratio(difference**0.5, total**0.5)


def _norm(A: Tensor) -> float:
    return float(A.coalesce().values().double().norm())


def _ratio(difference: float, norm: float) -> float:
    return difference / norm if norm > 0 else 0.0
