import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts

from applesandoranges.training.optimisers import make_optimizer, make_schedule
from applesandoranges.training.settings import TrainingSettings

pytestmark = pytest.mark.numerical

LR = 0.5


def settings(opt_name="SGD", opt_hpars=None, sched_name=None, **sched_hpars):
    return TrainingSettings(1, 1, opt_name, opt_hpars or {"lr": LR}, sched_name, sched_hpars)


def parameter(value=1.0):
    return torch.nn.Parameter(torch.tensor([value]))


def learning_rates(optimizer, scheduler, steps):
    """Learning rate before each step."""
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def scheduled(steps, name, **hpars):
    described = settings("SGD", None, name, **hpars)
    optimizer = make_optimizer(described, [parameter()])
    return learning_rates(optimizer, make_schedule(described, optimizer, steps), steps)


def by_torch(steps, scheduler_type, *args):
    optimizer = torch.optim.SGD([parameter()], lr=LR)
    return learning_rates(optimizer, scheduler_type(optimizer, *args), steps)


@pytest.mark.parametrize(
    ("hpars", "expected"),
    [
        # gradient 2 in both steps: w = 1 - 0.5 * (2 + 2), or with v = 2, 0.5 * 2 + 2
        ({"lr": LR}, 1 - LR * (2 + 2)),
        ({"lr": LR, "momentum": 0.5}, 1 - LR * (2 + 3)),
    ],
    ids=["plain", "momentum"],
)
def test_sgd_makes_two_steps(hpars, expected):
    w = parameter()
    optimizer = make_optimizer(settings("SGD", hpars), [w])
    w.grad = torch.tensor([2.0])
    optimizer.step()
    optimizer.step()
    assert w.item() == pytest.approx(expected)


def test_adam_makes_a_step():
    w = parameter()
    hpars = {"lr": LR, "beta1": 0.8, "beta2": 0.9, "eps": 3.0}
    optimizer = make_optimizer(settings("Adam", hpars), [w])
    w.grad = torch.tensor([2.0])
    optimizer.step()
    # Bias correction makes the first moments g and g^2, whatever the betas are.
    assert w.item() == pytest.approx(1 - LR * 2 / (2 + 3.0))
    assert optimizer.defaults["betas"] == (0.8, 0.9)


def test_constant():
    assert scheduled(5, None) == [LR] * 5


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_is_that_of_torch(final):
    expected = by_torch(20, CosineAnnealingLR, 20, final * LR)
    assert scheduled(20, "cosine", final_lr_ratio=final) == pytest.approx(expected)


@pytest.mark.parametrize(("period", "mult"), [(4, 1), (3, 2), (50, 1)])
def test_cosine_restarts_are_those_of_torch(period, mult):
    expected = by_torch(30, CosineAnnealingWarmRestarts, period, mult, 0.2 * LR)
    rates = scheduled(30, "cosine_restarts", period=period, mult=mult, final_lr_ratio=0.2)
    assert rates == pytest.approx(expected)


def test_trapezoid():
    rates = scheduled(10, "trapezoidal", warmup_ratio=0.3, cooldown_ratio=0.4)
    factors = [1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1, 3 / 4, 2 / 4, 1 / 4]
    assert rates == pytest.approx([LR * factor for factor in factors])


@pytest.mark.parametrize(
    ("name", "hpars"),
    [
        ("cosine", {"final_lr_ratio": 0.0}),
        ("cosine_restarts", {"final_lr_ratio": 0.0, "period": 4, "mult": 1}),
    ],
)
def test_warm_up_goes_before_the_schedule(name, hpars):
    rates = scheduled(10, name, warmup_ratio=0.2, **hpars)
    assert rates[:2] == pytest.approx([LR / 3, LR * 2 / 3])
    assert rates[2:] == pytest.approx(scheduled(8, name, **hpars))


@pytest.mark.parametrize(
    ("name", "hpars"),
    [
        ("cosine", {"final_lr_ratio": 0.0, "warmup_ratio": 1.0}),
        ("trapezoidal", {"warmup_ratio": 0.5, "cooldown_ratio": 0.5}),
        ("trapezoidal", {"warmup_ratio": 0.0, "cooldown_ratio": 0.0}),
    ],
)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_extreme_ratios_give_positive_learning_rates(name, hpars, steps):
    rates = scheduled(steps, name, **hpars)
    assert all(0 < rate <= LR for rate in rates)
