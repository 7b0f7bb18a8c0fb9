"""What a dry run says first: in ten lines, what would happen."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from humanfriendly import format_size

from .experiment import Experiment
from .jobs import Job
from .progress import Plan
from .screen import quote

#: Bytes of a number of the store.
_BYTES = {"float32": 4, "float64": 8}
#: What one job and several are called for people, by the begin of their names.
_JOBS = {
    "10a": ("training", "trainings"),
    "10b": ("store", "stores"),
    "10c": ("array ({} tasks)", "arrays ({} tasks)"),
    "10d": ("analysis", "analyses"),
    "10e": ("next block", "next blocks"),
    "remove": ("clean-up", "clean-ups"),
}


def outline(experiment: Experiment, plan: Plan, jobs: Sequence[Job]) -> list[str]:
    """Return ten lines that say what these jobs would do."""
    lines = {
        "problem": _problem(experiment),
        "training": _training(experiment, plan),
        "Hessians": _hessians(experiment, plan),
        "sketch": _sketch(experiment),
        "products": _products(experiment, plan),
        "analysis": _analysis(experiment),
        "jobs": _jobs(experiment, jobs),
        "limits": _limits(experiment, jobs),
        "place": f"{quote(str(experiment.directory))} ({_store_size(experiment)} of measurements)",
    }
    title = f"{experiment.script} would do this; nothing is done now, the commands follow:"
    return [title, *(f"  {name:<9} {text}" for name, text in lines.items())]


def _problem(experiment: Experiment) -> str:
    s = experiment.settings
    optimiser = f", {s.OPTIMIZER}" if s.OPTIMIZER else ""
    return f"{s.PROBLEM}, {s.NUM_PARAMS:,} parameters, seed {s.RANDOM_SEED}{optimiser}"


def _training(experiment: Experiment, plan: Plan) -> str:
    if plan.training.state == "done":
        return "done already"
    verb = "goes on" if plan.training.state == "unfinished" else "runs"
    return f"{verb} to step {experiment.settings.MAX_STEPS:,}, recorded at {_steps(experiment)}"


def _steps(experiment: Experiment) -> str:
    steps = [f"{step:,}" for step in experiment.steps]
    shown = steps if len(steps) <= 4 else [*steps[:2], "...", steps[-1]]
    return f"step{'s' * (len(steps) > 1)} {', '.join(shown)}"


def _hessians(experiment: Experiment, plan: Plan) -> str:
    s, total = experiment.settings, len(experiment.hessians)
    splits = " and ".join(s.SPLITS.split())
    what = f"{splits}, {s.NUM_HESSIAN_DATAPOINTS:,} data points each"
    return f"{len(plan.tasks)} of {total} to do: {_steps(experiment)}; {what}"


def _sketch(experiment: Experiment) -> str:
    sizes = experiment.sizes
    if sizes.kind.sketch:
        return f"{sizes.recovery}, n_o = {sizes.rank:,} outer, n_i = {sizes.per_round:,} inner"
    rounds = f"{sizes.num_rounds} round{'s' * (sizes.num_rounds > 1)} of {sizes.per_round:,}"
    most = "" if experiment.settings.ACCURACY is None else "up to "
    return f"{sizes.recovery}, {most}{rounds} products, {sizes.rank:,} eigenpairs"


def _products(experiment: Experiment, plan: Plan) -> str:
    sizes, per_job = experiment.sizes, experiment.settings.MEAS_PER_JOB
    missing = 0
    for first, tasks in plan.tasks.values():
        missing += sum(len(experiment.indices_of(task, 0)) for task in tasks)
        missing += (sizes.num_rounds - 1 - first) * sizes.per_round
    of = "each round" if sizes.num_rounds > 1 else "each Hessian"
    split = f"{len(experiment.all_tasks)} tasks of up to {per_job:,}"
    most = "" if experiment.settings.ACCURACY is None else "at most "
    return f"{most}{missing:,} in all; the {sizes.per_round:,} of {of} in {split}"


def _analysis(experiment: Experiment) -> str:
    s = experiment.settings
    if s.WITH_A_POSTERIORI is False and not experiment.sizes.kind.any_rounds:
        return "errors are not estimated, nor how far to read results (WITH_A_POSTERIORI=true does)"
    if s.WITH_A_POSTERIORI is False:
        return "tells how far results can be read, without more products"
    return f"tells how far results can be read, by {s.NUM_A_POSTERIORI or 30} more products each"


def _jobs(experiment: Experiment, jobs: Sequence[Job]) -> str:
    s, counts = experiment.settings, Counter(job.name.partition("_")[0] for job in jobs)
    num = f"{sum(len(job.tasks) for job in jobs):,}"
    kinds = [f"{n} {_JOBS[kind][n > 1].format(num)}" for kind, n in counts.items()]
    partition = f" ({s.PARTITION})" if s.PARTITION else ""
    where = "on this machine" if s.LAUNCHER == "local" else f"on Slurm{partition}"
    return f"{where}: {', '.join(kinds) or 'none'}"


def _limits(experiment: Experiment, jobs: Sequence[Job]) -> str:
    s = experiment.settings
    if s.LAUNCHER == "local":
        return f"{s.LOCAL_JOBS} task{'s' * (s.LOCAL_JOBS > 1)} at a time (LOCAL_JOBS)"
    each = [
        " ".join([stage.lower(), s.text(f"TIME_{stage}"), s.text(f"MEM_{stage}")]).strip()
        for stage in dict.fromkeys(job.stage for job in jobs if job.stage != "SMALL")
    ]
    asked = {"gres": s.GRES, "CPUs": s.CPUS_PER_TASK}
    given = [f"{name} {value}" for name, value in asked.items() if value]
    return "; ".join([*each, ", ".join(given)] if given else each)


def _store_size(experiment: Experiment) -> str:
    numbers = sum(math.prod(shape) for shape in experiment.sizes.layout.values())
    return format_size(numbers * _BYTES.get(experiment.settings.DTYPE, 4))
