"""The loss Hessian as a linear operator: the one place that builds it on CurvLinOps."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from ..problems.parameters import trainable
from .engines import BlockHessian, ProductPlan, ProductSettings


def make_hessian(
    net: nn.Module,
    criterion: nn.Module,
    data: Iterable[tuple[Tensor, Tensor]],
    num_data: int,
    settings: ProductSettings | None = None,
    plan: ProductPlan | None = None,
) -> BlockHessian:
    """Return the ``[D, D]`` Hessian of the mean ``criterion`` over ``data``.

    The network is put into evaluation mode, so that dropout and BatchNorm do not make the loss
    random. Whether the data do, is checked by :mod:`~applesandoranges.hessian.checks`, not here:
    CurvLinOps' own check reads the data five times.

    Args:
        net: The network.
        criterion: Loss with ``reduction="mean"``.
        data: Mini-batches ``(X, y)``, iterable again and again.
        num_data: Number of data points in all mini-batches.
        settings: How products are made.
        plan: The plan of an operator of the same sizes, which saves the trial for another one.
    """
    net.eval()
    return BlockHessian(
        net,
        criterion,
        list(trainable(net).values()),
        data,
        check_deterministic=False,
        num_data=num_data,
        settings=settings,
        plan=plan,
    )
