"""Measuring one Hessian into a store; a rerun measures only what is missing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from skerch import LO_FMT
from skerch.errors import InputError, NumericalError, StoreError
from skerch.store.files import check_writable, differences
from skerch.store.measurements import DistributedHDF5

from ..app import events
from ..app.log import JsonLog
from ..app.software import made_with
from .background import BackgroundWriter, HostCopy
from .recorded import DTYPE, RecordedHessian

NUMPY_DTYPE = torch.empty(0, dtype=DTYPE).numpy().dtype


@dataclass(frozen=True)
class Measurements(ABC):
    """Measurements of one Hessian in a store, by index: what they are, and where they lie.

    Attributes:
        recorded: The Hessian.
        directory: The store.
        flag: Success flag.
    """

    recorded: RecordedHessian
    directory: Path
    flag: str

    @property
    @abstractmethod
    def num(self) -> int:
        """How many measurements there are."""

    @property
    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """What each of them carries."""

    @property
    @abstractmethod
    def layout(self) -> dict[str, tuple[int, int]]:
        """Shapes of the virtual files by format of their names, e.g. :data:`skerch.LO_FMT`."""

    @abstractmethod
    def vectors(self, idxs: Sequence[int]) -> Tensor:
        """Return the vectors ``idxs`` that the Hessian is multiplied with, ``[K, D]``."""

    @abstractmethod
    def measure(self, idxs: Sequence[int]) -> list[Tensor]:
        """Return measurements ``idxs``, one ``[size, K]`` for each format of the layout."""

    def check_store(self) -> None:
        """Raise :class:`InputError` unless the store on disk has this layout and our dtype."""
        for fmt, shape in self.layout.items():
            path = self.directory / fmt.format(DistributedHDF5.ALL)
            if not path.is_file():
                raise InputError(
                    f"{path}: no such store; python -m skerch create_hdf5_layout makes one"
                )
            check_writable(self.directory)
            found = DistributedHDF5.load_virtual(path)
            if found.shape != shape or found.dtype != NUMPY_DTYPE:
                raise InputError(
                    f"{path}: expected shape {shape} and dtype {NUMPY_DTYPE}, "
                    f"found {found.shape} and {found.dtype}"
                )

    def check_indices(self, idxs: Sequence[int]) -> list[int]:
        """Return the indices sorted and once each.

        Raises:
            InputError: If there are none, or some lie outside ``[0, num)``.
        """
        wrong = [i for i in idxs if not 0 <= i < self.num]
        if wrong or not idxs:
            raise InputError(
                f"MEASUREMENT_IDXS must be some of 0 ... {self.num - 1}, got {wrong or 'none'}"
            )
        return sorted(set(idxs))

    def subpaths(self, idx: int) -> list[Path | None]:
        """Return the file of measurement ``idx`` for each format, ``None`` where it has none."""
        return [
            DistributedHDF5.subpath(self.directory, fmt, idx) if idx < shape[1] else None
            for fmt, shape in self.layout.items()
        ]

    def with_outer(self, idx: int) -> bool:
        """Say whether the product itself of measurement ``idx`` is kept."""
        return idx < self.layout[LO_FMT][1]

    def is_measured(self, idx: int) -> bool:
        """Say whether measurement ``idx`` is there, whole and of this very Hessian."""
        try:
            for path, (dim, _) in zip(self.subpaths(idx), self.layout.values(), strict=True):
                if path is None:
                    continue
                found = DistributedHDF5.load(path, dim, NUMPY_DTYPE)
                if found.flag != self.flag or differences(self.provenance, found.provenance):
                    return False
        except StoreError:
            return False
        return True

    def missing(self, idxs: Sequence[int]) -> list[int]:
        """Return those of ``idxs`` that are not measured."""
        return [idx for idx in idxs if not self.is_measured(idx)]

    def write(self, idx: int, values: Sequence[np.ndarray]) -> None:
        """Write measurement ``idx``, one array for each format."""
        for path, array in zip(self.subpaths(idx), values, strict=True):
            if path is not None:
                DistributedHDF5.write(path, array, self.flag, self.provenance, made_with())


def measure(measurements: Measurements, missing: Sequence[int], log: JsonLog) -> None:
    """Measure ``missing``, in blocks of as many vectors as the plan of the operator says.

    Writing a block overlaps computing the next one. A measurement is logged as successful once its
    files are there.

    Args:
        measurements: What to measure, and where to.
        missing: Their indices.
        log: Each measurement is logged.

    Raises:
        NumericalError: If a product is NaN or infinite; the line names step, split, indices and
            mini-batch.
    """
    recorded = measurements.recorded
    where = {"step": recorded.step, "H_test": recorded.test}
    plan = recorded.operator.plan
    log.info(events.PRODUCTS, where | plan.summary())

    def compute(block: Sequence[int]) -> list[HostCopy]:
        try:
            results = measurements.measure(block)
        except NumericalError as error:
            reason = str(error)
            if error.indices:
                v = measurements.vectors(error.indices[:1])[0]
                reason += f", from {recorded.culprit(v)}"
            raise NumericalError(f"{recorded.where}: {reason}") from None
        return [HostCopy(result.T.contiguous()) for result in results]

    def write(block: Sequence[int], copies: Sequence[HostCopy]) -> None:
        arrays = [copy.wait().numpy() for copy in copies]
        for row, idx in enumerate(block):
            measurements.write(idx, [array[row] for array in arrays])
            which = {"idx": idx, "meas_idx": idx, "with_outer": measurements.with_outer(idx)}
            log.info(events.MEASURED, where | which)
        bar.update(len(block))

    with (
        logging_redirect_tqdm([log.logger]),
        tqdm(total=len(missing), desc="measuring", unit="hvp", disable=None) as bar,
        BackgroundWriter() as writer,
    ):
        for begin in range(0, len(missing), plan.vectors):
            block = missing[begin : begin + plan.vectors]
            for idx in block:
                log.info(events.MEASURING, where | {"idx": idx, "meas_idx": idx})
            writer.submit(partial(write, block, compute(block)))
