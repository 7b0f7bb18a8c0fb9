"""What the tests of ``skerch`` share: tolerances and oracles written down a second time, densely.

Nothing in here calls the package under test.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

#: Largest deviation per dtype, relative to the largest expected number (at least 1).
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5}


@pytest.fixture(scope="session")
def assert_close():
    """``assert_close(actual, expected)`` with the tolerance of ``actual``'s dtype, or ``tol``."""

    def check(actual, expected, tol=None):
        actual = torch.as_tensor(actual)
        expected = torch.as_tensor(expected, dtype=torch.float64)
        assert actual.shape == expected.shape
        scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
        deviation = (actual.double() - expected).abs()
        limit = (TOLERANCE[actual.dtype] if tol is None else tol) * scale
        assert bool((deviation <= limit).all()), f"off by {float(deviation.max())}, not {limit}"

    return check


@pytest.fixture(scope="session")
def gaussian():
    """``gaussian(*shape, seed=...)``: float64 test data."""

    def draw(*shape, seed=0):
        generator = torch.Generator().manual_seed(1000 + seed)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return draw


@pytest.fixture(scope="session")
def orthonormal(gaussian):
    """``orthonormal(D, r, seed=...)``: a float64 matrix ``[D, r]`` with orthonormal columns."""
    return lambda D, r, seed=0: torch.linalg.qr(gaussian(D, r, seed=seed)).Q


@pytest.fixture(scope="session")
def dense_ssrft():
    """``dense_ssrft((k, D), seed)``: the SSRFT as a product of explicit matrices, in float64."""

    def drawn(what, D, seed):
        return what(D, generator=torch.Generator().manual_seed(seed))

    def signed_permutation(D, seed):
        P = np.zeros((D, D))
        P[np.arange(D), drawn(torch.randperm, D, seed).numpy()] = 1
        signs = np.where(drawn(torch.rand, D, seed + 1).numpy() > 0.5, 1.0, -1.0)
        return np.diag(signs) @ P

    def make(shape, seed):
        k, D = shape
        n, j = np.arange(D)[None], np.arange(D)[:, None]
        F = math.sqrt(2 / D) * np.cos(math.pi * (2 * n + 1) * j / (2 * D))
        F[0] /= math.sqrt(2)
        scrambled = F @ signed_permutation(D, seed + 2) @ F @ signed_permutation(D, seed)
        return torch.as_tensor(scrambled[drawn(torch.randperm, D, seed + 4).numpy()[:k]])

    return make


@pytest.fixture(scope="session")
def dense_seigh(dense_ssrft):
    """``dense_seigh(H, outer, inner, seed, symmetrize)``: the recovered matrix, by NumPy."""

    def recover(H, outer, inner, seed, symmetrize):
        H, D = H.numpy(), len(H)
        Phi = dense_ssrft((inner, D), seed).numpy()
        Psi = dense_ssrft((inner, D), seed + 1).numpy()
        Q = np.linalg.qr(H @ Psi[:outer].T)[0]
        C = np.linalg.pinv(Phi @ Q) @ (Phi @ H @ Psi.T) @ np.linalg.pinv(Psi @ Q).T
        C = (C + C.T) / 2 if symmetrize else np.tril(C) + np.tril(C, -1).T
        return torch.as_tensor(Q @ C @ Q.T)

    return recover


@pytest.fixture(scope="session")
def mixed_sign(orthonormal):
    """``mixed_sign(D, eigenvalues, seed=...)``: a symmetric ``[D, D]`` of exactly that rank."""

    def make(D, eigenvalues, seed=0):
        V = orthonormal(D, len(eigenvalues), seed)
        return (V * torch.tensor(eigenvalues, dtype=torch.float64)) @ V.T

    return make
