"""Recoveries in rounds through the store: 10c, 10e, 10c, ..., 10d."""

import json
import shutil

import h5py
import numpy as np
import pytest
import torch

from applesandoranges.analysis.overlap import largest_parameters, mask_curve
from applesandoranges.app.keys import parse_config
from applesandoranges.app.log import read_log
from applesandoranges.hessian.curvatures import BlockHessian
from applesandoranges.measurement.recorded_hessian import (
    RecordedHessianConfig,
    load_recorded_hessian,
)
from skerch.__main__ import main as skerch
from skerch.decompositions import block_krylov, hmt, nystrom
from skerch.store.measurements import DistributedHDF5
from tests import damage
from tests.conftest import ANALYSE, run

NEXT = "10e_next_krylov_block.py"
RANK = 9
SIZES = {
    "krylov": {"NUM_ROUNDS": 3, "BLOCK_SIZE": 6},
    "hmt": {"BLOCK_SIZE": 9},
    "nystrom": {"BLOCK_SIZE": 18},
}
ROUNDS = {"krylov": 3, "hmt": 2}

# What is measured for several tests is measured once.
pytestmark = pytest.mark.xdist_group("rounds")


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


def as_on_another_machine(store):
    """Change the stored products as another machine or engine would: in the last bits."""
    for path in store.glob("leftouter_0*.h5"):
        good = DistributedHDF5.load(path)
        DistributedHDF5.write(path, good.data * np.float32(1.00001), good.flag, good.provenance)


def test_a_lost_block_made_of_the_same_products_is_the_same(trained, capsys):
    store = lay_out(trained, "lost block", 6)
    assert measure(trained, store, "krylov", 0, STEP=2) == 0
    assert next_block(trained, store, "krylov", 0) == 0
    assert measure(trained, store, "krylov", 1, STEP=2) == 0
    block = store / "basis_0000000001.h5"
    content = block.read_bytes()
    block.unlink()
    assert next_block(trained, store, "krylov", 0) == 0  # of the merged products
    assert block.read_bytes() == content
    capsys.readouterr()
    assert measure(trained, store, "krylov", 1, STEP=2) == 0
    assert "Nothing to measure" in capsys.readouterr().out


@pytest.fixture
def remade(trained, tmp_path):
    """All three rounds, but the first block was lost and made again of slightly other products."""
    store = lay_out(trained, tmp_path.name, 6)
    all_rounds(trained, store, "krylov")
    (store / "basis_0000000001.h5").unlink()
    assert measure(trained, store, "krylov", 0, STEP=2) == 0
    as_on_another_machine(store)
    assert next_block(trained, store, "krylov", 0) == 0
    return store


def test_a_lost_block_is_not_combined_with_those_of_the_old_one(trained, remade, capsys):
    before = {p: p.read_bytes() for p in remade.iterdir()}
    capsys.readouterr()
    for refused in (
        lambda: analyse(trained, remade, "krylov"),
        lambda: measure(trained, remade, "krylov", 2, STEP=2),
    ):
        assert refused() == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "basis_0000000002.h5: the block of round 2 of this Hessian is not there" in line
        assert "measure round 1 (10c) and run 10e with ROUND=1" in line
    assert next_block(trained, remade, "krylov", 1) == 1  # products with the old block
    (line,) = capsys.readouterr().err.splitlines()
    assert "6 of 6 measurements cannot be used" in line
    assert {p: p.read_bytes() for p in remade.iterdir()} == before


def test_after_a_lost_block_the_messages_lead_to_the_right_numbers(trained, remade, analysed):
    for number in (1, 2):
        assert measure(trained, remade, "krylov", number, STEP=2) == 0
        if number == 1:
            assert next_block(trained, remade, "krylov", 1) == 0
    assert analyse(trained, remade, "krylov") == 0
    found = quantities(trained.logs(ANALYSE)[-1])["core_S"]
    recovery, _, log = analysed
    if recovery == "krylov":
        np.testing.assert_allclose(found[:4], quantities(log)["core_S"][:4], rtol=1e-3)


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


@pytest.fixture(scope="module")
def two_rounds(trained):
    store = lay_out(trained, "two rounds", 6)
    for number in (0, 1):
        assert measure(trained, store, "krylov", number, STEP=2) == 0
        if number == 0:
            assert next_block(trained, store, "krylov", 0) == 0
    return store


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("data", "the checksum of "),
        ("crc32", "its content does not match its hash"),
        ("step/gram", "its content does not match its hash"),
        ("step/rayleigh", "its content does not match its hash"),
        ("step/remainder", "its content does not match its hash"),
    ],
)
def test_a_flipped_bit_of_a_block_is_found(trained, two_rounds, tmp_path, capsys, part, message):
    store = tmp_path / "store"
    shutil.copytree(two_rounds, store)
    damage.flipped_bit_of(store / "basis_0000000001.h5", part)
    (store / "leftouter_0000000000.h5").unlink()  # so that there is something to measure
    assert measure(trained, store, "krylov", 1, list(range(6)), STEP=2) == 1
    assert message in (err := capsys.readouterr().err)
    assert "make the block again (10e)" in err
    shutil.copy(two_rounds / "leftouter_0000000000.h5", store)
    assert next_block(trained, store, "krylov", 1) == 1
    assert message in capsys.readouterr().err
    assert not (store / "basis_0000000002.h5").exists()


def test_a_block_of_an_earlier_version_is_refused(trained, two_rounds, tmp_path, capsys):
    store = tmp_path / "store"
    shutil.copytree(two_rounds, store)
    with h5py.File(store / "basis_0000000001.h5", "r+") as file:
        del file.attrs["content_sha256"]
    assert measure(trained, store, "krylov", 1, STEP=2) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no checksums, as blocks of earlier versions; remove the file" in line


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
        (next_block, {"ROUND": 2}, 1, "run 10e with ROUND=0"),
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


@pytest.fixture(scope="module")
def eigenvectors(trained):
    """The file of eigenvectors that 10d wrote for step 0."""
    store = lay_out(trained, "start", SIZES["krylov"]["BLOCK_SIZE"])
    for number in range(3):
        if number:
            assert next_block(trained, store, "krylov", number - 1, STEP=0) == 0
        assert measure(trained, store, "krylov", number, STEP=0) == 0
    assert analyse(trained, store, "krylov", STEP=0, EIGENVECTORS=RANK) == 0
    return quantities(trained.logs(ANALYSE)[-1])["eigenvectors_path"]


def test_10d_says_that_eigenvectors_of_other_steps_are_of_another_recovery(
    trained, eigenvectors, capsys
):
    store = trained.lay_out("sketch")
    assert trained.measure(store, STEP=2) == 0
    words = {"STEP": 2, "EIGENVECTORS": 2, "WITH_A_POSTERIORI": 0}
    assert trained.analyse(store, **words) == 0
    text = "Eigenvectors of another step are of another recovery"
    assert f"Warning: {text}" in " ".join(capsys.readouterr().out.split())
    log = read_log(trained.logs(ANALYSE)[-1])
    (warning,) = (e.body for e in log.events if e.text == text)
    assert warning["recovery"].startswith("recovery: expected 'seigh', found 'krylov'")
    (between,) = (b for b in log.bodies("RESULT") if b.get("angles_with") == "eigenspace")
    sizes = {"num_outer": RANK, "block_size": SIZES["krylov"]["BLOCK_SIZE"]}
    assert sizes.items() <= between["other_recovery"].items()
    next(trained.run_dir.glob("*__eigenvectors__step=2__*")).unlink()


@pytest.mark.parametrize("recovery", ROUNDS)
def test_a_warm_start_through_the_store_is_that_in_memory(
    trained, recorded, eigenvectors, recovery, capsys
):
    store = lay_out(trained, f"warm {recovery}", SIZES[recovery]["BLOCK_SIZE"])
    words = {"STEP": 2, "START": eigenvectors}
    assert measure(trained, store, recovery, 0, **words) == 1
    assert "run 10e with ROUND=-1" in capsys.readouterr().err
    for number in range(ROUNDS[recovery]):
        assert next_block(trained, store, recovery, number - 1, **words) == 0
        assert measure(trained, store, recovery, number, **words) == 0
    assert analyse(trained, store, recovery) == 1, "not those of a random start"
    assert next_block(trained, store, recovery, -1, **words) == 0
    assert analyse(trained, store, recovery, **words) == 0
    log = trained.logs(ANALYSE)[-1]
    assert len(read_log(log).first("GLOBALS")["start"]) == 64
    with h5py.File(eigenvectors) as file:
        start = torch.from_numpy(file["data"][:])
    solve = {"krylov": lambda *a, **k: block_krylov(*a, RANK, 3, 6, **k),
             "hmt": lambda *a, **k: hmt(*a, RANK, **k)}[recovery]  # fmt: skip
    expected = solve(recorded.operator, seed=recorded.seed + 1, dtype=torch.float32, start=start)
    found = quantities(log)
    np.testing.assert_allclose(found["core_S"], expected.S, rtol=1e-4)
    assert found["num_products"] == 18


@pytest.mark.parametrize("recovery", ["seigh", "nystrom"])
def test_recoveries_of_one_round_have_no_start(trained, eigenvectors, recovery, capsys):
    store = trained.root / "start"
    words = {"STEP": 2, "START": eigenvectors, "RECOVERY": recovery}
    assert measure(trained, store, "nystrom", 0, **words) == 2
    assert f"RECOVERY={recovery} has no START" in capsys.readouterr().err


def test_a_start_that_is_none_is_refused(trained, eigenvectors, tmp_path, capsys):
    store = trained.root / "start"
    damaged = tmp_path / "damaged.h5"
    shutil.copy(eigenvectors, damaged)
    damage.flipped_bit_of(damaged, "data")
    other = tmp_path / "other.h5"
    shutil.copy(eigenvectors, other)
    with h5py.File(other, "r+") as file:
        del file["data"]
        file["data"] = np.ones((5, 2), np.float32)
    for start, status, message in [
        (tmp_path / "missing.h5", 2, "missing.h5: no such file"),
        (other, 2, "expected eigenvectors of 7030 parameters, found shape (5, 2)"),
        (damaged, 1, "the checksum of its vectors does not match"),
    ]:
        before = {p: p.read_bytes() for p in store.iterdir() if p.is_file()}
        assert next_block(trained, store, "krylov", -1, START=start) == status
        assert message in capsys.readouterr().err
        assert {p: p.read_bytes() for p in store.iterdir() if p.is_file()} == before
    assert next_block(trained, store, "krylov", -1) == 2
    assert "START, which is not given" in capsys.readouterr().err


@pytest.fixture
def squared(monkeypatch):
    """Every product is with the square of the Hessian, which is positive semi-definite."""
    once = BlockHessian._matmat
    monkeypatch.setattr(BlockHessian, "_matmat", lambda H, M: once(H, once(H, M)))


@pytest.mark.parametrize("definite", [False, True], ids=["indefinite", "definite"])
def test_nystrom_through_the_store_is_that_in_memory(trained, recorded, definite, request):
    if definite:
        request.getfixturevalue("squared")
    store = lay_out(trained, f"nystrom, definite={definite}", 18)
    for idxs in (range(9, 18), range(9)):
        assert measure(trained, store, "nystrom", 0, list(idxs), STEP=2) == 0
    assert next_block(trained, store, "nystrom", 0) == 2
    assert analyse(trained, store, "nystrom") == 0
    assert not list(store.glob("basis_*")), "only products are kept"
    found = quantities(trained.logs(ANALYSE)[-1])
    expected = nystrom(recorded.operator, RANK, recorded.seed + 1, 18, torch.float32)
    np.testing.assert_allclose(found["core_S"], expected.S, rtol=1e-4)
    assert found["num_products"] == 18
    assert found["diagnostics"]["semi_definite"] == ("yes" if definite else "no")
    assert found["diagnostics"]["core_rank"] == expected.diagnostics["core_rank"]
    largest = largest_parameters(recorded.params, RANK)
    curve = mask_curve(expected.vectors()[largest])
    np.testing.assert_allclose(found["frob_Qtop^2"], curve, rtol=1e-3, atol=1e-8)


def test_nystrom_says_what_memory_its_core_needs(trained, capsys):
    store = lay_out(trained, "nystrom, tiny budget", 18)
    assert measure(trained, store, "nystrom", 0, STEP=2) == 0
    logs = trained.logs(ANALYSE)
    assert analyse(trained, store, "nystrom", MEMORY_BUDGET_GB=3e-5, WITH_A_POSTERIORI=False) == 2
    assert "the core of 18 products needs 31.1 KB" in capsys.readouterr().err
    assert trained.logs(ANALYSE) == logs


@pytest.mark.parametrize("part", ["data", "crc32", "step/gram"])
def test_inspect_says_what_is_wrong_with_a_block(two_rounds, tmp_path, capsys, part):
    store = tmp_path / "store"
    shutil.copytree(two_rounds, store)
    words = ["inspect", str(store), "--verify", "--json"]
    assert skerch(words) == 0
    assert json.loads(capsys.readouterr().out)["basis_0000000001.h5"]["kind"] == "block of a basis"
    damage.flipped_bit_of(store / "basis_0000000001.h5", part)
    assert skerch(words) == 1
    found = json.loads(capsys.readouterr().out)["basis_0000000001.h5"]
    assert "does not match" in found["first_inconsistency"]
