"""All recoveries against the exact answer, at equal numbers of Hessian products."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from skerch.decompositions import block_krylov, hmt, nystrom, seigh
from skerch.results import Eigh

from .exact import ExactEigh, frobenius_errors

#: Products that are compared, as multiples of those of the sketch.
MULTIPLES = (1.0, 1.5, 2.0)
#: Numbers of rounds that are compared; :mod:`skerch.planning` chooses among more.
COMPARED_ROUNDS = (2, 4, 10)


@dataclass(frozen=True)
class Candidate:
    """A recovery with its sizes; ``solve`` may give more pairs than are wanted.

    Attributes:
        name: ``seigh``, ``hmt``, ``nystrom`` or ``krylov``.
        num_rounds: Rounds of products.
        num_products: Products in all.
        solve: Runs it.
    """

    name: str
    num_rounds: int
    num_products: int
    solve: Callable[[], Eigh]


def candidates(
    operator: Any,
    rank: int,
    num_products: int,
    seed: int,
    device: torch.device | str,
    vectors: int,
    budget: int,
) -> Iterator[Candidate]:
    """Yield all recoveries of ``rank`` pairs from at most ``num_products`` products.

    SEIGH and the range finder have half of the products for the subspace; what they find beyond
    ``rank`` is cut off.
    """
    D, half = operator.shape[0], num_products // 2
    options: dict[str, Any] = {"dtype": torch.float32, "device": device, "memory_budget": budget}
    if rank <= half:
        sketch = partial(seigh, operator, half, 2 * half, seed, batch_size=vectors, **options)
        yield Candidate("seigh", 1, 2 * half, sketch)
        two_passes = partial(hmt, operator, half, seed, batch_size=vectors, **options)
        yield Candidate("hmt", 2, 2 * half, two_passes)
    if rank <= num_products <= D:
        kept = partial(nystrom, operator, rank, seed, num_products, batch_size=vectors, **options)
        yield Candidate("nystrom", 1, num_products, kept)
    for rounds in COMPARED_ROUNDS:
        block = num_products // rounds  # down: no method may have more products than the others
        if block >= 1 and rank <= rounds * block <= D:
            krylov = partial(
                block_krylov, operator, rank, rounds, block, seed, batch_size=vectors, **options
            )
            yield Candidate("krylov", rounds, rounds * block, krylov)


def compare_recoveries(
    operator: Any,
    exact: ExactEigh,
    num_products: int,
    seed: int,
    device: torch.device | str,
    vectors: int,
    budget: int,
) -> Iterator[dict[str, Any]]:
    """Yield, for each recovery and number of products, how far it is from the exact answer.

    Args:
        operator: The Hessian, ``[D, D]``.
        exact: Its exact decomposition, with as many vectors as pairs are wanted.
        num_products: Products of the sketch; see :data:`MULTIPLES`.
        seed: See :func:`~skerch.decompositions.seigh`.
        device: Where the operator computes.
        vectors: Vectors per product.
        budget: Bytes.

    Yields:
        Relative Frobenius error beside the best possible one, alignment of the top ``K / 2``
        subspaces (``||A^T B||_F^2 / (K / 2)``), median relative error of the top ``K / 2``
        eigenvalues, and seconds.
    """
    K = exact.V.shape[1]
    half = max(1, K // 2)
    for multiple in MULTIPLES:
        wanted = min(round(multiple * num_products), operator.shape[0])
        for candidate in candidates(operator, K, wanted, seed, device, vectors, budget):
            begin = time.perf_counter()
            eigh = candidate.solve()
            seconds = time.perf_counter() - begin
            eigh = eigh.truncated(min(K, len(eigh.S)))
            found, best = frobenius_errors(exact, eigh)
            V, true = eigh.vectors(half).cpu(), exact.of_same_sign(eigh.S.cpu())
            errors = (eigh.S.cpu() - true).abs() / true.abs()
            yield {
                "recovery": candidate.name,
                "num_rounds": candidate.num_rounds,
                "num_products": candidate.num_products,
                "K": K,
                "rel_frob_error": float(found[-1]),
                "best_rel_frob_error": float(best[-1]),
                "half_alignment": float((exact.V[:, :half].T @ V).square().sum() / half),
                "half_eigval_error": float(errors[:half].median()),
                "seconds": seconds,
            }
