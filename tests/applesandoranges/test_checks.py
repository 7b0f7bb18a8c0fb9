"""Checks against tiny losses that are wrong in one known way each."""

import math

import pytest
import torch
from curvlinops import HessianLinearOperator
from torch import nn

from applesandoranges.hessian.checks import (
    CheckResult,
    check_agreement,
    check_cost,
    check_determinism,
    check_finite_values,
    check_memory,
    check_operator,
    check_symmetry,
    run_checks,
)
from applesandoranges.hessian.loss import Loss
from applesandoranges.hessian.operator import make_hessian
from applesandoranges.problems.parameters import untrained_state
from skerch.utils import NumericalError, gaussian_noise

NUM, WIDTH, CLASSES = 12, 4, 3
EVAL_MODE = "put the network into evaluation mode, net.eval()"


class Augmented:
    """Mini-batches whose inputs are another noisy copy in each pass."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return ((X + 0.01 * torch.randn_like(X), y) for X, y in self.batches)


class Shuffled(Augmented):
    """Mini-batches that begin with another one in each pass."""

    def __iter__(self):
        self.batches = self.batches[1:] + self.batches[:1]
        return iter(self.batches)


class FunctionalDropout(nn.Module):
    def forward(self, X):
        return nn.functional.dropout(X, 0.5)


class NoisyCriterion(nn.CrossEntropyLoss):
    def forward(self, outputs, y):
        return super().forward(outputs, y) + torch.rand(())


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, X):
        self.calls += 1
        return X


def batches(sizes=(5, 5, 2)):
    X, y = gaussian_noise((sum(sizes), WIDTH), 0, dtype=torch.float32), torch.arange(sum(sizes))
    return list(zip(X.split(sizes), (y % CLASSES).split(sizes), strict=True))


def make_loss(*extra, data=None, criterion=None, training=True):
    """Return a loss of a small network with ``extra`` modules, in training mode."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(WIDTH, 5), nn.Tanh(), *extra, nn.Linear(5, CLASSES))
    net.train(training)
    return Loss(net, criterion or nn.CrossEntropyLoss(), data or batches())


def operator_of(loss):
    """Return the Hessian operator, with the network left in its mode."""
    return HessianLinearOperator(
        loss.net, loss.criterion, loss.params, loss.data, check_deterministic=False, num_data=NUM
    )


#: A loss, what the verdict must say, what the remedy must say.
RANDOM = {
    "random augmentation": (
        lambda: make_loss(data=Augmented(batches())),
        "random augmentation in the transform of the data (3 of 3 mini-batches change",
        "use a deterministic transform: cifar10det_3c3d instead of cifar10_3c3d",
    ),
    "dropout": (
        lambda: make_loss(nn.Dropout(0.5)), "dropout in training mode (2)", EVAL_MODE,
    ),
    "batch norm": (
        lambda: make_loss(nn.BatchNorm1d(5)), "BatchNorm in training mode (2)", EVAL_MODE,
    ),
    "batch norm of single data points": (
        lambda: make_loss(nn.BatchNorm1d(5), data=batches((5, 1))), "not computed", EVAL_MODE,
    ),
    "shuffled": (
        lambda: make_loss(data=Shuffled(batches())), "another order in each pass", "shuffle=False",
    ),
    "iterator": (
        lambda: make_loss(data=iter(batches())), "second pass through the data has 0 mini-batches",
        "not an iterator",
    ),
    "functional dropout": (
        lambda: make_loss(FunctionalDropout()), "unknown cause: the network", "such as F.dropout",
    ),
    "criterion": (
        lambda: make_loss(criterion=NoisyCriterion()), "unknown cause: the criterion", "criterion",
    ),
    "other buffers": (
        lambda: make_loss(Counting()), "changes buffers of the network (2.calls)", EVAL_MODE,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "cause", "remedy"), RANDOM.values(), ids=RANDOM)
def test_random_losses_are_recognised_with_cause_and_remedy(make, cause, remedy):
    torch.manual_seed(0)
    result = check_determinism(make())
    assert (result.name, result.ok) == ("determinism", False)
    assert cause in result.detail
    assert remedy in result.remedy
    assert "\n" not in result.detail + result.remedy


def test_all_causes_are_named_and_a_common_remedy_once():
    loss = make_loss(nn.BatchNorm1d(5), nn.Dropout(0.5), data=Augmented(batches()))
    result = check_determinism(loss)
    assert all(cause in result.detail for cause in ("random augmentation", "BatchNorm", "dropout"))
    assert result.remedy.count(EVAL_MODE) == 1


DETERMINISTIC = {
    "plain": lambda: make_loss(),
    "dropout in evaluation mode": lambda: make_loss(nn.Dropout(0.5), training=False),
    "dropout of nothing": lambda: make_loss(nn.Dropout(0.0)),
    "batch norm in evaluation mode": lambda: make_loss(nn.BatchNorm1d(5), training=False),
}


@pytest.mark.parametrize("make", DETERMINISTIC.values(), ids=DETERMINISTIC)
def test_deterministic_losses_pass_every_check(make):
    loss = make()
    results = run_checks(loss, operator_of(loss))
    assert [r.name for r in results] == [
        "determinism", "finite values", "symmetry", "agreement with float64", "cost", "memory",
    ]  # fmt: skip
    assert [r for r in results if not r.ok or r.remedy] == []
    check_operator(operator_of(loss), loss, "step 0, train")


def test_batch_norm_without_statistics_uses_the_batch_even_in_evaluation_mode():
    loss = make_loss(nn.BatchNorm1d(5, track_running_stats=False), training=False)
    assert "BatchNorm" in check_determinism(loss).detail


def test_determinism_counts_mini_batches_and_reports_the_mean():
    loss = make_loss()
    X, y = (torch.cat(part) for part in zip(*loss.data, strict=True))
    expected = loss.criterion(loss.net(X), y).item()
    assert check_determinism(loss).detail == f"3 mini-batches, loss {expected:.7g}, twice"
    assert check_determinism(loss, max_batches=1).detail.startswith("1 mini-batch, ")


def test_checks_leave_the_network_as_it_was():
    loss = make_loss(nn.BatchNorm1d(5))
    before, params = untrained_state(loss.net), [p.clone() for p in loss.params]
    run_checks(loss, operator_of(loss))
    assert all(torch.equal(before[k], v) for k, v in loss.net.named_buffers())
    assert all(torch.equal(p, q) for p, q in zip(loss.params, params, strict=True))
    assert loss.net.training
    assert all(p.grad is None for p in loss.params)


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(5), nn.Dropout(0.5)], ids=["batch norm", "dropout"]
)
def test_products_are_deterministic_in_training_mode(layer):
    loss = make_loss(layer)
    H = make_hessian(loss.net, loss.criterion, loss.data, NUM)
    v = gaussian_noise(H.shape[0], 0, dtype=torch.float32)
    assert torch.equal(H @ v, H @ v)
    assert not check_determinism(loss).ok
    loss.net.eval()
    assert check_determinism(loss).ok


# ------------------------------------------------------------------------------ the loss


def test_loss_derivatives_are_those_of_the_whole_data():
    loss = make_loss().double()
    loss = Loss(loss.net, loss.criterion, list(loss.data))
    X, y = (torch.cat(part) for part in zip(*loss.data, strict=True))
    whole = loss.criterion(loss.net(X), y)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(whole, loss.params)])
    v = gaussian_noise(len(gradient), 1)
    torch.testing.assert_close(loss.value(), whole)
    torch.testing.assert_close(loss.gradient(), gradient)
    torch.testing.assert_close(loss.hvp(v), operator_of(loss) @ v)


# ------------------------------------------------------------------------------ the operator


class Matrix:
    """A matrix that has nothing but a shape and ``@``."""

    def __init__(self, A):
        self.A, self.shape = A, A.shape

    def __matmul__(self, X):
        return self.A @ X


def gaussian_matrix(dim, dtype):
    return gaussian_noise((dim, dim), 3, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("dim", [1, 5, 1000])
def test_symmetric_matrices_pass(dim, dtype):
    A = gaussian_matrix(dim, dtype)
    result = check_symmetry(Matrix(A + A.T), dtype)
    assert result.ok, result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("share", [1.0, 0.05])
def test_other_matrices_fail(dtype, share):
    A = gaussian_matrix(500, dtype)
    result = check_symmetry(Matrix(A + A.T + share * A), dtype)
    assert not result.ok
    assert "relative difference" in result.detail
    assert "precision" in result.remedy


def test_zero_is_symmetric_and_nan_is_not():
    assert check_symmetry(Matrix(torch.zeros(3, 3))).ok
    assert not check_symmetry(Matrix(torch.full((3, 3), math.nan))).ok


def test_finite_values():
    loss = make_loss(training=False)
    assert check_finite_values(loss, operator_of(loss)).ok
    with torch.no_grad():
        loss.params[0][0, 0] = math.inf
        loss.params[1][0] = -math.inf
    result = check_finite_values(loss, operator_of(loss))
    assert not result.ok
    assert "NaN or infinite: loss 1 of 1, gradient" in result.detail
    assert "the training diverged" in result.remedy


def test_operator_of_another_loss_does_not_agree():
    loss = make_loss(training=False)
    assert check_agreement(loss, operator_of(loss)).ok
    other = make_loss(training=False, data=batches()[:2])
    result = check_agreement(other, operator_of(loss))
    assert not result.ok
    assert "the operator is of another loss" in result.remedy


def test_cost_is_reported_and_never_fails():
    loss = make_loss(training=False)
    result = check_cost(loss, operator_of(loss))
    assert result.ok
    assert {"one product", "one gradient", "ratio"} <= {
        part.strip(" .0123456789es-m") for part in result.detail.split(",")
    }


def test_memory_is_reported():
    result = check_memory(make_loss())
    assert result.ok
    assert "one vector 172 bytes" in result.detail  # 43 parameters


def test_memory_that_is_nearly_used_up_fails(monkeypatch):
    monkeypatch.setattr("applesandoranges.hessian.checks.MEMORY_SHARE", 1e-6)
    result = check_memory(make_loss())
    assert not result.ok
    assert "fewer data points per mini-batch" in result.remedy


def test_an_operator_that_cannot_be_applied_fails_in_one_line():
    class Broken(Matrix):
        def __matmul__(self, X):
            raise torch.OutOfMemoryError("out\nof memory")

    result = check_symmetry(Broken(torch.zeros(3, 3)))
    assert (result.ok, result.detail) == (False, "not computed: out of memory")


# ------------------------------------------------------------------------------ before a job


REFUSED = {
    "augmentation": (
        lambda: make_loss(data=Augmented(batches())), None,
        "step 4, test: determinism: 1 mini-batch, .* random augmentation .*; use a deterministic",
    ),
    "dropout": (
        lambda: make_loss(nn.Dropout(0.5)), None,
        "step 4, test: determinism: .* dropout in training mode .*; put the network into eval",
    ),
    "batch norm": (
        lambda: make_loss(nn.BatchNorm1d(5)), None, "determinism: .* BatchNorm in training mode",
    ),
    "asymmetric": (
        lambda: make_loss(training=False), Matrix(gaussian_matrix(43, torch.float32)),
        "step 4, test: symmetry: u.Hv = .*; a loss that is not deterministic",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "operator", "message"), REFUSED.values(), ids=REFUSED)
def test_operators_not_worth_measuring_are_refused(make, operator, message):
    loss = make()
    with pytest.raises(NumericalError, match=message) as info:
        check_operator(operator or operator_of(loss), loss, "step 4, test")
    assert "\n" not in str(info.value)


def test_check_operator_reads_one_mini_batch_and_takes_two_products():
    loss, log = make_loss(training=False), []

    class Spy(Matrix):
        def __matmul__(self, X):
            log.append(tuple(X.shape))
            return super().__matmul__(X)

    class Read(Augmented):
        def __iter__(self):
            for batch in self.batches:
                log.append("batch")
                yield batch

    A = gaussian_matrix(43, torch.float32)
    check_operator(Spy(A + A.T), Loss(loss.net, loss.criterion, Read(loss.data)), "here")
    assert log == ["batch", "batch", (43, 1), (43, 1)]


def test_results_are_plain_values():
    assert CheckResult("a", True, "b") == CheckResult("a", True, "b", remedy="")
