"""The jobs of an experiment: which .slurm file with which variables, and after which others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from skerch.store.files import format_indices
from skerch.store_names import ALL, INNER_FMT, LO_FMT, MERGED

from .experiment import TRAINING_LOG, Experiment
from .progress import Plan
from .settings import FIELDS, Caller

_PYTHON = "PROJECT_DIR ACTIVATE PYTHON"
_HESSIAN = (
    f"{_PYTHON} OBS_DATASETS_PATH PARAMS_PATH LOG_PATH STEP TEST_HESSIAN MEAS_FLAG DEVICE "
    "SCREEN MEMORY_BUDGET_GB RECOVERY NUM_OUTER NUM_INNER NUM_ROUNDS BLOCK_SIZE START CURVATURE "
    "PARAMETERS"
)

#: By the begin of their names: whose time and memory, the .slurm file, and its variables.
KINDS = {
    "10a": (
        "TRAIN",
        "10a_gather_params_grads.slurm",
        f"{_PYTHON} RESUME OBS_DATASETS_PATH PROBLEM OPTIMIZER TUNING_CONF RANDOM_SEED OUTPUT_DIR "
        "RECORD_BEGINNING RECORD_EVERY MAX_RECORD_STEP MAX_STEPS WITH_EVAL NUM_HESSIAN_DATAPOINTS "
        "DEVICE SCREEN",
    ),
    "10b": (
        "SMALL",
        "10b_prepare_hdf5_measurements.slurm",
        f"{_PYTHON} MEAS_DIR DTYPE NUM_PARAMS NUM_OUTER NUM_INNER RECOVERY BLOCK_SIZE",
    ),
    "10c": (
        "MEASURE",
        "10c_hessian_hdf5_measurements.slurm",
        f"{_HESSIAN} MEAS_DIR MEAS_ARRSIZE MEAS_PER_JOB TASK_OFFSET ROUND VECTORS_PER_PRODUCT",
    ),
    "10d": (
        "ANALYSE",
        "10d_core_and_analysis.slurm",
        f"{_HESSIAN} INNER_VIRTUAL INNER_MONOLITHIC SYMMETRIZE_CORE OUTER_VIRTUAL "
        "OUTER_MONOLITHIC WITH_A_POSTERIORI NUM_A_POSTERIORI EIGENVECTORS "
        "ACCURACY",
    ),
    "10e": ("ANALYSE", "10e_next_krylov_block.slurm", f"{_HESSIAN} MEAS_DIR ROUND ACCURACY"),
    "remove": ("SMALL", "slurm/remove_measurements.slurm", f"{_PYTHON} MEAS_DIR LOG_PATH"),
}


@dataclass(frozen=True)
class Job:
    """A job, or an array of them.

    Attributes:
        name: Its name.
        stage: Whose time and memory it takes, e.g. ``"TRAIN"``.
        script: The .slurm file.
        variables: For that file, none of them empty.
        after: Names of the jobs that must have succeeded before.
        tasks: Of an array; ``()`` for a single job.
    """

    name: str
    stage: str
    script: str
    variables: dict[str, str]
    after: tuple[str, ...] = ()
    tasks: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """Name and tasks."""
        return f"{self.name}, tasks {format_tasks(self.tasks)}" if self.tasks else self.name


def format_tasks(tasks: Sequence[int]) -> str:
    """Return tasks as sbatch takes them: ``1-5,7``."""
    return format_indices(tasks).replace(" ", "")


def split_tasks(tasks: Sequence[int], most: int) -> dict[int, list[int]]:
    """Split an array for a cluster whose tasks have numbers from 1 to ``most``.

    Returns:
        By offset, which is to be added: numbers of tasks.
    """
    parts: dict[int, list[int]] = {}
    for task in tasks:
        offset = (task - 1) // most * most
        parts.setdefault(offset, []).append(task - offset)
    return parts


def plan_jobs(experiment: Experiment, plan: Plan, caller: Caller, most_tasks: int) -> list[Job]:
    """Return all jobs that are still needed, each of which comes after the one before.

    An array becomes several, side by side, where the cluster allows no such large one.
    """
    values = _values(experiment, caller)
    jobs: list[Job] = []
    after: tuple[str, ...] = ()
    for name, tasks, own in _chain(experiment, plan):
        stage, script, names = KINDS[name.partition("_")[0]]
        parts = {}
        for offset, part in split_tasks(tasks, most_tasks).items() if tasks else [(0, [])]:
            found = values | own | {"TASK_OFFSET": str(offset)}
            variables = {variable: found[variable] for variable in names.split()}
            given = {variable: text for variable, text in variables.items() if text}
            part_name = f"{name}_from{offset}" if offset else name
            parts[part_name] = Job(part_name, stage, script, given, after, tuple(part))
        jobs += parts.values()
        after = tuple(parts)
    return jobs


def _chain(
    experiment: Experiment, plan: Plan
) -> Iterator[tuple[str, Sequence[int], dict[str, str]]]:
    """Yield names of jobs, tasks and variables of their own.

    All Hessians share one store, so the next one's measurements come after an analysis.
    """
    if plan.training.state != "done":
        yield "10a_train", (), {}
    if plan.tasks and not plan.store_ready:
        yield "10b_layout", (), {}
    for (step, split), (first, tasks) in plan.tasks.items():
        name, sizes = f"step{step}_{split}", experiment.sizes
        hessian = {"STEP": str(step), "TEST_HESSIAN": "true" if split == "test" else "false"}
        hessian["START"] = start = _start(experiment, step, split)
        if start and first == 0:
            yield f"10e_{name}_start", (), hessian | {"ROUND": "-1"}
        for number in range(first, sizes.num_rounds):
            part = name if sizes.kind.sketch else f"{name}_round{number}"
            own = hessian | {"ROUND": str(number)}
            if tasks:
                yield f"10c_{part}", tasks, own
            tasks = experiment.all_tasks
            if number + 1 < sizes.num_rounds:
                yield f"10e_{part}", (), own
        yield f"10d_{name}", (), hessian
    if not experiment.settings.KEEP_MEASUREMENTS and (plan.tasks or plan.leftover):
        yield "remove_measurements", (), {}


def _start(experiment: Experiment, step: int, split: str) -> str:
    """Return a pattern of the eigenvectors of the step before; empty unless it is tracked."""
    ending = experiment.start_of(step, split)
    # The eigenvectors of another curvature, or of some parameters, have a hash before the suffix.
    return ending and experiment.pattern_of(ending) + "*.h5"


def _values(experiment: Experiment, caller: Caller) -> dict[str, str]:
    """Return the variables of all jobs; those that do not fit the recovery are empty."""
    store, sketch = experiment.store, experiment.sizes.kind.sketch
    values = {name: experiment.settings.text(name) for name in FIELDS} | {
        "PROJECT_DIR": caller.project,
        "ACTIVATE": caller.environ.get("ACTIVATE", ""),
        "PYTHON": caller.environ.get("JOB_PYTHON", ""),
        "RESUME": str(experiment.run_dir or ""),
        "OUTPUT_DIR": str(experiment.directory),
        "PARAMS_PATH": experiment.pattern_of("__params.h5"),
        "LOG_PATH": experiment.pattern_of(TRAINING_LOG),
        "MEAS_DIR": str(store),
        "MEAS_ARRSIZE": str(len(experiment.all_tasks)),
        "OUTER_VIRTUAL": str(store / LO_FMT.format(ALL)),
        "OUTER_MONOLITHIC": str(store / LO_FMT.format(MERGED)),
        "INNER_VIRTUAL": str(store / INNER_FMT.format(ALL)),
        "INNER_MONOLITHIC": str(store / INNER_FMT.format(MERGED)),
    }
    others = ("NUM_ROUNDS",) if sketch else ("INNER_VIRTUAL", "INNER_MONOLITHIC", "SYMMETRIZE_CORE")
    return values | dict.fromkeys(others, "")
