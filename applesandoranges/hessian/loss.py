"""The loss whose Hessian is measured: its value, gradient and products by differentiating twice."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..problems.parameters import trainable
from ..problems.problem import Batch, Problem


@dataclass(frozen=True)
class Loss:
    """The mean of ``criterion`` over ``data``, as it is: in whatever mode the network is.

    Attributes:
        net: The network.
        criterion: Loss of a mini-batch, a mean over its data points.
        data: Mini-batches ``(X, y)``, iterable again and again.
    """

    net: nn.Module
    criterion: nn.Module
    data: Iterable[Batch]

    @classmethod
    def of(cls, problem: Problem, split: str, num_data: int) -> Loss:
        """Return the loss whose Hessian is measured."""
        return cls(problem.net, problem.criterion, problem.hessian_data(split, num_data))

    @property
    def params(self) -> list[nn.Parameter]:
        """The parameters, ``D`` values in all."""
        return list(trainable(self.net).values())

    def value(self) -> Tensor:
        """Return the loss, a scalar."""
        with torch.no_grad():
            return self._mean(lambda loss: loss)

    def gradient(self) -> Tensor:
        """Return the gradient, ``[D]``."""
        return self._mean(lambda loss: _flat(torch.autograd.grad(loss, self.params)))

    def hvp(self, v: Tensor) -> Tensor:
        """Return the product of the Hessian with ``v`` (``[D]``), by differentiating twice."""

        def product(loss: Tensor) -> Tensor:
            gradient = _flat(torch.autograd.grad(loss, self.params, create_graph=True))
            return _flat(torch.autograd.grad(gradient @ v, self.params, materialize_grads=True))

        return self._mean(product)

    def double(self) -> Loss:
        """Return a copy in float64, whose data can be read once."""
        net, criterion = (copy.deepcopy(module).double() for module in (self.net, self.criterion))
        return Loss(net, criterion, ((X.double(), y) for X, y in self.data))

    def _mean(self, part: Callable[[Tensor], Tensor]) -> Tensor:
        total, count = torch.zeros(()), 0
        for X, y in self.data:
            value = part(self.criterion(self.net(X), y))
            total = total.to(value) + value * len(y)
            count += len(y)
        return total / count


def _flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors])
