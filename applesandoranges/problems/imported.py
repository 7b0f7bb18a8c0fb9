"""Which files beside a user's file it is made of: all that it imports from its directory, or below.

They are found in what is written, so that an import inside of a function counts before it is run,
and the same files are found by every script, at every moment. What is imported by a name that is
not written there (``importlib.import_module(name)``) is found only once it was imported.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import skerch

#: What lies there is no part of the file, even if it was all written in one directory.
_ELSEWHERE = {
    Path(__file__).resolve().parents[1],
    Path(str(skerch.__file__)).resolve().parent,
    *(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")),
}
_PACKAGES = ("site-packages", "dist-packages")
#: Functions that import what their first argument names.
_IMPORTERS = ("import_module", "__import__")


def imported_files(path: Path) -> set[Path]:
    """Return the files of the directory of ``path``, and below, that it imports, at any depth.

    The directory must be in ``sys.path``.
    """
    importlib.invalidate_caches()
    found, waiting = {path}, [path]
    while waiting:
        file = waiting.pop()
        new = _of_directory(_imports(file), path) - found
        found |= new
        waiting += new
    return found - {path}


def loaded_files(path: Path, before: Collection[str]) -> set[Path]:
    """Return the files of the directory of ``path``, and below, of new modules.

    Args:
        path: The user's file.
        before: Names of the modules that are not new.
    """
    if len(sys.modules) == len(before):  # this is asked for each mini-batch
        return set()
    new = [module for name, module in list(sys.modules.items()) if name not in before]
    origins = [str(getattr(getattr(module, "__spec__", None), "origin", None)) for module in new]
    files = (Path(origin) for origin in origins if origin.endswith(".py"))
    return _of_directory(files, path) - {path}


def _of_directory(files: Iterable[Path], path: Path) -> set[Path]:
    """Return those of the files that belong to ``path``, by their names in its directory."""
    return {name for file in files if belongs(name := _name(file, path), path)}


def _name(file: Path, path: Path) -> Path:
    """Return a file's name; in the directory of ``path`` if it was found through a link to there.

    A link in there, to a file elsewhere, has its own name; so have links among installed packages.
    """
    here = Path(os.path.abspath(file))
    if path.parent in here.parents or any(map(_is_elsewhere, here.parents)):
        return here
    return file.resolve()


def belongs(file: Path, path: Path) -> bool:
    """Say whether a file lies in the directory of ``path`` or below, and is no package of others.

    Packages of others are what is installed below, the standard library, and this project.
    """
    if path.parent not in file.parents:
        return False
    below = file.relative_to(path.parent).parents
    return not any(_is_elsewhere(path.parent / part) for part in below if part.name)


@cache
def _is_elsewhere(directory: Path) -> bool:
    if directory in _ELSEWHERE or directory.name in _PACKAGES:
        return True
    return (directory / "pyvenv.cfg").is_file()


def _imports(file: Path) -> Iterator[Path]:
    """Yield the files that the statements of a file import; what is no Python imports none."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, OSError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files_of(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = node.module.split(".") if node.module else []
            for alias in node.names:
                if node.level:
                    here = list(file.parents)[node.level - 1 : node.level]
                    yield from _below(here, [*base, alias.name])
                else:
                    yield from _files_of([*base, alias.name])
        elif isinstance(node, ast.Call) and (name := _named_by(node)):
            yield from _files_of(name.split("."))


def _named_by(call: ast.Call) -> str:
    """Return what ``importlib.import_module("a.b")`` imports; empty for all other calls."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    function = call.func.id if isinstance(call.func, ast.Name) else function
    first = call.args[0] if function in _IMPORTERS and call.args else None
    name = first.value if isinstance(first, ast.Constant) else None
    return name if isinstance(name, str) and not name.startswith(".") else ""


def _files_of(parts: Sequence[str]) -> Iterator[Path]:
    """Yield the file of a module, and of the packages that it lies in, as Python looks for it."""
    try:
        spec = importlib.util.find_spec(parts[0])  # imports nothing
    except (ImportError, ValueError, AttributeError):
        return
    if spec is None:
        return
    if spec.origin is not None and spec.origin.endswith(".py"):
        yield Path(spec.origin)
    yield from _below(map(Path, spec.submodule_search_locations or ()), parts[1:])


def _below(directories: Iterable[Path], parts: Sequence[str]) -> Iterator[Path]:
    for directory in directories:
        for part in parts:
            files = (directory / part / "__init__.py", directory / f"{part}.py")
            yield from [file for file in files if file.is_file()][:1]
            directory = directory / part
