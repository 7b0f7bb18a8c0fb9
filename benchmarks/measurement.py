"""Cost of one measurement, relative to one pass of gradients over the same data."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from applesandoranges.app.log import JsonLog
from applesandoranges.app.machine import keep_freed_memory
from applesandoranges.hessian.engines import ProductPlan, ProductSettings
from applesandoranges.measurement.background import BackgroundWriter
from applesandoranges.measurement.loop import measure
from applesandoranges.measurement.recorded_hessian import TORCH_DTYPE as DTYPE
from applesandoranges.measurement.recorded_hessian import RecordedHessian
from applesandoranges.measurement.recovery import Store
from applesandoranges.measurement.seigh import Seigh, sketch_matrices
from applesandoranges.measurement.sizes import Sizes
from applesandoranges.problems.problem import Batch, Problem
from skerch.core.products import innermeas_batch_torch
from skerch.store.layout import create_hdf5_layout

from .harness import case, scratch, seconds, summary
from .synthetic import problem_batches, synthetic_hessian


class TimedWriter(BackgroundWriter):
    """Adds up the seconds in which its callers wait for what is being written."""

    waited = 0.0

    def submit(self, task: Callable[[], Any]) -> None:
        """Count how long it takes until the task may wait itself."""
        TimedWriter.waited += seconds(lambda: super(TimedWriter, self).submit(task))

    def __exit__(self, *exception: Any) -> None:
        """Count how long it takes until all tasks are done."""
        TimedWriter.waited += seconds(lambda: super(TimedWriter, self).__exit__(*exception))


TINY = {"num_data": 4, "batch_size": 4, "outer": 2, "num": 3, "repeats": 1, "vectors": 2}


def measurement_costs(
    problem: str,
    num_data: int,
    batch_size: int,
    outer: int,
    num: int,
    repeats: int,
    vectors: int | None,
    engine: str,
) -> dict[str, Any]:
    """Time gradients, products, transforms and storing, in turns.

    Args:
        problem: Which network.
        num_data: Data points.
        batch_size: Data points per mini-batch.
        outer: Outer measurements of the sketch; there are twice as many inner ones.
        num: How many measurements are made in a repetition.
        repeats: Repetitions.
        vectors: Vectors per product; ``None`` as 10c does without being told.
        engine: ``auto``, or one engine, which then needs no trial.
    """
    keep_freed_memory()  # as 10c does
    built, data = problem_batches(problem, num_data, batch_size)
    with scratch() as temporary, contextlib.redirect_stdout(io.StringIO()):
        directory = Path(temporary)
        plan = None if engine == "auto" else ProductPlan(engine, vectors or num, {}, {})
        settings = ProductSettings(engine, vectors)
        recorded = synthetic_hessian(built, data, directory, settings, plan)
        D, inner = recorded.dim, 2 * outer
        create_hdf5_layout(directory / "store", (D, D), np.dtype("f4"), outer, inner, True)
        sizes = Sizes(recovery="seigh", dim=D, num_rounds=1, per_round=inner, num_outer=outer)
        # Half of a sketch are outer measurements, with two files each: so here.
        idxs = [*range(num // 2), *range(outer, outer + num - num // 2)]
        turns = _Turns(recorded, sizes, directory, idxs)
        gradient = partial(_gradient, built, data)
        gradient()
        recorded.operator @ turns.V[:, :1]
        for repeat in range(repeats):
            turns.take(gradient, repeat)
    return turns.summary()


def _gradient(built: Problem, data: Iterable[Batch]) -> None:
    params = list(built.net.parameters())
    for X, y in data:
        torch.autograd.grad(built.criterion(built.net(X), y), params)


class _Turns:
    """Times of all parts, taken in turns: a busy machine is as unfair to one as to the other."""

    def __init__(self, recorded: RecordedHessian, sizes: Sizes, directory: Path, idxs: list[int]):
        self.recorded, self.sizes, self.directory, self.idxs = recorded, sizes, directory, idxs
        vectors = recorded.operator.plan.vectors
        self.blocks = [idxs[i : i + vectors] for i in range(0, len(idxs), vectors)]
        self.matrices = sketch_matrices(recorded, sizes.per_round)
        draw = partial(_transform, *self.matrices, idxs[:1], torch.zeros(recorded.dim, 1))
        self.drawing = seconds(draw) - seconds(draw)  # the first use draws them
        self.V = self.matrices[1].rows(self.blocks[0], DTYPE).T
        self.times: dict[str, list[float]] = {
            name: [] for name in ("gradient", "product", "transforms", "computing", "measuring")
        }
        self.storing: list[float] = []
        self.waiting: list[float] = []

    def take(self, gradient: Callable[[], None], repeat: int) -> None:
        """Time each part once; a product, transforms, ... per vector."""
        operator, V, num, times = self.recorded.operator, self.V, len(self.idxs), self.times
        times["gradient"] += [seconds(gradient) for _ in range(3)]
        HV = operator @ V
        times["product"].append(seconds(lambda: operator @ V) / V.shape[1])
        transform = partial(_transform, *self.matrices, self.blocks[0], HV)
        times["transforms"].append(seconds(transform) / V.shape[1])
        computing = (
            seconds(partial(innermeas_batch_torch, block, operator, *self.matrices, DTYPE))
            for block in self.blocks
        )
        times["computing"].append(sum(computing) / num)
        store = Store.in_directory(self.directory / "store", f"measured{repeat}", 2**30)
        sketch = Seigh(self.recorded, self.sizes, store)
        sketch.measure(self.idxs[:1])
        TimedWriter.waited = 0.0
        with (
            JsonLog(self.directory / f"{repeat}.log") as log,
            patch("applesandoranges.measurement.loop.BackgroundWriter", TimedWriter),
        ):
            times["measuring"].append(seconds(partial(measure, sketch, self.idxs, log)) / num)
        self.waiting.append(TimedWriter.waited / num)
        self.storing.append(seconds(partial(_store, sketch, self.idxs, HV)) / num)

    def summary(self) -> dict[str, Any]:
        """Return the results of all repetitions."""
        times = self.times
        reference = summary(times["gradient"])["median"]
        return {
            "num_params": self.recorded.dim,
            "plan": self.recorded.operator.plan.summary(),
            "seconds": {name: summary(values) for name, values in times.items()},
            "per_gradient": {
                name: summary([value / reference for value in values])
                for name, values in times.items()
                if name != "gradient"
            },
            "drawing_seconds": self.drawing,
            "storing_alone_seconds": summary(self.storing),
            "waiting_for_storing_seconds": summary(self.waiting),
            "storing_added_seconds": summary(
                [a - b for a, b in zip(times["measuring"], times["computing"], strict=True)]
            ),
        }


def _transform(Phi: Any, Psi: Any, block: list[int], HV: torch.Tensor) -> None:
    Psi.rows(block, DTYPE)
    Phi @ HV


def _store(sketch: Seigh, idxs: list[int], HV: torch.Tensor) -> None:
    values = np.ascontiguousarray(HV[:, 0].numpy()), np.ones(sketch.sizes.per_round, "f4")
    for idx in idxs:
        sketch.write(idx, values)


def _register(name: str, problem: str, **full: Any) -> None:
    what = f"{problem}: products, transforms and storing against one gradient pass"
    case(name, what, {"problem": problem, **full}, TINY)(measurement_costs)


_register(
    "measurement_mnist_mini", "mnist_mini", num_data=500, batch_size=500, outer=355, num=512,
    repeats=5, vectors=None, engine="auto",
)  # fmt: skip
_register(
    "measurement_3c3d", "cifar10det_3c3d", num_data=500, batch_size=128, outer=1000, num=32,
    repeats=4, vectors=16, engine="graph",
)  # fmt: skip
_register(
    "measurement_allcnnc", "cifar100det_allcnnc", num_data=40, batch_size=40, outer=1000, num=8,
    repeats=3, vectors=4, engine="graph",
)  # fmt: skip
_register(
    "measurement_resnet18", "imagenetdet_resnet18", num_data=8, batch_size=8, outer=1500, num=8,
    repeats=3, vectors=4, engine="graph",
)  # fmt: skip
