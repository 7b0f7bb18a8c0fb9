"""Measurements against dense products, whatever the blocks."""

import h5py
import numpy as np
import pytest
import torch

from skerch import INNER_FMT, LO_FMT
from skerch.core.row_blocks import RowBlocks
from skerch.core.sketch import solve_core_seigh
from skerch.decompositions import seigh
from skerch.distributed_measurements import (
    DistributedHDF5,
    MatrixColumns,
    innermeas_batch_torch,
    innermeas_idx_torch,
    linmeas_batch_torch,
    linmeas_idx_torch,
    ssrft_batch_torch,
    ssrft_idx_torch,
)
from skerch.ssrft import SSRFT
from skerch.store.layout import create_hdf5_layout
from skerch.store.merge import load_merged
from skerch.synthmat import SynthMat
from skerch.utils import InputError, NumericalError, gaussian_noise

pytestmark = pytest.mark.numerical

H, W, N = 11, 17, 6
A = gaussian_noise((H, W), 0)


def dense(S):
    return S @ torch.eye(S.shape[1], dtype=torch.float64)


@pytest.mark.parametrize("adjoint", [False, True], ids=["A @ v", "v @ A"])
@pytest.mark.parametrize("idxs", [[0], [5, 2, 3]], ids=str)
def test_batches_are_dense_products(adjoint, idxs):
    S = SSRFT((N, H if adjoint else W), 3)
    expected = (A.T if adjoint else A) @ dense(S)[idxs].T
    got = linmeas_batch_torch(idxs, A, S, torch.float64, adjoint)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    same = ssrft_batch_torch(idxs, A, N, 3, torch.float64, adjoint=adjoint)
    torch.testing.assert_close(same, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("idx", range(N))
def test_single_measurements_are_columns_of_batches(idx):
    S = SSRFT((N, W), 3)
    batch = linmeas_batch_torch(range(N), A, S, torch.float64)
    close = {"rtol": 0, "atol": 1e-13}
    torch.testing.assert_close(linmeas_idx_torch(idx, A, S, torch.float64), batch[:, idx], **close)
    torch.testing.assert_close(ssrft_idx_torch(idx, A, N, 3, torch.float64), batch[:, idx], **close)


def test_inner_measurements_are_both_sketches():
    Phi, Psi = SSRFT((N, H), 1), SSRFT((N, W), 2)
    got = innermeas_batch_torch(range(N), A, Phi, Psi, torch.float64)
    torch.testing.assert_close(got.outer, A @ dense(Psi).T, rtol=0, atol=1e-12)
    torch.testing.assert_close(got.inner, dense(Phi) @ A @ dense(Psi).T, rtol=0, atol=1e-12)
    one = innermeas_idx_torch(4, A, Phi, Psi, torch.float64)
    torch.testing.assert_close(one.inner[:, 0], got.inner[:, 4], rtol=0, atol=1e-13)


def test_product_that_is_not_finite_names_the_measurements():
    bad = A.clone()
    bad[0, 0] = float("nan")
    with pytest.raises(NumericalError, match=r"measurements \[4, 5\]"):
        linmeas_batch_torch([4, 5], bad, SSRFT((N, W), 3), torch.float64)


@pytest.mark.parametrize(
    "jobs",
    [
        [[list(range(40))]],
        [[[i] for i in range(0, 40, 2)], [[i] for i in range(1, 40, 2)]],
        [[[39, 3, 17], list(range(4, 17))], [[0, 1, 2], list(range(18, 39))]],
    ],
    ids=["one job, one block", "two jobs, single vectors", "two jobs, odd blocks"],
)
def test_store_gives_the_in_memory_result_for_any_split(tmp_path, jobs):
    D, outer, inner, seed = 90, 20, 40, 5
    op = SynthMat.exp_decay((D, D), 6, 0.3, seed=1, dtype=torch.float32, psd=False)
    paths = create_hdf5_layout(tmp_path / "m", (D, D), np.dtype("float32"), outer, inner, True)
    Phi, Psi = SSRFT((inner, D), seed), SSRFT((inner, D), seed + 1)
    for blocks in jobs:
        for block in blocks:
            found = innermeas_batch_torch(block, op, Phi, Psi)
            for column, idx in enumerate(block):
                for fmt, values in ((LO_FMT, found.outer), (INNER_FMT, found.inner)):
                    if fmt == INNER_FMT or idx < outer:
                        path = DistributedHDF5.subpath(tmp_path / "m", fmt, idx)
                        DistributedHDF5.write(path, values[:, column], "ok", {"seed": seed})
    merged = {
        name: DistributedHDF5.merge_all(paths[name], tmp_path / f"{name}.h5", "ok")
        for name in paths
    }
    with load_merged(merged["leftouter"], "ok") as Y, load_merged(merged["inner"], "ok") as core:
        eigh = solve_core_seigh(
            RowBlocks(Y["data"], memory_budget=40_000), torch.from_numpy(core["data"][:]), Psi
        )
        in_memory = seigh(op, outer, inner, seed, torch.float32)
        torch.testing.assert_close(eigh.S, in_memory.S, rtol=1e-4, atol=1e-6)
        Q = eigh.vectors()
        torch.testing.assert_close(
            Q.T @ Q, torch.eye(outer, dtype=torch.float64), rtol=0, atol=1e-5
        )
        torch.testing.assert_close(
            Q[:, :6].square().sum(1), in_memory.vectors(6).square().sum(1), rtol=1e-4, atol=1e-6
        )


class TestMatrixColumns:
    @pytest.fixture(params=["tensor", "hdf5"])
    def V(self, request, tmp_path):
        V = gaussian_noise((W, N), 1)
        if request.param == "tensor":
            yield V, V
            return
        with h5py.File(tmp_path / "V.h5", "w") as file:
            yield V, file.create_dataset("data", data=V.numpy())

    @pytest.mark.parametrize("idxs", [[0], [5, 2, 3], [1, 2, 4, 5], range(N)], ids=str)
    def test_products_with_columns(self, V, idxs):
        V, stored = V
        got = linmeas_batch_torch(idxs, A, MatrixColumns(stored), torch.float64)
        torch.testing.assert_close(got, A @ V[:, list(idxs)], rtol=0, atol=1e-13)

    def test_columns_have_the_dtype_asked_for(self, V):
        V, stored = V
        assert torch.equal(MatrixColumns(stored).rows([3, 1]), V[:, [3, 1]].T.float())

    @pytest.mark.parametrize("idxs", [[-1], [0, N]], ids=str)
    def test_wrong_indices(self, V, idxs):
        with pytest.raises(InputError, match=r"must lie in \[0, 6\)"):
            MatrixColumns(V[1]).rows(idxs)
