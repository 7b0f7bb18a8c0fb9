"""The files of a sketch's store: names, shapes, creation."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from ..a_priori import check_dimension, check_sizes
from ..errors import InputError
from ..store_names import INNER_FMT, LO_FMT, RO_FMT
from .measurements import DistributedHDF5


def create_hdf5_layout(
    directory: Path,
    shape: tuple[int, int],
    dtype: np.dtype,
    outer: int,
    inner: int,
    symmetric: bool = False,
) -> dict[str, Path]:
    """Create the empty measurement store of a sketch in a new or empty directory.

    Args:
        directory: Where.
        shape: ``(H, W)`` of the operator.
        dtype: Of the measurements.
        outer: Number of outer measurements ``n_o``.
        inner: Number of inner measurements ``n_i >= n_o``; 0, for symmetric operators, where a
            recovery in rounds needs none.
        symmetric: Leave out the right outer measurements.

    Returns:
        Paths of the virtual files: ``leftouter``, ``inner`` (unless 0) and, unless symmetric,
        ``rightouter``.

    Raises:
        InputError: If sizes are impossible or the directory holds anything.
    """
    check_dimension(shape)
    if inner or not symmetric:
        check_sizes(shape, outer, inner)
    elif not 1 <= outer <= min(shape):
        raise InputError(f"expected 1 <= outer <= {min(shape)}, got {outer}")
    if symmetric and shape[0] != shape[1]:
        raise InputError(f"a symmetric operator is square, got shape {shape[0]},{shape[1]}")
    directory = Path(directory)
    existed = directory.is_dir()
    if directory.exists() and not (existed and not any(directory.iterdir())):
        raise InputError(f"{directory}: expected a new or an empty directory")
    directory.mkdir(parents=True, exist_ok=True)
    try:
        paths = {"leftouter": DistributedHDF5.create(directory, LO_FMT, outer, shape[0], dtype)}
        if inner:
            paths["inner"] = DistributedHDF5.create(directory, INNER_FMT, inner, inner, dtype)
        if not symmetric:
            paths["rightouter"] = DistributedHDF5.create(directory, RO_FMT, outer, shape[1], dtype)
    except BaseException:
        shutil.rmtree(directory)
        if existed:
            directory.mkdir()
        raise
    return paths
