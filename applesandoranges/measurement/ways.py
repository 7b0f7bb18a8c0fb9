"""In which ways the measurements of one Hessian were computed, and whether they agree.

Jobs of one Hessian may differ in engine, device and TensorFloat-32, and so in their rounding. One
product of each way, made again, bounds by how much; it also tells products of another Hessian.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from skerch.errors import InputError
from skerch.store.files import format_indices

from .merge import Merge

if TYPE_CHECKING:
    from .recovery import Recovery

#: Of what a measurement was made with, that on which its rounding depends.
WAYS = ("engine", "device", "tf32")
#: How far, relatively, a stored product may differ from the same one made here. Two engines on one
#: machine differ by 1e-7, other machines by up to 1e-4, and convolutions of GPUs in TF32, with ten
#: bits of mantissa, by a few 1e-3; products of the other split, or of a step that is two away, by
#: 6e-2 and more.
SAME_PRODUCT = 1e-2


def ways_of(merges: Mapping[str, Merge]) -> dict[str, list[int]]:
    """Return the ways in which measurements were computed, and which ones in each."""
    found: dict[str, list[int]] = {}
    for merge in merges.values():
        for idx, software in enumerate(merge.made_with):
            way = ", ".join(f"{name} {software[name]}" for name in WAYS if name in software)
            found.setdefault(way or "unknown", []).append(idx)
    return {way: sorted(set(idxs)) for way, idxs in found.items()}


def compare_ways(
    recovery: Recovery, merges: Mapping[str, Merge], also: Set[int] = frozenset()
) -> dict[str, Any] | None:
    """Make one measurement of each way again, if there are several, and others.

    Cost: a product for each; none if all were computed in the same way.

    Args:
        recovery: At the round that the measurements are of.
        merges: They, checked.
        also: Which others.

    Returns:
        Which were made again, and how far they were off; ``None`` if none was.

    Raises:
        InputError: If one of them is another product.
    """
    ways = ways_of(merges)
    chosen = sorted({*also, *(idxs[0] for idxs in ways.values() if len(ways) > 1)})
    largest, layout = 0.0, recovery.sizes.layout
    for idx in chosen:  # one by one: there is memory for one vector at least
        made = dict(zip(layout, recovery.measure([idx]), strict=True))
        for merge in merges.values():
            fmt = next(fmt for fmt in layout if recovery.store.virtual[fmt] == merge.virtual)
            if idx >= layout[fmt][1]:
                continue
            stored = torch.from_numpy(merge.stored(idx))
            difference = _relative_difference(stored, made[fmt][:, 0])
            if not difference <= SAME_PRODUCT:
                differs = (
                    f"differs by {difference:.2g} (relative) from the product with that of "
                    f"{recovery.recorded.where}, expected at most {SAME_PRODUCT:g}"
                )
                raise InputError(f"{merge.virtual}: {_of_another(idx, differs, ways)}")
            largest = max(largest, difference)
    if not chosen:
        return None
    return {"idxs": chosen, "largest_relative_difference": largest, "allowed": SAME_PRODUCT}


def _of_another(idx: int, differs: str, ways: Mapping[str, list[int]]) -> str:
    if len(ways) > 1:
        of = next(way for way, idxs in ways.items() if idx in idxs)
        return (
            f"measurement {idx} ({of}) {differs}; remove those that were computed in this way "
            f"({format_indices(ways[of])}), and measure them again (10c)"
        )
    return (
        f"these are measurements of another Hessian: number {idx} {differs}; give STEP, "
        "TEST_HESSIAN, PARAMS_PATH and TRAINING_LOGPATH that they were made with, or measure "
        "again (10c)"
    )


def _relative_difference(stored: Tensor, product: Tensor) -> float:
    """Return ``|stored - product| / |product|``, both ``[dim]``; 0 if they are equal."""
    product = product.cpu().double()
    difference = float((stored.double() - product).norm())
    # Infinity where the product is zero, NaN where a stored value is.
    return difference / max(float(product.norm()), 1e-300) if difference else 0.0
