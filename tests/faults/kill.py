"""Kills 10a, 10c, 10d and merge at random moments; running them again must give the same numbers.

``python -m tests.faults.kill --repeats 50`` prints a table. Each repeat starts a stage from the
same files, kills it with SIGKILL once or twice (half of the times after a random share of the time
that it takes, half at a random access to a file), checks that no file is broken, runs the same
command again, and compares everything with an undisturbed run, bit by bit. Exit status 1 if
anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import signal
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from applesandoranges.app.log import read_log
from applesandoranges.problems.sources import write_embedded
from applesandoranges.training.params_file import IncrementalHDF5
from skerch.store.files import reading
from skerch.store.measurements import DistributedHDF5
from skerch.store.merge import verify_merged
from skerch.store_names import INITIAL_FLAG
from skerch.utils import InputError, StoreError
from tests.conftest import ANALYSE, MEASURE, TRAIN, Pipeline
from tests.faults.processes import SAME_NUMBERS, SignalAt, finish, start

OUTER, INNER = 6, 12
RECORD = [0, 2, 3, 7]


@dataclass(frozen=True)
class Materials:
    """What the stages start from."""

    pipeline: Pipeline
    empty: Path
    measured: Path
    prepared: Path


def make_materials(root: Path) -> Materials:
    """Train, lay a store out and measure it, and merge it before it is measured."""
    write_embedded(root / "datasets")
    pipeline = Pipeline(root, root / "datasets", OUTER, INNER)
    words = [TRAIN, *train_words(root, pipeline)]
    assert finish(words, root / "terminal") == 0, (root / "terminal").read_text()
    empty = pipeline.lay_out("empty")
    measured, prepared = root / "measured", root / "prepared"
    shutil.copytree(empty, measured)
    words = [MEASURE, *measure_words(pipeline, measured)]
    assert finish(words, root / "terminal") == 0, (root / "terminal").read_text()
    shutil.copytree(measured, prepared)
    for name in ("inner", "leftouter"):
        DistributedHDF5.merge_all(empty / f"{name}_ALL.h5", prepared / f"{name}_MERGED.h5")
    return Materials(pipeline, empty, measured, prepared)


def train_words(directory: Path, pipeline: Pipeline) -> list[str]:
    return [
        f"OBS_DATASETS={pipeline.datasets}", f"OUTPUT_DIR={directory / 'output'}",
        f"RECORD_STEPS={RECORD}", f"MAX_STEPS={RECORD[-1]}", "NUM_HESSIAN_DATAPOINTS=20",
        "RANDOM_SEED=12345", "DEVICE=cpu", "STORE_GRADS=true",
    ]  # fmt: skip


def measure_words(pipeline: Pipeline, store: Path) -> list[str]:
    # Otherwise a measurement depends, in its last bits, on those that share its product.
    return pipeline.measurement_words(store, STEP=2, **SAME_NUMBERS)


class Stage(ABC):
    """A command, what it starts from, and what must be there when it was killed, and at the end."""

    def __init__(self, materials: Materials):
        self.materials = materials

    @abstractmethod
    def prepare(self, directory: Path) -> None:
        """Put into ``directory`` what the command starts from."""

    @abstractmethod
    def words(self, directory: Path) -> list[str]:
        """Return the command, the one that goes on if something is there already."""

    @abstractmethod
    def check(self, directory: Path) -> None:
        """Raise if anything is broken, or counts as done and is not."""

    @abstractmethod
    def numbers(self, directory: Path) -> Any:
        """Return all numbers that the stage makes."""

    def is_right(self, status: int, directory: Path) -> bool:
        """Say whether this is the exit status of a run to the end."""
        return status == 0


class Training(Stage):
    def prepare(self, directory: Path) -> None:
        directory.mkdir()

    def run_dir(self, directory: Path) -> Path | None:
        """Return the run that can go on: one that has begun to log, the last one."""
        for log in sorted(directory.glob("output/*/*.log"), reverse=True):
            if log.read_text().count("\n") >= 2:
                return log.parent
        return None

    def words(self, directory: Path) -> list[str]:
        begun = self.run_dir(directory)
        resume = [] if begun is None else [f"RESUME={begun}"]
        return [TRAIN, *train_words(directory, self.materials.pipeline), *resume]

    def check(self, directory: Path) -> None:
        for path in directory.glob("output/*/*__params.h5"):
            self._entries(path)

    @staticmethod
    def _entries(path: Path) -> dict[int, list[float]]:
        file = IncrementalHDF5(path)
        steps = [metadata["step"] for metadata in file.metadata()]
        return {step: file.find(step=step).data[:, 0].tolist() for step in steps}

    def numbers(self, directory: Path) -> Any:
        run_dir = self.run_dir(directory)
        assert run_dir is not None
        (log,) = run_dir.glob("*.log")
        headers = ("EVAL ROUND", "TRAINING BATCH", "HDF5", "FINAL EVALUATION")
        matrices = ("params", "gradients_train", "gradients_test")
        return {header: read_log(log).bodies(header) for header in headers} | {
            name: self._entries(next(run_dir.glob(f"*__{name}.h5"))) for name in matrices
        }


class Measuring(Stage):
    def prepare(self, directory: Path) -> None:
        shutil.copytree(self.materials.empty, directory / "store")

    def words(self, directory: Path) -> list[str]:
        return [MEASURE, *measure_words(self.materials.pipeline, directory / "store")]

    def check(self, directory: Path) -> None:
        for name, (flag, values) in self.numbers(directory).items():
            expected = DistributedHDF5.load(self.materials.measured / name).data
            done = flag != INITIAL_FLAG
            np.testing.assert_array_equal(values, expected if done else np.zeros_like(expected))

    def numbers(self, directory: Path) -> dict[str, tuple[str, list[float]]]:
        found = {}
        for path in sorted((directory / "store").glob("*_0*.h5")):
            measurement = DistributedHDF5.load(path)
            found[path.name] = (measurement.flag, measurement.data.tolist())
        return found


class Analysing(Stage):
    """10d, with monolithic files that were prepared before the store was measured."""

    def prepare(self, directory: Path) -> None:
        shutil.copytree(self.materials.prepared, directory / "store")
        # Analyses log into the directory of the run.
        shutil.copytree(self.materials.pipeline.run_dir, directory / "run")

    def words(self, directory: Path) -> list[str]:
        (log,) = (directory / "run").glob("*[[]10a*.log")
        words = {"STEP": 2, "TRAINING_LOGPATH": log, **SAME_NUMBERS}
        return [ANALYSE, *self.materials.pipeline.analysis_words(directory / "store", **words)]

    def check(self, directory: Path) -> None:
        for name in ("inner", "leftouter"):
            path = directory / "store" / f"{name}_MERGED.h5"
            with reading(path) as file:
                flags, values = set(file["flags"].asstr()[:]), file["data"][:]
            assert flags in ({INITIAL_FLAG}, {"measured"}), flags
            assert flags == {"measured"} or not values.any()
            verify_merged(path)

    def numbers(self, directory: Path) -> Any:
        log = max((directory / "run").glob("*[[]10d*.log"))
        return read_log(log).bodies("RESULT")


class Merging(Stage):
    """The merge of the command line."""

    def prepare(self, directory: Path) -> None:
        shutil.copytree(self.materials.measured, directory)

    def words(self, directory: Path) -> list[str]:
        virtual, merged = directory / "leftouter_ALL.h5", directory / "merged.h5"
        words = ["merge_hdf5", "--in_path", str(virtual), "--out_path", str(merged)]
        return ["skerch", *words, "--ok_flag", "measured"]

    def check(self, directory: Path) -> None:
        if (directory / "merged.h5").exists():
            self.numbers(directory)

    def numbers(self, directory: Path) -> Any:
        verify_merged(directory / "merged.h5")
        with reading(directory / "merged.h5") as file:
            return file["data"][:].tolist(), file["flags"].asstr()[:].tolist()

    def is_right(self, status: int, directory: Path) -> bool:
        """Merging again what was merged before is refused, with status 2."""
        return status in (0, 2) and (directory / "merged.h5").is_file()


STAGES: dict[str, type[Stage]] = {
    "10a": Training, "10c": Measuring, "10d": Analysing, "merge": Merging,
}  # fmt: skip


@dataclass
class Count:
    """What happened to one stage."""

    stage: str
    runs: int = 0
    killed: int = 0
    with_unfinished_files: int = 0
    same_numbers: int = 0
    failures: tuple[str, ...] = ()


def unfinished(directory: Path) -> list[Path]:
    """Return what killed processes left behind."""
    return list(directory.rglob(".*.tmp"))


def harass(name: str, materials: Materials, repeats: int, seed: int, root: Path) -> Count:
    """Kill a stage ``repeats`` times and count what came of it."""
    rng = np.random.default_rng([seed, list(STAGES).index(name)])
    stage, count, output = STAGES[name](materials), Count(name), root / f"{name}.terminal"
    undisturbed = root / f"{name}_undisturbed"
    stage.prepare(undisturbed)
    counter, begin = root / f"{name}.accesses", time.monotonic()
    watch = SignalAt(undisturbed, count=counter)
    assert finish(stage.words(undisturbed), output, watch) == 0, output.read_text()
    seconds, accesses = time.monotonic() - begin, int(counter.read_text())
    expected = stage.numbers(undisturbed)
    for repeat in range(repeats):
        directory = root / f"{name}_{repeat}"
        stage.prepare(directory)
        try:
            for _ in range(rng.integers(1, 3)):
                if rng.random() < 0.5:
                    process = start(stage.words(directory), output)
                    process.join(seconds * rng.random())
                    process.kill()
                else:
                    number = int(rng.integers(1, accesses + 1))
                    process = start(stage.words(directory), output, SignalAt(directory, number))
                process.join()
                killed = process.exitcode == -signal.SIGKILL
                assert killed or stage.is_right(process.exitcode, directory), process.exitcode
                count.runs += 1
                count.killed += killed
                count.with_unfinished_files += bool(unfinished(directory))
                stage.check(directory)
            status = finish(stage.words(directory), output)
            assert stage.is_right(status, directory), f"exit status {status}"
            assert stage.numbers(directory) == expected, "other numbers than undisturbed"
            assert not unfinished(directory) or status == 2, "files were left behind"
        except (AssertionError, StoreError, InputError) as error:
            count.failures += (f"{name}, repeat {repeat}, {directory}: {error}",)
        else:
            count.same_numbers += 1
            shutil.rmtree(directory)
    return count


def main(argv: Sequence[str] | None = None) -> int:
    """Harass the stages; return 1 if anything came out wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=50, help="per stage")
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    failures: tuple[str, ...] = ()
    with tempfile.TemporaryDirectory(prefix="faults-") as text:
        with contextlib.redirect_stdout(io.StringIO()):
            materials = make_materials(Path(text))
        print("| stage | repeats | runs started | killed | left unfinished files | same numbers |")
        print("|---|---|---|---|---|---|")
        for name in args.stages:
            count = harass(name, materials, args.repeats, args.seed, Path(text))
            print(
                f"| {name} | {args.repeats} | {count.runs} | {count.killed} "
                f"| {count.with_unfinished_files} | {count.same_numbers} |",
                flush=True,
            )
            failures += count.failures
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
