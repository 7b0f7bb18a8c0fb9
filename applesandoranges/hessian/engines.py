"""Two ways to multiply the Hessian with a block of vectors, within a memory budget.

``vmap`` differentiates forward over reverse, vectorised over the block: few large kernels, for
small networks and GPUs. Its memory grows with the activations of every vector. ``graph`` builds the
graph of each mini-batch's gradient once and differentiates it again for every vector: for
convolutions on CPUs. Both give the same numbers up to rounding.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from skerch import heartbeat
from skerch.budget import default_memory_budget
from skerch.errors import InputError
from skerch.ssrft import work_bytes as ssrft_bytes
from skerch.utils import gaussian_noise

from ..app.machine import budget_bytes
from ..app.spelling import check_name
from .batches import num_points
from .keys import MAX_VECTORS, ProductConfig
from .peak_memory import peak_bytes
from .vetting import Vetting, vet

if TYPE_CHECKING:
    from .curvatures import BlockOperator

#: A product does not take longer than about this, so that little is lost when a job is stopped.
MAX_SECONDS = 60.0
#: The trial that decides between the engines: with so many vectors, and if that takes less than so
#: many seconds, again with as many as a product will have. If that takes less, too, it was the
#: warm-up: it is repeated so often and the fastest counts, as another process may disturb some.
TRIAL_VECTORS, TRIAL_SECONDS, TRIAL_REPEATS = 4, 0.5, 3
#: Results that a caller holds for each column of a product: one waits and one is being written.
IN_FLIGHT = 2
#: Test matrices of a sketch, ``Phi`` and ``Psi``, of which one is at work at a time.
NUM_SSRFTS = 2
#: Kernels have work space of their own, which cannot be counted on CPUs.
UNSEEN_WORK_SPACE = 1.25


@dataclass(frozen=True)
class ProductSettings:
    """How products are made; see :class:`~.keys.ProductConfig`.

    Attributes:
        engine: ``auto`` or a key of :data:`ENGINES`.
        vectors: Vectors per product; default as many as fit.
        budget: Bytes; default a quarter of the machine.

    Raises:
        InputError: If there is no such engine, or ``vectors`` is not positive.
    """

    engine: str = "auto"
    vectors: int | None = None
    budget: int = field(default_factory=default_memory_budget)

    def __post_init__(self) -> None:
        check_name("HVP_ENGINE", self.engine, ("auto", *ENGINES))
        if self.vectors is not None and self.vectors < 1:
            raise InputError(f"VECTORS_PER_PRODUCT must be at least 1, got {self.vectors}")


def product_settings(config: ProductConfig, dim: int, device: torch.device) -> ProductSettings:
    """Return how products are made beside the SSRFTs of a sketch of ``dim`` parameters."""
    budget = budget_bytes(config.MEMORY_BUDGET_GB)
    at_work, idle = (ssrft_bytes(dim, n, torch.float32, device) for n in (MAX_VECTORS, 1))
    reserved = at_work + (NUM_SSRFTS - 1) * idle
    return ProductSettings(config.HVP_ENGINE, config.VECTORS_PER_PRODUCT, max(0, budget - reserved))


class Memory(NamedTuple):
    """Bytes of a product: those of any product, and those for each vector."""

    fixed: int
    per_vector: int

    def vectors_within(self, budget: int) -> int:
        """Return how many vectors fit."""
        return max(0, budget - self.fixed) // self.per_vector


@dataclass(frozen=True)
class ProductPlan:
    """What a trial on one mini-batch found.

    Attributes:
        engine: The engine that is used.
        vectors: Vectors per product.
        seconds: For each engine that was timed, seconds per vector.
        memory: For each engine that was tried, what it needs.
        vetting: Which engines are right, where that had to be found out.
    """

    engine: str
    vectors: int
    seconds: dict[str, float]
    memory: dict[str, Memory]
    vetting: Vetting | None = None

    def summary(self) -> dict[str, Any]:
        """Return the plan as it is logged."""
        checked = {} if self.vetting is None else {"engine_checks": self.vetting.summary()}
        return {
            "engine": self.engine,
            "vectors_per_product": self.vectors,
            "seconds_per_product": self.seconds,
            "bytes": {name: memory._asdict() for name, memory in self.memory.items()},
        } | checked


def zeros_like_columns(M: list[Tensor]) -> list[Tensor]:
    """Return zeros in whose memory each column of the matrix is contiguous."""
    return [m.new_zeros(m.shape[-1], *m.shape[:-1]).movedim(0, -1) for m in M]


def _with_shares(H: BlockOperator, data: Iterable[Any]) -> Iterator[tuple[Any, Any, float]]:
    """Yield mini-batches and their shares in the loss, those without any left out."""
    for X, y in data:
        share = H._get_normalization_factor(X, y)
        if share:
            yield X, y, share


def multiply_vmap(H: BlockOperator, M: list[Tensor], data: Iterable[Any]) -> list[Tensor]:
    """Multiply forward over reverse, all columns at once; CurvLinOps' own way."""
    total = zeros_like_columns(M)
    for X, y, share in _with_shares(H, data):
        for a, b in zip(total, H._matmat_batch(X, y, M), strict=True):
            a.add_(b, alpha=share)
    return total


def multiply_graph(H: BlockOperator, M: list[Tensor], data: Iterable[Any]) -> list[Tensor]:
    """Multiply reverse over reverse, one column after the other through the same graph."""
    total = zeros_like_columns(M)
    for X, y, share in _with_shares(H, data):
        for k, columns in enumerate(H.graph_columns(X, y, share, M)):
            for a, b in zip(total, columns, strict=True):
                a[..., k].add_(b)
    return total


Engine = Callable[["BlockOperator", list[Tensor], Iterable[Any]], list[Tensor]]

#: Engines by name.
ENGINES: dict[str, Engine] = {"vmap": multiply_vmap, "graph": multiply_graph}


class _Trial:
    """Products with the first mini-batch alone, whose memory and time are measured."""

    def __init__(self, H: BlockOperator):
        self.H = H
        self.batches = list(itertools.islice(H.batches(), 1))
        self.points = num_points(*self.batches[0])

    def multiply(self, engine: str, num: int) -> None:
        H = self.H
        V = gaussian_noise((num, H.shape[1]), 0, dtype=H.dtype, device=H.device).T
        parts = zip(V.split(H._in_shape_flat), H._in_shape, strict=True)
        M = [v.reshape(*shape, num) for v, shape in parts]
        torch.cat([m.reshape(-1, num) for m in H.multiply(engine, M, self.batches)])

    def memory(self, engine: str) -> Memory:
        # Not one vector: the last one frees a graph while it goes through it.
        two, three = (
            UNSEEN_WORK_SPACE * peak_bytes(partial(self.multiply, engine, num), self.H.device)
            for num in (2, 3)
        )
        per_vector = max(0, round(three - two))
        in_flight = IN_FLIGHT * self.H.shape[0] * self.H.dtype.itemsize
        return Memory(max(0, round(two) - 2 * per_vector), per_vector + in_flight)

    def seconds(self, engine: str, most: int) -> float:
        """Return seconds per vector of one pass over the data, in products of ``most`` vectors."""
        num = min(TRIAL_VECTORS, most)
        seconds = self._time(engine, num)
        if seconds < TRIAL_SECONDS:
            num, seconds = most, self._time(engine, most)
            if seconds < TRIAL_SECONDS:
                seconds = min(self._time(engine, most) for _ in range(TRIAL_REPEATS))
        return seconds / num * self.H._N_data / self.points

    def _time(self, engine: str, num: int) -> float:
        begin = time.perf_counter()
        self.multiply(engine, num)
        if self.H.device.type == "cuda":
            torch.cuda.synchronize(self.H.device)
        return time.perf_counter() - begin


def make_plan(H: BlockOperator) -> ProductPlan:
    """Return the plan of :meth:`BlockOperator.make_plan`."""
    settings = H.settings
    wanted = list(ENGINES) if settings.engine == "auto" else [settings.engine]
    found = None if H.known else vet(H, tuple(ENGINES), wanted)
    wanted = wanted if found is None else [e for e in wanted if e in found.right]
    heartbeat.doing("trying how to multiply fastest")
    trial = _Trial(H)
    room = _room(settings.budget, H.device)
    memory = {engine: trial.memory(engine) for engine in wanted}
    fitting = {engine: memory[engine].vectors_within(room) for engine in wanted}
    most = {e: min(n, settings.vectors or MAX_VECTORS) for e, n in fitting.items() if n >= 1}
    if not most:
        raise _too_small(H, min(memory.values(), key=sum), trial.points, room)
    seconds = {engine: trial.seconds(engine, num) for engine, num in most.items()}
    best = min(seconds, key=seconds.__getitem__)
    vectors = most[best]
    if settings.vectors is None:
        vectors = max(1, min(vectors, int(MAX_SECONDS / seconds[best])))
    return ProductPlan(best, vectors, seconds, memory, found)


def _room(budget: int, device: torch.device) -> int:
    if device.type != "cuda":
        return budget
    free, _ = torch.cuda.mem_get_info(device)
    return min(budget, int(0.9 * free))


def _too_small(H: BlockOperator, memory: Memory, points: int, room: int) -> InputError:
    message = (
        f"MEMORY_BUDGET_GB: one measurement of {H.shape[0]} parameters needs about "
        f"{sum(memory) / 1e9:.2g} GB with {points} data points per mini-batch, the budget leaves "
        f"{room / 1e9:.2g} GB for it"
    )
    fewer = int(points * (room - memory.per_vector) / max(1, memory.fixed))
    if fewer >= 1:
        message += f"; mini-batches of {fewer} data points would fit (batch_size)"
    return InputError(message)
