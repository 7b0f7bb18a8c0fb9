"""Ways in which a measurement on disk can be wrong; each takes the path of a good one."""

from __future__ import annotations

import contextlib
from pathlib import Path

import h5py
import numpy as np

from skerch.store.measurements import DistributedHDF5
from skerch.store_names import INITIAL_FLAG


@contextlib.contextmanager
def _anew(path: Path):
    """Yield a new file in the place of ``path``."""
    path.unlink()
    with h5py.File(path, "w") as file:
        yield file


def _put_flag(file: h5py.File, flag: str) -> None:
    file.create_dataset("flags", data=[flag], dtype=h5py.string_dtype())


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path, seed: int = 0) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: np.random.default_rng(seed).integers(1, len(content))])


def unmeasured(path: Path) -> None:
    good = DistributedHDF5.load(path)
    with _anew(path) as file:
        file.create_dataset("data", good.data.shape, good.data.dtype)
        _put_flag(file, INITIAL_FLAG)


def other_flag(path: Path) -> None:
    good = DistributedHDF5.load(path)
    DistributedHDF5.write(path, good.data, "failed", good.provenance)


def other_shape(path: Path) -> None:
    good = DistributedHDF5.load(path)
    DistributedHDF5.write(path, np.append(good.data, good.data[:1]), good.flag, good.provenance)


def other_dtype(path: Path) -> None:
    good = DistributedHDF5.load(path)
    DistributedHDF5.write(path, good.data.astype("float64"), good.flag, good.provenance)


def other_run(path: Path) -> None:
    good = DistributedHDF5.load(path)
    DistributedHDF5.write(path, good.data, good.flag, good.provenance | {"run_id": "another"})


def flipped_bit(path: Path, seed: int = 0) -> None:
    content, values = bytearray(path.read_bytes()), DistributedHDF5.load(path).data.tobytes()
    where = content.index(values) + np.random.default_rng(seed).integers(len(values))
    content[where] ^= 1
    path.write_bytes(content)


def flipped_bit_of(path: Path, name: str) -> None:
    """Flip a middle bit of the first number of a data set, where it lies in the file."""
    with h5py.File(path) as file:
        where = file[name].id.get_offset()
    content = bytearray(path.read_bytes())
    content[where] ^= 16
    path.write_bytes(content)


def changed_places(path: Path) -> None:
    """Exchange a measurement with the next one, as a wrong renaming does."""
    kind, _, number = path.stem.rpartition("_")
    other = path.with_name(f"{kind}_{int(number) + 1:010d}.h5")
    aside = path.with_name("aside")
    path.rename(aside)
    other.rename(path)
    aside.rename(other)


def copy_of_another(path: Path) -> None:
    """Copy the next measurement over one."""
    kind, _, number = path.stem.rpartition("_")
    path.write_bytes(path.with_name(f"{kind}_{int(number) + 1:010d}.h5").read_bytes())


def without_place(path: Path) -> None:
    """Leave out which measurement it is, as earlier versions did."""
    with h5py.File(path, "r+") as file:
        del file.attrs["kind"], file.attrs["index"]


def never_written(path: Path) -> None:
    """Leave flag and provenance of a measurement whose data were never written."""
    good = DistributedHDF5.load(path)
    with h5py.File(path) as file:
        attributes = dict(file.attrs)
    with _anew(path) as file:
        file.create_dataset("data", good.data.shape, good.data.dtype)
        _put_flag(file, good.flag)
        file.attrs.update(attributes)


def external_link(path: Path) -> None:
    """Let the data be a link to a good measurement in another file."""
    other = path.with_name("elsewhere.h5")
    path.rename(other)
    with h5py.File(other) as file:
        attributes, flag = dict(file.attrs), file["flags"].asstr()[0]
    with h5py.File(path, "w") as file:
        file["data"] = h5py.ExternalLink(other.name, "data")
        _put_flag(file, flag)
        file.attrs.update(attributes)


def without_attributes(path: Path) -> None:
    """Write the measurement as other tools do, which know nothing of our attributes."""
    good = DistributedHDF5.load(path)
    with _anew(path) as file:
        file.create_dataset("data", data=good.data, compression="lzf", chunks=good.data.shape)
        _put_flag(file, good.flag)


def points_elsewhere(all_path: Path, source: str = "../elsewhere/inner_{:010d}.h5") -> None:
    """Let a virtual file take its measurements from another directory."""
    layout = DistributedHDF5.load_virtual(all_path)
    data = h5py.VirtualLayout(layout.shape, layout.dtype)
    for idx in range(layout.shape[1]):
        name = source.format(idx)
        data[:, idx] = h5py.VirtualSource(name, "data", layout.shape[:1], layout.dtype)
    with _anew(all_path) as file:
        file.create_virtual_dataset("data", data)


def other_order(all_path: Path, order: list[int]) -> None:
    """Let column ``j`` of a virtual file be measurement ``order[j]``."""
    layout = DistributedHDF5.load_virtual(all_path)
    data = h5py.VirtualLayout(layout.shape, layout.dtype)
    flags = h5py.VirtualLayout((len(order),), h5py.string_dtype())
    for column, idx in enumerate(order):
        name = layout.subpaths[idx].name
        data[:, column] = h5py.VirtualSource(name, "data", layout.shape[:1], layout.dtype)
        flags[column : column + 1] = h5py.VirtualSource(name, "flags", (1,), h5py.string_dtype())
    with _anew(all_path) as file:
        file.create_virtual_dataset("data", data)
        file.create_virtual_dataset("flags", flags)


def flipped_bit_of_column(path: Path, column: int) -> None:
    """Flip the lowest bit of a number in a column of a params file."""
    with h5py.File(path, "r+") as file:
        value = file["data"][7, column]
        file["data"][7, column] = (value.view(np.uint32) ^ np.uint32(1)).view(np.float32)
