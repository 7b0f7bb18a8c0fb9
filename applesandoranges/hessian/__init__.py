"""The loss and its Hessian: value, gradient, products in blocks, and checks of all of these.

The only room that knows CurvLinOps; what is measured, and where to, is none of its business.
Hessians of recorded steps are in :mod:`applesandoranges.measurement`.
"""

from .operator import make_hessian

__all__ = ["make_hessian"]
