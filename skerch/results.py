"""Decompositions as low-rank operators: eigenpairs and singular triplets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from .core.row_blocks import RowBlocks
from .errors import InputError


@dataclass(frozen=True)
class Eigh:
    """Eigenpairs ``H ~ V diag(S) V^T`` with ``V = Y T U``, by descending magnitude.

    Attributes:
        S: Eigenvalues ``[k]``, float64.
        U: Eigenvectors of the core, ``[r, k]`` with ``k <= r``.
        Y: Outer measurements or basis ``[D, n]``, by row blocks.
        T: Orthonormalising factor ``[n, r]``.
        diagnostics: What the solver found out on its way (core asymmetry, conditioning, ...).
        residual_norms: ``||H v - s v||`` of each pair, ``[k]``; ``None`` where one pass over the
            operator does not tell.
        num_products: Products with the operator that this took; ``None`` if it is not known.
    """

    S: Tensor
    U: Tensor
    Y: RowBlocks
    T: Tensor
    diagnostics: dict[str, float | str] = field(default_factory=dict)
    residual_norms: Tensor | None = None
    num_products: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Shape ``(D, D)`` of the approximated operator."""
        return self.Y.shape[0], self.Y.shape[0]

    def vectors(self, k: int | None = None) -> Tensor:
        """Return the first ``k`` eigenvectors, ``[D, k]``."""
        return self.Y.matmul(self.T @ self.U[:, :k])

    @property
    def basis(self) -> Tensor:
        """``T U``, ``[n_o, r]``: the eigenvectors are ``V = Y (T U)``."""
        return self.T @ self.U

    def vector_rows(self, idxs: Tensor) -> Tensor:
        """Return rows ``idxs`` of the eigenvectors, ``[len(idxs), k]``."""
        return self.Y.rows(idxs) @ self.basis

    def project(self, *Xs: Tensor) -> Tensor:
        """Return ``V^T [X_1 X_2 ...]`` for ``X_i`` ``[D, K_i]``; one pass over the measurements."""
        return self.basis.T @ self.Y.t_matmul(*Xs)

    def __matmul__(self, X: Tensor) -> Tensor:
        """Multiply the low-rank approximation with ``X`` of shape ``[D, K]``."""
        return self.Y.matmul(self.basis @ (self.S[:, None] * self.project(X))).to(X.dtype)

    def truncated(self, k: int) -> Eigh:
        """Return the approximation by the first ``k`` pairs."""
        S, U = truncate_core(k, self.S, self.U)
        residuals = None if self.residual_norms is None else self.residual_norms[:k]
        return replace(self, S=S, U=U, residual_norms=residuals)


def truncate_core(k: int, S: Tensor, U: Tensor, Vh: Tensor | None = None) -> tuple[Tensor, ...]:
    """Keep the first ``k`` values and vectors: ``(S, U)`` or ``(S, U, Vh)``."""
    if not 1 <= k <= len(S):
        raise InputError(f"truncation rank must lie in [1, {len(S)}], got {k}")
    return (S[:k], U[:, :k]) if Vh is None else (S[:k], U[:, :k], Vh[:k])


@dataclass(frozen=True)
class Ssvd:
    """``A ~ (Q_left U) diag(S) (Vh Q_right^T)``; ``Q_left [H, r]``, ``Q_right [W, r]``."""

    Q_left: Tensor
    U: Tensor
    S: Tensor
    Vh: Tensor
    Q_right: Tensor

    def to_dense(self) -> Tensor:
        """Return the approximation as a ``[H, W]`` matrix."""
        return (self.Q_left @ self.U * self.S) @ (self.Vh @ self.Q_right.T)

    def truncated(self, k: int) -> Ssvd:
        """Return the approximation by the first ``k`` triplets."""
        S, U, Vh = truncate_core(k, self.S, self.U, self.Vh)
        return Ssvd(self.Q_left, U, S, Vh, self.Q_right)
