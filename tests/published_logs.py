"""Logs in exactly the form of the published ones, with the numbers of the packaged tables.

The forms are those of the original's scripts: 10d states step and split in CONFIG alone, bodies of
INFO lines are lists of one text, results of a Hessian are three lines, and exact eigenvalues
ascend. Nothing here comes from the code that compares: numbers are read from the tables' rows.
"""

import json
from functools import cache
from pathlib import Path

import pandas as pd

from applesandoranges.published.tables import TABLES

#: NUM_HESSIAN_DATAPOINTS, MAX_STEPS, batch_size, num_epochs, steps_per_epoch, lr, D, n_i; of the
#: original logs.
FACTS = {
    "mnist_mini": (500, 16001, 500, 50, 100, 0.3, 7_030, 710),
    "cifar10det_3c3d": (500, 8001, 128, 100, 312, 0.022610510812765, 895_210, 2000),
    "cifar100_allcnnc": (1000, 8001, 256, 350, 156, 0.16579130972807002, 1_387_108, 2000),
    "imagenetdet_resnet18": (5000, 8001, 150, 50, 8207, 0.1, 11_689_512, 3000),
}
INFO = {
    "frob_Qtop^2": "Frob(Q[largest_absparams,:k])^2 ordered by increasing k",
    "largest_absparams": "Indices of k largest parameters, by descending magnitude",
}


@cache
def rows(name, problem):
    table = pd.read_csv(TABLES / f"{name}.csv.gz")
    return table[table["problem"] == problem]


def write_log(path, events):
    path.parent.mkdir(parents=True, exist_ok=True)
    stamp = "2024-02-01_16:46:57.072"
    path.write_text("".join(json.dumps([stamp, [*event]]) + "\n" for event in events))
    return path


def training_events(problem):
    """Return CONFIG, GLOBALS and the lines of the training."""
    num_hessian, max_steps, batch, epochs, per_epoch, lr, dim, _ = FACTS[problem]
    steps = sorted(set(rows("spectrum", problem)["step"].tolist()))
    directory = f"output/2024_02_01_16_29_36.956__{problem}__12345__64009"
    config = {
        "OBS_DATASETS": "datasets", "TUNING_CONF": "config/basic_config.yaml", "OPTIMIZER": "SGD",
        "PROBLEM": problem, "RANDOM_SEED": 12345, "MAX_STEPS": max_steps, "DEVICE": "cuda",
        "OUTPUT_DIR": "output", "OUTDIR_SUFFIX": "64009", "RECORD_STEPS": steps,
        "NUM_HESSIAN_DATAPOINTS": num_hessian,
    }  # fmt: skip
    made = {
        "run_dir": directory, "batch_size": batch, "num_epochs": epochs, "max_steps": max_steps,
        "steps_per_epoch": per_epoch, "opt_name": "SGD", "opt_hpars": {"lr": lr},
        "sched_name": None, "sched_hpars": None, "num_params": dim, "record_steps": steps,
    }  # fmt: skip
    events = [("CONFIG", config), ("INFO", ["setting up optimizer"]), ("GLOBALS", made)]
    groups = rows("training", problem).groupby(["event", "epoch", "global_step"], sort=False)
    for (event, epoch, step), some in groups:
        values = dict(zip(some["quantity"], some["value"], strict=True))
        events.append((event, {"epoch": int(epoch), "global_step": int(step)} | values))
    return events


def result_bodies(problem, split, step):
    """Return the bodies of the result lines of one Hessian."""

    def curve(name, column, split=split):
        table = rows(name, problem)
        return table.loc[(table["split"] == split) & (table["step"] == step), column].tolist()

    bodies = [{"core_S": curve("spectrum", "sketched_eigenvalue")}]
    bodies.append({"frob_Qtop^2": curve("overlap", "k_times_overlap")})
    bodies.append({"largest_absparams": curve("largest_parameters", "index", "test")})
    if problem == "mnist_mini":
        bodies.insert(0, {"H_eigvals": sorted(curve("spectrum", "eigenvalue"))})
    return [
        body | ({"info": INFO[name]} if name in INFO else {}) for body in bodies for name in body
    ]


def hessians(problem):
    """Return the splits and steps of all published Hessians."""
    table = rows("spectrum", problem)[["split", "step"]].drop_duplicates()
    return [(split, int(step)) for split, step in table.itertuples(index=False)]


def exhaustive_events(problem="mnist_mini"):
    """Return the events of the exhaustive run."""
    events = training_events(problem)
    events[0][1].update({"NUM_OUTER": 355, "NUM_INNER": 710, "WITH_A_POSTERIORI": False})
    for split, step in hessians(problem):
        header = f"H_{split.upper()}"
        events.append((f"{header} INFO", [f"Performing full EIGH (step {step})..."]))
        bodies = result_bodies(problem, split, step)
        events += [(f"{header} RESULT", {"step": step} | body) for body in bodies]
    return events


def analysis_events(problem, split, step):
    """Return the events of a log of 10d."""
    directory = f"output/2024_02_01_16_29_36.956__{problem}__12345__64009"
    config = {
        "OBS_DATASETS": "datasets", "PARAMS_PATH": f"{directory}/params.h5",
        "TEST_HESSIAN": split == "test", "STEP": step, "DEVICE": "cpu",
        "TRAINING_LOGPATH": f"{directory}/2024_02_01_16_29_36.958[10a_gather_params_grads.py].log",
        "SUCCESS_FLAG": "measured", "WITH_A_POSTERIORI": False, "NUM_A_POSTERIORI": 30,
    }  # fmt: skip
    bodies = result_bodies(problem, split, step)
    dim = FACTS[problem][6]
    return [
        ("CONFIG", config),
        ("INFO", ["Setting up problem..."]),
        ("INFO", [f"Orthogonalizing outer measurements ({dim}, {len(bodies[0]['core_S'])})"]),
        ("INFO", ["Solving SEIGH core"]),
        *(("RESULT", body) for body in bodies),
    ]


def published_events(problem):
    """Return the events of all logs of a run, by file name."""
    if problem == "mnist_mini":
        name = "2024_02_01_12_55_00.605[12b_mnist_mini_exhaustive_test.py].log"
        return {name: exhaustive_events()}
    logs = {"2024_02_01_16_29_36.958[10a_gather_params_grads.py].log": training_events(problem)}
    for i, (split, step) in enumerate(hessians(problem)):
        suffix = f"__step={step}__test={split == 'test'}.log"
        name = f"2024_02_01_16_46_{i:02}.069[10d_core_and_analysis.py]{suffix}"
        logs[name] = analysis_events(problem, split, step)
    return logs


def write_logs(directory: Path, logs) -> Path:
    """Write all logs of a run; return their directory."""
    for name, events in logs.items():
        write_log(directory / name, events)
    return directory
