"""How the top eigenspaces of two steps lie to each other, and files of the vectors for that.

For orthonormal bases ``A`` and ``B`` (``[D, n]``, vectors in order) everything here follows from
``M = A^T B``: the leading blocks ``M[:k, :k]`` are those of the nested subspaces of all ranks.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from skerch.errors import InputError, StoreError
from skerch.results import Eigh
from skerch.store.files import (
    create_h5,
    differences,
    own_dataset,
    read_provenance,
    reading,
    replacing,
)
from skerch.store_names import CHECKSUM, PROVENANCE

from ..subspaces.angles import principal_angles_of_ranks
from .layers import Shapes
from .overlap import mask_curve, truncation_ranks

#: Facts on which the vectors of two steps must agree to be compared, and those of a step itself.
CURVATURE = ("curvature", "parameters", "parameter_names")
SAME_RUN = ("run_id", "problem", "split", "data_sha256", *CURVATURE)
OF_STEP = (*SAME_RUN, "step", "params_sha256")


def compare_eigenspaces(
    eigh: Eigh, others: Mapping[int, Any], ranks: list[int]
) -> Iterator[dict[str, Any]]:
    """Yield, for each other step, ``||A_k^T B_k||_F^2`` for all ``k``, and angles at some.

    Divided by ``k``, this is the overlap of the two top-``k`` eigenspaces.

    Args:
        eigh: Eigenvectors ``A``, ``[D, n]``.
        others: Eigenvectors of other steps (``[D, n']`` tensors or data sets) by step.
        ranks: Ranks of angles; those beyond ``n`` or ``n'`` are left out.

    Cost: one pass over the sketch and the other vectors, ``D n n'`` operations each.
    """
    basis = eigh.basis
    sizes = {step: min(len(eigh.S), other.shape[1]) for step, other in others.items()}
    Ms = {step: torch.zeros(n, n, dtype=torch.float64) for step, n in sizes.items()}
    for rows, block in eigh.Y if others else ():
        vectors = (block @ basis).cpu()
        for step, other in others.items():
            n, values = sizes[step], torch.as_tensor(other[rows])
            Ms[step] += vectors[:, :n].T @ values[:, :n].double().cpu()
    for step, M in Ms.items():
        yield {
            "angles_with": "eigenspace",
            "other_step": step,
            "frob_VtV^2": mask_curve(M),
            "principal_angles": principal_angles_of_ranks(M, [k for k in ranks if k <= len(M)]),
        }


class VerifiedRows:
    """Data set ``data`` of an open file, read once from the first row to the last.

    Raises:
        StoreError: With the last row, if what was read differs from the checksum of the file.
    """

    def __init__(self, file: h5py.File):
        self._data, self._name = own_dataset(file, "data"), file.filename
        self.shape: tuple[int, int] = self._data.shape
        if CHECKSUM not in file.attrs:
            raise StoreError(
                f"{self._name}: has no checksum, as those of earlier versions; {AGAIN}"
            )
        self._expected, self._found, self._next = int(file.attrs[CHECKSUM]), 0, 0

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return the next rows."""
        assert rows.start == self._next
        values: np.ndarray = self._data[rows]
        self._found = zlib.crc32(values.data, self._found)
        self._next += len(values)
        if self._next == self.shape[0] and self._found != self._expected:
            raise StoreError(f"{self._name}: the checksum of its vectors does not match; {AGAIN}")
        return values


#: What to do about eigenvectors that cannot be used.
AGAIN = "remove the file, or run 10d of that step again"


class EigenvectorFiles:
    """Top eigenvectors of the Hessians of a run, a file each beside the logs.

    Data sets ``data`` (``[D, k]`` float32, a column for each vector) and ``eigenvalues`` (``[k]``),
    and as attributes the facts of the Hessian and checksums of both. The group ``parameters`` shows
    the same numbers by the names of the parameter tensors: ``parameters/<name>`` has their shape,
    and the vectors as last dimension.

    Args:
        run_dir: Directory of the training run.
        facts: What identifies the Hessian; has at least :data:`OF_STEP`.
        shapes: Shapes of the parameter tensors by name, in the order of the vectors' rows.
    """

    def __init__(self, run_dir: Path, facts: Mapping[str, Any], shapes: Shapes):
        self.run_dir, self.facts, self.shapes = run_dir, facts, shapes

    def path(self, step: int | None = None) -> Path:
        """Return the file of a step; default that of the Hessian itself."""
        return self.run_dir / self._name(
            self.run_dir.name, self.facts["step"] if step is None else step
        )

    def _name(self, run: str, step: object) -> str:
        test = self.facts["split"] == "test"
        known = {name: self.facts[name] for name in CURVATURE if self.facts.get(name)}
        other = "__" + hashlib.sha256(json.dumps(known).encode()).hexdigest()[:8] if known else ""
        return f"{run}__eigenvectors__step={step}__test={test}{other}.h5"

    def save(self, eigh: Eigh, k: int) -> Path:
        """Write the first ``k`` pairs, by blocks of rows, in place of an earlier file."""
        basis, path = eigh.basis[:, :k], self.path()
        with replacing(path, durable=True) as aside, create_h5(aside) as file:
            checksum = 0
            data = file.create_dataset("data", (eigh.shape[0], basis.shape[1]), dtype=np.float32)
            for rows, block in eigh.Y:
                data[rows] = values = (block @ basis).float().cpu().numpy()
                checksum = zlib.crc32(np.ascontiguousarray(values).data, checksum)
            _show_by_name(file, data.shape, self.shapes)
            file["eigenvalues"] = eigenvalues = eigh.S[:k].cpu().numpy()
            file.attrs[CHECKSUM] = checksum
            file.attrs[f"{CHECKSUM}_eigenvalues"] = zlib.crc32(eigenvalues.data)
            file.attrs[PROVENANCE] = json.dumps(dict(self.facts))
        return path

    @contextlib.contextmanager
    def of_other_steps(self) -> Iterator[dict[int, VerifiedRows]]:
        """Open the vectors of all other steps of this run and split.

        Raises:
            StoreError: If a file is damaged or not what its name says. Damage to the vectors shows
                when they have been read.
        """
        with contextlib.ExitStack() as stack:
            found = {}
            wanted, wrong = {name: self.facts.get(name) for name in SAME_RUN}, ""
            for path in sorted(self.run_dir.glob(self._name(glob.escape(self.run_dir.name), "*"))):
                if path == self.path():
                    continue
                file = stack.enter_context(reading(path))
                provenance = read_provenance(file)
                step = provenance.get("step")
                if self.path(step) != path or (wrong := differences(wanted, provenance)):
                    wrong = wrong or f"of step {step}"
                    raise StoreError(
                        f"{path}: eigenvectors of another Hessian ({wrong}); remove the file"
                    )
                found[int(provenance["step"])] = VerifiedRows(file)
            yield dict(sorted(found.items()))


def _show_by_name(file: h5py.File, shape: tuple[int, int], shapes: Shapes) -> None:
    """Add views of ``data``, which take no space, by the names of the parameter tensors."""
    source, begin = h5py.VirtualSource(".", "data", shape, np.float32), 0
    for name, of_tensor in shapes.items():
        end = begin + math.prod(of_tensor)
        view = h5py.VirtualLayout((*of_tensor, shape[1]), np.float32)
        view[...] = source[begin:end, :]
        file.create_virtual_dataset(f"parameters/{name}", view)
        begin = end


def save_eigenvectors(files: EigenvectorFiles, eigh: Eigh, num: int) -> dict[str, Any]:
    """Write the first ``num`` vectors, fewer if there are none, and return what is logged."""
    k = min(num, len(eigh.S))
    return {"eigenvectors": k, "eigenvectors_path": str(files.save(eigh, k))}


def keep_eigenvectors(files: EigenvectorFiles, eigh: Eigh, num: int) -> Iterator[dict[str, Any]]:
    """Write the first ``num`` vectors, fewer if there are none; compare them with other steps."""
    k = min(num, len(eigh.S))
    yield save_eigenvectors(files, eigh, k)
    with files.of_other_steps() as others:
        yield from compare_eigenspaces(eigh.truncated(k), others, truncation_ranks(k))


def check_number(k: int) -> None:
    """Raise :class:`InputError` for a number of eigenvectors that cannot be."""
    if k < 0:
        raise InputError(f"EIGENVECTORS must be at least 0 (none are written), got {k}")
