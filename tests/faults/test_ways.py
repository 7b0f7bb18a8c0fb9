"""Jobs of one Hessian that compute in other ways: another engine, TensorFloat-32 in some only."""

import dataclasses
import json
import re
from functools import partial

import h5py
import pytest

from applesandoranges.app.log import read_log
from skerch import INNER_FMT, LO_FMT
from skerch.store.measurements import DistributedHDF5
from tests.conftest import ANALYSE, MEASURE
from tests.scripts.test_rounds import NEXT, ROUNDS, SIZES, analyse, lay_out, measure, next_block

AGAIN = "Some measurements were made again and agree"
SEVERAL = "Measurements were computed in several ways"
ODD = list(range(1, 12, 2))


@pytest.fixture
def mixed(trained):
    """``mixed()``: a store that two jobs filled, each with an engine of its own."""
    store = trained.lay_out("mixed")
    engines = (("graph", ODD), ("vmap", [i for i in range(12) if i not in ODD]))
    for engine, idxs in engines:
        assert trained.measure(store, HVP_ENGINE=engine, MEASUREMENT_IDXS=idxs) == 0
    return store


@pytest.fixture
def trained(trained, tmp_path):
    """The trained run, with stores in a directory of the test's own."""
    own = dataclasses.replace(trained, root=tmp_path)
    (tmp_path / "output").symlink_to(trained.root / "output")
    return own


def events(trained, script=ANALYSE):
    log = max(path for path in trained.run_dir.iterdir() if f"[{script}]" in path.name)
    return {event.text: event.body for event in read_log(log).events if event.text}


def falsify(store, fmt, idx):
    """Change a measurement, and say that it was computed in another way."""
    path = DistributedHDF5.subpath(store, fmt, idx)
    found = DistributedHDF5.load(path)
    with h5py.File(path) as file:
        software = json.loads(file.attrs["made_with"])
    data = found.data.copy() * 1.05
    DistributedHDF5.write(path, data, found.flag, found.provenance, software | {"tf32": "true"})


def test_ways_are_logged_and_one_of_each_is_made_again(mixed, trained):
    assert trained.analyse(mixed) == 0
    found = events(trained)
    ways = found[SEVERAL]["measurements"]
    assert {way.split(",")[0]: idxs for way, idxs in ways.items()} == {
        "engine graph": ODD, "engine vmap": [0, 2, 4, 6, 8, 10],
    }  # fmt: skip
    again = found[AGAIN]
    assert again["idxs"] == [0, 1]
    assert 0 <= again["largest_relative_difference"] < 1e-4
    assert again["allowed"] == 1e-2


def test_one_way_needs_no_product(trained):
    store = trained.lay_out("same")
    assert trained.measure(store, HVP_ENGINE="graph") == 0
    assert trained.analyse(store) == 0
    assert SEVERAL not in events(trained)


def test_a_way_that_computes_something_else_is_refused(mixed, trained, capsys):
    falsify(mixed, INNER_FMT, 1)
    capsys.readouterr()
    assert trained.analyse(mixed) == 2
    line = capsys.readouterr().err
    assert re.search(r"measurement 1 \(engine graph.*tf32 true\) differs by 0.05", line)
    assert f"measure them again ({MEASURE[:3]})" in line


@pytest.mark.parametrize("recovery", SIZES)
def test_rounds_in_several_ways(trained, recovery, capsys):
    """The products of every round, before anything is made of them."""
    num, rounds = SIZES[recovery]["BLOCK_SIZE"], ROUNDS.get(recovery, 1)
    store = lay_out(trained, recovery, num)
    path = DistributedHDF5.subpath(store, LO_FMT, 1)
    for number in range(rounds):
        last = number == rounds - 1
        next_stage = (
            partial(analyse, trained, store, recovery)
            if last
            else partial(next_block, trained, store, recovery, number)
        )
        for engine, idxs in (("graph", range(num // 2)), ("vmap", range(num // 2, num))):
            words = {"STEP": 2, "HVP_ENGINE": engine}
            assert measure(trained, store, recovery, number, list(idxs), **words) == 0
        right, files = path.read_bytes(), sorted(store.iterdir())
        falsify(store, LO_FMT, 1)
        capsys.readouterr()
        assert next_stage() == 2
        line = capsys.readouterr().err
        assert re.search(r"measurement 1 \(engine graph.*tf32 true\) differs by 0.05", line)
        assert sorted(store.iterdir()) == files
        path.write_bytes(right)
        assert next_stage() == 0
        again = events(trained, ANALYSE if last else NEXT)[AGAIN]
        assert again["idxs"] == [0, num // 2]
        assert 0 <= again["largest_relative_difference"] < 1e-4
