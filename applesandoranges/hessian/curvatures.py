"""The matrices of curvature: Hessian, generalised Gauss-Newton, Fisher, multiplied in blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from curvlinops import GGNLinearOperator, HessianLinearOperator
from curvlinops._torch_base import CurvatureLinearOperator
from torch import Tensor, nn

from skerch.errors import InputError, NumericalError

from ..problems.minibatch import to_device
from .batches import num_points
from .engines import ENGINES, ProductPlan, ProductSettings, make_plan, zeros_like_columns
from .means import Averaging, average_over
from .modes import differentiable
from .vetting import difference


class BlockOperator(CurvatureLinearOperator):
    """A curvature operator of CurvLinOps, with a choice of engines and a memory budget.

    Products with more columns than fit into the budget are made in parts. The network is in
    evaluation mode while they are made, and as it was afterwards.

    Args:
        net: The network.
        criterion: The loss of a mini-batch.
        params: The parameters that span it.
        data: Mini-batches ``(X, y)``, iterable again and again.
        num_data: Number of data points in all mini-batches.
        settings: How products are made.
        plan: The plan of an operator of the same sizes; without one, the first product makes one.
        known: The network, loss and data are known to be right: ``num_data`` points, of which the
            loss is the mean, and second derivatives that every engine knows.
        by_formula: See :func:`~applesandoranges.hessian.modes.differentiable`; default unless all
            is known.
    """

    def __init__(
        self,
        net: nn.Module,
        criterion: nn.Module,
        params: list[nn.Parameter],
        data: Iterable[Any],
        *,
        num_data: int,
        settings: ProductSettings | None = None,
        plan: ProductPlan | None = None,
        known: bool = False,
        by_formula: bool | None = None,
    ):
        super().__init__(
            net,
            criterion,
            params,
            data,
            check_deterministic=False,
            num_data=num_data,
            batch_size_fn=lambda X: num_points(X, ()),
        )
        self.settings = ProductSettings() if settings is None else settings
        self.known = known
        self.by_formula = not known if by_formula is None else by_formula
        self._plan = plan

    # --- what products are of

    @property
    def net(self) -> nn.Module:
        """The network."""
        return self._model_func

    @property
    def criterion(self) -> nn.Module:
        """The loss of a mini-batch."""
        return self._loss_func

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that span it."""
        return self._params

    @cached_property
    def averaging(self) -> Averaging:
        """How mini-batches make up the loss.

        Raises:
            InputError: If there are not ``num_data`` points, or it would depend on how they are cut
                into mini-batches.
        """
        if self.known:
            return Averaging(self.criterion, self._N_data, per_point=True)
        with differentiable(self.net):
            return average_over(self.net, self.criterion, self.batches(), self._N_data)

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """Yield the mini-batches, on the device of the network."""
        return self._loop_over_data()

    def _loop_over_data(
        self, desc: str | None = None, add_device_to_desc: bool = True
    ) -> Iterator[tuple[Any, Any]]:
        seen = 0
        for X, y in self._data:
            seen += num_points(X, y)
            yield to_device(X, self.device), to_device(y, self.device)
        if seen != self._N_data:
            raise InputError(
                f"expected {self._N_data} data points (num_data) in each pass through the data, "
                f"found {seen}: a loader that drops its last mini-batch has fewer, and data that "
                "end after one pass must be made a list"
            )

    def _get_normalization_factor(self, X: Any, y: Any) -> float:
        return self.averaging.share(X, y)

    # --- how they are made

    @property
    def plan(self) -> ProductPlan:
        """Engine and vectors per product."""
        return self.make_plan() if self._plan is None else self._plan

    def make_plan(self) -> ProductPlan:
        """Choose engine and vectors per product by a trial on the first mini-batch.

        Cost: for each engine, five products of that mini-batch and :data:`TRIAL_VECTORS` more;
        where these are quick, a block of as many as products will have, and where that is quick
        too, :data:`TRIAL_REPEATS` more such blocks. Before, unless the problem is known, those of
        :func:`~applesandoranges.hessian.vetting.vet`. The first product does this if it was not
        done before.

        Raises:
            InputError: If not even one vector fits into the budget, or no engine is right.
        """
        self._plan = make_plan(self)
        return self._plan

    def _matmat(self, M: list[Tensor]) -> list[Tensor]:
        num, most = M[0].shape[-1], self.plan.vectors
        if num <= most:
            return self.multiply(self.plan.engine, M, self.batches())
        result = zeros_like_columns(M)
        for begin in range(0, num, most):
            part = [m[..., begin : begin + most] for m in M]
            product = self.multiply(self.plan.engine, part, self.batches())
            for all_columns, some in zip(result, product, strict=True):
                all_columns[..., begin : begin + most] = some
        return result

    def multiply(self, engine: str, M: list[Tensor], data: Iterable[Any]) -> list[Tensor]:
        """Multiply by one engine, in one part; ``data`` are some or all of the mini-batches."""
        with differentiable(self.net, by_formula=self.by_formula):
            product = ENGINES[engine](self, M, data)
        if not self.known and not all(bool(torch.isfinite(p).all()) for p in product):
            raise NumericalError(
                "the product is NaN or infinite: the loss overflows at these parameters, or has no "
                "second derivative there (sqrt, norm or log of zero)"
            )
        return product

    def graph_columns(
        self, X: Any, y: Any, share: float, M: list[Tensor]
    ) -> Iterator[list[Tensor]]:
        """Yield the products of a mini-batch with each column, through one graph."""
        raise NotImplementedError

    # --- how they are checked

    def of(
        self, net: nn.Module, criterion: nn.Module, names: Sequence[str], data: list[Any], num: int
    ) -> BlockOperator:
        """Return the same of a copy of network and loss, over one mini-batch as it is."""
        params = dict(net.named_parameters())
        chosen = [params[name] for name in names]
        return type(self)(net, criterion, chosen, data, num_data=num, known=True, by_formula=True)

    def slope(self, X: Any, y: Any) -> Tensor:
        """Return the gradient of a mini-batch's loss, ``[D]``, by first derivatives alone."""
        with torch.enable_grad():
            loss = self._loss_func(self._model_func(X), y)
            gradient = torch.autograd.grad(loss, self._params, materialize_grads=True)
        return torch.cat([g.detach().flatten() for g in gradient])

    def difference(self, X: Any, y: Any, v: Tensor, h: float) -> Tensor:
        """Return the product of a mini-batch with ``v`` (``[D]``), by differences of step ``h``."""
        raise NotImplementedError


class BlockHessian(BlockOperator, HessianLinearOperator):
    """The Hessian of the loss."""

    def graph_columns(
        self, X: Any, y: Any, share: float, M: list[Tensor]
    ) -> Iterator[list[Tensor]]:
        """Differentiate the gradient, once for each column."""
        params, num = tuple(self._params), M[0].shape[-1]
        with torch.enable_grad():
            loss = share * self._loss_func(self._model_func(X), y)
            gradient = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
        # Where the loss is linear in a parameter, the gradient is a constant.
        rows = [i for i, g in enumerate(gradient) if g.requires_grad]
        for k in range(num if rows else 0):
            yield list(
                torch.autograd.grad(
                    [gradient[i] for i in rows],
                    params,
                    [M[i][..., k] for i in rows],
                    retain_graph=k + 1 < num,
                    materialize_grads=True,
                )
            )

    def difference(self, X: Any, y: Any, v: Tensor, h: float) -> Tensor:
        """Return the central difference of the gradient."""
        return difference(lambda: self.slope(X, y), self._params, v, h)


class BlockGGN(BlockOperator, GGNLinearOperator):
    """The generalised Gauss-Newton matrix ``J^T H_L J``.

    ``H_L`` is the Hessian of the loss with respect to the outputs, ``J`` the Jacobian of these.
    """

    def _outputs(self, X: Any) -> Tensor:
        outputs = self._model_func(X)
        if not isinstance(outputs, Tensor):
            raise InputError(
                "CURVATURE=ggn and fisher: expected a network whose output is one tensor, found "
                f"{type(outputs).__name__}"
            )
        return outputs

    def graph_columns(
        self, X: Any, y: Any, share: float, M: list[Tensor]
    ) -> Iterator[list[Tensor]]:
        """Multiply ``J`` by differentiating ``J^T u`` with respect to ``u``, then the rest."""
        params, num = tuple(self._params), M[0].shape[-1]
        with torch.enable_grad():
            outputs = self._outputs(X)
            u = torch.zeros_like(outputs, requires_grad=True)
            pulled = torch.autograd.grad(
                outputs, params, u, create_graph=True, materialize_grads=True
            )
            at = outputs.detach().requires_grad_()
            (slope,) = torch.autograd.grad(
                share * self._loss_func(at, y), at, create_graph=True, materialize_grads=True
            )
        rows = [i for i, p in enumerate(pulled) if p.requires_grad]
        for k in range(num if rows and slope.requires_grad else 0):
            columns = [M[i][..., k] for i in rows]
            (Jv,) = torch.autograd.grad([pulled[i] for i in rows], u, columns, retain_graph=True)
            (HJv,) = torch.autograd.grad(slope, at, Jv, retain_graph=True)
            yield list(
                torch.autograd.grad(outputs, params, HJv, retain_graph=True, materialize_grads=True)
            )

    def difference(self, X: Any, y: Any, v: Tensor, h: float) -> Tensor:
        """Return ``J^T`` times the differences of the loss's slope, along those of the outputs."""
        with torch.no_grad():
            Jv = difference(lambda: self._outputs(X), self._params, v, h)

        def slope(outputs: Tensor) -> Tensor:
            at = outputs.detach().requires_grad_()
            return torch.autograd.grad(self._loss_func(at, y), at, materialize_grads=True)[0]

        with torch.enable_grad():
            outputs = self._outputs(X)
            HJv = (slope(outputs + h * Jv) - slope(outputs - h * Jv)) / (2 * h)
            pulled = torch.autograd.grad(outputs, self._params, HJv, materialize_grads=True)
        return torch.cat([p.detach().flatten() for p in pulled])
