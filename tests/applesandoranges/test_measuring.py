"""10c's loop: what is logged is there, whatever happens in between."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from applesandoranges.hessian_engines import ProductPlan
from applesandoranges.jsonlog import JsonLog, read_log
from applesandoranges.measuring import SketchStore, measure
from skerch import LO_FMT
from skerch.distributed_decompositions import create_hdf5_layout
from skerch.linops import DiagonalLinOp
from skerch.measurement_store import DistributedHDF5
from skerch.ssrft import SSRFT

D, OUTER, INNER = 40, 4, 8


class Operator(DiagonalLinOp):
    """Diagonal; calls ``before`` ahead of every product."""

    plan = ProductPlan("vmap", 2, {}, {})

    def __init__(self, before):
        super().__init__(torch.arange(1.0, D + 1))
        self.before, self.products = before, 0

    def _matmat(self, X):
        self.products += 1
        self.before(self.products)
        return super()._matmat(X)


class Recorded:
    """What the loop needs of a recorded Hessian."""

    step, test, identity = 0, False, {"split": "train"}

    def __init__(self, before=lambda product: None):
        self.operator = Operator(before)

    def sketch_provenance(self, outer, inner):
        return {"split": "train", "num_outer": outer}

    def test_matrices(self, inner):
        return SSRFT((inner, D), 1), SSRFT((inner, D), 2)


@pytest.fixture
def store(tmp_path):
    create_hdf5_layout(tmp_path / "s", (D, D), np.dtype("f4"), OUTER, INNER, symmetric=True)
    return SketchStore(tmp_path / "s", OUTER, INNER, D)


def run(recorded, store):
    path = store.directory.parent / "log"
    with JsonLog(path) as log:
        try:
            measure(recorded, store, range(INNER), "ok", log)
        finally:
            log("END", {})
    events = [event for event in read_log(path).events if event.text == "Measurement successful!"]
    return [event.body["idx"] for event in events]


def measured(store):
    provenance = Recorded().sketch_provenance(OUTER, INNER)
    return [i for i in range(INNER) if store.is_measured(i, "ok", provenance)]


def logged(store):
    events = read_log(store.directory.parent / "log").events
    return [event.body["idx"] for event in events if event.text == "Measurement successful!"]


def test_everything_is_measured_and_logged(store):
    assert run(Recorded(), store) == measured(store) == list(range(INNER))
    (_, Psi), operator = Recorded().test_matrices(INNER), Recorded().operator
    path = DistributedHDF5.subpath(store.directory, LO_FMT, 3)
    with h5py.File(path) as file:
        expected = (operator @ Psi.rows([3]).T)[:, 0]
        np.testing.assert_allclose(file["data"][:], expected, rtol=1e-5)


def test_an_error_of_the_writer_surfaces_and_is_not_logged_as_success(store, monkeypatch):
    true_write = SketchStore.write

    def write(self, idx, *args):
        if idx == 2:
            raise OSError("disk full")
        true_write(self, idx, *args)

    monkeypatch.setattr(SketchStore, "write", write)
    with pytest.raises(OSError, match="disk full"):
        run(Recorded(), store)
    assert 2 not in logged(store)
    assert logged(store) == measured(store)
    assert {0, 1} <= set(measured(store))


class Stopped(BaseException):
    pass


def test_what_was_computed_before_a_stop_is_kept_whole(store):
    def stop(product):
        if product == 3:
            raise Stopped

    with pytest.raises(Stopped):
        run(Recorded(stop), store)
    assert logged(store) == measured(store) == [0, 1, 2, 3]
    assert not list(Path(store.directory).glob(".*"))  # nothing half-written
