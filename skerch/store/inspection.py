"""What a file or directory of measurements holds, in words: ``python -m skerch inspect PATH``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import h5py

from ..errors import InputError, StoreError
from ..store_names import CONTENT, DATA, FLAGS, INNER_FMT, LO_FMT, RO_FMT, kind_of_files
from .files import own_dataset, read_made_with, read_provenance, reading
from .measurements import DistributedHDF5, StoreReport
from .merge import verify_merged
from .places import Place, check_place
from .results import KINDS, kind_of, load

BLOCK = "block of a basis"
NOT_VERIFIED = "not_verified"


def inspect_path(path: Path, ok_flag: str, verify: bool = False) -> dict[str, Any]:
    """Describe a file, or every store and merged file of a directory.

    Args:
        path: HDF5 file (virtual, measurement, monolithic or another one) or a directory of them.
        ok_flag: Flag of a successful measurement.
        verify: Also read all data and compare them with their checksums.

    Returns:
        Shapes, dtypes, counts by state, disk use, provenance and the first inconsistency.

    Raises:
        InputError: If the path does not exist, a directory holds no such file, or the data of a
            single file are to be verified that has no checksums known here.
        StoreError: If a file cannot be read.
    """
    path = Path(path)
    if path.is_file():
        result = inspect_file(path, ok_flag, verify)
        if NOT_VERIFIED in result:
            raise InputError(f"{path}: {result[NOT_VERIFIED]}")
        return result
    if not path.is_dir():
        raise InputError(f"{path}: no such file or directory")
    # Sub-files are described by the virtual file over them.
    kinds = {kind_of_files(fmt) for fmt in (LO_FMT, RO_FMT, INNER_FMT)}
    places = {file: Place.of_name(file) for file in sorted(path.glob("*.h5"))}
    files = [file for file, place in places.items() if place is None or place.kind not in kinds]
    if not files:
        raise InputError(f"{path}: holds no HDF5 file but single measurements, or none at all")
    found: dict[str, Any] = {file.name: _or_error(file, ok_flag, verify) for file in files}
    found["disk_bytes"] = sum(map(_bytes_of, path.iterdir()))
    unfinished = sum(p.name.endswith(".tmp") for p in path.iterdir())
    if unfinished:
        found["unfinished_files"] = unfinished
    return found


def is_consistent(found: dict[str, Any]) -> bool:
    """Return whether nothing that :func:`inspect_path` found contradicts something else."""
    parts = [part for part in found.values() if isinstance(part, dict)]
    return "first_inconsistency" not in found and all(map(is_consistent, parts))


def _bytes_of(path: Path) -> int:
    """Return the size of a file, 0 if it is none, or was removed just now."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


def _or_error(path: Path, ok_flag: str, verify: bool) -> dict[str, Any]:
    try:
        return inspect_file(path, ok_flag, verify)
    except StoreError as error:
        return {"kind": "damaged", "first_inconsistency": str(error)}


def inspect_file(path: Path, ok_flag: str, verify: bool = False) -> dict[str, Any]:
    """Describe one HDF5 file; see :func:`inspect_path`."""
    with reading(path) as file:
        data = file.get(DATA)
        if isinstance(data, h5py.Dataset) and data.is_virtual:
            virtual, result = True, {}
        else:
            virtual, result = False, _describe(file)
    if virtual:
        return _inspect_virtual(path, ok_flag, verify)
    if verify and result["kind"] == "measurement":
        DistributedHDF5.load(path)
    elif verify and result["kind"] == BLOCK:
        from .basis import verify_block  # imports torch, which takes seconds

        verify_block(path)
    elif verify and result["kind"] == "monolithic":
        verify_merged(path)
    elif verify and result["kind"] in KINDS:
        load(path)
    elif verify:
        result[NOT_VERIFIED] = (
            "expected measurements, a block of a basis or a saved result, found another HDF5 file: "
            "its checksums, if it has any, are for the program that wrote it"
        )
    return result | {"disk_bytes": _bytes_of(path)}


def _describe(file: h5py.File) -> dict[str, Any]:
    result: dict[str, Any] = {"kind": "other HDF5 file"}
    if isinstance(file.get(DATA), h5py.Dataset):
        data = own_dataset(file, DATA)
        result |= {"shape": list(data.shape), "dtype": str(data.dtype)}
        if FLAGS in file:
            flags = own_dataset(file, FLAGS).asstr()[:]
            result["kind"] = "measurement" if data.ndim == 1 else "monolithic"
            result["states"] = dict(Counter(flags.tolist()))
        elif CONTENT in file.attrs:
            result["kind"] = BLOCK
        if result["kind"] == "measurement":
            check_place(file, needed=False)
    if (kind := kind_of(file)) is not None:
        shape = [list(own_dataset(file, name).shape) for name in KINDS[kind]]
        result |= {"kind": kind, "shape": shape[0] if len(shape) == 1 else shape}
    provenance, made_with = read_provenance(file), read_made_with(file)
    if provenance:
        result["provenance"] = provenance
    if made_with:
        result["made_with"] = made_with
    if not provenance:
        result["attributes"] = {name: str(value) for name, value in file.attrs.items()}
    return result


def _inspect_virtual(path: Path, ok_flag: str, verify: bool) -> dict[str, Any]:
    layout = DistributedHDF5.load_virtual(path)
    report = DistributedHDF5.analyze_virtual(path, ok_flag)
    states = Counter(report.problems.values()) | Counter({ok_flag: len(report.measured)})
    problems = {i: why for i, why in report.problems.items() if why != "not measured"}
    if verify:
        problems |= _wrong_checksums(path, report)
    result: dict[str, Any] = {
        "kind": "store",
        "shape": list(layout.shape),
        "dtype": str(layout.dtype),
        "states": dict(states),
        "disk_bytes": sum(map(_bytes_of, layout.subpaths)),
    }
    if report.provenance:
        result["provenance"] = report.provenance
    if problems:
        first = min(problems)
        result["first_inconsistency"] = f"measurement {first}: {problems[first]}"
    return result


def _wrong_checksums(path: Path, report: StoreReport) -> dict[int, str]:
    layout, wrong = DistributedHDF5.load_virtual(path), {}
    for idx in report.measured:
        try:
            DistributedHDF5.load(layout.subpaths[idx])
        except StoreError as error:
            wrong[idx] = str(error)
    return wrong
