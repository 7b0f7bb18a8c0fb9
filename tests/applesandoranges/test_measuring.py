"""10c's loop: what is logged is there, whatever happens in between."""

import h5py
import numpy as np
import pytest
import torch

from applesandoranges.app.log import JsonLog, read_log
from applesandoranges.hessian.engines import ProductPlan
from applesandoranges.measurement.loop import measure
from applesandoranges.measurement.recovery import Store
from applesandoranges.measurement.seigh import Seigh
from applesandoranges.measurement.sizes import Sizes
from skerch import LO_FMT
from skerch.linops import DiagonalLinOp
from skerch.ssrft import SSRFT
from skerch.store.layout import create_hdf5_layout
from skerch.store.measurements import DistributedHDF5

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


class Problem:
    device = torch.device("cpu")


class Recorded:
    """What the loop needs of a recorded Hessian."""

    step, test, dim, seed, identity = 0, False, D, 1, {"split": "train"}
    problem = Problem()

    def __init__(self, before=lambda product: None):
        self.operator = Operator(before)
        self.computed_with = {"engine": "graph"}


@pytest.fixture
def store(tmp_path):
    create_hdf5_layout(tmp_path / "s", (D, D), np.dtype("f4"), OUTER, INNER, symmetric=True)
    return tmp_path / "s"


def sketch(store, recorded=None):
    sizes = Sizes(recovery="seigh", dim=D, num_rounds=1, per_round=INNER, num_outer=OUTER)
    return Seigh(recorded or Recorded(), sizes, Store.in_directory(store, "ok", 2**30))


def run(recorded, store):
    path = store.parent / "log"
    with JsonLog(path) as log:
        try:
            measure(sketch(store, recorded), range(INNER), log)
        finally:
            log("END", {})
    return logged(store)


def measured(store):
    return [idx for idx in range(INNER) if sketch(store).is_measured(idx)]


def logged(store):
    events = read_log(store.parent / "log").events
    return [event.body["idx"] for event in events if event.text == "Measurement successful!"]


def test_everything_is_measured_and_logged(store):
    assert run(Recorded(), store) == measured(store) == list(range(INNER))
    Psi, operator = SSRFT((INNER, D), Recorded.seed + 2), Recorded().operator
    path = DistributedHDF5.subpath(store, LO_FMT, 3)
    with h5py.File(path) as file:
        expected = (operator @ Psi.rows([3]).T)[:, 0]
        np.testing.assert_allclose(file["data"][:], expected, rtol=1e-5)


def test_an_error_of_the_writer_surfaces_and_is_not_logged_as_success(store, monkeypatch):
    true_write = Seigh.write

    def write(self, idx, *args):
        if idx == 2:
            raise OSError("disk full")
        true_write(self, idx, *args)

    monkeypatch.setattr(Seigh, "write", write)
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
    assert not list(store.glob(".*"))  # nothing half-written
