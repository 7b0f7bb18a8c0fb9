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
from collections.abc import Callable, Iterator, Mapping
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
    read_facts,
    read_provenance,
    reading,
    replacing,
)
from skerch.store_names import CHECKSUM, PROVENANCE

from ..app import events
from ..subspaces.angles import principal_angles_of_ranks
from .layers import Shapes
from .overlap import mask_curve, truncation_ranks

#: Facts on which the vectors of two steps must agree to be compared, and those of a step itself.
CURVATURE = ("curvature", "parameters", "parameter_names")
SAME_RUN = ("run_id", "problem", "split", "data_sha256", *CURVATURE)
OF_STEP = (*SAME_RUN, "step", "params_sha256")
#: Facts of a recovery; where they differ, so may two eigenspaces, whatever happened in between.
SAME_RECOVERY = (
    "recovery", "num_outer", "num_inner", "block_size", "num_rounds", "seed_phi", "seed_psi",
)  # fmt: skip
#: Attributes: how vectors were recovered, and the checksum of all that a file says of them.
RECOVERY, FACTS_CHECKSUM = "recovery", f"{CHECKSUM}_facts"


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

    Attributes:
        recovery: How the vectors were recovered, see :func:`described`.

    Raises:
        StoreError: With the last row, if what was read differs from the checksum of the file.
    """

    def __init__(self, file: h5py.File, recovery: Mapping[str, Any] | None = None):
        self.recovery = recovery or {}
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


def described(file: h5py.File) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return of which Hessian the vectors of an open file are, and how they were recovered.

    Files of earlier versions say nothing of the latter, and have no checksum of the former.

    Raises:
        StoreError: If the checksum does not match.
    """
    texts = [str(file.attrs.get(name, "")) for name in (PROVENANCE, RECOVERY)]
    is_checked = RECOVERY in file.attrs or FACTS_CHECKSUM in file.attrs
    if is_checked and file.attrs.get(FACTS_CHECKSUM) != _sum_of_facts(*texts):
        raise StoreError(
            f"{file.filename}: the checksum of what it says of its vectors does not match; {AGAIN}"
        )
    return read_provenance(file), read_facts(file, RECOVERY)


def _sum_of_facts(provenance: str, recovery: str) -> int:
    return zlib.crc32(f"{provenance}\n{recovery}".encode())


class EigenvectorFiles:
    """Top eigenvectors of the Hessians of a run, a file each beside the logs.

    Data sets ``data`` (``[D, k]`` float32, a column for each vector) and ``eigenvalues`` (``[k]``),
    and as attributes the facts of the Hessian and of its recovery, and checksums of all. The group
    ``parameters`` shows the same numbers by the names of the parameter tensors:
    ``parameters/<name>`` has their shape, and the vectors as last dimension.

    Args:
        run_dir: Directory of the training run.
        facts: What identifies the Hessian; has at least :data:`OF_STEP`.
        shapes: Shapes of the parameter tensors by name, in the order of the vectors' rows.
        recovery: How the vectors are recovered: has what of :data:`SAME_RECOVERY` there is.
        state_hash: ``params_sha256`` of another step, ``None`` if that was not recorded; where
            nobody knows, files are believed.
    """

    def __init__(
        self,
        run_dir: Path,
        facts: Mapping[str, Any],
        shapes: Shapes,
        recovery: Mapping[str, Any] | None = None,
        state_hash: Callable[[int], str | None] | None = None,
    ):
        self.run_dir, self.facts, self.shapes = run_dir, facts, shapes
        self.recovery, self.state_hash = recovery or {}, state_hash

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
            texts = [json.dumps(dict(facts)) for facts in (self.facts, self.recovery)]
            file.attrs[PROVENANCE], file.attrs[RECOVERY] = texts
            file.attrs[FACTS_CHECKSUM] = _sum_of_facts(*texts)
        return path

    def check(self) -> list[tuple[str, dict[str, Any]]]:
        """Make sure, before hours of work, that the files of other steps can be used.

        Returns:
            What a user should know of, as warnings of the log.

        Raises:
            StoreError: See :meth:`of_other_steps`.
        """
        with self.of_other_steps() as others:
            differ = {step: self.other_recovery(rows.recovery) for step, rows in others.items()}
        warnings: list[tuple[str, dict[str, Any]]] = [
            (events.OTHER_RECOVERY, {"other_step": step, "recovery": how})
            for step, how in differ.items()
            if how
        ]
        if how := self._replaced():
            path = str(self.path())
            warnings.append((events.REPLACING_EIGENVECTORS, {"recovery": how, "path": path}))
        return warnings

    def other_recovery(self, found: Mapping[str, Any]) -> str:
        """Say in which facts another recovery differs from this one; empty if in none."""
        return differences({name: self.recovery.get(name) for name in SAME_RECOVERY}, found)

    def _replaced(self) -> str:
        """Say how the vectors that will be replaced were recovered, if otherwise than these."""
        if not self.path().is_file():
            return ""
        try:
            with reading(self.path()) as file:
                return self.other_recovery(described(file)[1])
        except StoreError:  # replacing it is the remedy
            return ""

    @contextlib.contextmanager
    def of_other_steps(self) -> Iterator[dict[int, VerifiedRows]]:
        """Open the vectors of all other steps of this run and split.

        Raises:
            StoreError: If a file is damaged or not what its name says. Damage to the vectors shows
                when they have been read.
        """
        with contextlib.ExitStack() as stack:
            found = {}
            for path in sorted(self.run_dir.glob(self._name(glob.escape(self.run_dir.name), "*"))):
                if path == self.path():
                    continue
                file = stack.enter_context(reading(path))
                provenance, recovery = described(file)
                if wrong := self._wrong(path, provenance):
                    raise StoreError(
                        f"{path}: eigenvectors of another Hessian ({wrong}); remove the file"
                    )
                found[int(provenance["step"])] = VerifiedRows(file, recovery)
            yield dict(sorted(found.items()))

    def _wrong(self, path: Path, provenance: Mapping[str, Any]) -> str:
        """Say why the file of another step is not what its name says; empty if it is."""
        step = provenance.get("step")
        if self.path(step) != path:
            return f"of step {step}"
        wanted = {name: self.facts.get(name) for name in SAME_RUN}
        if self.state_hash is not None:
            if (known := self.state_hash(int(step or 0))) is None:
                return f"the training recorded no step {step}"
            wanted["params_sha256"] = known
        return differences(wanted, provenance)


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
    with files.of_other_steps() as others:
        # All of it before a file is written: damage to other vectors shows when they were read.
        bodies = list(compare_eigenspaces(eigh.truncated(k), others, truncation_ranks(k)))
    yield save_eigenvectors(files, eigh, k)
    for body in bodies:
        recovery = others[body["other_step"]].recovery
        differs = files.other_recovery(recovery)
        yield body | ({"other_recovery": recovery or "unknown"} if differs else {})


def check_number(k: int) -> None:
    """Raise :class:`InputError` for a number of eigenvectors that cannot be."""
    if k < 0:
        raise InputError(f"EIGENVECTORS must be at least 0 (none are written), got {k}")
