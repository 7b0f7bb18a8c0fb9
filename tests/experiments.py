"""Experiments of 11m as tests run them, and their results."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import torch

from applesandoranges.analysis.overlap import largest_parameters, mask_curve
from applesandoranges.app.keys import parse_config
from applesandoranges.app.log import read_log
from applesandoranges.measurement.recorded_hessian import (
    RecordedHessianConfig,
    load_recorded_hessian,
)
from skerch.decompositions import block_krylov
from tests.conftest import ANALYSE, MEASURE, Pipeline
from tests.script_loader import REPOSITORY
from tests.slurm.cluster import wait_until

#: Settings of two Hessians, of which the second starts from the eigenvectors of the first.
TRACKED = {
    "MAX_RECORD_STEP": 2, "SPLITS": "train", "NUM_OUTER": 6, "NUM_INNER": 12, "MEAS_PER_JOB": 3,
    "RECOVERY": "krylov", "NUM_ROUNDS": 2, "EIGENVECTORS": 6, "TRACK": "true",
}  # fmt: skip
SCRIPT = "./11m_run_sketched_overlap_mnist_mini.sh"


def small_environment(digits: Path) -> dict[str, str]:
    """Return variables for small jobs, without what this shell may have from Slurm."""
    names = ("HOME", "PATH", "LANG", "TMPDIR")
    return {name: os.environ[name] for name in names if name in os.environ} | {
        "PYTHON": sys.executable, "OBS_DATASETS_PATH": str(digits), "OMP_NUM_THREADS": "1",
        "WAIT_SECONDS": "0.5", "NUM_A_POSTERIORI": "3", "NUM_HESSIAN_DATAPOINTS": "20",
        "RECORD_EVERY": "2",
    }  # fmt: skip


@dataclass
class Experiment:
    """A directory of an experiment and the variables that its commands need."""

    environment: dict[str, str]
    directory: Path
    store: Path
    fault: Path
    settings: dict[str, object] = field(default_factory=dict)

    def variables(self, **changes: object) -> dict[str, str]:
        return self.environment | {k: str(v) for k, v in (self.settings | changes).items()}

    def command(self, *words: str, status: int = 0, **changes: object) -> str:
        """Run 11m and return what it prints, both channels."""
        done = subprocess.run(
            [SCRIPT, *words], cwd=REPOSITORY, env=self.variables(**changes), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900,
        )  # fmt: skip
        assert done.returncode == status, done.stdout
        return done.stdout

    def dry_run(self, **changes: object) -> dict[str, str]:
        """Return the commands of a dry run by the names of their jobs, without dependencies."""
        blocks = self.command("--dry-run", **changes).split("\n# ")[1:]
        named = (block.split("\n", 1) for block in blocks)
        return {
            name.partition(",")[0]: re.sub(r"--dependency=\S+", "", command)
            for name, command in named
        }

    def submit(self, command: str) -> str:
        """Run such a command and return the number of its job."""
        (self.directory / "slurm_logs").mkdir(exist_ok=True)
        return subprocess.run(
            ["bash", "-c", command], cwd=REPOSITORY, env=self.environment, check=True, text=True,
            stdout=subprocess.PIPE, timeout=60,
        ).stdout.strip()  # fmt: skip

    def status(self) -> str:
        return subprocess.run(
            ["./11s_status.sh", str(self.directory)], cwd=REPOSITORY, env=self.environment,
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=True,
        ).stdout  # fmt: skip

    def stop_in_the_middle(self, job: str, file: str, action: str) -> dict[str, str]:
        """Return variables with which the first ``job`` that writes ``file`` is stopped there."""
        self.fault.mkdir()
        return {
            "PYTHONPATH": str(Path(__file__).parent / "slurm" / "fault"), "FAULT_JOB": job,
            "FAULT_FILE": file, "FAULT_ACTION": action, "FAULT_DIR": str(self.fault),
        }  # fmt: skip

    def wait_for_fault(self) -> list[str]:
        """Return process and node of the stopped process."""
        hit = self.fault / "hit"
        wait_until(hit.exists, "a process reached its fault")
        return hit.read_text().split()

    def release(self) -> None:
        (self.fault / "go").touch()

    @property
    def run_dir(self) -> Path:
        (log,) = self.directory.rglob("*10a_gather_params_grads.py[]].log")
        return log.parent

    def logs(self, script: str) -> list[Path]:
        return sorted(p for p in self.run_dir.iterdir() if f"[{script}]" in p.name)

    def measured(self, since: int = 0) -> list[int]:
        """Return what was measured according to the logs of 10c, the first ``since`` left out."""
        return sorted(
            event.body["idx"]
            for log in self.logs(MEASURE)[since:]
            for event in read_log(log).events
            if event.text == "Measurement successful!"
        )

    def assert_result(self, expected: dict, step: int = 0, test: bool = False) -> None:
        """Compare the one complete analysis of a Hessian with another one."""
        assert_same(analysis(self.logs(ANALYSE), step, test), expected)


def analysis(logs: list[Path], step: int, test: bool) -> dict:
    """Return all results of the one complete analysis of a Hessian."""
    complete = []
    for path in logs:
        log = read_log(path)
        done = any(event.text == "Analysis done" for event in log.events)
        if done and path.name.endswith(f"__step={step}__test={test}.log"):
            complete.append({k: v for body in log.bodies("RESULT") for k, v in body.items()})
    (result,) = complete
    return result


def assert_same(found: dict, expected: dict) -> None:
    S, curve = np.array(expected["core_S"]), np.array(expected["frob_Qtop^2"])
    np.testing.assert_allclose(found["core_S"], S, rtol=0, atol=1e-5 * abs(S).max())
    k = np.arange(1, len(curve) + 1)
    np.testing.assert_allclose(found["frob_Qtop^2"] / k, curve / k, rtol=0, atol=1e-5)


def assert_krylov(found: dict, root: Path, digits: Path) -> None:
    """Compare with two rounds of six products in memory, at step 0 of the training split."""
    pipeline = Pipeline(root, digits, 6, 12)
    assert pipeline.train() == 0
    config = parse_config(RecordedHessianConfig, pipeline.recorded_words())
    recorded = load_recorded_hessian(config)
    expected = block_krylov(recorded.operator, 6, 2, 6, pipeline.seed + 1, torch.float32)
    np.testing.assert_allclose(found["core_S"], expected.S, rtol=1e-4)
    curve = mask_curve(expected.vectors()[largest_parameters(recorded.params, 6)])
    np.testing.assert_allclose(found["frob_Qtop^2"], curve, rtol=0, atol=1e-4)


def assert_tracked(experiment: Experiment, digits: Path) -> None:
    """Compare the second Hessian of :data:`TRACKED` with a recovery in memory."""
    (params,) = experiment.directory.glob("*/*__params.h5")
    (start,) = experiment.run_dir.glob("*__eigenvectors__step=0__test=False.h5")
    words = {"OBS_DATASETS": digits, "PARAMS_PATH": params, "STEP": 2,
             "TRAINING_LOGPATH": next(experiment.run_dir.glob("*10a_gather*.log"))}  # fmt: skip
    config = parse_config(RecordedHessianConfig, [f"{name}={text}" for name, text in words.items()])
    recorded = load_recorded_hessian(config)
    with h5py.File(start) as file:
        V = torch.from_numpy(file["data"][:])
    expected = block_krylov(recorded.operator, 6, 2, 6, recorded.seed + 1, torch.float32, start=V)
    found = analysis(experiment.logs(ANALYSE), 2, False)
    np.testing.assert_allclose(found["core_S"], expected.S, rtol=1e-4)
