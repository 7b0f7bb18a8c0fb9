"""What the mean of a loss is over, so that the loss does not depend on the mini-batches.

The mean of a mini-batch is over its data points, its tokens, the elements of its targets, or with
weights of classes: its *weight* is what the sum was divided by. The loss of all data is

    sum over mini-batches of (weight / total weight) * mean of the mini-batch,

which is the mean over everything however it is cut. Weights of PyTorch's losses are known; whether
other losses are means over data points (or sums) is found out from their values.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skerch.errors import InputError

from ..app.keys import one_line
from .batches import check_finite, cut, num_points, to_dtype

#: Losses of classes, whose means leave out ignored labels and weigh the others.
OF_CLASSES = (nn.CrossEntropyLoss, nn.NLLLoss)
#: Losses whose means are over all elements of their targets.
OF_ELEMENTS = (
    nn.MSELoss,
    nn.L1Loss,
    nn.SmoothL1Loss,
    nn.HuberLoss,
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
)
#: Functions that are the same as one of these modules with its defaults.
FUNCTIONS: dict[Any, type[nn.Module]] = {
    F.cross_entropy: nn.CrossEntropyLoss,
    F.nll_loss: nn.NLLLoss,
    F.mse_loss: nn.MSELoss,
    F.l1_loss: nn.L1Loss,
    F.smooth_l1_loss: nn.SmoothL1Loss,
    F.huber_loss: nn.HuberLoss,
    F.binary_cross_entropy: nn.BCELoss,
    F.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss,
}
#: How far, relatively, a mean in float64 may be from that of its parts; rounding gives 1e-15.
SAME_MEAN = 1e-9
#: Data points of each part. Not one: some losses drop dimensions of size one.
PART = 2


class FunctionLoss(nn.Module):
    """A loss that was given as a function."""

    def __init__(self, function: Callable[[Any, Any], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, outputs: Any, y: Any) -> Tensor:
        """Return the loss."""
        return self.function(outputs, y)


def as_criterion(loss: Any) -> nn.Module:
    """Return a loss as a module.

    Raises:
        InputError: If it is nothing that can be called, or gives a loss for each data point.
    """
    if not callable(loss):
        raise InputError(f"expected a loss(outputs, y), found {type(loss).__name__}")
    function = getattr(loss, "function", loss)  # of a module that wraps one
    same = [kind for known, kind in FUNCTIONS.items() if known is function]
    if same:
        return same[0]()
    if not isinstance(loss, nn.Module):
        loss = FunctionLoss(loss)
    reduction = getattr(loss, "reduction", "mean")
    if reduction == "none":
        raise InputError("the loss has reduction='none', expected 'mean' or 'sum'")
    return loss


def is_known(criterion: nn.Module) -> bool:
    """Say whether the weights of a loss are known from its targets."""
    return type(criterion) in (*OF_CLASSES, *OF_ELEMENTS)


def weight_of(criterion: Any, X: Any, y: Any) -> float:
    """Return the weight of the mean of a mini-batch: what its sum was divided by.

    Args:
        criterion: The loss; if it is not known, its mean is over data points.
        X: Inputs.
        y: Targets.
    """
    if type(criterion) in OF_ELEMENTS and isinstance(y, Tensor):
        return y.numel()
    if type(criterion) not in OF_CLASSES or not isinstance(y, Tensor):
        return num_points(X, y)
    if y.is_floating_point():  # probabilities of the classes [N, C, ...]
        return y.numel() // y.shape[1]
    labels = y[y != criterion.ignore_index]
    if criterion.weight is None:
        return labels.numel()
    return float(criterion.weight.detach().to(y.device).double()[labels].sum())


@dataclass(frozen=True)
class Averaging:
    """How losses of mini-batches make up the loss.

    Attributes:
        criterion: The loss of a mini-batch.
        total: Weight of all mini-batches; ``None`` if the loss is a sum.
        per_point: Whether the weight of a mini-batch is how many data points it has.
        num_batches: How many mini-batches there are, where they were counted.
    """

    criterion: Any
    total: float | None
    per_point: bool = False
    num_batches: int = 1

    def share(self, X: Any, y: Any) -> float:
        """Return the factor of the loss of a mini-batch in the whole one."""
        if self.total is None:
            return 1.0
        weight = num_points(X, y) if self.per_point else weight_of(self.criterion, X, y)
        return weight / self.total


def average_over(
    net: nn.Module, criterion: nn.Module, data: Iterable[Any], num_data: int | None = None
) -> Averaging:
    """Find out how losses of mini-batches make up the loss.

    Cost: one pass through the data; one through the network, too, unless the loss is known.

    Args:
        net: The network, in evaluation mode.
        criterion: The loss.
        data: Mini-batches ``(X, y)`` on the device of the network.
        num_data: How many data points there must be.

    Raises:
        InputError: If there are others, inputs that are not finite, or the loss is neither a mean
            over data points nor their sum.
    """
    total, points, number, kinds = 0.0, 0, -1, set[str]()
    for number, (X, y) in enumerate(data):
        check_finite(X, number)
        points += num_points(X, y)
        total += weight_of(criterion, X, y)
        if not is_known(criterion):
            with torch.no_grad():
                kinds.add(kind_of_mean(criterion, net(X), y, f"mini-batch {number}"))
    if num_data is not None and points != num_data:
        raise InputError(
            f"expected {num_data} data points (num_data), found {points} in all mini-batches: give "
            "the number of those that are read, e.g. of a loader that drops its last mini-batch"
        )
    kind = _common(kinds, criterion)
    if kind == "mean" and not total > 0:
        raise InputError(
            "no data point counts in the loss: all labels are ignored or weigh nothing"
        )
    return Averaging(criterion, None if kind == "sum" else total, num_batches=number + 1)


def kind_of_mean(criterion: nn.Module, outputs: Any, y: Any, where: str) -> str:
    """Say whether a loss is the ``mean`` over data points, the ``sum``, or ``either``.

    Compares its value for all with those for two data points at a time, in float64.

    Raises:
        InputError: If it is neither.
    """
    num = num_points(outputs, y)
    if num < 2 * PART:
        return getattr(criterion, "reduction", "either")
    criterion = copy.deepcopy(criterion).double()
    outputs, y = to_dtype(outputs, torch.float64), to_dtype(y, torch.float64)
    ends = [*range(PART, num - PART + 1, PART), num]
    parts = list(zip([0, *ends], ends, strict=False))
    try:
        whole = _value(criterion(outputs, y))
        values = [_value(criterion(cut(outputs, a, b, num), cut(y, a, b, num))) for a, b in parts]
    except RuntimeError as error:
        raise InputError(
            f"the loss of parts of {where} fails: {one_line(error)[:120]}; it is computed in "
            "float64, too: tensors of its own must follow the dtype of the outputs, t.to(outputs)"
        ) from None
    sizes = [b - a for a, b in parts]
    sums = {
        "mean": sum(n * value for n, value in zip(sizes, values, strict=True)) / num,
        "sum": sum(values),
    }
    scale = max(abs(whole), max(map(abs, values)))
    kinds = [kind for kind, value in sums.items() if abs(value - whole) <= SAME_MEAN * scale]
    if not kinds:
        raise InputError(
            f"the loss of {where} is {whole:.6g}, neither the mean over its data points "
            f"({sums['mean']:.6g}) nor their sum ({sums['sum']:.6g}): it would depend on how data "
            "are cut into mini-batches; give a loss with reduction='mean' over data points or "
            "'sum', or PyTorch's own (weights of classes and ignored labels of CrossEntropyLoss "
            "and NLLLoss are accounted for)"
        )
    return kinds[0] if len(kinds) == 1 else "either"


def _value(loss: Any) -> float:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise InputError(f"expected a loss that is one number for a mini-batch, found {shape}")
    value = float(loss)
    if not math.isfinite(value):
        raise InputError(f"the loss of a mini-batch is {value}")
    return value


def _common(kinds: set[str], criterion: nn.Module) -> str:
    """Return what all mini-batches say of a loss."""
    said = getattr(criterion, "reduction", None)
    kinds = kinds - {"either"} or ({said} if said in ("mean", "sum") else set())
    if len(kinds) == 1:
        return kinds.pop()
    if not kinds:
        raise InputError(
            "whether the loss is a mean or a sum cannot be told from these mini-batches: give it "
            "an attribute reduction = 'mean' or 'sum'"
        )
    raise InputError(
        "the loss is the mean of some mini-batches, or says so (reduction), and the sum of others"
    )
