"""Which engines are right for a network, found out on a few data points before it is measured.

Second derivatives of some layers are missing in one engine or the other, and those of others are
wrong without a word (forward over reverse of LayerNorm, for one). So each engine multiplies two
vectors, and is dropped if it raises, if ``u.Av`` differs from ``v.Au``, or if ``Av`` is not what
first derivatives in float64 say: for the Hessian the central difference of the gradient,

    A v = (g(p + h v) - g(p - h v)) / 2h + O(h^2 |D^3 g|) + O(eps |g| / h).

At ``h = 1e-7`` (relative to the size of the parameters) both terms are about 1e-9 or less. Kinks,
as of ReLU, are where they must not be: parameters are moved by a hundredth first, away from the
exact zeros of fresh biases and black pixels, and the step is so short that few units pass a kink
within it; if one does, the difference changes with the step. So a difference is believed when it is
the same at two step sizes. A network that rounds to float32 in between needs a long step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from skerch import heartbeat
from skerch.errors import InputError, SkerchError
from skerch.utils import gaussian_noise

from ..app.keys import one_line
from ..problems.minibatch import convert, tensors, to_device
from .batches import cut, num_points, to_dtype
from .means import weight_of
from .modes import differentiable
from .networks import copy_of, displace, in_float64

if TYPE_CHECKING:
    from .curvatures import BlockOperator

#: Data points on which engines are checked.
POINTS = 4
#: How far parameters are moved, relatively, away from kinks.
DISPLACEMENT = 1e-2
#: Pairs of relative step sizes, how far their differences may be apart for the second one to be
#: believed, and how far engines may be from it: the least fault that was seen is 5e-4, of LayerNorm
#: in a vision transformer at its initialisation. The last two are for networks that round to
#: float32 in between.
STEPS = (
    (1e-6, 1e-7, 3e-6, 1e-5),
    (1e-7, 1e-8, 3e-6, 1e-5),
    (1e-8, 1e-9, 3e-6, 1e-5),
    (2e-3, 1e-3, 2e-4, 5e-4),
    (2e-2, 1e-2, 3e-3, 1e-2),
)
#: How far gradients of the same loss, and outputs of the same data point, may be apart.
SAME_TWICE, SAME_OUTPUTS = 1e-6, 1e-4
#: Rounding of a difference, in units of ``eps |g| / h``, with a margin for sums in the network.
ROUNDING = 1e3
#: How far products in the dtype of the network may be from those in float64, relatively.
NATIVE = {torch.float64: 1e-6, torch.float32: 1e-2}
#: The same for dtypes of half precision.
NATIVE_HALF = 0.3


@dataclass(frozen=True)
class Vetting:
    """What was found out.

    Attributes:
        right: Engines that may be used.
        wrong: The others, each with the reason.
        errors: For each engine that multiplies, how far it is off in float64, relatively.
        points: Data points that were looked at.
    """

    right: tuple[str, ...]
    wrong: dict[str, str]
    errors: dict[str, float]
    points: int

    def summary(self) -> dict[str, Any]:
        """Return what is logged."""
        return {
            "right": list(self.right),
            "wrong": self.wrong,
            "relative_errors": self.errors,
            "data_points": self.points,
        }


def vet(H: BlockOperator, engines: Sequence[str], wanted: Sequence[str]) -> Vetting:
    """Find out which engines multiply ``H`` rightly.

    Cost: on :data:`POINTS` data points, for each engine two products in the dtype of the network
    and one in float64, and six gradients in float64 (four more each time that differences do not
    agree); and what :func:`~applesandoranges.hessian.means.average_over` costs. Leaves the network,
    and the global generators, as they are.

    Args:
        H: The operator.
        engines: All engines.
        wanted: Those that may be used; the others are tried if all of these are wrong, so that the
            message can name one.

    Raises:
        InputError: If none is right, or the loss cannot be differentiated, is random or not finite.
    """
    heartbeat.doing("checking which engines are right for the network")
    sample = _Sample(H)
    wrong, errors = dict[str, str](), dict[str, float]()
    for engine in wanted:
        _try(sample, engine, wrong, errors)
    right = tuple(engine for engine in wanted if engine not in wrong)
    if right:
        return Vetting(right, wrong, errors, sample.points)
    others = [engine for engine in engines if engine not in wanted]
    for engine in others:
        _try(sample, engine, wrong, errors)
    reasons = "; ".join(f"{engine}: {reason}" for engine, reason in wrong.items())
    instead = [engine for engine in others if engine not in wrong]
    if instead:
        raise InputError(f"HVP_ENGINE={reasons}; {instead[0]} (or auto) is right for this network")
    raise InputError(
        f"no engine can multiply the curvature of this network rightly: {reasons}; replace the "
        "layer whose second derivative is missing or wrong"
    )


def _try(sample: _Sample, engine: str, wrong: dict[str, str], errors: dict[str, float]) -> None:
    try:
        reason, error = sample.examine(engine)
    except (SkerchError, MemoryError) as problem:
        reason, error = one_line(problem), math.nan
    except Exception as problem:  # whatever torch or the network raises within an engine
        reason, error = f"raises {type(problem).__name__}: {one_line(problem)[:160]}", math.nan
    if reason:
        wrong[engine] = reason
    if math.isfinite(error):
        errors[engine] = error


class _Sample:
    """A few data points, the network moved away from kinks, and its copy in float64."""

    def __init__(self, H: BlockOperator):
        self.batch = _few_points(H)
        self.points = num_points(*self.batch)
        names = _names(H)
        self.device = H.device if H.device.type in ("cpu", "cuda") else torch.device("cpu")
        try:
            net = copy_of(H.net)
            displace(net, DISPLACEMENT, seed=0)
            self.native = H.of(net, copy_of(H.criterion), names, [self.batch], self.points)
            net64 = in_float64(net).to(self.device)
            batch64 = to_device(to_dtype(self.batch, torch.float64), self.device)
            criterion64 = in_float64(H.criterion).to(self.device)
        except (RuntimeError, TypeError, NotImplementedError) as error:
            raise InputError(
                f"the network cannot be copied to float64 to be checked: {one_line(error)[:160]}"
            ) from None
        self.exact = H.of(net64, criterion64, names, [batch64], self.points)
        noise = gaussian_noise((2, H.shape[1]), 0, dtype=torch.float64, device=self.device)
        self.UV = noise.T / noise.norm(dim=1)
        with differentiable(net64), _default_dtype(torch.float64):
            self.reference = _reference(self.exact, self.UV[:, 1])
            if H.averaging.num_batches > 1:
                _check_independence(self.exact)

    def examine(self, engine: str) -> tuple[str, float]:
        """Return why an engine is wrong, empty if it is right, and how far it is off."""
        true, dtype = self.reference, self.native.dtype
        with _default_dtype(torch.float64):
            Av = self._multiply(self.exact, engine, self.UV[:, 1:])[:, 0]
        off, size = float((Av - true.product).norm()), float(max(true.product.norm(), Av.norm()))
        relative = off / size if size else 0.0
        if not off <= true.tolerance * size + true.rounding:
            return f"its product is off by {relative:.1g} from differences of gradients", relative
        native = self._multiply(self.native, engine, self.UV).to(Av)
        room = true.scale * torch.finfo(dtype).eps
        off = float((native[:, 1] - Av).norm())
        if not off <= NATIVE.get(dtype, NATIVE_HALF) * size + room:
            return f"its product in {dtype} is off by {off / size:.1g} from float64", relative
        uAv, vAu = (float(w @ p) for w, p in zip(self.UV.T, native.T.flip(0), strict=True))
        if not abs(uAv - vAu) <= NATIVE.get(dtype, NATIVE_HALF) * float(native.norm()) + room:
            return f"it is not symmetric: u.Av = {uAv:.3g}, v.Au = {vAu:.3g}", relative
        return "", relative

    @staticmethod
    def _multiply(operator: BlockOperator, engine: str, vectors: Tensor) -> Tensor:
        num, shapes = vectors.shape[1], operator._in_shape
        split = vectors.to(operator.device, operator.dtype).split(operator._in_shape_flat)
        M = [part.reshape(*shape, num) for part, shape in zip(split, shapes, strict=True)]
        product = operator.multiply(engine, M, operator.batches())
        return torch.cat([part.reshape(-1, num) for part in product])


def _few_points(H: BlockOperator) -> tuple[Any, Any]:
    """Return the first points that count in the loss."""
    averaging = H.averaging  # made before the data are read here: it checks them all
    for X, y in H.batches():
        num = num_points(X, y)
        few = min(num, POINTS)
        for size in (few, num):
            part = cut(X, 0, size, num), cut(y, 0, size, num)
            if averaging.total is None or weight_of(H.criterion, *part) > 0:
                return part
    raise AssertionError("averaging.total is positive")


def _names(H: BlockOperator) -> list[str]:
    by_id = {id(p): name for name, p in H.net.named_parameters()}
    return [by_id[id(p)] for p in H.parameters]


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """What a network makes anew, e.g. its first hidden state, must be of that dtype, too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@dataclass(frozen=True)
class _Reference:
    """A product by differences.

    Attributes:
        product: ``A v``, ``[D]``.
        scale: Rounding of products, in units of machine precision: ``|g| / |p|`` with a margin.
        rounding: Its own error of rounding.
        tolerance: How exact it is otherwise, relatively.
    """

    product: Tensor
    scale: float
    rounding: float
    tolerance: float


def _reference(H: BlockOperator, v: Tensor) -> _Reference:
    """Return ``A v`` by differences, of the one mini-batch of ``H``.

    Raises:
        InputError: If the loss fails, is random, not finite, or has no such derivative.
    """
    (batch,) = H.batches()
    try:
        first, second = H.slope(*batch), H.slope(*batch)
    except Exception as error:  # whatever the network raises
        raise InputError(
            f"the loss or its gradient fails in float64, on {num_points(*batch)} of the data "
            f"points: {one_line(error)[:200]}; forward() must follow the dtype of its parameters"
        ) from None
    if not bool(torch.isfinite(first).all()):
        raise InputError("the gradient is NaN or infinite: check inputs, targets and parameters")
    norm = float(first.norm())
    if float((first - second).norm()) > SAME_TWICE * norm:
        raise InputError(
            "the loss is random: two gradients differ in evaluation mode; look for random "
            "operations in forward(), such as F.dropout without training=self.training"
        )
    size = math.sqrt(sum(float(p.detach().square().sum()) for p in H.parameters)) or 1.0
    scale, eps = ROUNDING * norm / size, torch.finfo(torch.float64).eps
    for long, short, agreement, tolerance in STEPS:
        one, other = (H.difference(*batch, v, h * size) for h in (long, short))
        rounding, apart = scale * eps / short, float((one - other).norm())
        if apart <= agreement * float(other.norm()) + rounding:
            return _Reference(other, scale, rounding, tolerance)
    raise InputError(
        "the gradient has no derivative here that could be checked: its differences change with "
        f"the step, by {apart / max(float(other.norm()), 1e-300):.1g} of their size; is there a "
        "rounding or a step in forward()?"
    )


def _check_independence(H: BlockOperator) -> None:
    """Check that outputs for a data point do not depend on the others in its mini-batch.

    Raises:
        InputError: If they do.
    """
    ((X, y),) = H.batches()
    num = num_points(X, y)
    half = max(1, num // 2)
    with torch.no_grad():
        whole, part = H.net(X), H.net(cut(X, 0, half, num))
    whole, part = (convert(out, Tensor.detach) for out in (whole, part))  # TorchScript needs it
    for a, b in zip(tensors(cut(whole, 0, half, num)), tensors(part), strict=False):
        if a.shape == b.shape and float((a - b).norm()) > SAME_OUTPUTS * float(b.norm()):
            raise InputError(
                "the outputs for a data point depend on the others in its mini-batch (BatchNorm on "
                "batch statistics?), and so would the curvature: let BatchNorm track running "
                "statistics, or give all data as one mini-batch"
            )


def difference(
    function: Callable[[], Tensor], params: Sequence[nn.Parameter], v: Tensor, h: float
) -> Tensor:
    """Return ``(f(p + h v) - f(p - h v)) / 2h`` of a function of the parameters.

    Args:
        function: ``f``; called with the parameters moved.
        params: The parameters, as they were afterwards.
        v: The direction, ``[D]``.
        h: The step.
    """
    before = [p.detach().clone() for p in params]
    values = []
    try:
        for step in (h, -h):
            _move(params, before, step * v)
            values.append(function())
    finally:
        _move(params, before, torch.zeros_like(v))
    return (values[0] - values[1]) / (2 * h)


@torch.no_grad()
def _move(params: Sequence[nn.Parameter], before: Sequence[Tensor], by: Tensor) -> None:
    parts: Iterator[Tensor] = iter(by.split([p.numel() for p in params]))
    for p, value in zip(params, before, strict=True):
        p.copy_(value + next(parts).view_as(value))
