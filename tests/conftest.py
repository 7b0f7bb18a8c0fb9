"""Runs of the pipeline that several tests look at."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from applesandoranges.analysis.exact import dense_matrix, exact_eigh
from applesandoranges.app.keys import parse_config, run_script
from applesandoranges.hessian import engines
from applesandoranges.measurement.recorded_hessian import (
    RecordedHessianConfig,
    load_recorded_hessian,
)
from applesandoranges.problems.sources import write_embedded
from skerch.__main__ import main as skerch
from skerch.decompositions import block_krylov
from tests.script_loader import REPOSITORY, load_script

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # As shells start what goes on in the background; for subprocesses too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if "PYTEST_XDIST_WORKER" in os.environ and "OMP_NUM_THREADS" not in os.environ:
    # Workers share the cores: more threads than cores make everything slower. For subprocesses too.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("left out: no CUDA device here")


TRAIN, MEASURE, ANALYSE = (
    "10a_gather_params_grads.py", "10c_hessian_hdf5_measurements.py", "10d_core_and_analysis.py",
)  # fmt: skip


def run(script: str, *words: str) -> int:
    """Run a numbered script in this process and return its exit status."""
    module = load_script(script)
    return run_script(script, module.Config, module.main, words)


@dataclass
class Pipeline:
    """A trained run with a store, and the words that its scripts need."""

    root: Path
    datasets: Path
    outer: int
    inner: int
    dim: int = 7030
    record: tuple[int, ...] = (0, 2)
    num_hessian: int = 20
    seed: int = 12345
    extra: list[str] = field(default_factory=list)
    of_training: frozenset[str] = frozenset()

    def train(self) -> int:
        status = run(
            TRAIN, f"OBS_DATASETS={self.datasets}", f"RANDOM_SEED={self.seed}",
            f"OUTPUT_DIR={self.root / 'output'}", f"RECORD_STEPS={list(self.record)}",
            f"MAX_STEPS={self.record[-1]}", f"NUM_HESSIAN_DATAPOINTS={self.num_hessian}",
            "DEVICE=cpu", *self.extra,
        )  # fmt: skip
        if status == 0:
            self.of_training = frozenset(path.name for path in self.run_dir.iterdir())
        return status

    def copy_training(self, run_dir: Path) -> None:
        """Copy what the training wrote; other tests' later stages write beside it."""
        run_dir.mkdir(parents=True)
        for name in self.of_training:
            shutil.copy2(self.run_dir / name, run_dir)

    def lay_out(self, name: str = "store") -> Path:
        sizes = ["--outer", str(self.outer), "--inner", str(self.inner), "--sym"]
        shape = f"{self.dim},{self.dim}"
        directory = self.root / name
        assert (
            skerch(["create_hdf5_layout", "--hdf5dir", str(directory), "--shape", shape, *sizes])
            == 0
        )
        return directory

    @property
    def run_dir(self) -> Path:
        (run_dir,) = (self.root / "output").iterdir()
        return run_dir

    @property
    def log(self) -> Path:
        (log,) = (p for p in self.run_dir.iterdir() if re.search(r"\[10[af]_", p.name))
        return log

    @property
    def params(self) -> Path:
        (params,) = self.run_dir.glob("*__params.h5")
        return params

    def recorded_words(self, **changes: object) -> list[str]:
        words: dict[str, object] = {
            "OBS_DATASETS": self.datasets, "TRAINING_LOGPATH": self.log,
            "PARAMS_PATH": self.params, "STEP": 0, "DEVICE": "cpu",
        } | changes  # fmt: skip
        return [f"{name}={value}" for name, value in words.items() if value is not None]

    def measurement_words(self, store: Path, **changes: object) -> list[str]:
        return self.recorded_words(
            **{
                "MEASUREMENTS_DIR": store, "NUM_OUTER": self.outer, "NUM_INNER": self.inner,
                "MEASUREMENT_IDXS": list(range(self.inner)),
            } | changes
        )  # fmt: skip

    def measure(self, store: Path, **changes: object) -> int:
        return run(MEASURE, *self.measurement_words(store, **changes))

    def analysis_words(self, store: Path, **changes: object) -> list[str]:
        return self.recorded_words(
            **{
                "INNER_VIRTUAL": store / "inner_ALL.h5",
                "OUTER_VIRTUAL": store / "leftouter_ALL.h5",
                "INNER_MONOLITHIC": store / "inner_MERGED.h5",
                "OUTER_MONOLITHIC": store / "leftouter_MERGED.h5",
                "NUM_A_POSTERIORI": 3,
            } | changes
        )  # fmt: skip

    def analyse(self, store: Path, **changes: object) -> int:
        return run(ANALYSE, *self.analysis_words(store, **changes))

    def logs(self, script: str) -> list[Path]:
        return sorted(p for p in self.run_dir.iterdir() if f"[{script}]" in p.name)


@pytest.fixture(scope="session", autouse=True)
def fixed_engines():
    """Do not time the engines: which one is faster changes with the run, and last digits with it.

    Takes what trials mostly find, vmap for small networks and graph for others. Gives what it
    replaces.
    """

    def seconds(trial, engine, num):
        faster = "vmap" if trial.H.shape[0] < 50_000 else "graph"
        return num * (1e-6 if engine == faster else 2e-6)

    with pytest.MonkeyPatch.context() as patch:
        replaced = engines._Trial._time
        patch.setattr(engines._Trial, "_time", seconds)
        yield replaced


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """The embedded digits."""
    root = tmp_path_factory.mktemp("datasets")
    write_embedded(root)
    return root


@pytest.fixture(scope="session")
def trained(tmp_path_factory, digits) -> Pipeline:
    """A short training; tests measure and analyse it in stores of their own."""
    pipeline = Pipeline(tmp_path_factory.mktemp("trained"), digits, outer=6, inner=12)
    assert pipeline.train() == 0
    return pipeline


@pytest.fixture(scope="session")
def long_training(tmp_path_factory, digits) -> Pipeline:
    """A training of mnist_mini that recorded steps 250 and 300; 500 points of the Hessians."""
    pipeline = Pipeline(
        tmp_path_factory.mktemp("exact"), digits, 355, 710, record=(250, 300), num_hessian=500
    )
    assert pipeline.train() == 0
    return pipeline


def recorded_at(pipeline, step):
    """Return the Hessian of a step."""
    words = pipeline.recorded_words(STEP=step)
    return load_recorded_hessian(parse_config(RecordedHessianConfig, words))


@pytest.fixture(scope="session")
def exact_mnist_mini(long_training):
    """The recorded Hessian of mnist_mini at step 300 and its exact eigenpairs.

    Takes about a minute: only for tests of the xdist group "exact", which share one worker.
    """
    recorded = recorded_at(long_training, 300)
    exact = exact_eigh(dense_matrix(recorded.operator, 64), 355)
    return recorded, exact


@pytest.fixture(scope="session")
def before_mnist_mini(long_training):
    """The top 355 eigenvectors of step 250, close to the exact ones, in float32."""
    operator = recorded_at(long_training, 250).operator
    return block_krylov(operator, 355, 10, 71, 12346, torch.float32).vectors().float()


#: Of a clone, what commands need.
DIRECTORIES = ("skerch", "applesandoranges", "config", "slurm", "examples")


@pytest.fixture
def shell(tmp_path):
    """Runs commands in a directory that looks like a fresh clone, with a home of its own."""
    clone, home, programs = tmp_path / "clone", tmp_path / "home", tmp_path / "bin"
    for directory in (clone, home, programs):
        directory.mkdir()
    for path in REPOSITORY.iterdir():
        if path.suffix in (".py", ".sh", ".slurm") or path.name in DIRECTORIES:
            (clone / path.name).symlink_to(path)
    # The very interpreter that runs the tests, under the names that users type.
    for name in ("python", "python3"):
        python = programs / name
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"HOME": str(home), "PATH": path}

    def run(script: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=clone, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert "Warning" not in done.stderr
        return done.stdout

    run.clone = clone
    return run
