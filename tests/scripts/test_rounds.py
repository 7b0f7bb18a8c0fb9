"""Recoveries in rounds through the store: 10c, 10e, 10c, ..., 10d."""

import h5py
import numpy as np
import pytest

from applesandoranges.analysis.overlap import largest_parameters, mask_curve
from applesandoranges.app.config import parse_config
from applesandoranges.app.log import read_log
from applesandoranges.measurement.recorded import RecordedHessianConfig, load_recorded_hessian
from skerch.__main__ import main as skerch
from skerch.decompositions import block_krylov, hmt
from tests import damage
from tests.conftest import ANALYSE, run

NEXT = "10e_next_krylov_block.py"
RANK = 9
SIZES = {"krylov": {"NUM_ROUNDS": 3, "BLOCK_SIZE": 6}, "hmt": {"BLOCK_SIZE": 9}}
ROUNDS = {"krylov": 3, "hmt": 2}


def lay_out(trained, name, block_size):
    store = trained.root / name
    words = f"--shape 7030,7030 --outer {block_size} --inner 0 --sym"
    assert skerch(["create_hdf5_layout", "--hdf5dir", str(store), *words.split()]) == 0
    return store


def keys(recovery):
    return {"RECOVERY": recovery, **SIZES[recovery]}


def measure(trained, store, recovery, number, idxs=None, **changes):
    block = SIZES[recovery]["BLOCK_SIZE"]
    words = {
        "ROUND": number, "NUM_OUTER": RANK, "NUM_INNER": 18,
        "MEASUREMENT_IDXS": list(range(block)) if idxs is None else idxs,
    }  # fmt: skip
    return trained.measure(store, **(words | keys(recovery) | changes))


def next_block(trained, store, recovery, number, **changes):
    words = keys(recovery) | {"MEASUREMENTS_DIR": store, "ROUND": number, "STEP": 2} | changes
    return run(NEXT, *trained.recorded_words(**words))


def analyse(trained, store, recovery, **changes):
    words = {"STEP": 2, "NUM_OUTER": RANK, "INNER_VIRTUAL": None, "INNER_MONOLITHIC": None}
    return trained.analyse(store, **(words | keys(recovery) | changes))


def all_rounds(trained, store, recovery, test=False):
    for number in range(ROUNDS[recovery]):
        if number:
            assert next_block(trained, store, recovery, number - 1, TEST_HESSIAN=test) == 0
        # In two jobs, out of order.
        for idxs in ([4, 5, 6, 7, 8], [0, 1, 2, 3]):
            idxs = [i for i in idxs if i < SIZES[recovery]["BLOCK_SIZE"]]
            words = {"STEP": 2, "TEST_HESSIAN": test}
            assert measure(trained, store, recovery, number, idxs, **words) == 0


@pytest.fixture(scope="module")
def recorded(trained):
    words = trained.recorded_words(STEP=2)
    return load_recorded_hessian(parse_config(RecordedHessianConfig, words))


@pytest.fixture(scope="module", params=ROUNDS)
def analysed(trained, request):
    store = lay_out(trained, request.param, SIZES[request.param]["BLOCK_SIZE"])
    all_rounds(trained, store, request.param)
    assert analyse(trained, store, request.param) == 0
    return request.param, store, trained.logs(ANALYSE)[-1]


def quantities(log):
    return {k: v for body in read_log(log).bodies("RESULT") for k, v in body.items()}


def test_same_as_in_memory(analysed, recorded):
    recovery, _, log = analysed
    seed, dtype = recorded.seed + 1, recorded.params.dtype
    if recovery == "krylov":
        expected = block_krylov(recorded.operator, RANK, 3, 6, seed, dtype)
    else:
        expected = hmt(recorded.operator, RANK, seed, dtype)
    found = quantities(log)
    np.testing.assert_allclose(found["core_S"], expected.S, rtol=1e-4)
    np.testing.assert_allclose(
        found["residual_norms"], expected.residual_norms, rtol=2e-2, atol=1e-5
    )
    assert found["num_products"] == expected.num_products == 18
    order = largest_parameters(recorded.params, RANK)
    curve = mask_curve(expected.vectors()[order])
    np.testing.assert_allclose(found["frob_Qtop^2"], curve, rtol=1e-3, atol=1e-8)


def test_a_rerun_measures_and_makes_nothing(trained, analysed, capsys):
    recovery, store, _ = analysed
    blocks = {p: p.read_bytes() for p in store.glob("basis_*.h5")}
    assert blocks
    assert next_block(trained, store, recovery, 0) == 0
    # Of the first round too, although the files of its products are used by the last one now.
    for number in (0, ROUNDS[recovery] - 1):
        assert measure(trained, store, recovery, number, STEP=2) == 0
    out = capsys.readouterr().out
    assert "Nothing to do: the next block is there already" in out
    assert out.count("Nothing to measure") == 2
    assert "Performing" not in out
    assert {p: p.read_bytes() for p in store.glob("basis_*.h5")} == blocks


def test_a_store_is_used_again_for_the_next_hessian(trained, analysed, capsys):
    recovery, store, log = analysed
    assert analyse(trained, store, recovery, TEST_HESSIAN=True) == 1
    assert "run 10e with ROUND=0" in capsys.readouterr().err
    all_rounds(trained, store, recovery, test=True)
    assert analyse(trained, store, recovery, TEST_HESSIAN=True) == 0
    again = quantities(trained.logs(ANALYSE)[-1])["core_S"]
    assert not np.allclose(again, quantities(log)["core_S"], rtol=1e-3)


def test_products_with_another_basis_are_not_taken(trained, capsys):
    store = lay_out(trained, "foreign basis", 6)
    assert measure(trained, store, "krylov", 0, STEP=2) == 0
    assert next_block(trained, store, "krylov", 0) == 0
    assert measure(trained, store, "krylov", 1, STEP=2) == 0
    (store / "basis_0000000001.h5").unlink()
    assert next_block(trained, store, "krylov", 0) == 0  # of the same products, another id
    assert next_block(trained, store, "krylov", 1) == 1
    assert "6 of 6 measurements cannot be used" in (err := capsys.readouterr().err)
    assert "of another Hessian: block_id: expected" in err
    assert measure(trained, store, "krylov", 1, STEP=2) == 0
    assert next_block(trained, store, "krylov", 1) == 0


def test_products_that_do_not_say_of_which_hessian_are_refused_whatever_the_key(trained, capsys):
    store = lay_out(trained, "unknown products", 9)
    assert measure(trained, store, "hmt", 0, STEP=2) == 0
    assert next_block(trained, store, "hmt", 0) == 0
    assert measure(trained, store, "hmt", 1, STEP=2) == 0
    for path in store.glob("leftouter_0*.h5"):
        damage.without_attributes(path)
    for merged in store.glob("*_MERGED.h5"):
        merged.unlink()
    before = {p: p.read_bytes() for p in trained.root.rglob("*") if p.is_file()}
    capsys.readouterr()
    assert analyse(trained, store, "hmt", ALLOW_UNKNOWN_PROVENANCE=True) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "9 of 9 measurements cannot be used: 0-8 (of another Hessian: it does not say" in line
    assert "ALLOW_UNKNOWN_PROVENANCE" not in line
    assert {p: p.read_bytes() for p in trained.root.rglob("*") if p.is_file()} == before


def test_a_damaged_block_is_refused(trained, capsys):
    store = lay_out(trained, "damaged block", 6)
    assert measure(trained, store, "krylov", 0, STEP=2) == 0
    assert next_block(trained, store, "krylov", 0) == 0
    path = store / "basis_0000000001.h5"
    path.write_bytes(path.read_bytes()[:2000])
    assert measure(trained, store, "krylov", 1, STEP=2) == 1
    assert "basis_0000000001.h5: not a readable HDF5 file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "changes", "status", "message"),
    [
        (measure, {"RECOVERY": "lanczos"}, 2, "unknown RECOVERY 'lanczos'"),
        (measure, {"NUM_ROUNDS": 0}, 2, "NUM_ROUNDS of krylov must be at least 1, got 0"),
        (measure, {"BLOCK_SIZE": 9000}, 2, "BLOCK_SIZE must lie in [1, 7030], got 9000"),
        (measure, {"NUM_ROUNDS": 2000}, 2, "a Krylov basis has at most 7030 columns"),
        (measure, {"BLOCK_SIZE": 7}, 2, "expected shape (7030, 7)"),
        (measure, {"NUM_OUTER": 19}, 2, "recovers 1 to 18 eigenpairs, NUM_OUTER is 19"),
        (measure, {"ROUND": 3}, 2, "ROUND must lie in [0, 3)"),
        (measure, {"ROUND": 1}, 1, "measure round 0 (10c) and run 10e with ROUND=0"),
        (next_block, {"RECOVERY": "seigh", "NUM_ROUNDS": None}, 2, "has one round only"),
        (next_block, {"ROUND": 2}, 1, "run 10e with ROUND=1"),
        (next_block, {}, 1, "6 of 6 measurements cannot be used: 0-5 (not measured)"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_refusals_change_nothing(trained, capsys, call, changes, status, message):
    store = trained.root / "round refusals"
    if not store.exists():
        lay_out(trained, store.name, 6)
    before = {p: p.read_bytes() for p in trained.root.rglob("*") if p.is_file()}
    words = {"STEP": 2} | changes
    number = words.pop("ROUND", 0)
    assert call(trained, store, "krylov", number, **words) == status
    assert message in capsys.readouterr().err.splitlines()[0]
    after = {p: p.read_bytes() for p in trained.root.rglob("*") if p.is_file()}
    assert after == before


def test_blocks_on_disk_are_orthonormal(analysed):
    _, store, _ = analysed
    blocks = []
    for path in sorted(store.glob("basis_*.h5")):
        with h5py.File(path) as file:
            blocks.append(file["data"][:].astype("float64"))
    V = np.concatenate(blocks, axis=1)
    np.testing.assert_allclose(V.T @ V, np.eye(V.shape[1]), atol=1e-5)
