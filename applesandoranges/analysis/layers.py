"""How the magnitude mask and the top eigenspace spread over the parameter tensors of a network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skerch.errors import InputError
from skerch.results import Eigh

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class LayerShares:
    """What each of ``L`` parameter tensors has of a mask of ``k`` and of the top ``k`` eigenspace.

    The mask and the eigenspace add up to ``k``, the overlap to ``||V[mask_k, :k]||_F^2``.

    Attributes:
        mask: Parameters of the mask, ``[L]``.
        eigenspace: Sums of the leverage scores (squared norms of the rows of the first ``k``
            vectors), ``[L]``.
        overlap: Sums of the leverage scores of the parameters of the mask, ``[L]``.
    """

    mask: Tensor
    eigenspace: Tensor
    overlap: Tensor


def sizes(shapes: Shapes) -> list[int]:
    """Return the number of parameters in each tensor."""
    return [math.prod(shape) for shape in shapes.values()]


def layer_shares(
    eigh: Eigh, mask: Tensor, shapes: Shapes, ranks: Sequence[int]
) -> dict[int, LayerShares]:
    """Return how masks and eigenspaces of some ranks spread over the layers.

    Args:
        eigh: Eigenvectors, ``[D, n]``.
        mask: Indices of parameters in the order in which masks grow, ``[n]``.
        shapes: Shapes of the ``L`` parameter tensors by name, in the order of the vectors' rows.
        ranks: Which ``k``, each at most ``n``.

    Cost: one pass over the sketch.

    Raises:
        InputError: If the shapes do not make up ``D`` parameters.
    """
    numbers = torch.tensor(sizes(shapes))
    if int(numbers.sum()) != eigh.shape[0]:
        raise InputError(
            f"expected parameters of {eigh.shape[0]} values in all, got {int(numbers.sum())}"
        )
    basis, ends = eigh.basis, numbers.cumsum(0)
    mask = mask.cpu()
    position = torch.full((eigh.shape[0],), len(mask))  # in the mask; its length if not there
    position[mask] = torch.arange(len(mask))
    columns = torch.tensor(ranks) - 1
    spread = torch.zeros(len(numbers), len(columns), dtype=torch.float64)
    inside = torch.zeros_like(spread)
    for rows, block in eigh.Y:
        leverage = (block @ basis).square_().cumsum(1)[:, columns].cpu()
        layer = torch.bucketize(torch.arange(rows.start, rows.stop), ends, right=True)
        spread.index_add_(0, layer, leverage)
        inside.index_add_(0, layer, leverage * (position[rows, None] <= columns))
    of_mask = torch.bucketize(mask, ends, right=True)
    return {
        k: LayerShares(
            of_mask[:k].bincount(minlength=len(numbers)), spread[:, column], inside[:, column]
        )
        for column, k in enumerate(ranks)
    }


def layer_results(
    eigh: Eigh, mask: Tensor, shapes: Shapes, ranks: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Yield :func:`layer_shares` as they are logged, a body for each rank."""
    where = {"layers": list(shapes), "layer_sizes": sizes(shapes)}
    for k, shares in layer_shares(eigh, mask, shapes, ranks).items():
        yield {
            "K": k,
            "layers_mask": shares.mask,
            "layers_eigenspace": shares.eigenspace,
            "layers_overlap": shares.overlap,
            "info": "Of the mask, the eigenspace and frob_Qtop^2 at K, by parameter tensor",
            **where,
        }
