"""The same jobs on this machine, one after the other, the tasks of an array side by side."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from skerch.heartbeat import doing

from ..app.signals import uninterrupted
from .experiment import Experiment
from .jobs import Job
from .queue import mark_of
from .screen import ClusterError, print_command, say, show_end


class Task(NamedTuple):
    """A process that runs a job, or one task of it, and leads a group of processes."""

    process: subprocess.Popen[bytes]
    number: int | None  # in its array
    log: Path
    mark: Path  # says that it runs


class Local:
    """Runs the jobs of an experiment, each until it has succeeded.

    Args:
        experiment: Which.
        environment: Of all jobs, beside their variables.
    """

    def __init__(self, experiment: Experiment, environment: Mapping[str, str]):
        self.experiment = experiment
        self.side_by_side = experiment.settings.LOCAL_JOBS
        left_out = ("SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT")
        self.environment = {k: v for k, v in environment.items() if k not in left_out}
        if self.side_by_side > 1 and not environment.get("OMP_NUM_THREADS"):
            cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
            threads = max(1, (cpus or 1) // self.side_by_side)
            self.environment["OMP_NUM_THREADS"] = str(threads)
        self.identifier = f"local{os.getpid()}"
        self.running: dict[int, Task] = {}

    def show(self, job: Job) -> None:
        """Print the commands of a job."""
        for number in job.tasks or (None,):
            variables = self._variables(job, number).items()
            words = ["env", *(f"{name}={text}" for name, text in variables), "bash", job.script]
            print_command(job.name if number is None else f"{job.name}, task {number}", words)

    def start(self, job: Job) -> None:
        """Run a job.

        Raises:
            ClusterError: If it, or one of its tasks, failed.
        """
        tasks = f": {len(job.tasks)} tasks, at most {self.side_by_side} side by side"
        if len(job.tasks) == 1:
            tasks = ": 1 task"
        say(f"{job.name}{tasks if job.tasks else ''}")
        begun = time.monotonic()
        doing(job.name)
        try:
            failed = self._run_tasks(job)
        except BaseException:
            self._stop()
            raise
        for log in failed:
            show_end(log, f"{job.name} failed")
        if failed:
            raise ClusterError(f"{job.name} failed")
        say(f"{job.name}: done in {time.monotonic() - begun:.0f} s")

    def _run_tasks(self, job: Job) -> list[Path]:
        """Return the logs of those that failed; after the first one, no other is begun."""
        waiting: list[int | None] = [*job.tasks] or [None]
        failed: list[Path] = []
        while (waiting and not failed) or self.running:
            if waiting and not failed and len(self.running) < self.side_by_side:
                self._begin(job, waiting.pop(0))
                continue
            pid, how = os.wait()
            task = self.running.pop(pid)
            task.process.returncode = status = os.waitstatus_to_exitcode(how)
            task.mark.unlink(missing_ok=True)
            if status < 0:
                with task.log.open("a") as log:
                    log.write(f"{signal.strsignal(-status)} (signal {-status})\n")
            if status:
                failed.append(task.log)
            elif task.number is not None:
                say(f"{job.name}: task {task.number} done")
        return failed

    def _begin(self, job: Job, number: int | None) -> None:
        end = "" if number is None else f"_{number}"
        log = self.experiment.job_logs / f"{job.name}_{self.identifier}{end}.log"
        own = self._variables(job, number) | {"SLURM_JOB_NAME": job.name}
        with uninterrupted(), log.open("ab") as output:  # it runs and is known, or neither
            process = subprocess.Popen(
                ["bash", job.script], env=self.environment | own, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
            mark = mark_of(self.experiment, process.pid)
            self.running[process.pid] = Task(process, number, log, mark)
            mark.write_text(f"{job.name}\tRUNNING\t{'' if number is None else number}\n")

    def _variables(self, job: Job, number: int | None) -> dict[str, str]:
        array = {} if number is None else {"SLURM_ARRAY_TASK_ID": str(number)}
        return {**job.variables, "SLURM_JOB_ID": self.identifier, **array}

    def _stop(self) -> None:
        """Stop the tasks that run, with what they started."""
        for pid in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)
        for task in self.running.values():
            task.process.wait()
            task.mark.unlink(missing_ok=True)
