"""Blocks of a basis on disk: one HDF5 file each, written aside and renamed when it is complete.

A file holds the block as the contiguous data set ``data`` (``[D, b]``, row blocks are cheap), the
small matrices of the round that made it as the group ``step`` (not in the first file), and what its
writer says about its origin. A block without columns says that the basis before it is invariant.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from ..core.krylov import BasisStep, extend_basis, write_starting_block
from ..errors import StoreError
from ..ssrft import SSRFT
from .files import (
    PROVENANCE,
    Provenance,
    differences,
    own_dataset,
    read_provenance,
    reading,
    replacing,
)
from .measurements import DATA

STEP = "step"


def write_first_block(
    path: Path,
    Psi: SSRFT,
    dtype: np.dtype,
    provenance: Provenance,
    budget: int | None = None,
) -> None:
    """Write ``Psi^T`` as the first block, replacing what was there."""
    with new_block(path, provenance) as file:
        data = file.create_dataset(DATA, (Psi.shape[1], Psi.shape[0]), dtype)
        write_starting_block(Psi, data, budget)


def write_next_block(
    path: Path,
    blocks: Sequence[Any],
    products: Any,
    steps: Sequence[BasisStep],
    dtype: np.dtype,
    provenance: Provenance,
    budget: int | None = None,
    device: torch.device | str | None = None,
) -> BasisStep:
    """Extend a basis and write the new block, replacing what was there.

    Arguments, result and errors are those of :func:`~skerch.core.krylov.extend_basis`; the file
    appears under its name only when it is complete.
    """
    with new_block(path, provenance) as file:

        def create(width: int) -> h5py.Dataset:
            return file.create_dataset(DATA, (products.shape[0], width), dtype)

        step = extend_basis(blocks, products, steps, create, budget, device)
        if step.rank == 0:
            create(0)
        step.save(file.create_group(STEP))
    return step


@contextlib.contextmanager
def open_basis(
    paths: Sequence[Path], provenance: Provenance | None = None
) -> Iterator[tuple[list[h5py.Dataset], list[BasisStep]]]:
    """Open the files of a basis in their order and yield its blocks and steps.

    Args:
        paths: The files; the last one may be without columns, and is left out then.
        provenance: What each file must carry; default anything.

    Raises:
        StoreError: If a file is missing, damaged or of another origin, or if files do not fit
            together.
    """
    with contextlib.ExitStack() as stack:
        blocks: list[h5py.Dataset] = []
        steps: list[BasisStep] = []
        for path in paths:
            file = stack.enter_context(reading(Path(path)))
            if provenance and (wrong := differences(provenance, read_provenance(file))):
                raise StoreError(f"{path}: of another basis: {wrong}")
            block = own_dataset(file, DATA)
            step = _read_step(file)
            before = sum(b.shape[1] for b in blocks)
            if step is not None and len(step.gram) == before == 0:
                step = None  # made by the range finder, of products with vectors of no basis
            if block.ndim != 2 or (step is None) != (before == 0):
                raise StoreError(f"{path}: not block {len(blocks)} of a basis")
            if step is not None and (len(step.gram), step.rank) != (before, block.shape[1]):
                raise StoreError(
                    f"{path}: expected {step.rank} columns after {len(step.gram)} others, found "
                    f"{block.shape[1]} after {before}"
                )
            if block.shape[1] == 0:
                if path != paths[-1]:
                    raise StoreError(f"{path}: the basis is invariant, no block can follow")
                break
            blocks.append(block)
            if step is not None:
                steps.append(step)
        yield blocks, steps


def _read_step(file: h5py.File) -> BasisStep | None:
    if STEP not in file:
        return None
    if not isinstance(file.get(STEP, getlink=True), h5py.HardLink):
        raise StoreError(f"{file.filename}: {STEP!r} is a link to somewhere else")
    for entry in fields(BasisStep):
        own_dataset(file, f"{STEP}/{entry.name}")
    return BasisStep.load(file[STEP])


@contextlib.contextmanager
def new_block(path: Path, provenance: Provenance) -> Iterator[h5py.File]:
    """Yield a file to be filled, which replaces ``path`` when it is complete."""
    with replacing(Path(path), durable=True) as aside, h5py.File(aside, "w") as file:
        yield file
        file.attrs[PROVENANCE] = json.dumps(dict(provenance))
