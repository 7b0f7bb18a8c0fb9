"""Networks, losses and data of the kinds that people bring, against dense Hessians in float64."""

import contextlib
import copy
import functools

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from applesandoranges.hessian.batches import to_dtype
from applesandoranges.hessian.engines import ENGINES, ProductSettings
from applesandoranges.hessian.loss import Loss
from applesandoranges.hessian.means import as_criterion
from applesandoranges.hessian.modes import differentiable
from applesandoranges.hessian.networks import unwrap
from applesandoranges.hessian.operator import make_hessian
from applesandoranges.problems.parameters import trainable
from skerch.errors import InputError, NumericalError
from tests.applesandoranges.networks import CASES, NUM, Tagger, mlp, tagged_words, vectors

#: Errors of the dense oracles: by differentiating twice, and by differences with step 1e-5.
EXACT, BY_DIFFERENCES = 1e-11, 1e-8
STEP = 1e-5


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def float64():
    """Networks make their first hidden states in the default dtype."""
    with default_dtype(torch.float64):
        yield


def made(name):
    """Return a case in float64: network, loss, inputs, targets, mini-batches."""
    torch.manual_seed(0)
    case = CASES[name]
    with default_dtype(torch.float32):  # the same weights in all tests
        net, criterion = case.build()
    net = net.double().train()
    criterion = criterion.double() if isinstance(criterion, nn.Module) else criterion
    X, y = case.data()
    return net, criterion, X, y, case.batches(X, y)


def dense(name, net, criterion, X, y):
    """Return the Hessian of the loss of all data at once, ``[D, D]``."""
    net = copy.deepcopy(unwrap(net)) if "weight_norm" not in name else unwrap(net)
    own = trainable(net)
    shapes = [p.shape for p in own.values()]
    at = torch.cat([p.detach().flatten() for p in own.values()])

    def loss(vector):
        parts = vector.split([shape.numel() for shape in shapes])
        params = {n: p.reshape(s) for n, p, s in zip(own, parts, shapes, strict=True)}
        return as_criterion(criterion)(functional_call(net, params, (X,)), y)

    def gradient(vector):
        vector = vector.detach().requires_grad_()
        return torch.autograd.grad(loss(vector), vector)[0]

    with differentiable(net):
        if not CASES[name].by_differences:
            return torch.autograd.functional.hessian(loss, at)
        steps = STEP * torch.eye(len(at), dtype=torch.float64)
        return torch.stack([(gradient(at + s) - gradient(at - s)) / (2 * STEP) for s in steps])


@functools.cache
def oracle(name):
    with default_dtype(torch.float64):
        net, criterion, X, y, _ = made(name)
        return dense(name, net, criterion, X, y)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_engines_are_right_or_refused(name, engine, float64):
    net, criterion, _, _, data = made(name)
    H = make_hessian(net, criterion, data, NUM, ProductSettings(engine))
    V = torch.randn(H.shape[0], 3)
    if engine not in CASES[name].right:
        with pytest.raises(InputError, match=rf"^HVP_ENGINE={engine}: .*; \w+ \(or auto\)"):
            H @ V
        return
    tolerance = BY_DIFFERENCES if CASES[name].by_differences else EXACT
    torch.testing.assert_close(H @ V, oracle(name) @ V, rtol=0, atol=tolerance * NUM)


@pytest.mark.parametrize("name", CASES)
def test_auto_finds_an_engine_in_single_precision(name):
    net, criterion, X, y, _ = made(name)
    net.float()
    criterion = criterion.float() if isinstance(criterion, nn.Module) else criterion
    data = CASES[name].batches(*to_dtype((X, y), torch.float32))
    H = make_hessian(net, criterion, data, NUM)
    v = torch.randn(H.shape[0])
    expected = oracle(name) @ v.double()
    assert float((H @ v - expected).norm() / expected.norm()) < 1e-4
    found = H.plan.summary()["engine_checks"]
    assert H.plan.engine in found["right"]
    assert {*found["right"], *found["wrong"]} == ENGINES.keys()


@pytest.mark.parametrize("name", ["class weights", "ignored labels", "labels of tokens", "sum"])
def test_loss_and_gradient_do_not_depend_on_mini_batches(name, float64):
    net, criterion, X, y, data = made(name)
    net.eval()
    whole = criterion(net(X), y)
    gradient = torch.autograd.grad(whole, [*net.parameters()])
    loss = Loss(net, criterion, data, NUM)
    torch.testing.assert_close(loss.value(), whole.detach(), rtol=1e-13, atol=0)
    expected = torch.cat([g.flatten() for g in gradient])
    torch.testing.assert_close(loss.gradient(), expected, rtol=0, atol=1e-13)


def test_networks_and_data_stay_as_they_are(float64):
    net, criterion, _, _, data = made("BatchNorm, dropout, in-place")
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    H = make_hessian(net, criterion, data, NUM)
    H @ torch.ones(H.shape[0])
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(module.training for module in net.modules())
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_torchscript_is_left_to_the_engine_that_takes_it():
    torch.manual_seed(0)
    net, (X, y) = mlp(nn.Tanh()), to_dtype(vectors(), torch.float32)
    data, v = [(X[:4], y[:4]), (X[4:], y[4:])], torch.randn(35)
    expected = make_hessian(net, nn.CrossEntropyLoss(), data, NUM) @ v
    H = make_hessian(torch.jit.script(net), nn.CrossEntropyLoss(), data, NUM)
    torch.testing.assert_close(H @ v, expected, rtol=0, atol=1e-5)
    assert H.plan.engine == "graph"


# ------------------------------------------------------------------------------ refusals


class OnePass(IterableDataset):
    """A data set whose points are gone after one pass, though a loader of it can be read again."""

    def __init__(self):
        self.points = iter(zip(*vectors(), strict=True))

    def __iter__(self):
        return self.points


class Random(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5)


class Rounding(nn.Module):
    """Has a gradient of zero almost everywhere, and passes on another one."""

    def forward(self, x):
        return x + (x.round() - x).detach()


class OtherMean(nn.Module):
    """The mean over points weighed by their labels, which no one can know."""

    reduction = "mean"

    def forward(self, outputs, y):
        return F.cross_entropy(outputs, y, weight=torch.tensor([1.0, 5.0, 20.0]).to(outputs))


def pairs():
    X, y = vectors()
    return [(X[:4], y[:4]), (X[4:], y[4:])]


def with_nan():
    X, y = vectors()
    X[5, 0] = float("nan")
    return [(X[:4], y[:4]), (X[4:], y[4:])]


def loader(**options):
    return DataLoader(TensorDataset(*vectors()), batch_size=4, **options)


REFUSED = {
    "generator": ({"data": lambda: (pair for pair in pairs())}, "can be read once only"),
    "one pass": ({"data": lambda: DataLoader(OnePass(), batch_size=4)}, r"each pass .* found \d"),
    "drop_last": ({"data": lambda: loader(drop_last=True)}, "expected 11 data points .* found 8"),
    "triples": ({"data": lambda: [(*pair, 0) for pair in pairs()]}, "found a tuple of 3"),
    "no pairs": ({"data": lambda: [{"X": X, "y": y} for X, y in pairs()]}, "found a dict: give"),
    "no data": ({"data": list}, "no mini-batches"),
    "a number": ({"data": lambda: 3}, "found int"),
    "NaN": ({"data": with_nan}, "inputs of mini-batch 1 are NaN or infinite"),
    "reduction=none": ({"criterion": nn.CrossEntropyLoss(reduction="none")}, "reduction='none'"),
    "no number": ({"criterion": lambda out, y: out}, "one number for a mini-batch, found"),
    "no mean": ({"criterion": OtherMean()}, "neither the mean .* nor their sum"),
    "square of a mean": (
        {"criterion": lambda out, y: F.cross_entropy(out, y) ** 2}, "neither the mean"
    ),
    "no loss": ({"criterion": "mse"}, r"expected a loss\(outputs, y\), found str"),
    "all ignored": ({"criterion": nn.CrossEntropyLoss(weight=torch.zeros(3))}, "no data point"),
    "frozen": ({"net": lambda: mlp(nn.Tanh()).requires_grad_(False)}, "no trainable parameters"),
    "several dtypes": (
        {"net": lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3).float())},
        "one real dtype, found torch.float32, torch.float64",
    ),
    "several devices": (
        {"net": lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3, device="meta"))},
        "one device, found parameters on cpu, meta",
    ),
    "batch statistics": (
        {"net": lambda: mlp(nn.BatchNorm1d(4, track_running_stats=False))},
        "depend on the others in its mini-batch",
    ),
    "random": ({"net": lambda: mlp(Random())}, "the loss is random"),
    "rounding": ({"net": lambda: mlp(Rounding())}, "no derivative|no engine"),
    "wrong inputs": ({"net": lambda: nn.Linear(7, 3)}, "fails in float64, .* shapes"),
    "fisher": ({"criterion": nn.NLLLoss(), "curvature": "fisher"}, "take CURVATURE=ggn"),
    "unknown curvature": ({"curvature": "hesian"}, "the nearest valid one is hessian"),
    "unknown names": ({"names": ["0.weight", "3.bias"]}, "no trainable .*: 3.bias"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused_in_one_line(name, float64):
    torch.manual_seed(0)
    given, message = REFUSED[name]
    options = {"criterion": nn.CrossEntropyLoss()} | given
    net, data = options.pop("net", lambda: mlp(nn.Tanh()))(), options.pop("data", pairs)()
    with pytest.raises(InputError, match=message) as refusal:
        make_hessian(net, data=data, num_data=NUM, **options).make_plan()
    assert "\n" not in str(refusal.value)


def test_a_product_that_overflows_is_refused(float64):
    net = nn.Linear(4, 3)
    H = make_hessian(net, lambda out, y: out.exp().mean(), pairs(), NUM)
    H.make_plan()
    with torch.no_grad():
        net.bias.fill_(800.0)
    with pytest.raises(NumericalError, match="the product is NaN or infinite"):
        H @ torch.ones(15)


def test_engines_that_agree_with_each_other_may_both_be_wrong(float64):
    """A layer whose second derivative is not that of its first one."""

    class Wrong(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return x**3

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * (3 * x**2).detach()

        @staticmethod
        def jvp(ctx, t):
            (x,) = ctx.saved_tensors
            return t * (3 * x**2).detach()

    class Layer(nn.Module):
        def forward(self, x):
            return Wrong.apply(x)

    H = make_hessian(mlp(Layer()), nn.CrossEntropyLoss(), pairs(), NUM)
    with pytest.raises(InputError, match=r"^no engine can .* off by .* graph: .* off by"):
        H.make_plan()


# ------------------------------------------------------------------------------ curvatures


def outputs_jacobian(net, X):
    """Return outputs ``[N, C]`` and their Jacobian ``[N C, D]``."""
    params = {name: p.detach() for name, p in net.named_parameters()}
    outputs = net(X).detach()
    J = jacrev(lambda p: functional_call(net, p, (X,)))(params)
    return outputs, torch.cat([j.reshape(outputs.numel(), -1) for j in J.values()], dim=1)


def dense_ggn(net, criterion, X, y):
    outputs, J = outputs_jacobian(net, X)
    H_L = torch.func.hessian(lambda out: criterion(out, y))(outputs).reshape(len(J), len(J))
    return J.T @ H_L @ J


def dense_fisher(net, X, kind):
    """Return the mean over data of ``E[g g^T]``, ``g`` the gradient for a target of the network.

    For cross-entropy the expectation is a sum over classes; for MSE the targets are normal with
    variance 1/2, and the mean is over all elements.
    """
    outputs, J = outputs_jacobian(net, X)
    num, classes = outputs.shape
    J, total = J.reshape(num, classes, -1), 0.0
    for Jn, out in zip(J, outputs, strict=True):
        if kind == "mse":
            total = total + Jn.T @ (2 * torch.eye(classes)) @ Jn / classes
            continue
        p = out.softmax(0)
        for c in range(classes):
            g = Jn.T @ (p - F.one_hot(torch.tensor(c), classes))
            total = total + p[c] * torch.outer(g, g)
    return total / num


LOSSES = {
    "cross-entropy": (nn.CrossEntropyLoss(), lambda: torch.arange(NUM) % 3),
    "mse": (nn.MSELoss(), lambda: torch.randn(NUM, 3)),
    "class weights": (
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 20.0], dtype=torch.float64)),
        lambda: torch.arange(NUM) % 3,
    ),
}


@pytest.fixture(params=LOSSES)
def model(request, float64):
    torch.manual_seed(0)
    criterion, targets = LOSSES[request.param]
    X, y = vectors()[0], targets()
    batches = list(zip(X.split(4), y.split(4), strict=True))
    return request.param, mlp(nn.LayerNorm(4), nn.SiLU()), criterion, X, y, batches


@pytest.mark.parametrize("engine", ENGINES)
def test_ggn_equals_the_dense_one(model, engine):
    _, net, criterion, X, y, batches = model
    G = make_hessian(net, criterion, batches, NUM, ProductSettings(engine), curvature="ggn")
    torch.testing.assert_close(
        G @ torch.eye(G.shape[0]), dense_ggn(net, criterion, X, y), rtol=0, atol=1e-12
    )
    assert G.plan.vetting.right == (engine,)


@pytest.mark.parametrize("engine", ENGINES)
def test_fisher_is_the_expectation_over_targets_of_the_network(model, engine):
    name, net, criterion, X, _, batches = model
    settings = ProductSettings(engine)
    if name == "class weights":
        with pytest.raises(
            InputError, match="CrossEntropyLoss with weight, which is no likelihood"
        ):
            make_hessian(net, criterion, batches, NUM, settings, curvature="fisher")
        return
    G = make_hessian(net, criterion, batches, NUM, settings, curvature="fisher")
    torch.testing.assert_close(
        G @ torch.eye(G.shape[0]), dense_fisher(net, X, name), rtol=0, atol=1e-12
    )


def test_ggn_of_labels_of_tokens(float64):
    torch.manual_seed(0)
    net, (X, y), criterion = Tagger(), tagged_words(), nn.CrossEntropyLoss()
    batches = list(zip(X.split(4), y.split(4), strict=True))
    G = make_hessian(net, criterion, batches, NUM, curvature="ggn")
    expected = dense_ggn(net, criterion, X, y)
    torch.testing.assert_close(G @ torch.eye(G.shape[0]), expected, rtol=0, atol=1e-12)
