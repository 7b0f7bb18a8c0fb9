"""Measuring one Hessian into a store; a rerun measures only what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from skerch import INNER_FMT, LO_FMT
from skerch.distributed_decompositions import check_sizes
from skerch.distributed_measurements import innermeas_batch_torch
from skerch.measurement_store import DistributedHDF5, differences
from skerch.utils import InputError, NumericalError, StoreError

from .background import BackgroundWriter, HostCopy
from .jsonlog import JsonLog
from .recorded_hessian import DTYPE, RecordedHessian


@dataclass(frozen=True)
class SketchStore:
    """The measurement directory of one symmetric sketch."""

    directory: Path
    num_outer: int
    num_inner: int
    dim: int

    def check(self) -> None:
        """Raise :class:`InputError` unless the store on disk has these sizes and our dtype."""
        check_sizes((self.dim, self.dim), self.num_outer, self.num_inner)
        dtype = torch.empty(0, dtype=DTYPE).numpy().dtype
        for fmt, shape in (
            (LO_FMT, (self.dim, self.num_outer)),
            (INNER_FMT, (self.num_inner, self.num_inner)),
        ):
            path = self.directory / fmt.format(DistributedHDF5.ALL)
            if not path.is_file():
                raise InputError(
                    f"{path}: no such store; python -m skerch create_hdf5_layout makes one"
                )
            found = DistributedHDF5.load_virtual(path)
            if found.shape != shape or found.dtype != dtype:
                raise InputError(
                    f"{path}: expected shape {shape} and dtype {dtype}, "
                    f"found {found.shape} and {found.dtype}"
                )

    def subpaths(self, idx: int) -> list[Path]:
        """Return the files of measurement ``idx``, the one that is written last at the end."""
        paths = [DistributedHDF5.subpath(self.directory, INNER_FMT, idx)]
        if idx < self.num_outer:
            paths.insert(0, DistributedHDF5.subpath(self.directory, LO_FMT, idx))
        return paths

    def is_measured(self, idx: int, flag: str, provenance: dict[str, Any]) -> bool:
        """Say whether measurement ``idx`` is there, whole and of this very Hessian."""
        try:
            for path in self.subpaths(idx):
                found = DistributedHDF5.load(path)
                if found.flag != flag or differences(provenance, found.provenance):
                    return False
        except StoreError:
            return False
        return True

    def missing(self, idxs: Sequence[int], flag: str, provenance: dict[str, Any]) -> list[int]:
        """Return those of ``idxs`` that are not measured."""
        return [idx for idx in idxs if not self.is_measured(idx, flag, provenance)]

    def write(
        self, idx: int, outer: np.ndarray, inner: np.ndarray, flag: str, provenance: dict[str, Any]
    ) -> None:
        """Write measurement ``idx``: ``H psi`` (``[D]``) and ``Phi H psi`` (``[n_i]``)."""
        *outer_path, inner_path = self.subpaths(idx)
        if outer_path:
            DistributedHDF5.write(outer_path[0], outer, flag, provenance)
        DistributedHDF5.write(inner_path, inner, flag, provenance)


def check_indices(idxs: Sequence[int], num_inner: int) -> list[int]:
    """Return the indices sorted and once each.

    Raises:
        InputError: If there are none, or some lie outside ``[0, num_inner)``.
    """
    wrong = [i for i in idxs if not 0 <= i < num_inner]
    if wrong or not idxs:
        raise InputError(
            f"MEASUREMENT_IDXS must be some of 0 ... {num_inner - 1}, got {wrong or 'none'}"
        )
    return sorted(set(idxs))


def measure(
    recorded: RecordedHessian, store: SketchStore, missing: Sequence[int], flag: str, log: JsonLog
) -> None:
    """Measure ``missing``, in blocks of as many vectors as the plan of the operator says.

    Writing a block overlaps computing the next one. A measurement is logged as successful once its
    files are there.

    Args:
        recorded: The Hessian.
        store: Where to.
        missing: Indices in ``[0, n_i)``.
        flag: Success flag.
        log: Each measurement is logged.

    Raises:
        NumericalError: If a product is not finite; the line names step, split and indices.
    """
    provenance = recorded.sketch_provenance(store.num_outer, store.num_inner)
    where = {"step": recorded.step, "H_test": recorded.test}
    Phi, Psi = recorded.test_matrices(store.num_inner)
    plan = recorded.operator.plan
    log("INFO", ["Hessian products", where | plan.summary()])

    def compute(block: Sequence[int]) -> tuple[HostCopy, HostCopy]:
        try:
            result = innermeas_batch_torch(block, recorded.operator, Phi, Psi, DTYPE)
        except NumericalError as error:
            split = recorded.identity["split"]
            raise NumericalError(f"step {recorded.step}, {split}: {error}") from None
        return HostCopy(result.outer.T.contiguous()), HostCopy(result.inner.T.contiguous())

    def write(block: Sequence[int], outer: HostCopy, inner: HostCopy) -> None:
        for row, idx in enumerate(block):
            values = outer.wait()[row].numpy(), inner.wait()[row].numpy()
            store.write(idx, *values, flag, provenance)
            log("INFO", ["Measurement successful!", where | {"idx": idx}])
        bar.update(len(block))

    with (
        logging_redirect_tqdm([log.logger]),
        tqdm(total=len(missing), desc="measuring", unit="hvp", disable=None) as bar,
        BackgroundWriter() as writer,
    ):
        for begin in range(0, len(missing), plan.vectors):
            block = missing[begin : begin + plan.vectors]
            for idx in block:
                log("INFO", ["Performing measurement", where | {"idx": idx}])
            writer.submit(partial(write, block, *compute(block)))
