"""Settings of an experiment: their names, types and defaults, checks, and the file that keeps them.

A value in the environment goes before the one that was kept with the experiment, that one before
the default in the 11x script, and an empty one is none.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from skerch.errors import InputError
from skerch.store_names import INITIAL_FLAG
from skerch.written import decimal_number

from ..app.machine import budget_bytes
from ..app.screen import SCREENS
from ..app.spelling import check_name
from ..measurement.sizes import (
    CURVATURE_NAMES,
    AccuracyConfig,
    RecoveryConfig,
    Sizes,
    check_accuracy,
    curvature_facts,
    make_sizes,
)
from ..problems.definition import is_file, path_and_name

#: Of the file in the directory of an experiment: ``NAME=VALUE``, each ended by a NUL.
FILE = "settings"

#: Settings of one run, which are not kept with the experiment.
OF_ONE_RUN = {"OUTPUT_DIR", "RUN_DIR", "SCREEN", "VERIFY"}

#: Settings that a training cannot change any more once it has begun: keys of 10a.
OF_TRAINING = ("RANDOM_SEED", "OPTIMIZER", "NUM_HESSIAN_DATAPOINTS", "MAX_STEPS")

AT_LEAST_ONE = {
    "BLOCK_SIZE", "LOCAL_JOBS", "MEAS_PER_JOB", "NUM_A_POSTERIORI", "NUM_HESSIAN_DATAPOINTS",
    "NUM_INNER", "NUM_OUTER", "NUM_PARAMS", "NUM_ROUNDS", "RECORD_EVERY", "VECTORS_PER_PRODUCT",
}  # fmt: skip

#: Two names that resemble each other as much are one, mistyped.
LIKENESS = 0.9

#: What makes Python available, where nothing has to be said about it.
NO_PYTHON: Mapping[str, str] = MappingProxyType({"ACTIVATE": "", "PYTHON": ""})

#: More digits would not fit the arithmetic of shells.
_WHOLE_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")


@dataclass(frozen=True)
class Caller:
    """An 11x script and its environment, as slurm/experiment.sh hands them over.

    Attributes:
        script: Its name.
        environ: All variables, with the defaults of the script.
    """

    script: str
    environ: Mapping[str, str]

    @property
    def given(self) -> dict[str, str]:
        """The variables that were set before the script set its defaults."""
        names = self.environ.get("GIVEN", "").split()
        given = {name: self.environ[name] for name in names if name in self.environ}
        if is_file(problem := given.get("PROBLEM", "")):
            path, name = path_and_name(problem)
            given["PROBLEM"] = str(self.absolute(path)) + (f":{name}" if name else "")
        return given

    @property
    def project(self) -> str:
        """The project's directory, under the name by which the caller went there."""
        return self.environ["PROJECT_DIR"]

    @property
    def python(self) -> dict[str, str]:
        """The variables that make Python available, as they were given; empty if they were not."""
        activate = self.given.get("ACTIVATE", "")
        return {"ACTIVATE": activate, "PYTHON": self.environ.get("JOB_PYTHON", "")}

    @property
    def environment_of_jobs(self) -> dict[str, str]:
        """The environment without what only the script or the hand-over set."""
        left_out = {"CALLER_DIR", "GIVEN", "JOB_PYTHON", "PROJECT_DIR", "PYTHON", "RESUME"}
        left_out |= FIELDS.keys() - self.given.keys()
        return {name: text for name, text in self.environ.items() if name not in left_out}

    def absolute(self, path: str) -> Path:
        """Return a path of the caller as an absolute one."""
        return Path(os.path.abspath(Path(self.environ.get("CALLER_DIR", ""), path)))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the 11x scripts set. Texts are not checked here, but by the jobs that they go to."""

    # the experiment
    PROBLEM: str = ""
    NUM_PARAMS: int
    RANDOM_SEED: int
    OPTIMIZER: str = ""
    TUNING_CONF: Path | None = None
    OBS_DATASETS_PATH: Path
    NUM_HESSIAN_DATAPOINTS: int
    RECORD_BEGINNING: int
    RECORD_EVERY: int
    MAX_RECORD_STEP: int
    MAX_STEPS: int | None = None  # becomes MAX_RECORD_STEP + 1
    WITH_EVAL: bool = True
    SPLITS: str
    FIT_DEFAULTS: bool = False  # of sizes, to data that are too small for them
    # the sketch and its analysis
    NUM_OUTER: int
    NUM_INNER: int
    MEAS_PER_JOB: int
    MEAS_FLAG: str = "measured"
    DTYPE: str = "float32"
    WITH_A_POSTERIORI: bool | None = None
    NUM_A_POSTERIORI: int | None = None
    SYMMETRIZE_CORE: bool = True
    EIGENVECTORS: int = 0
    TRACK: bool = False
    ACCURACY: float | None = None
    CURVATURE: str = ""
    PARAMETERS: str = ""
    MEAS_DIR: Path | None = None
    KEEP_MEASUREMENTS: bool = False
    DEVICE: str = ""
    VECTORS_PER_PRODUCT: int | None = None
    MEMORY_BUDGET_GB: float | None = None
    RECOVERY: str = "seigh"
    NUM_ROUNDS: int | None = None  # these two become what they are by default
    BLOCK_SIZE: int | None = None
    # where jobs run
    LAUNCHER: str = ""  # becomes slurm where there is one
    LOCAL_JOBS: int = 1
    PARTITION: str = ""
    ACCOUNT: str = ""
    GRES: str = ""
    CPUS_PER_TASK: str = ""
    SBATCH_OPTIONS: str = ""
    MAX_RUNNING: str = ""
    TIME_TRAIN: str = ""
    TIME_MEASURE: str = ""
    TIME_ANALYSE: str = ""
    TIME_SMALL: str = "30"
    MEM_TRAIN: str = ""
    MEM_MEASURE: str = ""
    MEM_ANALYSE: str = ""
    MEM_SMALL: str = "2G"
    # of one run
    OUTPUT_DIR: Path | None = None
    RUN_DIR: Path | None = None
    VERIFY: bool = False
    SCREEN: str = ""

    def text(self, name: str) -> str:
        """Return a setting as it is written for the shell."""
        value = getattr(self, name)
        if isinstance(value, bool):
            return str(value).lower()
        return "" if value is None else str(value)

    @functools.cached_property
    def sizes(self) -> Sizes:
        """Rounds, products of each, and the store."""
        config = RecoveryConfig(
            RECOVERY=self.RECOVERY, NUM_ROUNDS=self.NUM_ROUNDS, BLOCK_SIZE=self.BLOCK_SIZE
        )
        return make_sizes(config, self.NUM_PARAMS, self.NUM_INNER, self.NUM_OUTER)

    @property
    def steps(self) -> range:
        """Recorded steps to analyse."""
        return range(self.RECORD_BEGINNING, self.MAX_RECORD_STEP + 1, self.RECORD_EVERY)

    @property
    def curvature_facts(self) -> dict[str, Any]:
        """What the provenance of measurements says of their curvature."""
        return curvature_facts(self.CURVATURE or "hessian", self.PARAMETERS)


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def read_settings(caller: Caller, kept: Mapping[str, str]) -> Settings:
    """Merge, read and check all settings, and fill in what follows from others.

    Args:
        caller: Whose environment has what was given, and the defaults of the script.
        kept: What :func:`load_settings` found.

    Raises:
        InputError: If one is missing or wrong.
    """
    kept = {name: text for name, text in kept.items() if text}
    if caller.given.get("RECOVERY", "") not in ("", kept.get("RECOVERY")):
        kept |= {"NUM_ROUNDS": "", "BLOCK_SIZE": ""}  # they were of the other one
    texts = {**caller.environ, **kept, **caller.given}
    if "NUM_PARAMS" not in {**kept, **caller.given}:
        texts["NUM_PARAMS"] = _num_params(texts, caller.given.get("PROBLEM", ""))
    given = {name: text for name, text in texts.items() if text and name in FIELDS}
    missing = [n for n, field in FIELDS.items() if field.default is MISSING and n not in given]
    if missing:
        raise InputError(f"set these variables: {' '.join(missing)}")
    s = Settings(**{name: _read_value(name, text, caller) for name, text in given.items()})
    if s.MAX_RECORD_STEP < s.RECORD_BEGINNING:
        raise InputError("MAX_RECORD_STEP is below RECORD_BEGINNING")
    if sorted(s.SPLITS.split()) not in (["train"], ["test"], ["test", "train"]):
        raise InputError(f"SPLITS: expected train, test or both, got '{s.SPLITS}'")
    if s.LAUNCHER not in ("", "slurm", "local"):
        raise InputError(f"LAUNCHER: expected slurm or local, got '{s.LAUNCHER}'")
    if s.DTYPE != "float32":
        raise InputError(f"DTYPE: Hessians are measured in float32, got '{s.DTYPE}'")
    if s.MEAS_FLAG == INITIAL_FLAG:
        raise InputError(f"MEAS_FLAG cannot be {INITIAL_FLAG!r}: it means not measured")
    if s.CURVATURE:
        check_name("CURVATURE", s.CURVATURE, CURVATURE_NAMES)
    budget_bytes(s.MEMORY_BUDGET_GB)
    if s.SCREEN:
        check_name("SCREEN", s.SCREEN, SCREENS)
    s.sizes.check_rank()
    check_accuracy(AccuracyConfig(s.ACCURACY), s.sizes)
    if s.TRACK and not s.sizes.kind.warm:
        raise InputError(f"TRACK: RECOVERY={s.RECOVERY} has no START; hmt and krylov have")
    if s.TRACK and not s.EIGENVECTORS:
        raise InputError("TRACK starts from eigenvectors of the step before: set EIGENVECTORS=k")
    return dataclasses.replace(
        s,
        LAUNCHER=s.LAUNCHER or ("slurm" if shutil.which("sbatch") else "local"),
        MAX_STEPS=s.MAX_RECORD_STEP + 1 if s.MAX_STEPS is None else s.MAX_STEPS,
        NUM_ROUNDS=s.sizes.num_rounds,
        BLOCK_SIZE=None if s.sizes.kind.sketch else s.sizes.per_round,
    )


def mistyped(caller: Caller) -> dict[str, str]:
    """Return the variables that are no settings, but nearly: for each the nearest setting."""
    valid = [*FIELDS, "ACTIVATE"]
    near = {
        name: difflib.get_close_matches(name, valid, n=1, cutoff=LIKENESS)
        for name in caller.given
        if name not in valid and not name.startswith(("SLURM_", "SBATCH_"))
    }
    return {name: found[0] for name, found in near.items() if found}


def settings_of_training(config: Mapping[str, Any], caller: Caller, log: Path) -> dict[str, str]:
    """Return the settings that a training was begun with, as they are kept.

    Args:
        config: The CONFIG of its log; empty if it has not begun.
        caller: Who may have given others.
        log: The log.

    Raises:
        InputError: If others were given.
    """
    found = {name: str(config[name]) for name in OF_TRAINING if config.get(name) is not None}
    if caller.given.get("MAX_STEPS") and "MAX_STEPS" in config:
        found.setdefault("MAX_STEPS", "all epochs")
    for name, text in found.items():
        if caller.given.get(name, "") not in ("", text):
            raise InputError(
                f"{log}: is of a training with {name}={text}, not {caller.given[name]}; leave it "
                "out, or start another experiment without RUN_DIR"
            )
    return found


def _num_params(texts: Mapping[str, str], given: str) -> str:
    """Return what the script says, which is for its own problem and all parameters.

    Args:
        texts: All settings.
        given: The problem, where another one may have been given.
    """
    problem, parameters = texts.get("PROBLEM", ""), texts.get("PARAMETERS", "")
    if not (given or is_file(problem) or parameters.strip()):
        return texts.get("NUM_PARAMS", "")
    from ..problems.problem import num_params  # imports torch, which takes seconds

    return str(num_params(problem, parameters))


def _read_value(name: str, text: str, caller: Caller) -> Any:
    kind = str(FIELDS[name].type)
    if kind.startswith("Path"):
        return caller.absolute(text)
    if kind.startswith("bool") and text not in ("true", "false"):
        raise InputError(f"{name}: expected true or false, got '{text}'")
    if kind.startswith("bool"):
        return text == "true"
    if kind.startswith("float"):
        return _read_fraction(name, text)
    if not kind.startswith("int"):
        return text
    least = 1 if name in AT_LEAST_ONE else 0
    if not _WHOLE_NUMBER.fullmatch(text) or int(text) < least:
        raise InputError(f"{name}: expected a whole number of at least {least}, got '{text}'")
    return int(text)


def _read_fraction(name: str, text: str) -> float:
    try:
        return decimal_number(text)
    except ValueError:
        raise InputError(f"{name}: expected a number such as 0.05, got '{text}'") from None


def load_settings(file: Path) -> dict[str, str]:
    """Return what a file of settings holds, and the other arguments of :func:`save_settings`."""
    entries = file.read_text(errors="surrogateescape").split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def save_settings(
    file: Path, script: str, settings: Settings, python: Mapping[str, str] = NO_PYTHON
) -> None:
    """Write a file of settings.

    Args:
        file: Its path.
        script: Name of the 11x script.
        settings: What is kept.
        python: :attr:`Caller.python`.
    """
    kept = [name for name in FIELDS if name not in OF_ONE_RUN]
    texts = {"SCRIPT": script} | {**python} | {name: settings.text(name) for name in kept}
    new = file.with_name(f"{file.name}.new")
    new.write_text("".join(f"{k}={v}\0" for k, v in texts.items()), errors="surrogateescape")
    os.replace(new, file)
