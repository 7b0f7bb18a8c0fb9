"""Which recovery to use, and what it costs, for given sizes.

Rule of thumb: block Krylov with as many rounds, up to ten, as hardly prolong the sequence of
products of a job, but with four at least. Each further round costs a synchronisation and brings the
result closer to the best one of its rank. SEIGH is for a single pass and for the least storage, the
range finder with Rayleigh-Ritz for two passes and the least memory.

Costs are counted for the routines of this package, out of core: see
:mod:`skerch.core.sketch` and :mod:`skerch.core.rayleigh_ritz`.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from .budget import default_memory_budget
from .core.row_blocks import RowBlocks
from .errors import InputError

#: Numbers of block Krylov rounds that are considered.
KRYLOV_ROUNDS = (2, 3, 4, 5, 6, 8, 10)
#: How much longer than one pass the rounds may take, counted in products of the busiest job.
MAX_DELAY = 1.25
#: Rounds that are worth it even if they take longer.
WORTHWHILE_ROUNDS = 4

#: Copies of the largest small matrix, in float64, that solving for the core holds.
SEIGH_COPIES, RAYLEIGH_RITZ_COPIES = 5, 10
#: Bytes for one number of a vector that is transformed by an SSRFT.
TRANSFORM_BYTES = 64


@dataclass(frozen=True)
class Cost:
    """What one way of recovering costs.

    Attributes:
        recovery: ``"seigh"``, ``"hmt"`` or ``"krylov"``.
        num_rounds: Passes, each of which waits for the one before.
        block_size: Products of a pass.
        products: Of all passes.
        products_in_sequence: Products that the busiest job makes one after the other.
        stored_columns: Vectors of length ``D`` on disk at the end of the last pass. Those of the
            last measurements are there twice until their sub-files are removed.
        stored_bytes: The same in bytes, with the small matrices.
        peak_memory: Bytes that have to fit at once, beside what the operator needs; larger budgets
            are used for larger blocks.
        in_memory: Bytes with everything in memory instead of on disk.
        within_budget: Whether the peak is.
        problem: Why it is impossible; empty otherwise.
    """

    recovery: str
    num_rounds: int
    block_size: int
    products: int
    products_in_sequence: int
    stored_columns: int
    stored_bytes: int
    peak_memory: int
    in_memory: int
    within_budget: bool
    problem: str

    @property
    def name(self) -> str:
        """The recovery and its size in words."""
        if self.recovery == "krylov":
            return f"krylov with {self.num_rounds} rounds of {self.block_size}"
        return self.recovery


@dataclass(frozen=True)
class Plan:
    """Costs of all recoveries, the one to take, and why."""

    recommended: Cost
    reason: str
    costs: list[Cost]

    def as_dict(self) -> dict[str, Any]:
        """Return it as nested dictionaries."""
        return {
            "recommended": self.recommended.name,
            "reason": self.reason,
            "recoveries": [{"name": cost.name, **asdict(cost)} for cost in self.costs],
        }


def plan(
    shape: tuple[int, int],
    rank: int,
    products: int,
    jobs: int = 1,
    budget: int | None = None,
    max_passes: int = max(KRYLOV_ROUNDS),
    itemsize: int = 4,
) -> Plan:
    """Compare the recoveries of a symmetric operator and recommend one.

    Args:
        shape: ``(D, D)`` of the operator.
        rank: Eigenpairs ``k`` that are wanted.
        products: Products ``N >= k`` with the operator that may be made.
        jobs: Jobs ``p`` that make products at the same time.
        budget: Bytes of memory of a job; default a quarter of this machine.
        max_passes: How often jobs may wait for all others.
        itemsize: Bytes of a stored number.

    Raises:
        InputError: If sizes are impossible, or no recovery fits into the budget.
    """
    height, width = shape
    if height != width:
        raise InputError(f"a symmetric operator is square, got shape {height},{width}")
    if not 1 <= rank <= products <= height:
        raise InputError(
            f"expected 1 <= k <= products <= {height} for shape {height},{width}, "
            f"got k={rank} and products={products}"
        )
    budget = default_memory_budget() if budget is None else budget
    if min(jobs, max_passes, budget) < 1:
        raise InputError(
            f"jobs, passes and budget must be at least 1, got {jobs}, {max_passes} and {budget}"
        )
    sizes = _Sizes(height, rank, products, jobs, budget, itemsize)
    costs = [sizes.seigh(), sizes.hmt(), *(sizes.krylov(rounds) for rounds in KRYLOV_ROUNDS)]
    possible = [c for c in costs if not c.problem and c.num_rounds <= max_passes]
    affordable = [c for c in possible if c.within_budget]
    if not affordable:
        least = min(possible, key=lambda c: c.peak_memory)
        raise InputError(
            f"the budget of {format_bytes(budget)} is too small: {least.name} needs "
            f"{format_bytes(least.peak_memory)}"
        )
    return Plan(*_choose(affordable, costs[0].products_in_sequence, max_passes), costs)


def _choose(affordable: list[Cost], one_pass: int, max_passes: int) -> tuple[Cost, str]:
    krylov = [c for c in affordable if c.recovery == "krylov"]
    hmt = next((c for c in affordable if c.recovery == "hmt"), None)
    if max_passes == 1:
        return affordable[0], "one pass is all that is allowed"
    if hmt and max_passes == 2:
        return hmt, "two passes: block Krylov is hardly better with two rounds, and stores more"
    if hmt and not krylov:
        return hmt, "block Krylov does not fit, and two passes are better than one"
    if not krylov:
        return affordable[0], "neither block Krylov nor the range finder fits"
    prompt = [c for c in krylov if c.products_in_sequence <= MAX_DELAY * one_pass]
    worthwhile = [c for c in krylov if c.num_rounds <= WORTHWHILE_ROUNDS]
    chosen = max([*prompt, *worthwhile] or krylov[:1], key=lambda c: c.num_rounds)
    sequence = (
        f"a job makes {chosen.products_in_sequence} products one after the other, {one_pass} if "
        f"there were one pass"
    )
    if chosen in prompt:
        return chosen, f"more rounds are more accurate, and so many hardly take longer: {sequence}"
    return chosen, f"some jobs have to wait, but so many rounds are worth it: {sequence}"


@dataclass(frozen=True)
class _Sizes:
    dim: int
    rank: int
    products: int
    jobs: int
    budget: int
    itemsize: int

    def seigh(self) -> Cost:
        small = self.products**2
        return self._cost("seigh", 1, self.products, self.rank, small, SEIGH_COPIES * small, "")

    def hmt(self) -> Cost:
        block = self.products // 2
        problem = f"needs {2 * self.rank} products" if block < self.rank else ""
        # The basis and the products with it; the first products may go when the basis is there.
        return self._cost("hmt", 2, block, 2 * block, 0, RAYLEIGH_RITZ_COPIES * block**2, problem)

    def krylov(self, rounds: int) -> Cost:
        block = self.products // rounds
        columns = rounds * block
        problem = f"{rounds} rounds of {block} are less than k" if columns < self.rank else ""
        core = RAYLEIGH_RITZ_COPIES * columns**2
        return self._cost("krylov", rounds, block, columns + block, 0, core, problem)

    def _cost(
        self,
        recovery: str,
        rounds: int,
        block: int,
        columns: int,
        stored_small: int,
        core: int,
        problem: str,
    ) -> Cost:
        stored = self.itemsize * (self.dim * columns + stored_small)
        row = RowBlocks.WORKING_COPIES * 8 * columns * 2  # half of the budget is for row blocks
        peak = max(TRANSFORM_BYTES * self.dim, 8 * core + row)
        return Cost(
            recovery=recovery,
            num_rounds=rounds,
            block_size=block,
            products=rounds * block,
            products_in_sequence=rounds * math.ceil(block / self.jobs),
            stored_columns=columns,
            stored_bytes=stored,
            peak_memory=peak,
            in_memory=stored + peak,
            within_budget=peak <= self.budget,
            problem=problem,
        )


_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES = re.compile(r"(\d+(?:\.\d*)?(?:e\d{1,2})?)\s*([KMGT]B|)", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """Read a number of bytes such as ``8000000000``, ``8e9`` or ``8GB``."""
    match = _BYTES.fullmatch(text.strip())
    if not match:
        raise InputError(f"expected bytes such as 8e9 or 8GB, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def format_bytes(num: float) -> str:
    """Return ``num`` bytes in the largest unit that fits, e.g. ``1.5 GB``."""
    unit = next(u for u in reversed(_UNITS) if num >= _UNITS[u] or not u)
    return f"{num / _UNITS[unit]:.3g} {unit or 'bytes'}"
