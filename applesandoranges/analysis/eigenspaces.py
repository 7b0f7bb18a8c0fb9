"""How the top eigenspaces of two steps lie to each other, and files of the vectors for that.

For orthonormal bases ``A`` and ``B`` (``[D, n]``, vectors in order) everything here follows from
``M = A^T B``: the leading blocks ``M[:k, :k]`` are those of the nested subspaces of all ranks.
"""

from __future__ import annotations

import contextlib
import glob
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from scipy.linalg import svdvals
from torch import Tensor

from skerch.errors import InputError, StoreError
from skerch.results import Eigh
from skerch.store.files import (
    PROVENANCE,
    differences,
    own_dataset,
    read_provenance,
    reading,
    replacing,
)

from .overlap import mask_curve, truncation_ranks

#: Facts on which the vectors of two steps must agree to be compared, and those of a step itself.
SAME_RUN = ("run_id", "problem", "split", "data_sha256")
OF_STEP = (*SAME_RUN, "step", "params_sha256")


def principal_angles_of_ranks(M: Tensor, ranks: list[int]) -> dict[str, np.ndarray]:
    """Return the principal angles of nested subspaces at some ranks, by the rank as text.

    Args:
        M: ``A^T B``, ``[n, n]``; rows of eigenvectors in the order of a mask, if ``A`` is one.
        ranks: Each at most ``n``.

    Returns:
        Angles in radians, ascending, ``[k]`` each; those below 1e-8 are not resolved, as they come
        from their cosines alone.
    """
    array = M.cpu().numpy()
    return {str(k): np.arccos(np.minimum(svdvals(array[:k, :k]), 1.0)) for k in ranks}


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


class EigenvectorFiles:
    """Top eigenvectors of the Hessians of a run, a file each beside the logs.

    Data sets ``data`` (``[D, k]`` float32, a column for each vector) and ``eigenvalues`` (``[k]``),
    and the facts of the Hessian as attribute.

    Args:
        run_dir: Directory of the training run.
        facts: What identifies the Hessian; has at least :data:`OF_STEP`.
    """

    def __init__(self, run_dir: Path, facts: Mapping[str, Any]):
        self.run_dir, self.facts = run_dir, facts

    def path(self, step: int | None = None) -> Path:
        """Return the file of a step; default that of the Hessian itself."""
        return self.run_dir / self._name(
            self.run_dir.name, self.facts["step"] if step is None else step
        )

    def _name(self, run: str, step: object) -> str:
        test = self.facts["split"] == "test"
        return f"{run}__eigenvectors__step={step}__test={test}.h5"

    def save(self, eigh: Eigh, k: int) -> Path:
        """Write the first ``k`` pairs, by blocks of rows, in place of an earlier file."""
        basis, path = eigh.basis[:, :k], self.path()
        with replacing(path, durable=True) as aside, h5py.File(aside, "w", locking=False) as file:
            data = file.create_dataset("data", (eigh.shape[0], basis.shape[1]), dtype=np.float32)
            for rows, block in eigh.Y:
                data[rows] = (block @ basis).float().cpu().numpy()
            file["eigenvalues"] = eigh.S[:k].cpu().numpy()
            file.attrs[PROVENANCE] = json.dumps(dict(self.facts))
        return path

    @contextlib.contextmanager
    def of_other_steps(self) -> Iterator[dict[int, h5py.Dataset]]:
        """Open the vectors of all other steps of this run and split.

        Raises:
            StoreError: If a file is damaged or not what its name says.
        """
        with contextlib.ExitStack() as stack:
            found = {}
            wanted, wrong = {name: self.facts[name] for name in SAME_RUN}, ""
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
                found[int(provenance["step"])] = own_dataset(file, "data")
            yield dict(sorted(found.items()))


def keep_eigenvectors(files: EigenvectorFiles, eigh: Eigh, num: int) -> Iterator[dict[str, Any]]:
    """Write the first ``num`` vectors, fewer if there are none; compare them with other steps."""
    k = min(num, len(eigh.S))
    yield {"eigenvectors": k, "eigenvectors_path": str(files.save(eigh, k))}
    with files.of_other_steps() as others:
        yield from compare_eigenspaces(eigh.truncated(k), others, truncation_ranks(k))


def check_number(k: int) -> None:
    """Raise :class:`InputError` for a number of eigenvectors that cannot be."""
    if k < 0:
        raise InputError(f"EIGENVECTORS must be at least 0 (none are written), got {k}")
