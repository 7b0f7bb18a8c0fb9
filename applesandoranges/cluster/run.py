"""What an 11x script does: check, plan, submit or run, follow, report."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Mapping, Sequence

from skerch.errors import InputError, SkerchError, one_line
from skerch.heartbeat import alive

from ..app.signals import Interrupted, interruptible
from ..problems.definition import is_file
from .experiment import Experiment, find_directories
from .jobs import Job, plan_jobs
from .local import Local
from .outline import outline
from .progress import Plan, make_plan
from .queue import read_queue
from .screen import ClusterError, StopError, note, quote, say
from .settings import FIELDS, Caller, mistyped
from .slurm import Slurm, most_tasks
from .status import print_status, print_verdicts


def call(command: str, script: str, words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run ``run`` or ``status``; return 0, 2 for wrong input, 1 for a failure."""
    caller = Caller(script, environ)
    try:
        if command == "status":
            show_status(caller, words[0])
        else:
            for name, nearest in mistyped(caller).items():
                note(script, f"{name} is no setting; the nearest one is {nearest}")
            Run(caller, "--dry-run" in words)(wait="--wait" in words)
    except StopError as stop:
        print(stop, file=sys.stderr)
        return stop.status
    except (SkerchError, OSError) as error:
        print(f"{script}: {one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


def show_status(caller: Caller, given: str) -> None:
    """Print how far an experiment is."""
    experiment = Experiment.as_started(caller.absolute(given), caller)
    try:
        queue = read_queue(experiment)
    except ClusterError as error:
        print(f"{caller.script}: {error}", file=sys.stderr)
        queue = []
    print_status(experiment, queue, experiment.resume_command())


class Run:
    """One run of an 11x script.

    Args:
        caller: The script.
        dry_run: Print all commands, do nothing.
    """

    def __init__(self, caller: Caller, dry_run: bool):
        self.caller = caller
        self.dry_run = dry_run
        self.experiment = Experiment.of_run(caller)
        self.on_slurm = self.experiment.settings.LAUNCHER == "slurm"
        self.resume = self.experiment.resume_command()

    def __call__(self, wait: bool) -> None:
        """Do it.

        Args:
            wait: Follow the jobs.

        Raises:
            InputError: If settings are wrong; nothing was done.
            StopError: If not all is done at the end.
        """
        self._check()
        plan = self._plan()
        if self.dry_run:
            self._do(plan, wait)
            return
        if not self.caller.environ.get("RUN_DIR"):
            with self.experiment.begin():
                self._announce()
                self._do(plan, wait)
            return
        with self.experiment.lock():
            self.experiment = Experiment.of_run(self.caller)  # as it is since it is locked
            self._check_queue()
            plan = self._plan()
            self.experiment.keep()
            self._announce()
            self._do(plan, wait)

    def _plan(self) -> Plan:
        """Find out what is done; refuse a store that is somebody else's."""
        plan, store = make_plan(self.experiment), self.experiment.store
        if plan.tasks and plan.foreign:
            raise InputError(
                f"{store}: holds {len(plan.foreign)} measurements of another run, such as "
                f"{plan.foreign[0].name}; give another MEAS_DIR, or remove what nobody needs"
            )
        return plan

    def _do(self, plan: Plan, wait: bool) -> None:
        most = most_tasks() if self.on_slurm else sys.maxsize
        jobs = plan_jobs(self.experiment, plan, self.caller, most)
        total, launcher = len(self.experiment.hessians), self.experiment.settings.LAUNCHER
        if self.dry_run:
            print("\n".join(outline(self.experiment, plan, jobs)))
        else:
            say(f"{len(plan.tasks)} of {total} Hessians to do, launcher {launcher}")
        self._launch(jobs, wait)

    def _check(self) -> None:
        directory, data = self.experiment.directory, self.experiment.settings.OBS_DATASETS_PATH
        if self.on_slurm and "\\" in str(directory):  # a job's output cannot be written as such
            raise InputError(f"{directory}: Slurm cannot write into a path with a backslash")
        if self.on_slurm and not self.dry_run and not shutil.which("sbatch"):
            raise InputError("no sbatch here; LAUNCHER=local does without")
        if not (is_file(self.experiment.settings.PROBLEM) or data.is_dir()):
            self._no_data(
                f"OBS_DATASETS_PATH={data}: no such directory; 09a_prepare_datasets.py fills one"
            )
        elif self.experiment.run_dir is None:
            self._fit_to_data()

    def _fit_to_data(self) -> None:
        """Check whether the data can serve what is about to begin, before anything is written."""
        settings = self.experiment.settings
        say(f"checking {settings.PROBLEM} and its data")
        try:
            from .fitting import MissingDataError, fit_to_data  # imports torch, which takes seconds
        except ImportError as error:
            self._no_data(f"{sys.executable} cannot look at the data ({error})")
            return
        # What is kept with an experiment was chosen when it was begun.
        kept = FIELDS if self.caller.environ.get("RUN_DIR") else ()
        chosen = {*kept, *(name for name, text in self.caller.given.items() if text)}
        try:
            settings, changes = fit_to_data(settings, chosen)
        except MissingDataError as error:
            self._no_data(str(error))
            return
        if changes:
            say(f"the data are too few for the defaults: {', '.join(changes)}")
        self.experiment = dataclasses.replace(self.experiment, settings=settings)

    def _no_data(self, why: str) -> None:
        """Refuse to run without data; jobs of Slurm may see some that this machine does not."""
        if not self.on_slurm and not self.dry_run:
            raise InputError(why)
        where = "(jobs look for it where they run)"
        note(self.caller.script, f"{why} {where}")

    def _check_queue(self) -> None:
        jobs = sorted({f"{job.name} ({job.where})" for job in read_queue(self.experiment)})
        if jobs:
            raise InputError(
                "jobs of this experiment run or wait already; wait for them, or stop them first: "
                + ", ".join(jobs)
            )

    def _announce(self) -> None:
        """Say how to come back to the experiment."""
        directory = quote(str(self.experiment.directory))
        print(f"Experiment: {directory}")
        print(f"Its state, at any time: ./11s_status.sh {directory}")
        print(f"To go on if it is stopped: {self.resume}\n", flush=True)

    def _launch(self, jobs: Sequence[Job], wait: bool) -> None:
        launcher = Slurm if self.on_slurm else Local
        launched = launcher(self.experiment, self.caller.environment_of_jobs)
        if self.dry_run:
            for job in jobs:
                launched.show(job)
            return
        try:
            with alive("starting jobs"), interruptible():
                for job in jobs:
                    launched.start(job)
        except Interrupted as stop:
            raise self._stopped(stop.status, f"stopped by {stop}", "This") from None
        except ClusterError as error:
            if not self.on_slurm:
                raise self._stopped(1, str(error)) from None
            rest = f"when they have ended, this submits the rest:\n    {self.resume}"
            raise StopError(1, f"{self.caller.script}: {error}; {rest}") from None
        if isinstance(launched, Slurm):
            if not wait:
                say(f"{len(jobs)} jobs are submitted and go on by themselves")
                return
            self._follow(launched)
        self._finish()

    def _follow(self, slurm: Slurm) -> None:
        try:
            with alive("waiting for the jobs"), interruptible():
                slurm.follow(float(self.caller.environ.get("WAIT_SECONDS") or 10))
        except Interrupted as stop:
            state = f"./11s_status.sh {quote(str(self.experiment.directory))}"
            raise StopError(stop.status, f"\nThe jobs go on; their state: {state}") from None

    def _finish(self) -> None:
        """Say whether all is done; the logs and the store count, not what became of the jobs."""
        directory, run_dir = find_directories(self.experiment.directory)
        experiment = dataclasses.replace(self.experiment, directory=directory, run_dir=run_dir)
        plan, total = make_plan(experiment), len(experiment.hessians)
        if plan.tasks:
            raise self._stopped(1, f"{len(plan.tasks)} of {total} Hessians are not analysed")
        if plan.foreign:
            say(f"{experiment.store}: holds measurements of another run, which are left alone")
        if not experiment.settings.KEEP_MEASUREMENTS and plan.leftover:
            why = f"all Hessians are analysed, but {experiment.store} was not removed"
            raise self._stopped(1, why)
        say(f"all {total} Hessians are analysed")
        print_verdicts(experiment)
        logs, figures = quote(str(run_dir)), quote(f"{run_dir}/figures")
        python = quote(self.caller.environ.get("PYTHON", sys.executable))
        print(f"\nLogs: {logs}\nFigures: {python} 13a_plot_overlap.py LOGS={logs} "
              f"OUTPUT_DIR={figures}")  # fmt: skip

    def _stopped(
        self, status: int, why: str, this: str = "Once its reason is mended, this"
    ) -> StopError:
        hint = f"{why}. {this} goes on where it stopped"
        return StopError(status, f"\n{self.caller.script}: {hint}:\n    {self.resume}")
