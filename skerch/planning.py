"""Which recovery to use, and what it costs, for given sizes.

Rule of thumb: block Krylov with as many rounds, up to ten, as hardly prolong the sequence of
products of a job, but with four at least. Each further round costs a synchronisation and brings the
result closer to the best one of its rank. Blocks are not narrower than :data:`LEAST_BLOCK`, though:
rounds cannot separate more equal eigenvalues than a block has columns. The damped Nystrom
approximation is for a single pass, and no worse than what two give; SEIGH is for the least storage,
the range finder with Rayleigh-Ritz for the least memory.

Costs are counted for the routines of this package, out of core: see :mod:`skerch.core.sketch`,
:mod:`skerch.core.nystrom` and :mod:`skerch.core.rayleigh_ritz`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from humanfriendly import format_size

from .a_priori import KRYLOV_ROUNDS, block_size, check_dimension
from .budget import resolve_budget
from .core.nystrom import least_nystrom_budget
from .core.row_blocks import RowBlocks
from .core.sketch import least_seigh_budget
from .errors import InputError

#: How much longer than one pass the rounds may take, counted in products of the busiest job.
MAX_DELAY = 1.25
#: Rounds that are worth it even if they take longer.
WORTHWHILE_ROUNDS = 4

#: Columns that a block of recommended rounds has at least, or as many as there are pairs wanted.
#: Of ``c`` equal eigenvalues a block of fewer columns finds fewer copies, however many rounds there
#: are; Hessians of classifiers have such clusters, of about as many as there are classes. For ten
#: equal ones and a tail ``j^-2``, 40 products and 20 pairs have the relative error 0.445 with 10
#: rounds of 4, and 0.005 with 4 rounds of 10; without a cluster 4 rounds lose a twentieth. See
#: ``pytest tests/skerch/test_clusters.py -k narrow``. A share of ``k`` would add nothing: ten
#: rounds of at least ``k`` products in all have blocks of ``k / 10`` or more anyway.
LEAST_BLOCK = 10
#: Inner measurements for each outer one, below which SEIGH gets a warning. The core has about the
#: condition ``(1 + q) / (1 - q)`` of a random matrix, with ``q^2 = n_o / n_i``: 6 for twice as many
#: inner ones, 10 for these, 40 for a tenth more, 300 for 355 and 360.
LEAST_INNER_RATIO = 1.5

#: Copies of the largest small matrix, in float64, that solving for the Ritz pairs holds.
RAYLEIGH_RITZ_COPIES = 10
#: Bytes for one number of a vector that is transformed by an SSRFT, as rounds make it.
TRANSFORM_BYTES = 64
#: Dtypes of stored numbers by their bytes.
DTYPES = {4: torch.float32, 8: torch.float64}


@dataclass(frozen=True)
class Cost:
    """What one way of recovering costs.

    Attributes:
        recovery: ``"seigh"``, ``"nystrom"``, ``"hmt"`` or ``"krylov"``.
        num_rounds: Passes, each of which waits for the one before.
        block_size: Products of a pass.
        products: Of all passes.
        products_in_sequence: Products that the busiest job makes one after the other.
        stored_columns: Vectors of length ``D`` on disk at the end of the last pass. Those of the
            last measurements are there twice until their sub-files are removed.
        stored_bytes: The same in bytes, with the small matrices.
        peak_memory: Bytes that have to fit at once, beside what the operator needs; larger budgets
            are used for larger blocks.
        in_memory: Bytes with everything in memory instead of on disk; for SEIGH the least budget of
            :func:`~skerch.decompositions.seigh`.
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
    """Costs of all recoveries, the one to take, and why.

    Attributes:
        recommended: The one to take.
        reason: Why.
        costs: Of all recoveries.
        warning: What is wrong with the sizes, for one of them at least; empty otherwise.
    """

    recommended: Cost
    reason: str
    costs: list[Cost]
    warning: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as nested dictionaries."""
        return {
            "recommended": self.recommended.name,
            "reason": self.reason,
            "warning": self.warning,
            "recoveries": [{"name": cost.name, **asdict(cost)} for cost in self.costs],
        }


def plan(
    shape: tuple[int, int],
    rank: int,
    num_products: int,
    *,
    jobs: int = 1,
    memory_budget: int | None = None,
    max_passes: int = max(KRYLOV_ROUNDS),
    itemsize: int = 4,
) -> Plan:
    """Compare the recoveries of a symmetric operator and recommend one.

    Args:
        shape: ``(D, D)`` of the operator.
        rank: Eigenpairs ``k`` that are wanted.
        num_products: Products ``N >= k`` with the operator that may be made; of recoveries in
            rounds, in blocks of :func:`~skerch.a_priori.block_size`, some more.
        jobs: Jobs ``p`` that make products at the same time.
        memory_budget: Bytes of a job; default a quarter of this machine.
        max_passes: How often jobs may wait for all others.
        itemsize: Bytes of a stored number, 4 or 8.

    Raises:
        InputError: If sizes are impossible, or no recovery fits into the budget.

    Example:
        >>> from skerch.planning import plan
        >>> best = plan((100_000, 100_000), rank=50, num_products=100).recommended
        >>> best.recovery, best.num_rounds, best.block_size
        ('krylov', 10, 10)
    """
    budget = resolve_budget(memory_budget)
    _check(shape, rank, num_products, itemsize, at_least_1=(jobs, max_passes, budget))
    sizes = _Sizes(shape[0], rank, num_products, jobs, budget, itemsize)
    in_rounds = [sizes.krylov(rounds) for rounds in KRYLOV_ROUNDS]
    costs = [sizes.seigh(), sizes.nystrom(), sizes.hmt(), *in_rounds]
    possible = [c for c in costs if not c.problem and c.num_rounds <= max_passes]
    affordable = [c for c in possible if c.within_budget]
    if not affordable:
        least = min(possible, key=lambda c: c.peak_memory)
        raise InputError(
            f"the budget of {format_size(budget)} is too small: {least.name} needs "
            f"{format_size(least.peak_memory)}"
        )
    warning = _warning(rank, num_products)
    choice = _Choice(affordable, costs[0].products_in_sequence, min(LEAST_BLOCK, rank))
    return Plan(*choice.make(max_passes, sound=not warning), costs, warning)


def _check(
    shape: tuple[int, int],
    rank: int,
    num_products: int,
    itemsize: int,
    at_least_1: tuple[int, int, int],
) -> None:
    height, width = shape
    if height != width:
        raise InputError(f"a symmetric operator is square, got shape {height},{width}")
    if not 1 <= rank <= num_products <= height:
        raise InputError(
            f"expected 1 <= k <= products <= {height} for shape {height},{width}, "
            f"got k={rank} and products={num_products}"
        )
    if min(at_least_1) < 1:
        jobs, passes, budget = at_least_1
        raise InputError(
            f"jobs, passes and budget must be at least 1, got {jobs}, {passes} and {budget}"
        )
    if itemsize not in DTYPES:
        raise InputError(f"expected an itemsize of {sorted(DTYPES)} bytes, got {itemsize}")
    check_dimension(shape)


def _warning(outer: int, inner: int) -> str:
    if inner >= LEAST_INNER_RATIO * outer:
        return ""
    return (
        f"n_i={inner} products are about as many as the n_o={outer} pairs: the core of seigh would "
        f"be ill-conditioned; give it about twice as many products as pairs, {2 * outer}"
    )


@dataclass(frozen=True)
class _Choice:
    """Which of the affordable recoveries to take, and the reason.

    Attributes:
        affordable: Those that are possible and within the budget.
        one_pass: Products that the busiest job makes one after the other in a single pass.
        least_block: Columns that a block of recommended rounds has at least.
    """

    affordable: list[Cost]
    one_pass: int
    least_block: int

    def make(self, max_passes: int, sound: bool) -> tuple[Cost, str]:
        """Choose; ``sound`` says whether the core of SEIGH would be well-conditioned."""
        rounds = [c for c in self.affordable if c.recovery == "krylov"]
        wide = [c for c in rounds if c.block_size >= self.least_block]
        narrow = f"blocks of block Krylov would be narrower than {self.least_block} columns"
        missing = narrow if rounds else "block Krylov does not fit"
        if max_passes == 1:
            return self._few_passes("one pass is all that is allowed")
        if max_passes == 2:
            return self._few_passes("two passes: block Krylov would store more")
        if wide:
            return self._rounds(wide)
        if rounds and not sound and not self._first("hmt"):
            widest = max(rounds, key=lambda c: c.block_size)
            return widest, f"{narrow}, but one pass of so few products would be poor"
        return self._few_passes(missing)

    def _first(self, recovery: str) -> Cost | None:
        return next((c for c in self.affordable if c.recovery == recovery), None)

    def _few_passes(self, why: str) -> tuple[Cost, str]:
        nystrom, hmt = self._first("nystrom"), self._first("hmt")
        if nystrom:
            kept = "nystrom keeps all products, and is no worse than two passes"
            return nystrom, f"{why}; {kept}"
        if hmt:
            return hmt, f"{why}, nystrom does not fit, and two passes are better than one"
        return self.affordable[0], f"{why}, and neither nystrom nor the range finder fits"

    def _rounds(self, wide: list[Cost]) -> tuple[Cost, str]:
        prompt = [c for c in wide if c.products_in_sequence <= MAX_DELAY * self.one_pass]
        worthwhile = [c for c in wide if c.num_rounds <= WORTHWHILE_ROUNDS]
        chosen = max([*prompt, *worthwhile] or wide[:1], key=lambda c: c.num_rounds)
        why = "some jobs have to wait, but so many rounds are worth it"
        if chosen in prompt:
            why = "more rounds are more accurate, and so many hardly take longer"
        return chosen, (
            f"{why}: a job makes {chosen.products_in_sequence} products one after the other, "
            f"{self.one_pass} if there were one pass; no block is narrower than {self.least_block} "
            "columns, which could not separate so many equal eigenvalues"
        )


@dataclass(frozen=True)
class _Sizes:
    dim: int
    rank: int
    num_products: int
    jobs: int
    budget: int
    itemsize: int

    def seigh(self) -> Cost:
        sizes = self.dim, self.rank, self.num_products, DTYPES[self.itemsize]
        stored = self.itemsize * (self.dim * self.rank + self.num_products**2)
        peak, in_memory = (least_seigh_budget(*sizes, on_disk=disk) for disk in (True, False))
        return self._cost("seigh", 1, self.rank, stored, peak, in_memory)

    def nystrom(self) -> Cost:
        shape, dtype = (self.dim, self.num_products), DTYPES[self.itemsize]
        stored = self.itemsize * self.dim * self.num_products
        peak = least_nystrom_budget(*shape, dtype, on_disk=True)
        in_memory = stored + least_nystrom_budget(*shape, dtype, on_disk=False)
        return self._cost("nystrom", 1, self.num_products, stored, peak, in_memory)

    def hmt(self) -> Cost:
        block = block_size(self.num_products, 2)
        problem = f"needs {2 * self.rank} products" if block < self.rank else ""
        # The basis and the products with it; the first products may go when the basis is there.
        return self._in_rounds("hmt", 2, columns=2 * block, basis=block, problem=problem)

    def krylov(self, rounds: int) -> Cost:
        block = block_size(self.num_products, rounds)
        problem = f"needs {rounds} products" if self.num_products < rounds else ""
        columns, basis = (rounds + 1) * block, rounds * block
        return self._in_rounds("krylov", rounds, columns=columns, basis=basis, problem=problem)

    def _in_rounds(
        self, recovery: str, rounds: int, *, columns: int, basis: int, problem: str
    ) -> Cost:
        stored = self.itemsize * self.dim * columns
        row = RowBlocks.WORKING_COPIES * 8 * columns * 2  # half of the budget is for row blocks
        core = RAYLEIGH_RITZ_COPIES * 8 * basis**2
        peak = max(TRANSFORM_BYTES * self.dim, core + row)
        return self._cost(recovery, rounds, columns, stored, peak, stored + peak, problem)

    def _cost(
        self,
        recovery: str,
        rounds: int,
        columns: int,
        stored: int,
        peak: int,
        in_memory: int,
        problem: str = "",
    ) -> Cost:
        block = block_size(self.num_products, rounds)
        return Cost(
            recovery=recovery,
            num_rounds=rounds,
            block_size=block,
            products=rounds * block,
            products_in_sequence=rounds * math.ceil(block / self.jobs),
            stored_columns=columns,
            stored_bytes=stored,
            peak_memory=peak,
            in_memory=in_memory,
            within_budget=peak <= self.budget,
            problem=problem,
        )
