"""Both engines against dense Hessians in float64; plans; memory budgets."""

import pytest
import torch
from torch import nn

from applesandoranges.hessian.engines import (
    ENGINES,
    TRIAL_VECTORS,
    Memory,
    ProductPlan,
    ProductSettings,
    _Trial,
)
from applesandoranges.hessian.operator import make_hessian
from applesandoranges.hessian.peak_memory import peak_bytes
from skerch.utils import InputError, gaussian_noise
from tests.applesandoranges.test_hessian import CASES, SIZES, dense_hessian

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def timed_engines(monkeypatch, fixed_engines):
    """Time them, which other tests do not."""
    monkeypatch.setattr(_Trial, "_time", fixed_engines)


class PartlyLinear(nn.Module):
    """Uses one parameter linearly, one not at all."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(6, 3), nn.Tanh())
        self.unused = nn.Parameter(torch.ones(2))
        self.shift = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.body(x).square() + self.shift


class MeanOfOutputs(nn.Module):
    reduction = "mean"

    def forward(self, prediction, target):
        return prediction.sum(1).mean()


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 3))


NETS = {
    **{name: (net, nn.CrossEntropyLoss) for name, net in CASES.items()},
    "unused and linear parameters": (PartlyLinear, MeanOfOutputs),
    "linear loss": (linear, MeanOfOutputs),
}


def batches(dtype=torch.float64):
    X = gaussian_noise((sum(SIZES), 1, 2, 3), 0, dtype=dtype)
    y = torch.arange(sum(SIZES)) % 3
    return X, y, list(zip(X.split(SIZES), y.split(SIZES), strict=True))


def settings(engine, vectors=None, budget=10**9):
    return ProductSettings(engine, vectors, budget)


@pytest.mark.parametrize("vectors", [1, 3, 100])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NETS)
def test_engines_equal_the_dense_hessian(name, engine, vectors):
    torch.manual_seed(3)
    build, criterion = NETS[name]
    net, (X, y, data) = build().double().train(), batches()
    H = make_hessian(net, criterion(), data, len(X), settings(engine, vectors))
    expected = dense_hessian(net.eval(), criterion(), X, y)
    V = gaussian_noise((len(expected), 7), 1)
    torch.testing.assert_close(H @ V, expected @ V, rtol=0, atol=1e-12)
    torch.testing.assert_close(H @ V[:, 0], expected @ V[:, 0], rtol=0, atol=1e-12)
    assert (H.plan.engine, H.plan.vectors) == (engine, vectors)


def reference(X, data):
    torch.manual_seed(3)
    net = CASES["conv, batch norm, dropout"]()
    return make_hessian(net, nn.CrossEntropyLoss(), data, len(X), settings("vmap", 64))


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize(
    "how",
    [settings("vmap", 1), settings("graph", 64), settings("graph", 2), settings("auto"),
     settings("auto", budget=10**5)],
    ids=["vmap one by one", "graph", "graph two by two", "auto", "small budget"],
)  # fmt: skip
def test_single_precision_does_not_depend_on_how(how, num_threads, threads):
    X, _, data = batches(torch.float32)
    torch.manual_seed(3)
    net = CASES["conv, batch norm, dropout"]()
    V = gaussian_noise((sum(p.numel() for p in net.parameters()), 10), 1, dtype=torch.float32)
    expected = reference(X, data) @ V
    threads(num_threads)
    found = make_hessian(net, nn.CrossEntropyLoss(), data, len(X), how) @ V
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def wide_net():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 500), nn.Tanh(), nn.Linear(500, 3))


def wide_hessian(how, plan=None):
    X, _, data = batches(torch.float32)
    return make_hessian(wide_net(), nn.CrossEntropyLoss(), data, len(X), how, plan)


def test_auto_keeps_the_faster_engine_and_times_both():
    plan = wide_hessian(settings("auto")).plan
    assert plan.seconds.keys() == plan.memory.keys() == ENGINES.keys()
    assert plan.seconds[plan.engine] == min(plan.seconds.values())
    assert plan.vectors == 128
    assert plan.summary()["bytes"][plan.engine].keys() == {"fixed", "per_vector"}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("wanted", [2, 9])
def test_vectors_per_product_follow_the_budget(engine, wanted):
    memory = wide_hessian(settings(engine)).plan.memory[engine]
    budget = memory.fixed + (wanted + 1) * memory.per_vector - 1
    H = wide_hessian(settings(engine, budget=budget))
    assert H.plan.vectors == wanted
    V = torch.ones(H.shape[1], wanted)
    # What the plan counts beside: two results on their way to the disk.
    assert peak_bytes(lambda: H @ V, CPU) <= budget - 2 * wanted * 4 * H.shape[0]


def test_an_engine_that_does_not_fit_is_not_taken():
    memory = wide_hessian(settings("auto")).plan.memory
    large = max(memory, key=lambda name: sum(memory[name]))
    H = wide_hessian(settings("auto", budget=sum(memory[large]) - 1))
    assert H.plan.engine != large
    assert H.plan.seconds.keys() == {H.plan.engine}


def test_a_slow_first_trial_does_not_decide(monkeypatch):
    """Made-up times: the first whole block of vmap is slow, and one of its repetitions."""
    times = {
        ("vmap", TRIAL_VECTORS): [0.01],
        ("vmap", 8): [0.4, 0.08, 0.3, 0.1],
        ("graph", TRIAL_VECTORS): [0.01],
        ("graph", 8): [0.2, 0.2, 0.2, 0.2],
    }
    monkeypatch.setattr(_Trial, "_time", lambda self, engine, num: times[engine, num].pop(0))
    plan = wide_hessian(settings("auto", vectors=8)).plan
    assert plan.engine == "vmap"
    assert plan.seconds["vmap"] / plan.seconds["graph"] == pytest.approx(0.08 / 0.2)


def test_slow_trials_are_not_repeated(monkeypatch):
    times = {"vmap": [0.1, 0.6], "graph": [0.7]}
    monkeypatch.setattr(_Trial, "_time", lambda self, engine, num: times[engine].pop(0))
    plan = wide_hessian(settings("auto", vectors=8)).plan
    assert plan.engine == "vmap"
    assert times == {"vmap": [], "graph": []}


def test_a_budget_that_holds_no_vector_says_what_would_fit():
    memory = wide_hessian(settings("graph")).plan.memory["graph"]
    H = wide_hessian(settings("graph", budget=sum(memory) - memory.fixed // 2))
    message = (
        r"MEMORY_BUDGET_GB: one measurement of 5003 parameters needs about .* GB with 4 data "
        r"points per mini-batch, .*; mini-batches of [12] data points would fit \(batch_size\)"
    )
    with pytest.raises(InputError, match=message):
        H.make_plan()


def test_a_given_plan_is_used_without_a_trial():
    plan = ProductPlan("graph", 2, {}, {"graph": Memory(0, 1)})
    H = wide_hessian(settings("auto"), plan)
    assert H.plan is plan
    assert (H @ torch.ones(H.shape[1], 5)).shape == (H.shape[0], 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": "vmp"}, "unknown HVP_ENGINE 'vmp'; the nearest valid one is vmap"),
        ({"vectors": 0}, "VECTORS_PER_PRODUCT must be at least 1, got 0"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_wrong_settings_raise(changes, message):
    with pytest.raises(InputError, match=message):
        ProductSettings(**changes)


def test_plans_leave_the_global_generator_alone():
    H = wide_hessian(settings("auto"))
    before = torch.get_rng_state()
    H.make_plan()
    assert torch.equal(torch.get_rng_state(), before)


def test_peak_bytes_counts_what_lives_at_the_same_time():
    outside = torch.zeros(1000)

    def work():
        a = outside + 1  # 4000 bytes
        b = a.exp()  # 4000 more
        del a
        return outside.view(10, 100), b.add_(1), torch.zeros(500)  # a view, in place, 2000 more

    assert peak_bytes(work, CPU) == 8000


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ENGINES)
def test_gpu_equals_cpu(engine):
    X, _, data = batches(torch.float32)
    torch.manual_seed(3)
    net = CASES["conv, batch norm, dropout"]()
    H = make_hessian(net, nn.CrossEntropyLoss(), data, len(X), settings(engine))
    V = gaussian_noise((H.shape[1], 10), 1, dtype=torch.float32)
    expected = H @ V
    on_gpu = [(X.cuda(), y.cuda()) for X, y in data]
    H = make_hessian(net.cuda(), nn.CrossEntropyLoss(), on_gpu, len(X), settings(engine))
    found = (H @ V.cuda()).cpu()
    assert float((found - expected).norm() / expected.norm()) < 1e-5
