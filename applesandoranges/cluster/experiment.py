"""An experiment of an 11x script: its directory, its settings, its Hessians.

Everything of it lies in ``OUTPUT_DIR/<script>_<time>``: the run directory of 10a, ``measurements``,
``slurm_logs``, the marks of jobs that run on a machine without Slurm, and ``settings``. A run
directory that 10a made by hand is an experiment of its own.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from skerch.errors import InputError

from ..app import events
from ..app.alone import take_lock
from ..app.log import is_cut_at_once, read_log
from ..measurement.sizes import Sizes
from .screen import quote, say
from .settings import (
    FILE,
    NO_PYTHON,
    Caller,
    Settings,
    load_settings,
    read_settings,
    save_settings,
    settings_of_training,
)

#: Step and split.
HessianKey = tuple[int, str]

TRAINING_LOG = "[10a_gather_params_grads.py].log"


@dataclass(frozen=True)
class Experiment:
    """What an 11x script was asked to do, and where.

    Attributes:
        script: Its name.
        settings: All settings.
        directory: All of the experiment.
        run_dir: Run directory of 10a, ``None`` if the training has not begun.
        python: What makes Python available, see :attr:`~.settings.Caller.python`.
    """

    script: str
    settings: Settings
    directory: Path
    run_dir: Path | None
    python: Mapping[str, str] = field(default_factory=lambda: NO_PYTHON)

    @classmethod
    def of_run(cls, caller: Caller) -> Experiment:
        """Return the experiment that a script begins, or goes on with where RUN_DIR is given.

        What the training was begun with goes before what is kept, and must not be given in another
        way.

        Raises:
            InputError: If settings are wrong, or RUN_DIR is one of another script.
        """
        environ = caller.environ
        if environ.get("RUN_DIR"):
            directory, run_dir = find_directories(caller.absolute(environ["RUN_DIR"]))
        else:
            output = caller.absolute(environ.get("OUTPUT_DIR") or f"{caller.project}/output")
            name = f"{caller.script.partition('_')[0]}_{time.strftime('%Y_%m_%d_%H_%M_%S')}"
            directory, run_dir = output / name, None
        file = directory / FILE
        kept = load_settings(file) if file.exists() else {}
        script = kept.get("SCRIPT", caller.script)
        if script != caller.script:
            raise InputError(f"{directory}: is an experiment of {script}")
        log = None if run_dir is None else training_log(run_dir)
        if log is not None and not is_cut_at_once(log):
            config = next(iter(read_log(log).bodies(events.CONFIG)), {})
            kept |= settings_of_training(config, caller, log)
        return cls(script, read_settings(caller, kept), directory, run_dir, caller.python)

    @classmethod
    def as_started(cls, given: Path, caller: Caller) -> Experiment:
        """Return an experiment with the settings that are kept with it, for the Python that is.

        Raises:
            InputError: If there is none.
        """
        directory, run_dir = find_directories(given)
        file = directory / FILE
        if not file.exists():
            raise InputError(f"{directory}: was not started by an 11x script")
        kept = load_settings(file)
        # Those that earlier versions have kept do not say it.
        python = {name: kept.get(name, text) for name, text in caller.python.items()}
        try:
            return cls(kept["SCRIPT"], read_settings(caller, kept), directory, run_dir, python)
        except (KeyError, InputError) as error:
            raise InputError(f"{file}: not the settings of an 11x script ({error})") from None

    def begin(self) -> BinaryIO:
        """Make its directory, with its settings; return the lock on it.

        The directory appears as a whole, so that it can be gone on with from its first moment.

        Raises:
            InputError: If another one was begun in the same second.
        """
        parent = self.directory.parent
        parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{self.directory.name}.", dir=parent))
        aside.chmod(0o777 & ~_umask())
        new = dataclasses.replace(self, directory=aside)
        lock = new.lock()
        try:
            new.keep()
            os.rename(aside, self.directory)
        except OSError as error:
            lock.close()
            shutil.rmtree(aside)
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            raise InputError(
                f"{self.directory}: was begun in this very second; start this one again"
            ) from None
        return lock

    def lock(self) -> BinaryIO:
        """Return the lock on its directory; while another process has it, say so and wait."""
        self.marks.mkdir(exist_ok=True)
        return take_lock(self.marks / "lock", f"{self.directory}: an 11x script runs this", say)

    def keep(self) -> None:
        """Keep its settings in its directory."""
        self.job_logs.mkdir(exist_ok=True)
        save_settings(self.directory / FILE, self.script, self.settings, self.python)

    @property
    def name(self) -> str:
        """Part of the names of its jobs."""
        return re.sub(r"[^A-Za-z0-9._-]", "_", self.directory.name)

    @property
    def job_logs(self) -> Path:
        """What its jobs print."""
        return self.directory / "slurm_logs"

    @property
    def marks(self) -> Path:
        """The tasks that run without Slurm."""
        return self.directory / "running"

    @property
    def store(self) -> Path:
        """Where the measurements lie."""
        return self.settings.MEAS_DIR or self.directory / "measurements"

    @property
    def sizes(self) -> Sizes:
        """Rounds, products of each, and the store."""
        return self.settings.sizes

    @property
    def steps(self) -> range:
        """Recorded steps to analyse."""
        return self.settings.steps

    @property
    def hessians(self) -> list[HessianKey]:
        """All Hessians in the order of the chain."""
        return [(step, split) for step in self.steps for split in self.settings.SPLITS.split()]

    @property
    def all_tasks(self) -> range:
        """Array tasks of a round, counted from 1."""
        return range(1, self.task_of(self.sizes.per_round - 1) + 1)

    def task_of(self, idx: int) -> int:
        """Return the array task that measures index ``idx`` of a round."""
        return idx // self.settings.MEAS_PER_JOB + 1

    def indices_of(self, task: int, number: int) -> range:
        """Return the measurements, through all rounds, of array task ``task`` of a round."""
        size, per_job = self.sizes.per_round, self.settings.MEAS_PER_JOB
        begin = number * size
        return range(begin + (task - 1) * per_job, begin + min(task * per_job, size))

    def pattern_of(self, ending: str) -> str:
        """Return a pattern for bash that matches the file of the training with this ending.

        The name of the run directory holds the time at which the training begins.
        """
        below = f"{as_pattern(str(self.directory))}/*"
        run_dir = below if self.run_dir is None else as_pattern(str(self.run_dir))
        return f"{run_dir}/*{as_pattern(ending)}"

    def start_of(self, step: int, split: str) -> str:
        """Return how the name of the eigenvectors begins to end that a Hessian starts from.

        Empty unless it starts from any: the first step never does.
        """
        if not self.settings.TRACK or step == self.steps[0]:
            return ""
        return f"__eigenvectors__step={step - self.steps.step}__test={split == 'test'}"

    def resume_command(self) -> str:
        """Return the command that goes on with it, with the Python that was given."""
        words = {**self.python, "RUN_DIR": str(self.directory)}
        typed = [f"{name}={quote(text)}" for name, text in words.items() if text]
        return " ".join([*typed, f"./{self.script}"])


def training_log(run_dir: Path) -> Path | None:
    """Return the log of 10a in a run directory."""
    return next((p for p in run_dir.iterdir() if p.name.endswith(TRAINING_LOG)), None)


def find_directories(given: Path) -> tuple[Path, Path | None]:
    """Return directory and run directory of the experiment that either of them belongs to.

    Raises:
        InputError: If there is none.
    """
    if not given.is_dir():
        raise InputError(
            f"RUN_DIR={given}: no such directory; give the run directory of 10a, or an experiment "
            "such as output/11m_..."
        )
    is_run_dir = training_log(given) is not None
    if (given / FILE).exists():
        found = [p.parent for p in given.glob("*/*.log") if p.name.endswith(TRAINING_LOG)]
        if len(found) > 1:
            raise InputError(
                f"{given}: expected one run directory of 10a, found {len(found)}; name one of them"
            )
        return given, found[0] if found else given if is_run_dir else None
    if (given.parent / FILE).exists():
        return given.parent, given
    if not is_run_dir:
        raise InputError(f"RUN_DIR={given}: expected a run directory of 10a or an experiment")
    return given, given


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def as_pattern(text: str) -> str:
    """Return a pattern for bash that matches nothing but ``text``."""
    return re.sub(r"[][*?\\]", r"\\\g<0>", text)
