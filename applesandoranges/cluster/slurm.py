"""Jobs on Slurm: their submission, and what --wait shows of them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from skerch.errors import InputError

from ..app.signals import uninterrupted
from .experiment import Experiment
from .jobs import Job, format_tasks
from .queue import squeue
from .screen import ClusterError, print_command, say, show_end

#: States of jobs that have ended, well or because somebody wanted it.
ENDED = {"COMPLETED", "CANCELLED", "REVOKED"}
FAILED = {"BOOT_FAIL", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"}


def most_tasks() -> int:
    """Return the largest number that a task of an array may have; ours count from 1.

    Raises:
        InputError: If the cluster allows no arrays.
    """
    found = None
    if shutil.which("scontrol"):
        done = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, text=True, check=False
        )
        found = re.search(r"^MaxArraySize *= *(\d+)", done.stdout, re.MULTILINE)
    most = (int(found[1]) if found else 1001) - 1
    if most < 1:
        raise InputError("this cluster allows no job arrays")
    return most


def sbatch_command(experiment: Experiment, job: Job, after: Sequence[str]) -> list[str]:
    """Return the command that submits a job after those with the ids ``after``."""
    settings = experiment.settings
    log = f"{job.name}_{'%A_%a' if job.tasks else '%j'}.log"
    most = f"%{settings.MAX_RUNNING}" if settings.MAX_RUNNING else ""
    options = {
        "--job-name": f"{job.name}.{experiment.name}",
        "--output": f"{str(experiment.job_logs).replace('%', '%%')}/{log}",
        "--dependency": f"afterok:{':'.join(after)}" if after else "",
        "--array": f"{format_tasks(job.tasks)}{most}" if job.tasks else "",
        "--time": settings.text(f"TIME_{job.stage}"),
        "--mem": settings.text(f"MEM_{job.stage}"),
        "--cpus-per-task": settings.CPUS_PER_TASK,
        "--partition": settings.PARTITION,
        "--account": settings.ACCOUNT,
        "--gres": settings.GRES if job.stage != "SMALL" else "",
    }
    return [
        "sbatch", "--parsable", "--export=ALL", "--requeue", "--kill-on-invalid-dep=yes",
        "--open-mode=append", *(f"{name}={value}" for name, value in options.items() if value),
        *settings.SBATCH_OPTIONS.split(), job.script,
    ]  # fmt: skip


class Slurm:
    """Submits the jobs of an experiment and follows them.

    Args:
        experiment: Which.
        environment: Of all jobs, beside their variables.
    """

    def __init__(self, experiment: Experiment, environment: Mapping[str, str]):
        self.experiment = experiment
        self.environment = environment
        #: Names of jobs by id.
        self.submitted: dict[str, str] = {}

    def show(self, job: Job) -> None:
        """Print the command of a job."""
        after = [f"JOB_ID_OF_{name}" for name in job.after]
        variables = [f"{name}={text}" for name, text in job.variables.items()]
        command = sbatch_command(self.experiment, job, after)
        print_command(job.title, ["env", *variables, *command])

    def start(self, job: Job) -> None:
        """Submit a job.

        Raises:
            ClusterError: If Slurm refuses it.
        """
        after = [number for number, name in self.submitted.items() if name in job.after]
        command = sbatch_command(self.experiment, job, after)
        with uninterrupted():  # it is submitted and known, or neither
            done = subprocess.run(
                command, env={**self.environment, **job.variables}, stdout=subprocess.PIPE,
                text=True, check=False,
            )  # fmt: skip
            number = done.stdout.strip().partition(";")[0]
            if done.returncode == 0:
                self.submitted[number] = job.name
        if done.returncode:
            raise ClusterError(
                f"sbatch refused {job.name} (see above). The {len(self.submitted)} jobs before it "
                "are submitted and go on"
            )
        say(f"submitted job {number}: {job.title}")

    def follow(self, pause: float) -> None:
        """Wait until none of the jobs is in the queue, and print a line for each change."""
        last: dict[str, str] = {}
        failed = ""
        while True:
            try:
                lines = squeue("%F %T %K", "-t", "all")
            except ClusterError as error:
                print(error, file=sys.stderr)
                say(f"squeue does not answer; asking again in {pause:g} s")
                time.sleep(pause)
                continue
            tasks: dict[str, list[tuple[str, str]]] = defaultdict(list)
            for line in lines:
                number, state, task = line.split(maxsplit=2)
                tasks[number].append((state, task))
            states = set()
            for number, name in self.submitted.items():
                counts = sorted(Counter(state for state, _ in tasks[number]).items())
                summary = ", ".join(f"{count} {state.lower()}" for state, count in counts)
                if last.get(number) != summary:
                    say(f"job {number}  {name}: {summary or 'not in the queue any more'}")
                    last[number] = summary
                for state, task in tasks[number]:
                    states.add(state)
                    if state in FAILED and not failed:
                        end = f"_{task}" if task.isdecimal() else ""
                        failed = f"{name}_{number}{end}.log"
            if states <= ENDED | FAILED:
                break
            time.sleep(pause)
        if failed:
            show_end(self.experiment.job_logs / failed, "the first job that failed")
