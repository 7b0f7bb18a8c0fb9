"""The loss whose Hessian is measured: its value, gradient and products by differentiating twice.

The mean of the criterion alone; trainings add a term for the weight decay (``training.loop``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..problems.parameters import trainable
from ..problems.problem import Problem
from .batches import to_dtype
from .means import as_criterion, is_known, kind_of_mean, weight_of
from .modes import differentiable
from .networks import in_float64


@dataclass(frozen=True)
class Loss:
    """The mean of ``criterion`` over ``data``, as it is: in whatever mode the network is.

    The mean is over what that of ``criterion`` is over (data points, tokens, weights of classes),
    however data are cut into mini-batches; with ``reduction="sum"`` it is the sum.

    Attributes:
        net: The network.
        criterion: Loss of a mini-batch.
        data: Mini-batches ``(X, y)``, iterable again and again.
        num_data: Data points in all of them; counted, in a pass through them, if not given.
        known: The loss is the mean over these data points.
    """

    net: nn.Module
    criterion: Any
    data: Iterable[tuple[Any, Any]]
    num_data: int | None = None
    known: bool = False

    @classmethod
    def of(cls, problem: Problem, split: str, num_data: int) -> Loss:
        """Return the loss whose Hessian is measured."""
        data = problem.hessian_data(split, num_data)
        return cls(problem.net, problem.criterion, data, num_data, problem.known)

    @property
    def params(self) -> list[nn.Parameter]:
        """The parameters, ``D`` values in all."""
        return list(trainable(self.net).values())

    @cached_property
    def _module(self) -> nn.Module:
        return as_criterion(self.criterion)

    @torch.no_grad()
    def value(self) -> Tensor:
        """Return the loss, a scalar: the mini-batches' losses, summed in float64.

        Raises:
            InputError: If it is neither a mean over data points nor their sum.
        """
        total, count = 0.0, 0.0
        for number, (X, y) in enumerate(self.data):
            outputs, weight = self.net(X), weight_of(self._module, X, y)
            if not is_known(self._module):
                kind_of_mean(self._module, outputs, y, f"mini-batch {number}")
            if weight:
                total += float(self._module(outputs, y)) * (1 if self._is_sum else weight)
            count += weight
        return torch.tensor(total / (1 if self._is_sum else count), dtype=torch.float64)

    def gradient(self) -> Tensor:
        """Return the gradient, ``[D]``."""
        return self._sum(lambda loss: _flat(torch.autograd.grad(loss, self.params)))

    def hvp(self, v: Tensor) -> Tensor:
        """Return the product of the Hessian with ``v`` (``[D]``), by differentiating twice."""

        def product(loss: Tensor) -> Tensor:
            gradient = _flat(
                torch.autograd.grad(loss, self.params, create_graph=True, materialize_grads=True)
            )
            return _flat(torch.autograd.grad(gradient @ v, self.params, materialize_grads=True))

        with differentiable(self.net):
            return self._sum(product)

    def double(self) -> Loss:
        """Return a copy in float64."""
        net, criterion = in_float64(self.net), in_float64(self._module)
        return Loss(net, criterion, _InFloat64(self.data), self.num_data, self.known)

    @cached_property
    def _is_sum(self) -> bool:
        reduction = getattr(self._module, "reduction", None)
        if reduction is None and not self.known:
            with torch.no_grad():
                X, y = next(iter(self.data))
                reduction = kind_of_mean(self._module, self.net(X), y, "mini-batch 0")
        return reduction == "sum"

    def _shares(self) -> Iterator[Tensor]:
        """Yield the share of each mini-batch in the loss."""
        total = 1.0 if self._is_sum else self._total()
        for X, y in self.data:
            weight = weight_of(self._module, X, y)
            if weight:
                share = 1.0 if self._is_sum else weight / total
                yield self._module(self.net(X), y) * share

    def _total(self) -> float:
        if self.num_data is not None and (self.known or not is_known(self._module)):
            return self.num_data  # no other pass: random augmentation would draw other numbers
        return sum(weight_of(self._module, X, y) for X, y in self.data)

    def _sum(self, part: Callable[[Tensor], Tensor]) -> Tensor:
        total = torch.zeros(())
        for share in self._shares():
            value = part(share)
            total = total.to(value) + value
        return total


@dataclass(frozen=True)
class _InFloat64:
    """Mini-batches in float64, made when they are read."""

    data: Iterable[tuple[Any, Any]]

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return (to_dtype(batch, torch.float64) for batch in self.data)


def _flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors])
