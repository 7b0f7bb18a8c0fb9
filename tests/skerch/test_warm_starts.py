"""First blocks that are not only random: what they gain, and that wrong ones hide nothing."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from skerch import block_krylov, hmt
from skerch.core.krylov import warm_columns
from skerch.ssrft import SSRFT
from skerch.store.basis import write_warm_block
from skerch.synthmat import SynthMat
from skerch.utils import InputError

pytestmark = pytest.mark.numerical

F32, F64 = torch.float32, torch.float64
D, RANK, BLOCK, SEED = 200, 20, 20, 3
SOLVERS = {
    "hmt": lambda H, **kw: hmt(H, RANK, SEED, **kw),
    "krylov": lambda H, **kw: block_krylov(H, RANK, 3, BLOCK, SEED, **kw),
}
each_solver = pytest.mark.parametrize("solve", SOLVERS.values(), ids=SOLVERS)


@pytest.fixture(scope="module")
def H():
    return SynthMat.poly_decay((D, D), 1, 0.8, seed=21, psd=False)


@pytest.fixture(scope="module")
def exact(H):
    S, V = torch.linalg.eigh(H)
    order = S.abs().argsort(descending=True)
    return S[order], V[:, order]


def true_residuals(H, found):
    V = found.vectors()
    return (H @ V - V * found.S).norm(dim=0)


def missed(exact, found, k=RANK // 2):
    return float(1 - (exact[1][:, :k].T @ found.vectors(k)).square().sum() / k)


@pytest.mark.parametrize(
    ("available", "width", "expected"), [(355, 355, 319), (9, 20, 9), (20, 20, 18), (5, 1, 0)]
)
def test_some_columns_are_always_random(available, width, expected):
    assert warm_columns(available, width) == expected


@pytest.mark.parametrize("m", [1, 12, 40])
def test_the_first_block_spans_start_and_random_columns(H, m, dense_ssrft, gaussian, assert_close):
    warm, shared = gaussian(D, m), min(m, 18)
    fresh = dense_ssrft((BLOCK - shared, D), SEED + 1).T
    Q = np.linalg.qr(torch.cat([warm[:, :shared], fresh], dim=1).numpy())[0]
    Q = np.linalg.qr(np.concatenate([Q, H.numpy() @ Q], axis=1))[0]
    ritz = np.linalg.eigvalsh(Q.T @ H.numpy() @ Q)
    found = block_krylov(H, 2 * BLOCK, 2, BLOCK, SEED, start=warm)
    assert_close(found.S, ritz[np.argsort(-np.abs(ritz))], tol=1e-11)
    assert found.num_products == 2 * BLOCK


@pytest.mark.parametrize("budget", [None, 40_000], ids=["at once", "by slices"])
def test_a_first_block_on_disk_spans_start_and_random_columns(
    tmp_path, gaussian, dense_ssrft, assert_close, budget
):
    warm, Psi = gaussian(D, 9), SSRFT((BLOCK - 7, D), SEED)
    path = tmp_path / "basis.h5"
    options = {"dtype": np.dtype("float64"), "provenance": {"a": 1}, "memory_budget": budget}
    step = write_warm_block(path, warm, 7, Psi, **options)
    assert step.rank == BLOCK
    assert [p.name for p in tmp_path.iterdir()] == ["basis.h5"]
    with h5py.File(path) as file:
        V = torch.from_numpy(file["data"][:])
    eye = torch.eye(BLOCK, dtype=V.dtype)
    assert_close(V.T @ V, eye, tol=1e-12)
    for columns in (warm[:, :7], dense_ssrft((BLOCK - 7, D), SEED).T):
        assert_close(V @ (V.T @ columns), columns, tol=1e-12)


@each_solver
def test_eigenvectors_of_a_neighbour_are_a_better_start(H, exact, solve, gaussian):
    noise = gaussian(D, D, seed=1)
    neighbour = H + 1e-3 * float(H.norm()) / D * (noise + noise.T)
    S, V = torch.linalg.eigh(neighbour)
    start = V[:, S.abs().argsort(descending=True)[:RANK]]
    assert missed(exact, solve(H, start=start)) < 0.2 * missed(exact, solve(H))


@each_solver
def test_a_hostile_start_hides_no_direction(H, exact, solve):
    """It is orthogonal to all that is wanted, and to no more than random columns make up for."""
    hostile = exact[1][:, RANK : 2 * RANK]
    found = solve(H, start=hostile)
    torch.testing.assert_close(
        found.residual_norms, true_residuals(H, found), rtol=1e-9, atol=1e-12
    )
    leading = block_krylov(H, 4, 30, BLOCK // 2, SEED, start=exact[1][:, -BLOCK:])
    torch.testing.assert_close(leading.S, exact[0][:4], rtol=1e-9, atol=0)


@each_solver
@pytest.mark.parametrize("scale", [1e8, 1e-20, 1e30, 1e-30])
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_the_scale_of_a_start_counts_for_nothing(H, exact, solve, scale, dtype):
    """Neither the random columns nor those of the start may be round-off beside the others."""
    start, tol = exact[1][:, RANK : 2 * RANK].to(dtype), 1e-4 if dtype == F32 else 1e-10
    expected, found = (solve(H.to(dtype), start=s, dtype=dtype) for s in (start, start * scale))
    torch.testing.assert_close(found.S, expected.S, rtol=tol, atol=tol)
    assert found.diagnostics["basis_columns"] == expected.diagnostics["basis_columns"]


@pytest.mark.parametrize("scale", [1e8, 1e-30])
def test_the_scale_of_a_start_on_disk_counts_for_nothing(tmp_path, gaussian, scale):
    warm = gaussian(D, 7)
    warm[:, 3] = 0  # of no use, and no NaN
    options = {"dtype": np.dtype("float32"), "provenance": {}}
    for name, vectors in (("one", warm), ("other", warm * scale)):
        step = write_warm_block(tmp_path / name, vectors, 7, SSRFT((BLOCK - 7, D), SEED), **options)
        assert step.rank == BLOCK - 1
    one, other = (h5py.File(tmp_path / name)["data"][:] for name in ("one", "other"))
    np.testing.assert_allclose(one @ (one.T @ other), other, atol=1e-5)


def test_exact_vectors_alone_would_hide_the_others(H, exact):
    """What the random share is for: its one column finds the leading ones nevertheless."""
    found = block_krylov(H, RANK, 8, 10, SEED, start=exact[1][:, RANK : RANK + 10])
    assert float((found.S[:2] / exact[0][:2] - 1).abs().max()) < 1e-2


@each_solver
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_the_answer_itself_is_a_start(H, exact, solve, dtype):
    found = solve(H.to(dtype), start=exact[1][:, : BLOCK - 2].to(dtype), dtype=dtype)
    tol = 1e-5 if dtype == F32 else 1e-12
    torch.testing.assert_close(found.S[:10], exact[0][:10], rtol=0, atol=tol)


@each_solver
def test_dependent_columns_leave_a_narrower_block(H, solve):
    start = torch.ones(D, 10, dtype=F64)
    found = solve(H, start=start)
    torch.testing.assert_close(
        found.residual_norms, true_residuals(H, found), rtol=1e-9, atol=1e-12
    )
    V = found.vectors()
    assert float((V.T @ V - torch.eye(V.shape[1], dtype=F64)).abs().max()) < 1e-11


@each_solver
def test_the_provenance_names_the_start(H, exact, solve):
    one, other = (solve(H, start=exact[1][:, k : k + 5]).provenance["start"] for k in (0, 5))
    assert one != other
    assert len(one) == 64
    assert "start" not in solve(H).provenance


@each_solver
@pytest.mark.parametrize(
    ("start", "message"),
    [
        (torch.ones(D - 1, 3), r"expected vectors \[200, m\], got shape \(199, 3\)"),
        (torch.ones(D), "got shape"),
        (torch.ones(D, 0), "got shape"),
        (torch.full((D, 3), float("nan")), "NaN or infinite"),
        (torch.ones(D, 3, dtype=torch.int64), "expected a torch tensor"),
    ],
    ids=["rows", "dimensions", "none", "nan", "integers"],
)
def test_what_cannot_be_a_start_is_refused(H, solve, start, message):
    with pytest.raises(InputError, match=f"^start: .*{message}"):
        solve(H, start=start)
