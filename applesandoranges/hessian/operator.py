"""Curvature of a loss as a linear operator: the one door to those of CurvLinOps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn

from skerch.errors import InputError

from ..app.spelling import check_name
from ..problems.parameters import trainable
from .batches import check_data
from .curvatures import BlockGGN, BlockHessian, BlockOperator
from .engines import ProductPlan, ProductSettings
from .means import as_criterion
from .networks import check_parameters, unwrap

#: By the names that CURVATURE takes. The Fisher matrix is the exact one (of type 2).
CURVATURES: dict[str, type[BlockOperator]] = {
    "hessian": BlockHessian,
    "ggn": BlockGGN,
    "fisher": BlockGGN,
}
#: Losses that are negative log-likelihoods whose Hessian is the same for every target.
LIKELIHOODS = (nn.CrossEntropyLoss, nn.MSELoss, nn.BCEWithLogitsLoss)


def make_hessian(
    net: nn.Module,
    criterion: nn.Module | Callable[[Any, Any], Any],
    data: Iterable[tuple[Any, Any]],
    num_data: int,
    settings: ProductSettings | None = None,
    plan: ProductPlan | None = None,
    *,
    curvature: str = "hessian",
    names: Sequence[str] | None = None,
    known: bool = False,
) -> BlockOperator:
    """Return the ``[D, D]`` Hessian, or another curvature, of the mean ``criterion`` over ``data``.

    Products are made in evaluation mode, so that dropout and BatchNorm do not make the loss random;
    the network is in its own mode before and after. The mean is over whatever that of ``criterion``
    is over (data points, tokens, weights of classes), however data are cut into mini-batches. With
    ``reduction="sum"`` it is the curvature of the sum.

    The first product, or :meth:`~applesandoranges.hessian.curvatures.BlockOperator.make_plan`,
    finds out which engines are right for the network, see
    :mod:`~applesandoranges.hessian.vetting`: the cost is that of a few products on four data
    points, and a pass through the data. Whether the data are the same in each pass, is checked by
    :mod:`~applesandoranges.hessian.checks`, not here.

    Args:
        net: The network; may be wrapped by DataParallel or compiled.
        criterion: Loss ``(outputs, y)``, a mean over a mini-batch or a sum; a module or a function.
        data: Mini-batches ``(X, y)``, iterable again and again. ``X`` is what the network takes:
            a tensor, or tensors in mappings, lists and tuples.
        num_data: Number of data points in all mini-batches.
        settings: How products are made.
        plan: The plan of an operator of the same sizes, which saves the trial for another one.
        curvature: ``hessian``; ``ggn``, the generalised Gauss-Newton matrix ``J^T H_L J``; or
            ``fisher``, the exact Fisher information of the likelihood whose negative logarithm the
            loss is. That expects the Hessian ``H_L`` of the loss with respect to the outputs over
            targets drawn from the network; for the losses that are allowed (cross-entropy, MSE,
            binary cross-entropy with logits, all without weights) ``H_L`` does not depend on the
            target, and the Fisher matrix is the generalised Gauss-Newton matrix.
        names: Parameters that span it, by name; all trainable ones by default.
        known: Skip all that is found out of network, loss and data: second derivatives that every
            engine knows, a mean over ``num_data`` data points.

    Raises:
        InputError: If network, loss or data are none that this can be made of; also at the first
            product, if there are not ``num_data`` points, the loss is neither a mean nor a sum, or
            no engine is right.

    Example:
        >>> import torch
        >>> net, X, y = torch.nn.Linear(4, 3), torch.ones(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
        >>> H = make_hessian(net, torch.nn.CrossEntropyLoss(), [(X[:4], y[:4]), (X[4:], y[4:])], 6)
        >>> tuple((H @ torch.ones(15)).shape)
        (15,)
    """
    check_name("CURVATURE", curvature, CURVATURES)
    net, criterion = unwrap(net), as_criterion(criterion)
    own = trainable(net)
    unknown = [name for name in names or () if name not in own]
    if unknown:
        raise InputError(f"no trainable parameters of the network: {', '.join(unknown[:5])}")
    params = list(own.values()) if names is None else [own[name] for name in names]
    check_parameters(params)
    if not known:
        check_data(data)
    if curvature == "fisher":
        _check_likelihood(criterion)
    return CURVATURES[curvature](
        net, criterion, params, data, num_data=num_data, settings=settings, plan=plan, known=known
    )


def _check_likelihood(criterion: nn.Module) -> None:
    weights = [
        name for name in ("weight", "pos_weight") if getattr(criterion, name, None) is not None
    ]
    if type(criterion) not in LIKELIHOODS or weights:
        found = type(criterion).__name__ + (f" with {weights[0]}" if weights else "")
        allowed = ", ".join(kind.__name__ for kind in LIKELIHOODS)
        raise InputError(
            f"CURVATURE=fisher: expected {allowed} without weights, found {found}, which is no "
            "likelihood of this kind: take CURVATURE=ggn"
        )
