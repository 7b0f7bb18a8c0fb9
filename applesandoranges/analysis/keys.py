"""Keys of the scripts that analyse."""

from __future__ import annotations

from dataclasses import dataclass

from skerch.errors import InputError

from ..app.keys import key


@dataclass
class AnalysisConfig:
    """Keys of the scripts that analyse."""

    WITH_A_POSTERIORI: bool = key("estimate the error of the sketch", True)
    NUM_A_POSTERIORI: int = key("Hessian products for that estimate", 30)
    NUM_RANDOM_MASKS: int = key("random masks to compare with", 10)
    SYMMETRIZE_CORE: bool = key("average both triangles of the core (published runs: false)", True)


def check_analysis(config: AnalysisConfig) -> None:
    """Raise :class:`InputError` for numbers that cannot be."""
    if config.WITH_A_POSTERIORI and config.NUM_A_POSTERIORI < 1:
        raise InputError(f"NUM_A_POSTERIORI must be at least 1, got {config.NUM_A_POSTERIORI}")
    if config.NUM_RANDOM_MASKS < 0:
        raise InputError(f"NUM_RANDOM_MASKS must be at least 0, got {config.NUM_RANDOM_MASKS}")
