"""How eigenpairs are recovered from Hessian products: in one round (SEIGH) or in several."""

from __future__ import annotations

import math
from dataclasses import dataclass

from skerch.errors import InputError

from ..app.config import key
from ..app.names import check_name

#: Rounds of products by recovery, where NUM_ROUNDS was not given.
DEFAULT_ROUNDS = {"seigh": 1, "hmt": 2, "krylov": 4}


@dataclass
class RecoveryConfig:
    """Keys of the scripts that take part in a recovery."""

    RECOVERY: str = key(f"how eigenpairs are recovered: {', '.join(DEFAULT_ROUNDS)}", "seigh")
    NUM_ROUNDS: int | None = key("rounds of products", None, shown="1 seigh, 2 hmt, 4 krylov")
    BLOCK_SIZE: int | None = key(
        "products per round (hmt, krylov)", None, shown="NUM_INNER / NUM_ROUNDS, rounded up"
    )


@dataclass(frozen=True)
class Recovery:
    """A recovery with its sizes.

    Attributes:
        name: ``"seigh"``, ``"hmt"`` (range finder, then Rayleigh-Ritz) or ``"krylov"``.
        num_rounds: Rounds of products, each of which needs the one before.
        block_size: Products per round; 0 for SEIGH, whose sketch has sizes of its own.
    """

    name: str
    num_rounds: int
    block_size: int

    @property
    def in_rounds(self) -> bool:
        """Whether there is more to it than one sketch."""
        return self.name != "seigh"

    @property
    def basis_begin(self) -> int:
        """The round whose vectors are the first block of the basis."""
        return 1 if self.name == "hmt" else 0

    @property
    def num_products(self) -> int:
        """Hessian products in all."""
        return self.num_rounds * self.block_size

    def check_round(self, number: int) -> None:
        """Raise :class:`InputError` unless there is such a round."""
        if not 0 <= number < self.num_rounds:
            raise InputError(
                f"ROUND must lie in [0, {self.num_rounds}), the rounds of {self.name}, got {number}"
            )


def make_recovery(config: RecoveryConfig, num_inner: int | None, dim: int) -> Recovery:
    """Return the recovery that ``config`` describes.

    Args:
        config: The keys.
        num_inner: Products in all, NUM_INNER; ``None`` where BLOCK_SIZE is known.
        dim: Number of parameters ``D``.

    Raises:
        InputError: If numbers do not fit.
    """
    check_name("RECOVERY", config.RECOVERY, DEFAULT_ROUNDS)
    default = DEFAULT_ROUNDS[config.RECOVERY]
    rounds = default if config.NUM_ROUNDS is None else config.NUM_ROUNDS
    fixed = config.RECOVERY != "krylov"
    if rounds < 1 or (fixed and rounds != default):
        expected = default if fixed else "at least 1"
        raise InputError(f"NUM_ROUNDS of {config.RECOVERY} must be {expected}, got {rounds}")
    if config.RECOVERY == "seigh":
        return Recovery("seigh", 1, 0)
    block = config.BLOCK_SIZE
    if block is None:
        if num_inner is None:
            raise InputError("neither BLOCK_SIZE nor NUM_INNER is given")
        block = math.ceil(num_inner / rounds)
    if not 1 <= block <= dim:
        raise InputError(f"BLOCK_SIZE must lie in [1, {dim}], got {block}")
    if not fixed and rounds * block > dim:
        raise InputError(
            f"a Krylov basis has at most {dim} columns, got {rounds} rounds of {block} products"
        )
    return Recovery(config.RECOVERY, rounds, block)


def check_rank(recovery: Recovery, rank: int) -> None:
    """Raise :class:`InputError` unless ``rank`` pairs can be recovered."""
    most = recovery.block_size if recovery.name == "hmt" else recovery.num_products
    if not 1 <= rank <= most:
        raise InputError(
            f"{recovery.name} with {recovery.num_rounds} rounds of {recovery.block_size} products "
            f"recovers 1 to {most} eigenpairs, NUM_OUTER is {rank}"
        )
