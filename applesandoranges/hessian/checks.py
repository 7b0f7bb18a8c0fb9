"""Checks of a loss and its Hessian operator, before hours are spent on measuring it.

Each check returns a :class:`CheckResult` that says what was found and, if it does not hold, what to
do about it. :func:`each_check` runs all of them (20a); :func:`check_operator` is the cheap
selection with which a measurement job starts (10c).
"""

from __future__ import annotations

import functools
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, ParamSpec

import torch
from humanfriendly import format_size
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from skerch import heartbeat
from skerch.errors import NumericalError, one_line
from skerch.utils import gaussian_noise

from ..problems.minibatch import tensors
from ..problems.parameters import load_untrained, tensor_hash, untrained_state
from .batches import num_points
from .curvatures import BlockOperator
from .loss import Loss

P = ParamSpec("P")
#: ``(ok, detail)``, and the remedy where it depends on what was found.
Found = tuple[bool, str] | tuple[bool, str, str]

#: Two evaluations on the same data may differ by this much, relatively: sums in another order.
SAME = 1e-5
#: How far, relatively, ``u.Hv`` and ``v.Hu`` may differ; rounding alone gives 1e-7 to 1e-5 in
#: float32, an operator that is not symmetric about 1.
SYMMETRY = {torch.float32: 1e-3, torch.float64: 1e-9}
#: How far, relatively, a product may differ from the one in float64.
PRECISION = {torch.float32: 1e-2, torch.float64: 1e-8}
#: A process that needs more than this share of the memory is about to be killed.
MEMORY_SHARE = 0.9

DIVERGED = "take an earlier step or lower the learning rate: the training diverged"
EVAL_MODE = "put the network into evaluation mode, net.eval(), before anything is computed from it"


@dataclass(frozen=True)
class CheckResult:
    """What a check found.

    Attributes:
        name: Name of the check.
        ok: Whether it holds.
        detail: What was found, in one line.
        remedy: What to do about it; empty if it holds.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def _check(name: str, remedy: str) -> Callable[[Callable[P, Found]], Callable[P, CheckResult]]:
    """Make a check of a function that returns what it found, or raises what torch raises."""

    def decorate(function: Callable[P, Found]) -> Callable[P, CheckResult]:
        @functools.wraps(function)
        def check(*args: P.args, **kwargs: P.kwargs) -> CheckResult:
            heartbeat.doing(f"checking {name}")
            try:
                ok, detail, *own_remedy = function(*args, **kwargs)
            except (RuntimeError, ValueError) as error:  # e.g. out of memory
                ok, detail, own_remedy = False, f"not computed: {one_line(error)[:200]}", []
            return CheckResult(name, ok, detail, "" if ok else (own_remedy or [remedy])[0])

        return check

    return decorate


# ------------------------------------------------------------------------------ determinism


@dataclass(frozen=True)
class _Seen:
    """A mini-batch in one pass through the data.

    Attributes:
        inputs: Hash of ``X``.
        labels: Hash of ``y``.
        loss: Loss of the mini-batch, times its size.
        size: Number of data points.
        same_outputs: Whether the network gives the same twice.
    """

    inputs: str
    labels: str
    loss: float
    size: int
    same_outputs: bool


@torch.no_grad()
def _one_pass(loss: Loss, max_batches: int | None) -> Iterator[_Seen]:
    for X, y in islice(loss.data, max_batches):
        first, second = loss.net(X), loss.net(X)
        # Not "<=": NaNs are not random, and another check finds them.
        same = not any(
            bool((a - b).abs().max() > SAME * a.abs().max())
            for a, b in zip(tensors(first), tensors(second), strict=True)
        )
        size = num_points(X, y)
        value = float(loss.criterion(first, y)) * size
        yield _Seen(tensor_hash(*tensors(X)), tensor_hash(*tensors(y)), value, size, same)


@_check("determinism", EVAL_MODE)
def check_determinism(loss: Loss, max_batches: int | None = None) -> Found:
    """Check that the loss is a function of the parameters alone.

    Reads the data twice and compares mini-batch by mini-batch: first the data themselves, then what
    the network makes of the same data, so that the cause can be named. Buffers are put back.

    Args:
        loss: The loss.
        max_batches: Look at the first mini-batches only.
    """
    buffers = untrained_state(loss.net)
    try:
        first, second = (list(_one_pass(loss, max_batches)) for _ in range(2))
        after = untrained_state(loss.net)
    finally:
        load_untrained(loss.net, buffers)
    moved = [key for key, value in buffers.items() if not torch.equal(value, after[key])]
    causes = [*_data_causes(first, second), *_network_causes(loss.net, [*first, *second], moved)]
    loss_a, loss_b = (
        sum(s.loss for s in seen) / max(1, sum(s.size for s in seen)) for seen in (first, second)
    )
    if not causes and abs(loss_a - loss_b) > SAME * abs(loss_a):
        causes = [("unknown cause: the criterion", "take a criterion without randomness")]
    what = f"{len(first)} mini-batch{'es' * (len(first) != 1)}, loss {loss_a:.7g}"
    if not causes:
        return True, f"{what}, twice"
    reasons, remedies = ("; ".join(dict.fromkeys(texts)) for texts in zip(*causes, strict=True))
    return False, f"{what}, then {loss_b:.7g}: {reasons}", remedies


def _data_causes(first: list[_Seen], second: list[_Seen]) -> Iterator[tuple[str, str]]:
    if len(first) != len(second):
        yield (
            f"the second pass through the data has {len(second)} mini-batches",
            "give a list or a loader, which can be read again, not an iterator",
        )
    elif [s.labels for s in first] != [s.labels for s in second]:
        yield "the data come in another order in each pass", "do not shuffle them: shuffle=False"
    else:
        changed = sum(a.inputs != b.inputs for a, b in zip(first, second, strict=True))
        if changed:
            yield (
                f"random augmentation in the transform of the data ({changed} of {len(first)} "
                "mini-batches change from pass to pass)",
                "use a deterministic transform: cifar10det_3c3d instead of cifar10_3c3d, "
                "cifar100det_allcnnc instead of cifar100_allcnnc",
            )


def _network_causes(
    net: nn.Module, seen: list[_Seen], moved: list[str]
) -> Iterator[tuple[str, str]]:
    modules = list(net.named_modules())
    dropouts = [n for n, m in modules if isinstance(m, _DropoutNd) and m.training and m.p > 0]
    batch_norms = [n for n, m in modules if isinstance(m, _BatchNorm) and _uses_the_batch(m)]
    if batch_norms:
        yield (
            f"BatchNorm in training mode ({_some(batch_norms)}): the loss of a data point depends "
            "on its mini-batch, and each evaluation moves the running statistics",
            EVAL_MODE,
        )
    elif moved:
        yield f"each evaluation changes buffers of the network ({_some(moved)})", EVAL_MODE
    if all(s.same_outputs for s in seen):
        return
    if dropouts:
        yield f"dropout in training mode ({_some(dropouts)})", EVAL_MODE
    else:
        yield (
            "unknown cause: the network makes different outputs of the same inputs, and no dropout "
            "layer is in training mode",
            f"look for random operations in its forward(), such as F.dropout, and {EVAL_MODE}",
        )


def _uses_the_batch(module: _BatchNorm) -> bool:
    return module.training or module.running_mean is None


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# ------------------------------------------------------------------------------ the operator


def _vectors(operator: Any, num: int, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Return Gaussian vectors that fit ``operator``, ``[D, num]``."""
    return gaussian_noise((operator.shape[1], num), seed=0, dtype=dtype, device=device)


@_check("engines", "replace the layer, or give the loss, that the line names")
def check_engines(operator: BlockOperator) -> Found:
    """Check that at least one engine multiplies rightly, and say which; see :mod:`.vetting`."""
    found = operator.plan.vetting
    if found is None:
        return True, "known to be right"
    right = ", ".join(f"{name} (off by {found.errors[name]:.1g})" for name in found.right)
    wrong = "".join(f"; {name} is left out: {reason}" for name, reason in found.wrong.items())
    return True, f"right: {right}{wrong}"


@_check("finite values", DIVERGED)
def check_finite_values(loss: Loss, operator: Any) -> Found:
    """Check that loss, gradient and one product have neither NaNs nor infinities."""
    v = _vectors(operator, 1, loss.params[0].dtype, loss.params[0].device)
    values = {"loss": loss.value(), "gradient": loss.gradient(), "product": operator @ v}
    bad = {name: int((~torch.isfinite(value)).sum()) for name, value in values.items()}
    if any(bad.values()):
        lines = (f"{name} {bad[name]} of {values[name].numel()}" for name in values if bad[name])
        return False, f"NaN or infinite: {', '.join(lines)}"
    gradient, ratio = values["gradient"].norm(), values["product"].norm() / v.norm()
    return True, f"loss {values['loss']:.4g}, |gradient| {gradient:.3g}, |Hv|/|v| {ratio:.3g}"


@_check(
    "symmetry",
    "a loss that is not deterministic must be mended first; else the precision is too low: "
    "torch.backends.cudnn.allow_tf32 = False on GPUs",
)
def check_symmetry(
    operator: Any, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Found:
    """Check ``u.Hv = v.Hu`` for a Gaussian pair, relative to ``sqrt(|Hu| |Hv|)``.

    Each of the two is about as large as ``|Hv|``, also their difference if they are unrelated. The
    two products (``[D, 1]``) are separate ones, as in a measurement, and may be of two calls.
    """
    u, v = _vectors(operator, 2, dtype, device).split(1, dim=1)
    Hu, Hv = ((operator @ x).double() for x in (u.contiguous(), v.contiguous()))
    uHv, vHu = float((u.double() * Hv).sum()), float((v.double() * Hu).sum())
    scale = float((Hu.norm() * Hv.norm()).sqrt())
    difference = abs(uHv - vHu) / scale if scale > 0 else abs(uHv - vHu)
    detail = f"u.Hv = {uHv:.6g}, v.Hu = {vHu:.6g}, relative difference {difference:.1g}"
    if not math.isfinite(difference):
        return False, f"the product is NaN or infinite: {detail}", DIVERGED
    return difference <= SYMMETRY[dtype], detail


@_check(
    "agreement with float64",
    "a loss that is not deterministic must be mended first; else the operator is of another loss "
    "or network, or the precision is too low: torch.backends.cudnn.allow_tf32 = False on GPUs",
)
def check_agreement(loss: Loss, operator: Any) -> Found:
    """Check one product against differentiating the loss twice in float64.

    Not against a finite difference of gradients: at a kink of a ReLU, where networks with zero
    biases start on black pixels, the two are different things.
    """
    dtype, device = loss.params[0].dtype, loss.params[0].device
    v = _vectors(operator, 1, dtype, device)
    expected = loss.double().hvp(v[:, 0].double())
    difference = float(((operator @ v)[:, 0].double() - expected).norm())
    relative = difference / float(expected.norm()) if difference else 0.0
    return relative <= PRECISION[dtype], f"relative difference {relative:.1g}"


# ------------------------------------------------------------------------------ resources


@_check("cost", "follow the remedies of the checks above")
def check_cost(loss: Loss, operator: Any) -> Found:
    """Compare the time of one product with that of one gradient; never fails for slowness."""
    device = loss.params[0].device
    v = _vectors(operator, 1, loss.params[0].dtype, device)
    gradient = _seconds(loss.gradient, device)
    product = _seconds(lambda: operator @ v, device)
    return True, (
        f"one product {_duration(product)}, one gradient {_duration(gradient)}, "
        f"ratio {product / gradient:.1f}"
    )


def _seconds(function: Callable[[], Any], device: torch.device) -> float:
    """Return the shortest of up to ten times, fewer if they are long."""
    times: list[float] = []
    while len(times) < 10 and sum(times) < 1:
        begin = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begin)
    return min(times)


def _duration(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


@_check("memory", "fewer data points per mini-batch (batch_size in TUNING_CONF) or more memory")
def check_memory(loss: Loss) -> Found:
    """Compare the peak so far, which other checks made, with what there is; and size a sketch."""
    param = loss.params[0]
    peaks = {"process": (_peak_rss(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))}
    if param.device.type == "cuda":
        total = torch.cuda.get_device_properties(param.device).total_memory
        peaks["GPU"] = (torch.cuda.max_memory_allocated(param.device), total)
    vector = sum(p.numel() for p in loss.params) * param.element_size()
    inner = 2000**2 * param.element_size()
    lines = [
        f"{name} peak {format_size(peak)} of {format_size(there)}"
        for name, (peak, there) in peaks.items()
    ]
    lines += [
        f"one vector {format_size(vector)}",
        f"stored sketch n_o=1000, n_i=2000: {format_size(1000 * vector + inner)}",
    ]
    ok = all(peak <= MEMORY_SHARE * there for peak, there in peaks.values())
    return ok, ", ".join(lines)


def _peak_rss() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


# ------------------------------------------------------------------------------ together


def each_check(loss: Loss, operator: Any) -> Iterator[CheckResult]:
    """Run one check after the other, as they are asked for; the network is left as it was."""
    param, buffers = loss.params[0], untrained_state(loss.net)
    try:
        yield check_determinism(loss)
        if not getattr(operator, "known", True):
            yield check_engines(operator)
        yield check_finite_values(loss, operator)
        yield check_symmetry(operator, param.dtype, param.device)
        yield check_agreement(loss, operator)
        yield check_cost(loss, operator)
        yield check_memory(loss)
    finally:
        load_untrained(loss.net, buffers)


def run_checks(loss: Loss, operator: Any) -> list[CheckResult]:
    """Run all checks; nothing about the network is changed."""
    return list(each_check(loss, operator))


def check_operator(operator: Any, loss: Loss, where: str) -> None:
    """Make sure that an operator is worth measuring, at the cost of two products.

    Args:
        operator: Anything of shape ``[D, D]`` with ``@``.
        loss: The loss that it should be the Hessian of.
        where: Which Hessian this is, for the error message.

    Raises:
        NumericalError: If the loss of a mini-batch is not deterministic, or the operator is not
            symmetric; the line names the reason and the remedy.
    """
    param = loss.params[0]
    checks = (
        lambda: check_determinism(loss, max_batches=1),
        lambda: check_symmetry(operator, param.dtype, param.device),
    )
    for check in checks:
        result = check()
        if not result.ok:
            raise NumericalError(f"{where}: {result.name}: {result.detail}; {result.remedy}")
