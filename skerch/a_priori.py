"""Sizes of sketches, from a storage budget [TYUC2019, 5.4.2], and of rounds of products."""

from __future__ import annotations

import math

from .errors import InputError

#: Numbers of block Krylov rounds that :mod:`skerch.planning` considers.
KRYLOV_ROUNDS = (2, 3, 4, 5, 6, 8, 10)
#: Longest vectors, of 40 TB in float32. Some steps take ``sqrt(D)`` operations in Python.
MAX_DIMENSION = 10**13


def a_priori_hyperparams(
    shape: tuple[int, int], budget: int, complex_data: bool = False, hermitian: bool = False
) -> tuple[int, int]:
    """Return the "natural" sizes ``(outer, inner)`` whose sketch holds ``budget`` numbers.

    Storage is ``outer * (H + W) + inner^2``, or ``outer * H + inner^2`` for Hermitian operators,
    which need only one outer sketch.

    Args:
        shape: ``(H, W)`` of the operator.
        budget: Numbers (not bytes) that may be stored.
        complex_data: Whether the numbers are complex (``alpha = 0`` instead of 1).
        hermitian: Whether one outer sketch serves both sides.

    Raises:
        InputError: If a Hermitian operator is not square, or the budget holds no sketch at all.

    Example:
        >>> from skerch.a_priori import a_priori_hyperparams
        >>> a_priori_hyperparams((1000, 1000), budget=60_000, hermitian=True)
        (49, 104)
    """
    height, width = shape
    if hermitian and height != width:
        raise InputError(f"a Hermitian operator is square, got shape {height},{width}")
    if min(height, width, budget) < 1:
        raise InputError(f"shape and budget must be positive, got {height},{width} and {budget}")
    alpha = 0 if complex_data else 1
    outer_cost = height if hermitian else height + width
    term = outer_cost + 4 * alpha
    # Integer arithmetic: in floating point, D of 1e9 puts the result off by one.
    outer = (math.isqrt(term**2 + 16 * max(budget - alpha**2, 0)) - term) // 8
    outer = min(outer, height, width)
    if outer < 1:
        raise InputError(
            f"a budget of {budget} numbers holds no sketch of shape {height},{width}; "
            f"at least {outer_cost + (2 + alpha) ** 2} are needed"
        )
    inner = math.isqrt(budget - outer * outer_cost)
    return outer, min(inner, height, width)


def check_sizes(shape: tuple[int, int], outer: int, inner: int) -> None:
    """Raise :class:`InputError` unless ``1 <= outer <= inner <= min(shape)``."""
    if not 1 <= outer <= inner <= min(shape):
        raise InputError(
            f"expected 1 <= outer <= inner <= {min(shape)} for shape {tuple(shape)}, "
            f"got outer={outer}, inner={inner}"
        )


def check_dimension(shape: tuple[int, int]) -> None:
    """Raise :class:`InputError` for a shape beyond :data:`MAX_DIMENSION`.

    Example:
        >>> from skerch.a_priori import check_dimension
        >>> check_dimension((7030, 7030))
    """
    if max(shape) > MAX_DIMENSION:
        raise InputError(f"expected a shape of at most {MAX_DIMENSION}, got {shape[0]},{shape[1]}")


def block_size(num_products: int, num_rounds: int) -> int:
    """Return the columns of a block, the products of a round, rounded up.

    All rounds have as many; together they make ``num_products`` or a few more.

    Example:
        >>> from skerch.a_priori import block_size
        >>> block_size(num_products=100, num_rounds=3)
        34
    """
    return -(-num_products // num_rounds)
