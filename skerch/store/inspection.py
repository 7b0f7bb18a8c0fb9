"""What a file or directory of measurements holds, in words: ``python -m skerch inspect PATH``."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import h5py

from ..errors import InputError, StoreError
from .files import own_dataset, read_made_with, read_provenance, reading
from .measurements import DATA, FLAGS, DistributedHDF5, StoreReport, verify_merged


def inspect_path(path: Path, ok_flag: str, verify: bool = False) -> dict[str, Any]:
    """Describe a file, or every store and merged file of a directory.

    Args:
        path: HDF5 file (virtual, measurement, monolithic or another one) or a directory of them.
        ok_flag: Flag of a successful measurement.
        verify: Also read all data and compare them with their checksums.

    Returns:
        Shapes, dtypes, counts by state, disk use, provenance and the first inconsistency.

    Raises:
        InputError: If the path does not exist or a directory holds no such file.
        StoreError: If a file cannot be read.
    """
    path = Path(path)
    if path.is_file():
        return inspect_file(path, ok_flag, verify)
    if not path.is_dir():
        raise InputError(f"{path}: no such file or directory")
    # Sub-files are described by the virtual file over them.
    files = [p for p in sorted(path.glob("*.h5")) if not re.search(r"_\d{10}\.h5$", p.name)]
    if not files:
        raise InputError(f"{path}: holds no HDF5 file but single measurements, or none at all")
    result: dict[str, Any] = {file.name: _or_error(file, ok_flag, verify) for file in files}
    result["disk_bytes"] = sum(p.stat().st_size for p in path.iterdir() if p.is_file())
    unfinished = sum(p.name.endswith(".tmp") for p in path.iterdir())
    if unfinished:
        result["unfinished_files"] = unfinished
    return result


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
    elif verify and result["kind"] == "monolithic":
        verify_merged(path)
    return result | {"disk_bytes": path.stat().st_size}


def _describe(file: h5py.File) -> dict[str, Any]:
    result: dict[str, Any] = {"kind": "other HDF5 file"}
    if isinstance(file.get(DATA), h5py.Dataset):
        data = own_dataset(file, DATA)
        result |= {"shape": list(data.shape), "dtype": str(data.dtype)}
        if FLAGS in file:
            flags = own_dataset(file, FLAGS).asstr()[:]
            result["kind"] = "measurement" if data.ndim == 1 else "monolithic"
            result["states"] = dict(Counter(flags.tolist()))
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
        "disk_bytes": sum(p.stat().st_size for p in layout.subpaths if p.is_file()),
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
