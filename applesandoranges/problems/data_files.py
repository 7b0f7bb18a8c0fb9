"""Which data a training saw: the files of a data set with sizes and hashes.

They are part of the training log, so that a training goes on, and its Hessians are measured, with
the very same data. Whole files are hashed, whenever data are loaded: a cache by size and time would
miss what changes neither. Folders of images have a manifest instead: names, classes, sizes and, as
long as all images are at most :data:`MAX_HASHED_BYTES`, contents.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skerch.errors import InputError

#: Written beside data by 09a.
NOTE_FILE = "DATA_NOTE.json"
#: Bytes of images up to which a manifest covers their contents: a second of hashing.
MAX_HASHED_BYTES = 2**30

_CHUNK = 2**20

#: Facts (``bytes``, ``sha256``, ...) of each file, of each folder of images, or of each split, by
#: name.
DataFiles = dict[str, dict[str, Any]]


def hash_files(folder: Path, names: Iterable[str]) -> DataFiles:
    """Return size and SHA-256 of files."""
    return {name: _hash_file(folder / name) for name in names}


def _hash_file(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
        return {"bytes": stream.tell(), "sha256": digest.hexdigest()}


def hash_bytes(content: bytes) -> dict[str, Any]:
    """Return the facts of a file with this content."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def hash_images(folder: Path, samples: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """Return the manifest of a folder of images.

    Args:
        folder: Where they are; names are relative to it.
        samples: Paths, which begin with that of the folder, and classes.

    Returns:
        ``files``, ``bytes``, ``sha256`` over names, classes and sizes, and over contents where
        ``contents`` is true.
    """
    sizes = [os.stat(path).st_size for path, _ in samples]
    contents = sum(sizes) <= MAX_HASHED_BYTES
    digest, prefix = hashlib.sha256(), f"{folder}{os.sep}"
    for (path, label), size in zip(samples, sizes, strict=True):
        # A million times for ImageNet: os.path.relpath would take most of the time.
        entry: list[Any] = [path.removeprefix(prefix), label, size]
        if contents:
            entry.append(_hash_file(Path(path))["sha256"])
        digest.update(json.dumps(entry).encode())
    return {
        "files": len(samples), "bytes": sum(sizes), "sha256": digest.hexdigest(),
        "contents": contents,
    }  # fmt: skip


class Unchanged:
    """Files that must not change while they are hashed and loaded.

    Raises:
        InputError: On leaving, if one did.
    """

    def __init__(self, folder: Path, names: Iterable[str]):
        self._paths = [folder / name for name in names]

    def _stamps(self) -> list[tuple[int, int, int]]:
        found = [path.stat() for path in self._paths]
        return [(entry.st_ino, entry.st_size, entry.st_mtime_ns) for entry in found]

    def __enter__(self) -> None:
        self._before = self._stamps()

    def __exit__(self, *error: object) -> None:
        if error[0] is None and self._stamps() != self._before:
            raise InputError(f"{self._paths[0].parent}: was changed while it was read; try again")


@contextlib.contextmanager
def kept_generators() -> Iterator[None]:
    """Set the global generators of the CPU back at the end: data of users may draw from them."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def check_files(expected: Any, found: DataFiles, where: str) -> None:
    """Raise :class:`InputError` unless data files are the expected ones.

    Args:
        expected: Their facts as they were written down.
        found: Their facts now.
        where: What wrote them down, for the message.
    """
    if expected == found:
        return
    if not isinstance(expected, Mapping):
        raise InputError(f"{where} does not say which data files it is of")
    for name in sorted({*expected, *found}):
        there, here = expected.get(name), found.get(name)
        if there != here:
            raise InputError(
                f"these are not the data of {where}: {name} was {_in_words(there)}, is "
                f"{_in_words(here)}"
            )


def _in_words(facts: Any) -> str:
    if not isinstance(facts, Mapping):
        return "not there" if facts is None else repr(facts)
    # "60000 files, 1234 bytes, sha256 0123abcd..."
    counts = [f"{facts[what]} {what}" for what in ("files", "points", "bytes") if what in facts]
    sha256 = [f"sha256 {str(facts['sha256'])[:12]}..."] if "sha256" in facts else []
    return ", ".join(counts + sha256)


def read_note(folder: Path) -> dict[str, Any] | None:
    """Return the note beside data; ``None`` if there is none.

    Raises:
        InputError: If it is damaged.
    """
    path = folder / NOTE_FILE
    try:
        note = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        note = None
    if not isinstance(note, dict) or not isinstance(note.get("source"), str):
        raise InputError(f"{path}: damaged; prepare the data again")
    return note


def note_of(source: str, counts: Mapping[str, int], origin: str, files: DataFiles) -> bytes:
    """Return the content of a note: what lies there, from where, and its hashes."""
    note = {"source": source, **counts, "origin": origin, "files": files}
    return (json.dumps(note, indent=1) + "\n").encode()
