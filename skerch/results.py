"""Decompositions as low-rank operators: eigenpairs and singular triplets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .core.row_blocks import RowBlocks
from .errors import InputError
from .linop import LinOp

if TYPE_CHECKING:
    from .store.files import Provenance


class _Saved(LinOp):
    """A decomposition that can be written to a file."""

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        provenance: Provenance | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write it into an HDF5 file; see :func:`skerch.store.results.save`."""
        from .store.results import save  # imports h5py, which computing does not need

        assert isinstance(self, (Eigh, Ssvd))
        save(self, path, provenance=provenance, overwrite=overwrite)


@dataclass(frozen=True, eq=False, repr=False)
class Eigh(_Saved):
    """Eigenpairs ``H ~ V diag(S) V^T`` with ``V = Y F U``, by descending magnitude.

    An operator itself: ``r @ X``, ``X @ r``, ``r.T`` and everything that takes operators. Unpacking
    gives what ``torch.linalg.eigh`` does: ``S, V = r``.

    Attributes:
        S: Eigenvalues ``[k]``, float64.
        U: Eigenvectors of the core, ``[r, k]`` with ``k <= r``.
        Y: Outer measurements or basis ``[D, n]``, by row blocks.
        factor: Orthonormalising factor ``F``, ``[n, r]``: ``Y F`` has orthonormal columns.
        diagnostics: What the solver found out on its way (core asymmetry, conditioning, ...).
        residual_norms: ``||H v - s v||`` of each pair, ``[k]``; ``None`` where one pass over the
            operator does not tell: :func:`skerch.a_posteriori.residual_norms` does.
        num_products: Products with the operator that this took; ``None`` if it is not known.
        coarser: The same from a basis with about ``k / 2`` columns less, which takes no product; to
            see what more columns change. ``None`` where there is no smaller basis.
        provenance: Method and arguments that made it; empty if it is not known.

    Example:
        >>> import torch
        >>> from skerch import hmt
        >>> result = hmt(torch.diag(torch.arange(1.0, 11.0).double()), 10)
        >>> result
        Eigh(10 x 10, 10 pairs, S = 10 ... 1)
        >>> S, V = result
        >>> torch.allclose(result.to_dense(), (V * S) @ V.T)
        True
        >>> result.truncated(2).S.numpy().round(6).tolist()
        [10.0, 9.0]
    """

    S: Tensor
    U: Tensor
    Y: RowBlocks
    factor: Tensor
    diagnostics: dict[str, float | str] = field(default_factory=dict)
    residual_norms: Tensor | None = None
    num_products: int | None = None
    coarser: Eigh | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", (self.Y.shape[0], self.Y.shape[0]))
        object.__setattr__(self, "device", self.Y.device)

    def __repr__(self) -> str:
        return f"Eigh({self.shape[0]} x {self.shape[1]}, {len(self.S)} pairs, {_range(self.S)})"

    def __iter__(self) -> Iterator[Tensor]:
        """Yield eigenvalues ``[k]`` and eigenvectors ``[D, k]``."""
        yield self.S
        yield self.vectors()

    def vectors(self, k: int | None = None) -> Tensor:
        """Return the first ``k`` eigenvectors, ``[D, k]``, in float64.

        Raises:
            InputError: If there are not as many.
        """
        if k is not None:
            _check_rank(k, self.S)
        return self.Y.matmul(self.factor @ self.U[:, :k])

    @property
    def basis(self) -> Tensor:
        """``F U``, ``[n_o, r]``: the eigenvectors are ``V = Y (F U)``."""
        return self.factor @ self.U

    def vector_rows(self, idxs: Tensor) -> Tensor:
        """Return rows ``idxs`` of the eigenvectors, ``[len(idxs), k]``."""
        return self.Y.rows(idxs) @ self.basis

    def project(self, *Xs: Tensor) -> Tensor:
        """Return ``V^T [X_1 X_2 ...]`` for ``X_i`` ``[D, K_i]``; one pass over the measurements."""
        return self.basis.T @ self.Y.t_matmul(*Xs)

    def _matmat(self, X: Tensor) -> Tensor:
        return self.Y.matmul(self.basis @ (self.S[:, None] * self.project(X))).to(X.dtype)

    def _rmatmat(self, X: Tensor) -> Tensor:
        return self._matmat(X.T).T

    @property
    def T(self) -> Eigh:  # type: ignore[override]
        """The transposed operator: itself."""
        return self

    def to_dense(self) -> Tensor:
        """Return the approximation as a ``[D, D]`` matrix in float64."""
        V = self.vectors()
        return (V * self.S) @ V.T

    def truncated(self, k: int) -> Eigh:
        """Return the approximation by the first ``k`` pairs.

        Raises:
            InputError: If there are not as many.
        """
        S, U = truncate_core(k, self.S, self.U)
        residuals = None if self.residual_norms is None else self.residual_norms[:k]
        return replace(self, S=S, U=U, residual_norms=residuals)


def _range(S: Tensor) -> str:
    return f"S = {float(S[0]):.4g} ... {float(S[-1]):.4g}"


def _check_rank(k: int, S: Tensor) -> None:
    if not 1 <= k <= len(S):
        raise InputError(f"truncation rank must lie in [1, {len(S)}], got {k}")


def truncate_core(k: int, S: Tensor, U: Tensor, Vh: Tensor | None = None) -> tuple[Tensor, ...]:
    """Keep the first ``k`` values and vectors: ``(S, U)`` or ``(S, U, Vh)``."""
    _check_rank(k, S)
    return (S[:k], U[:, :k]) if Vh is None else (S[:k], U[:, :k], Vh[:k])


@dataclass(frozen=True, eq=False, repr=False)
class Ssvd(_Saved):
    """``A ~ (Q_left U) diag(S) (Vh Q_right^T)``; ``Q_left [H, r]``, ``Q_right [W, r]``.

    An operator itself, as :class:`Eigh`. Unpacking gives what ``torch.linalg.svd`` does, the
    singular vectors of ``A`` and not those of its core: ``U, S, Vh = r`` are ``[H, k]``, ``[k]``
    and ``[k, W]``.

    Attributes:
        Q_left, Q_right: Orthonormal bases of range and co-range.
        U, Vh: Singular vectors of the core, ``[r, k]`` and ``[k, r]``.
        S: Singular values ``[k]``, descending.
        diagnostics, num_products, provenance: See :class:`Eigh`.

    Example:
        >>> import torch
        >>> from skerch import ssvd
        >>> A = torch.arange(12.0, dtype=torch.float64).reshape(3, 4)  # of rank 2
        >>> result = ssvd(A, 2, 3)
        >>> result
        Ssvd(3 x 4, 2 triplets, S = 22.41 ... 1.955)
        >>> U, S, Vh = result
        >>> torch.allclose((U * S) @ Vh, A)
        True
    """

    Q_left: Tensor
    U: Tensor
    S: Tensor
    Vh: Tensor
    Q_right: Tensor
    diagnostics: dict[str, float | str] = field(default_factory=dict)
    num_products: int | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", (self.Q_left.shape[0], self.Q_right.shape[0]))
        object.__setattr__(self, "device", self.Q_left.device)

    def __repr__(self) -> str:
        return f"Ssvd({self.shape[0]} x {self.shape[1]}, {len(self.S)} triplets, {_range(self.S)})"

    def __iter__(self) -> Iterator[Tensor]:
        """Yield ``U`` ``[H, k]``, ``S`` ``[k]`` and ``Vh`` ``[k, W]``."""
        yield self.left_vectors()
        yield self.S
        yield self.right_vectors().T

    def left_vectors(self, k: int | None = None) -> Tensor:
        """Return the first ``k`` left singular vectors, ``[H, k]``."""
        return self.Q_left @ self.U[:, :k]

    def right_vectors(self, k: int | None = None) -> Tensor:
        """Return the first ``k`` right singular vectors, ``[W, k]``."""
        return self.Q_right @ self.Vh[:k].T

    def _matmat(self, X: Tensor) -> Tensor:
        inner = self.Vh @ (self.Q_right.T @ X.to(self.S))
        return (self.Q_left @ (self.U @ (self.S[:, None] * inner))).to(X.dtype)

    def _rmatmat(self, X: Tensor) -> Tensor:
        return (self.T @ X.T).T

    @property
    def T(self) -> Ssvd:  # type: ignore[override]
        """The transposed operator."""
        return replace(self, Q_left=self.Q_right, U=self.Vh.T, Vh=self.U.T, Q_right=self.Q_left)

    def to_dense(self) -> Tensor:
        """Return the approximation as a ``[H, W]`` matrix."""
        return (self.Q_left @ self.U * self.S) @ (self.Vh @ self.Q_right.T)

    def truncated(self, k: int) -> Ssvd:
        """Return the approximation by the first ``k`` triplets.

        Raises:
            InputError: If there are not as many.
        """
        S, U, Vh = truncate_core(k, self.S, self.U, self.Vh)
        return replace(self, U=U, S=S, Vh=Vh)
