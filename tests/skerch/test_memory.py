"""Peak memory of the analysis, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

D, OUTER, INNER = 400_000, 128, 192
SIZE = D * OUTER * 4  # 205 MB as stored, twice that in double precision
BUDGET = 80_000_000

PROGRAM = """
import json, sys
from pathlib import Path
import h5py, torch
from applesandoranges.analysis.overlap import all_masks, mask_curves, random_masks
from skerch.a_posteriori import gaussian_test_vectors, truncation_errors
from skerch.distributed_decompositions import householder_basis, orthogonalize, solve_core_seigh
from skerch.core.row_blocks import RowBlocks
from skerch.ssrft import SSRFT

def resident(which):
    text = Path("/proc/self/status").read_text()
    return 1024 * int(next(x for x in text.splitlines() if x.startswith(which)).split()[1])

path, budget, symmetrize = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
torch.set_num_threads(1)
small = torch.randn(64, 64, dtype=torch.float64)  # what the libraries set up at first use
torch.linalg.eigh(torch.linalg.qr(small @ small).R)
torch.fft.irfft(torch.fft.rfft(small))
before = resident("VmRSS")
with h5py.File(path) as file:
    Y = RowBlocks(file["Y"], budget)
    W = torch.from_numpy(file["W"][:]).double()
    factor = orthogonalize(Y, W[:, : Y.shape[1]])
    if not symmetrize:
        factor = householder_basis(factor, pivoting=True)
    eigh = solve_core_seigh(Y, W, SSRFT((len(W), Y.shape[0]), 2), symmetrize, factor)
    (curve, *_) = mask_curves(eigh, random_masks(Y.shape[0], Y.shape[1], 3, 0))
    best = all_masks(eigh).best
    G = gaussian_test_vectors(Y.shape[0], 4, 0, torch.float32)
    errors = truncation_errors(eigh, G, 2 * G, [Y.shape[1]])
print(json.dumps({
    "grown": resident("VmHWM") - before, "method": factor.method, "S": eigh.S.tolist(),
    "curve": curve.tolist(), "best": best.tolist(), "errors": errors[Y.shape[1]].means,
}))
"""


@pytest.fixture(scope="module")
def measurements(tmp_path_factory):
    """Measurements of a diagonal matrix with entries ``1 / k``."""
    import torch

    from skerch.core.products import innermeas_batch_torch
    from skerch.linops import DiagonalLinOp
    from skerch.ssrft import SSRFT

    operator = DiagonalLinOp(torch.arange(1, D + 1).float().reciprocal())
    Phi, Psi = SSRFT((INNER, D), 1), SSRFT((INNER, D), 2)
    parts = [
        innermeas_batch_torch(range(i, i + 16), operator, Phi, Psi) for i in range(0, INNER, 16)
    ]
    path = tmp_path_factory.mktemp("memory") / "sketch.h5"
    with h5py.File(path, "w") as file:
        file["Y"] = torch.cat([p.outer for p in parts], 1)[:, :OUTER].numpy()
        file["W"] = torch.cat([p.inner for p in parts], 1).numpy()
    return path


def analyse(path, budget, symmetrize):
    words = [sys.executable, "-c", PROGRAM, str(path), str(budget), str(symmetrize)]
    root = Path(__file__).parents[2]
    finished = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
    return json.loads(finished.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("symmetrize", [True, False], ids=["symmetrised", "one-triangle"])
def test_peak_memory_stays_within_the_budget_and_results_do_not_change(measurements, symmetrize):
    small, large = (analyse(measurements, budget, symmetrize) for budget in (BUDGET, 10**10))
    assert small["method"] == large["method"] == "cholesky_qr"
    # What libraries set up, and what allocators keep, does not grow with the matrix.
    assert small["grown"] < BUDGET + 60_000_000 < SIZE
    for name in ("S", "curve", "best", "errors"):
        scale = np.abs(large[name]).max()
        np.testing.assert_allclose(small[name], large[name], rtol=0, atol=1e-5 * scale)
