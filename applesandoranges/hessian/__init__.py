"""The loss and its Hessian: value, gradient, products in blocks, and checks of all of these.

The only room that knows CurvLinOps; what is measured, and where to, is none of its business.
Hessians of recorded steps are in :mod:`applesandoranges.measurement`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .operator import make_hessian

__all__ = ["make_hessian"]


def __getattr__(name: str) -> Any:
    if name != "make_hessian":  # whose module imports torch, which the keys here must not
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .operator import make_hessian

    return make_hessian
