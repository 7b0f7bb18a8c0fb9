"""Principal angles of two subspaces, from whatever says most of them at the least cost.

Of bases at hand, :func:`principal_angles` resolves small and large angles alike; where ``A^T B``
alone is left of bases with millions of rows, :func:`principal_angles_of_ranks` takes cosines alone.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import svdvals
from torch import Tensor

from skerch.errors import InputError


def _angles(cosines: np.ndarray, sines: np.ndarray) -> np.ndarray:
    # Cosines lose small angles, sines lose large ones; together they lose neither, and a cosine
    # that rounding took beyond 1 does no harm.
    sines = np.pad(sines, (0, len(cosines) - len(sines)))
    return np.arctan2(np.sort(sines), np.sort(cosines)[::-1])


def principal_angles(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Return the principal angles of two orthonormal bases ``[D, k]``, ascending, ``[k]``.

    Cosines are the singular values of ``A^T B``, sines those of ``(I - A A^T) B`` (Björck and
    Golub 1973).

    Raises:
        InputError: If the shapes differ.
    """
    if A.shape != B.shape or A.ndim != 2:
        raise InputError(f"expected two bases of one shape [D, k], got {A.shape} and {B.shape}")
    M = A.T @ B
    return _angles(svdvals(M), svdvals(B - A @ M))


def mask_angles(A: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the principal angles of a basis ``[D, k]`` and a mask of ``k`` coordinates.

    Cosines and sines are the singular values of the rows inside and outside of the mask.
    """
    inside, outside = A[mask], A[~mask]
    return _angles(svdvals(inside), svdvals(outside) if len(outside) else np.zeros(0))


def masks_angles(mask: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the principal angles of two masks: 0 for each common coordinate, else pi/2."""
    common, k = int((mask & other).sum()), int(mask.sum())
    return np.repeat([0.0, np.pi / 2], [common, k - common])


def principal_angles_of_ranks(M: Tensor, ranks: list[int]) -> dict[str, np.ndarray]:
    """Return the principal angles of nested subspaces at some ranks, by the rank as text.

    Args:
        M: ``A^T B``, ``[n, n]``; rows of eigenvectors in the order of a mask, if ``A`` is one.
        ranks: Each at most ``n``.

    Returns:
        Angles in radians, ascending, ``[k]`` each; those below 1e-8 are not resolved, as they come
        from their cosines alone.
    """
    array = M.cpu().numpy()
    return {str(k): np.arccos(np.minimum(svdvals(array[:k, :k]), 1.0)) for k in ranks}
