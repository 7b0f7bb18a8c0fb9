"""HDF5 files that appear whole or not at all, and that are not trusted when they are read.

Files of a store are never modified in place, only replaced as a whole. HDF5's file locks would
protect nothing here, and network file systems often refuse them: ``locking=False`` throughout
(:mod:`skerch.store` sees to the variable of the environment that goes before it).

What is read may come from somebody else, or have been damaged: links to other files are not
followed, data must lie in the very file, and every failure is a :class:`StoreError` that names it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py

from ..errors import InputError, SkerchError, StoreError
from ..store_names import MADE_WITH, PROVENANCE

Provenance = Mapping[str, "str | int | float | bool | Sequence[str] | None"]

#: More than flags, attributes and the inner structure of our files ever took.
_METADATA_BYTES = 2**16

_ASIDE = re.compile(r"\..+\.(?P<host>[^.]+)\.(?P<pid>\d+)\.[0-9a-f]{8}\.tmp", re.DOTALL)


@functools.cache
def _host() -> str:
    """Return what tells the processes of this machine from those of others.

    Its name alone does not: containers, and machines that were set up alike, may share it. A
    container has process ids of its own.
    """
    name = os.uname().nodename
    facts = [name]
    with contextlib.suppress(OSError):
        facts.append(Path("/etc/machine-id").read_text())
    with contextlib.suppress(OSError):
        facts.append(os.readlink("/proc/self/ns/pid"))
    digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    return f"{name[:20].replace('.', '-')}-{digest[:8]}"


def check_writable(directory: Path) -> None:
    """Raise :class:`InputError` if no file can be made in ``directory``: before hours of work."""
    if not os.access(directory, os.W_OK | os.X_OK):
        raise InputError(f"{directory}: nothing can be written there; check its permissions")


@contextlib.contextmanager
def replacing(path: Path, durable: bool = False, overwrite: bool = True) -> Iterator[Path]:
    """Yield a path beside ``path`` that takes its name at the end, or vanishes on an error.

    Args:
        path: The file.
        durable: Wait until the content is on the disk before it takes the name, so that it survives
            a power cut. Costs milliseconds: for files whose loss costs more than one measurement.
        overwrite: Replace a file that is there by then.

    Raises:
        InputError: If there is one that must not be replaced.
    """
    aside = path.with_name(f".{path.name}.{_host()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield aside
        if durable:
            with open(aside, "rb") as file:
                os.fsync(file.fileno())
        _publish(aside, path, overwrite)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        if isinstance(error, RuntimeError) and not isinstance(error, SkerchError):
            # HDF5, where it could not write what it had kept back.
            raise OSError(f"{path}: cannot be written ({' '.join(str(error).split())})") from None
        raise


def _publish(aside: Path, path: Path, overwrite: bool) -> None:
    if not overwrite:
        try:
            os.link(aside, path)  # fails if another process was faster, which a renaming does not
        except OSError:
            if path.exists():
                raise InputError(f"{path}: appeared in the meantime; it is left alone") from None
            # else a file system without hard links
        else:
            aside.unlink()
            return
    os.replace(aside, path)


def reserve_space(file: h5py.File, num_bytes: int) -> None:
    """Take disk space for what will be added to ``file`` now, while a full disk can be reported.

    HDF5 writes late, and cannot even close a file which it could not write.

    Raises:
        OSError: If there is not as much.
    """
    file.flush()
    size = file.id.get_filesize() + num_bytes + _METADATA_BYTES
    with open(file.filename, "r+b") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, file.filename) from None


def remove_stale_asides(directory: Path) -> None:
    """Remove what processes of this machine that were killed left behind in :func:`replacing`."""
    for path in directory.iterdir():
        if is_stale_aside(path):
            path.unlink(missing_ok=True)


def is_stale_aside(path: Path) -> bool:
    """Say whether a process of this machine that was killed left this in :func:`replacing`."""
    match = _ASIDE.fullmatch(path.name)
    return bool(match and match["host"] == _host() and not is_alive(int(match["pid"])))


def is_alive(pid: int) -> bool:
    """Say whether there is a process of this machine with this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def create_h5(path: Path) -> h5py.File:
    """Open a new file for writing."""
    return h5py.File(path, "w", locking=False)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """Open ``path`` for reading; whatever HDF5 makes of a damaged file is a :class:`StoreError`."""
    with open_h5(path) as file:
        try:
            yield file
        except SkerchError:
            raise
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path}: damaged ({' '.join(str(error).split())})") from None


def open_h5(path: Path) -> h5py.File:
    """Open ``path`` for reading.

    Raises:
        StoreError: If it is missing or not an HDF5 file.
    """
    if not path.is_file():
        raise StoreError(f"{path}: no such file")
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        raise StoreError(f"{path}: not a readable HDF5 file ({error})") from None


def own_dataset(file: h5py.File, name: str, virtual: bool = False) -> h5py.Dataset:
    """Return data set ``name`` of ``file`` if its content lies in this very file.

    Links to other files are not followed: a store may come from somebody else. A virtual data set
    is accepted only where one is expected, and only over files beside it.
    """
    where = f"{file.filename}: data set {name!r}"
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise StoreError(f"{where} is missing or a link to somewhere else")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.external is not None:
        raise StoreError(f"{where} does not hold its data itself")
    if dataset.is_virtual != virtual:
        raise StoreError(f"{where}: expected {'a virtual' if virtual else 'an ordinary'} data set")
    here = Path(file.filename).absolute().parent
    if virtual and any((here / s.file_name).parent != here for s in dataset.virtual_sources()):
        raise StoreError(f"{where} points outside its directory")
    return dataset


def provenance_text(provenance: Provenance) -> str:
    """Return a provenance as it is written: ``None`` stands for a key that is not there.

    So facts that most measurements do not have can be asked for, see :func:`differences`, and
    files of before, which do not know of them, agree.
    """
    return json.dumps({name: value for name, value in provenance.items() if value is not None})


def read_provenance(file: h5py.File) -> dict[str, Any]:
    """Return the provenance of an open file; empty if its writer gave none."""
    return read_facts(file, PROVENANCE)


def read_made_with(file: h5py.File) -> dict[str, Any]:
    """Return the versions of the software that wrote an open file; empty if it does not say."""
    return read_facts(file, MADE_WITH)


def read_facts(file: h5py.File, name: str) -> dict[str, Any]:
    """Return the dictionary in attribute ``name`` of an open file; empty if there is none."""
    text = file.attrs.get(name)
    if text is None:
        return {}
    try:
        facts = json.loads(text)
    except (ValueError, TypeError):
        facts = None
    if not isinstance(facts, dict):
        raise StoreError(f"{file.filename}: its {name} cannot be read")
    return facts


def format_indices(idxs: Sequence[int]) -> str:
    """Write sorted indices compactly: ``0-3, 7``."""
    runs: list[list[int]] = []
    for i in sorted(idxs):
        if runs and i == runs[-1][1] + 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _shown(value: object) -> str:
    return "none" if value is None else repr(value)


def differences(expected: Provenance, found: Provenance) -> str:
    """Say in one line where two provenances differ; empty if they agree on ``expected``'s keys.

    A key that is expected to be ``None`` must not be there. Hashes are left out where something
    differs that people can read.
    """
    wrong = {name: value for name, value in expected.items() if found.get(name) != value}
    readable = {name: value for name, value in wrong.items() if not name.endswith("sha256")}
    return "; ".join(
        f"{name}: expected {_shown(value)}, found {_shown(found.get(name))}"
        for name, value in (readable or wrong).items()
    )
