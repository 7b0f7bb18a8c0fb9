"""Measuring one Hessian into a store; a rerun measures only what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from skerch import INNER_FMT, LO_FMT
from skerch.distributed_decompositions import check_sizes
from skerch.distributed_measurements import innermeas_batch_torch
from skerch.hdf5_files import check_writable, differences
from skerch.measurement_store import DistributedHDF5
from skerch.utils import InputError, NumericalError, StoreError

from .jsonlog import JsonLog
from .recorded_hessian import DTYPE, RecordedHessian
from .software import made_with

#: More vectors per product than this did not speed up any problem.
MAX_BLOCK_SIZE = 64

STORE_DTYPE = torch.empty(0, dtype=DTYPE).numpy().dtype


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
        for fmt, shape in (
            (LO_FMT, (self.dim, self.num_outer)),
            (INNER_FMT, (self.num_inner, self.num_inner)),
        ):
            path = self.directory / fmt.format(DistributedHDF5.ALL)
            if not path.is_file():
                raise InputError(
                    f"{path}: no such store; python -m skerch create_hdf5_layout makes one"
                )
            check_writable(self.directory)
            found = DistributedHDF5.load_virtual(path)
            if found.shape != shape or found.dtype != STORE_DTYPE:
                raise InputError(
                    f"{path}: expected shape {shape} and dtype {STORE_DTYPE}, "
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
            for path, dim in zip(
                reversed(self.subpaths(idx)), (self.num_inner, self.dim), strict=False
            ):
                found = DistributedHDF5.load(path, dim, STORE_DTYPE)
                if found.flag != flag or differences(provenance, found.provenance):
                    return False
        except StoreError:
            return False
        return True

    def write(
        self,
        idx: int,
        outer: np.ndarray,
        inner: np.ndarray,
        flag: str,
        provenance: dict[str, Any],
        software: dict[str, str],
    ) -> None:
        """Write measurement ``idx``: ``H psi`` (``[D]``) and ``Phi H psi`` (``[n_i]``)."""
        *outer_path, inner_path = self.subpaths(idx)
        if outer_path:
            DistributedHDF5.write(outer_path[0], outer, flag, provenance, software)
        DistributedHDF5.write(inner_path, inner, flag, provenance, software)


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
    recorded: RecordedHessian,
    store: SketchStore,
    idxs: Sequence[int],
    flag: str,
    log: JsonLog,
    block_size: int,
    check: bool = True,
) -> int:
    """Measure what is missing among ``idxs`` and return how many that were.

    Args:
        recorded: The Hessian.
        store: Where to.
        idxs: Indices in ``[0, n_i)``.
        flag: Success flag.
        log: Each measurement is logged.
        block_size: Vectors per product.
        check: Stop before anything is measured if the loss is random or the operator not symmetric.

    Raises:
        NumericalError: If that check fails, or a measurement is NaN or infinite.
    """
    provenance = recorded.sketch_provenance(store.num_outer, store.num_inner)
    missing = [i for i in idxs if not store.is_measured(i, flag, provenance)]
    where = {"step": recorded.step, "H_test": recorded.test}
    if len(missing) < len(idxs):
        log(
            "INFO",
            ["Skipping measurements that are done", where | {"num": len(idxs) - len(missing)}],
        )
    if not missing:
        log("INFO", ["Nothing to measure: all requested measurements are done", where])
        return 0
    if check:
        recorded.check()
    Phi, Psi = recorded.test_matrices(store.num_inner)
    with (
        logging_redirect_tqdm([log.logger]),
        tqdm(total=len(missing), desc="measuring", unit="hvp", disable=None) as bar,
    ):
        for begin in range(0, len(missing), block_size):
            block = missing[begin : begin + block_size]
            for idx in block:
                log("INFO", ["Performing measurement", where | {"idx": idx}])
            try:
                result = innermeas_batch_torch(block, recorded.operator, Phi, Psi, DTYPE)
                outer, inner = result.outer.T.cpu().numpy(), result.inner.T.cpu().numpy()
                for row, idx in enumerate(block):
                    store.write(idx, outer[row], inner[row], flag, provenance, made_with())
            except NumericalError as error:
                reason = str(error)
                if error.indices:
                    v = Psi.rows(error.indices[:1], DTYPE)[0]
                    reason += f", from {recorded.culprit(v)}"
                raise NumericalError(f"{recorded.where}: {reason}") from None
            for idx in block:
                log("INFO", ["Measurement successful!", where | {"idx": idx}])
            bar.update(len(block))
    return len(missing)


def block_size_within(budget: int, dim: int, wanted: int | None = None) -> int:
    """Return how many vectors a product may take at once.

    A vector comes with its product, two transforms and their complex work space, and about as much
    again inside of the product.

    Raises:
        InputError: If not even one fits, or ``wanted`` is not positive.
    """
    if wanted is not None and wanted < 1:
        raise InputError(f"BLOCK_SIZE must be at least 1, got {wanted}")
    per_vector = 12 * dim * torch.empty(0, dtype=DTYPE).element_size()
    if budget < per_vector:
        raise InputError(
            f"MEMORY_BUDGET_GB: one measurement of {dim} parameters needs about "
            f"{per_vector / 1e9:.2g} GB, the budget is {budget / 1e9:.2g} GB"
        )
    return min(wanted or MAX_BLOCK_SIZE, budget // per_vector)
