"""How large a recovery is: rounds, products of each, and the store that holds them.

The one home of these sizes, of the shapes in a store and of the names under which both stand in the
provenance of measurements; names of files are in :mod:`skerch.store_names`. Needs no torch, so that
what only counts starts at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skerch import INNER_FMT, LO_FMT
from skerch.a_priori import block_size, check_sizes
from skerch.errors import InputError

from ..app.keys import key
from ..app.spelling import check_name

#: What CURVATURE can be; :data:`applesandoranges.hessian.operator.CURVATURES` has them.
CURVATURE_NAMES = ("hessian", "ggn", "fisher")

#: Of all measurements.
DTYPE = "float32"


@dataclass(frozen=True)
class Kind:
    """What tells one recovery from the others.

    Attributes:
        num_rounds: Rounds of products, each of which needs the one before; the default, or the only
            number that there is.
        any_rounds: Whether another number may be chosen.
        sketch: Whether it keeps inner measurements beside some of the products.
        half: Whether half of its products, those of its second round, make no pairs of their own.
        warm: Whether its first block may be made of eigenvectors of another step.
    """

    num_rounds: int
    any_rounds: bool = False
    sketch: bool = False
    half: bool = False
    warm: bool = False


#: By the names that RECOVERY takes.
KINDS = {
    "seigh": Kind(1, sketch=True),
    "hmt": Kind(2, half=True, warm=True),
    "krylov": Kind(4, any_rounds=True, warm=True),
    "nystrom": Kind(1),
}


@dataclass
class RecoveryConfig:
    """Keys of the scripts that take part in a recovery."""

    RECOVERY: str = key(f"how eigenpairs are recovered: {', '.join(KINDS)}", "seigh")
    NUM_ROUNDS: int | None = key(
        "rounds of products", None, shown="1 seigh and nystrom, 2 hmt, 4 krylov"
    )
    BLOCK_SIZE: int | None = key(
        "products per round (all but seigh)", None, shown="NUM_INNER / NUM_ROUNDS, rounded up"
    )
    START: str | None = key(
        "eigenvectors of another step to begin with, a file of 10d (hmt, krylov)", None
    )


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of a recovery of a ``[dim, dim]`` Hessian, and of its store.

    Attributes:
        recovery: A name in :data:`KINDS`.
        dim: Number of parameters ``D``.
        num_rounds: Rounds of measurements.
        per_round: Measurements of a round: ``n_i`` of a sketch, else the columns of a block.
        num_outer: Outer measurements ``n_o`` of a sketch; else the pairs that are wanted, ``None``
            for half of the products.
        start: Name of the vectors that the first block is made of; ``None`` for an SSRFT alone.
    """

    recovery: str
    dim: int
    num_rounds: int
    per_round: int
    num_outer: int | None = None
    start: str | None = None

    @property
    def kind(self) -> Kind:
        """What tells this recovery from the others."""
        return KINDS[self.recovery]

    @property
    def total(self) -> int:
        """Products of all rounds."""
        return self.num_rounds * self.per_round

    @property
    def rank(self) -> int:
        """Eigenpairs that are recovered at most."""
        return self.total // 2 if self.num_outer is None else self.num_outer

    @property
    def layout(self) -> dict[str, tuple[int, int]]:
        """Shapes of the virtual files by format of their names.

        Outer measurements before inner ones: whoever finds the latter finds both.
        """
        if not self.kind.sketch:
            return {LO_FMT: (self.dim, self.per_round)}
        return {LO_FMT: (self.dim, self.rank), INNER_FMT: (self.per_round, self.per_round)}

    @property
    def in_provenance(self) -> dict[str, Any]:
        """What the provenance of a measurement says of its sizes."""
        if not self.kind.sketch:
            return {"recovery": self.recovery, "block_size": self.per_round}
        return {"num_outer": self.num_outer, "num_inner": self.per_round}

    @property
    def in_analysis(self) -> dict[str, Any]:
        """What the log of an analysis says of its sizes, beside the provenance."""
        if not self.kind.sketch:
            return {"num_outer": self.rank, "num_rounds": self.num_rounds}
        return {"num_outer": self.num_outer}

    def provenance(self, identity: dict[str, Any], seed: int) -> dict[str, Any]:
        """Return what all measurements of a Hessian carry.

        Args:
            identity: What tells this Hessian from any other.
            seed: RANDOM_SEED of its training; those of the measurements follow it.
        """
        seeds = {"seed_phi": seed + 1} if self.kind.sketch else {}
        own = {"recovery": self.recovery} | self.in_provenance | {"start": self.start}
        return identity | own | seeds | {"seed_psi": seed + 2, "dtype": DTYPE}

    def check_round(self, number: int) -> None:
        """Raise :class:`InputError` unless there is such a round."""
        if not 0 <= number < self.num_rounds:
            raise InputError(
                f"ROUND must lie in [0, {self.num_rounds}), the rounds of {self.recovery}, "
                f"got {number}"
            )

    def check_rank(self) -> None:
        """Raise :class:`InputError` unless so many pairs can be recovered."""
        if self.kind.sketch:
            check_sizes((self.dim, self.dim), self.rank, self.per_round)
            return
        most = self.per_round if self.kind.half else self.total
        if not 1 <= self.rank <= most:
            raise InputError(
                f"{self.recovery} with {self.num_rounds} rounds of {self.per_round} products "
                f"recovers 1 to {most} eigenpairs, NUM_OUTER is {self.rank}"
            )


@dataclass
class AccuracyConfig:
    """Keys of the scripts that end rounds."""

    ACCURACY: float | None = key(
        "relative error of the overlap at k = NUM_OUTER below which rounds end (krylov)", None
    )


def check_accuracy(config: AccuracyConfig, sizes: Sizes) -> None:
    """Raise :class:`InputError` unless ACCURACY, if given, can end something."""
    if config.ACCURACY is None:
        return
    if not 0 < config.ACCURACY < math.inf:
        raise InputError(f"ACCURACY must be a relative error, such as 0.05, got {config.ACCURACY}")
    if not sizes.kind.any_rounds:
        raise InputError(
            f"ACCURACY ends rounds when they are enough, and RECOVERY={sizes.recovery} always has "
            f"{sizes.num_rounds}; take RECOVERY=krylov"
        )


def curvature_facts(
    curvature: str, parameters: str, names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return what tells a curvature and a choice of parameters from others, in provenances.

    ``None``, which stands for a key that is not there, for the Hessian and for all parameters, so
    that measurements of before agree.

    Args:
        curvature: CURVATURE.
        parameters: PARAMETERS.
        names: Of the parameters that are chosen, where they are known.
    """
    chosen = parameters.strip() or None
    facts: dict[str, Any] = {"curvature": None if curvature == "hessian" else curvature}
    facts["parameters"] = chosen
    if names is not None:
        facts["parameter_names"] = list(names) if chosen else None
    return facts


def stated(facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts as they are logged: without those that are ``None``."""
    return {name: value for name, value in facts.items() if value is not None}


def kind_of(recovery: str) -> Kind:
    """Return the kind of a recovery.

    Raises:
        InputError: If there is none of this name.
    """
    check_name("RECOVERY", recovery, KINDS)
    return KINDS[recovery]


def make_sizes(
    config: RecoveryConfig, dim: int, num_inner: int | None, num_outer: int | None = None
) -> Sizes:
    """Return the sizes that the keys describe.

    Args:
        config: The keys.
        dim: Number of parameters ``D``.
        num_inner: Inner measurements of a sketch, 0 if they do not matter; else products in all,
            which may be ``None`` where BLOCK_SIZE is given.
        num_outer: See :class:`Sizes`.

    Raises:
        InputError: If numbers do not fit.
    """
    kind = kind_of(config.RECOVERY)
    if config.START is not None and not kind.warm:
        raise InputError(f"RECOVERY={config.RECOVERY} has no START; hmt and krylov have")
    rounds = kind.num_rounds if config.NUM_ROUNDS is None else config.NUM_ROUNDS
    if rounds < 1 or (not kind.any_rounds and rounds != kind.num_rounds):
        expected = "at least 1" if kind.any_rounds else kind.num_rounds
        raise InputError(f"NUM_ROUNDS of {config.RECOVERY} must be {expected}, got {rounds}")
    block = num_inner or 0 if kind.sketch else config.BLOCK_SIZE
    if block is None:
        if num_inner is None:
            raise InputError("neither BLOCK_SIZE nor NUM_INNER is given")
        block = block_size(num_inner, rounds)
    if not kind.sketch and not 1 <= block <= dim:
        raise InputError(f"BLOCK_SIZE must lie in [1, {dim}], got {block}")
    if kind.any_rounds and rounds * block > dim:
        raise InputError(
            f"a Krylov basis has at most {dim} columns, got {rounds} rounds of {block} products"
        )
    return Sizes(
        recovery=config.RECOVERY,
        dim=dim,
        num_rounds=rounds,
        per_round=block,
        num_outer=num_outer,
    )
