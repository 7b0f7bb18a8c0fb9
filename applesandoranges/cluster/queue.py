"""The jobs of an experiment that wait or run: in Slurm's queue, or on this machine."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .experiment import Experiment, HessianKey
from .screen import ClusterError


@dataclass(frozen=True)
class Queued:
    """A job of the experiment, or one task of an array, that waits or runs.

    Attributes:
        name: Its name.
        running: Whether it runs.
        task: Its number in an array.
        where: ``"job 17"`` or ``"process 4711"``.
    """

    name: str
    running: bool
    task: int | None
    where: str = ""

    @classmethod
    def parse(cls, line: str) -> Queued:
        """Read ``NAME<tab>STATE<tab>TASK`` and perhaps ``<tab>WHERE``."""
        name, state, task, where = (*line.rstrip("\n").split("\t"), "")[:4]
        number = int(task) if task.isdecimal() else None
        return cls(name, state not in ("PENDING", "REQUEUED"), number, where)

    @property
    def script(self) -> str:
        """``10a``, ``10b``, ``10c``, ``10d`` or something else."""
        return self.name.partition("_")[0]

    def hessian(self) -> tuple[HessianKey, int, int] | None:
        """Return Hessian, round, and the number to be added to ``task``; None for other jobs."""
        pattern = r"10[cde]_step(\d+)_(train|test)(?:_round(\d+))?(?:_from(\d+))?"
        match = re.fullmatch(pattern, self.name)
        if not match:
            return None
        return (int(match[1]), match[2]), int(match[3] or 0), int(match[4] or 0)


def read_queue(experiment: Experiment) -> list[Queued]:
    """Return the jobs of this experiment.

    Raises:
        ClusterError: If Slurm runs its jobs and does not answer.
    """
    found = list(_on_this_machine(experiment))
    if experiment.settings.LAUNCHER == "slurm" and shutil.which("squeue"):
        for line in squeue("%j|%T|%K|job %F"):
            name, separator, rest = line.partition(f".{experiment.name}|")
            if separator:
                found.append(Queued.parse("\t".join([name, *rest.split("|")])))
    return found


def squeue(form: str, *options: str) -> list[str]:
    """Return a line for each job of this user, and for each task of an array.

    Raises:
        ClusterError: If Slurm does not answer.
    """
    command = ["squeue", "-u", str(os.getuid()), "-h", "-r", *options, "-o", form]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stdout + done.stderr).strip().rpartition("\n")[2]
        raise ClusterError(f"the queue cannot be read: {reason}")
    return done.stdout.splitlines()


def mark_of(experiment: Experiment, pid: int) -> Path:
    """Return the file that says which task a process of this machine runs."""
    return experiment.marks / f"{socket.gethostname()}.{pid}"


def _on_this_machine(experiment: Experiment) -> Iterator[Queued]:
    for mark in sorted(experiment.marks.glob(f"{socket.gethostname()}.*")):
        pid = mark.suffix[1:]
        if not pid.isdecimal() or mark != mark_of(experiment, int(pid)):
            continue
        with contextlib.suppress(OSError):  # it has ended, or belongs to somebody else
            os.kill(int(pid), 0)
            line = mark.read_text().rstrip("\n")
            yield Queued.parse(f"{line}\tprocess {pid}")
