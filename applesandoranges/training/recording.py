"""Steps that are recorded: parameters and buffers in the params file, a line each in the log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from skerch.errors import InputError

from ..app import events
from ..app.log import Log
from ..hessian.loss import Loss
from ..problems.parameters import parameter_vector, untrained_state
from ..problems.problem import Problem
from .params_file import IncrementalHDF5

#: Files by what they hold; ``matrix`` and ``split`` in their HDF5 lines, in the words of published
#: logs.
MATRICES = {
    "params": ("batch_parameters", "batch"),
    "gradients_train": ("train_gradient", "train"),
    "gradients_test": ("test_gradient", "test"),
}
#: Values of ``matrix`` in HDF5 lines of earlier versions, and what they are called now.
FORMER_MATRICES = {
    "params": "batch_parameters",
    "gradients_train": "train_gradient",
    "gradients_test": "test_gradient",
}


class Recorder:
    """Writes steps of a run into files beside its log.

    Args:
        problem: Its network has the state of the step when :meth:`record` is called.
        run_dir: Directory of the run; the files are named after it.
        run_id: Identity of the run, an attribute of the files.
        num_hessian: Data points of a Hessian.
        log: Writes an event, given header and body.
        gradients: Whether the gradients of both Hessian losses are stored, too.
    """

    def __init__(
        self,
        problem: Problem,
        run_dir: Path,
        run_id: str,
        num_hessian: int,
        log: Callable[[str, dict[str, Any]], None],
        gradients: bool = False,
    ):
        self.problem, self.num_hessian, self.log = problem, num_hessian, log
        params = parameter_vector(problem.net)
        self.files = {
            name: IncrementalHDF5.open_or_create(
                _path(run_dir, name), len(params), params.dtype, {"run_id": run_id}
            )
            for name in (list(MATRICES) if gradients else ["params"])
        }

    @property
    def params_path(self) -> Path:
        """The params file."""
        return self.files["params"].path

    def steps(self) -> list[int]:
        """Return the steps that are recorded."""
        return [metadata["step"] for metadata in self.files["params"].metadata()]

    def record(self, step: int) -> None:
        """Record a step, unless the files have it from before, and log it."""
        for name, file in self.files.items():
            matrix, split = MATRICES[name]
            there = file.has(step=step)
            sha256 = file.find(step=step).sha256 if there else self._store(file, split, step)
            body = {"global_step": step, "matrix": matrix, "split": split, "status": "saved"}
            self.log(events.HDF5, body | {"sha256": sha256})

    def _store(self, file: IncrementalHDF5, split: str, step: int) -> str:
        """Store the parameters ("batch"), or the gradient on the Hessian subset of a split.

        Returns:
            The hash of what was stored.
        """
        net = self.problem.net
        if split != "batch":
            gradient = Loss.of(self.problem, split, self.num_hessian).gradient()
            return file.append(gradient, {"step": step})
        return file.append(parameter_vector(net), {"step": step}, untrained_state(net))


def check_recorded(log: Log, run_dir: Path) -> None:
    """Raise :class:`InputError` unless the files have all steps that a log says are recorded."""
    for name, (matrix, _) in MATRICES.items():
        logged = {
            body["global_step"]
            for body in log.bodies(events.HDF5)
            if FORMER_MATRICES.get(str(body["matrix"]), body["matrix"]) == matrix
        }
        path = _path(run_dir, name)
        file = IncrementalHDF5(path)
        there = {entry["step"] for entry in file.metadata()} if path.exists() else set()
        if lost := sorted(logged - there):
            raise InputError(
                f"{path}: expected the steps that the training has recorded ({log.path}), of "
                f"which {lost} are not there; put the file back, or train anew, without RESUME"
            )


def _path(run_dir: Path, name: str) -> Path:
    return run_dir / f"{run_dir.name}__{name}.h5"
