"""Keys of the scripts that measure and analyse the Hessian of a recorded step."""

from __future__ import annotations

from dataclasses import dataclass

from ..app.keys import key
from ..app.machine import device_key
from ..hessian.keys import ProductConfig
from ..training.keys import datasets_key


@dataclass
class RecordedHessianConfig(ProductConfig):
    """Keys that 10c, 10d and 10e have in common."""

    OBS_DATASETS: str | None = datasets_key()
    PARAMS_PATH: str = key("params file of 10a")
    TRAINING_LOGPATH: str = key("log of 10a")
    STEP: int = key("recorded training step")
    TEST_HESSIAN: bool = key("Hessian of the test split instead of the training split", False)
    SUCCESS_FLAG: str = key("flag of a successful measurement", "measured")
    DEVICE: str = device_key()
    ALLOW_UNKNOWN_PROVENANCE: bool = key(
        "take files of other tools, which do not say of which Hessian they are", False
    )
    PROBLEM: str | None = key(
        "where the file of the problem is now", None, shown="where it was trained"
    )
