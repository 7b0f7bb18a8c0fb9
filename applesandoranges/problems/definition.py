"""Problems of a file: ``PROBLEM=path/to/my_problem.py`` or ``PROBLEM=path/to/my_problem.py:name``.

The file defines these names; with ``:name``, they are attributes of the object (or class) ``name``
in it. Nothing has to be imported from here.

==================================  ===========================================================
``network()``                       Returns the ``torch.nn.Module``. Weights drawn from torch's
                                    global generator are those of RANDOM_SEED.
``loss(outputs, targets)``          A module or function: the mean loss of a mini-batch.
``data(split)``                     Of ``"train"`` and ``"test"``: a ``torch.utils.data.Dataset`` of
                                    data points ``(inputs, targets)``; or mini-batches of them that
                                    can be iterated again and again, always the same ones. Inputs
                                    and targets may be dictionaries, lists and tuples.
``classes(split)``, optional        Class of each data point: Hessians take equally many of each.
                                    Without it they take the first ones.
``num_valid``, optional             How many of the training data validate; default none.
``settings``, optional              What a YAML file has for a problem: ``batch_size``,
                                    ``num_epochs``, and ``SGD`` or ``Adam``. A section of
                                    TUNING_CONF with the problem's name goes before it.
``regularization(net)``, optional   Scalar that is added to the loss of updates and evaluations (an
                                    L2 term). It stays outside of the Hessian.
``accuracy(outputs, targets)``,     Of a mini-batch. By default the largest output counts, where
optional                            targets are classes.
==================================  ===========================================================

The hash of the file, and of what it imports from its own directory and those below it (see
:mod:`~.imported`), is part of the provenance, and so are numbers that it may have read elsewhere
(see :mod:`~.constants`).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from skerch.errors import InputError

from ..app.spelling import nearest
from ..app.user_code import remember
from .imported import imported_files, loaded_files

#: What a file must define, and what it may.
REQUIRED = ("network", "loss", "data")
OPTIONAL = ("classes", "num_valid", "settings", "regularization", "accuracy")

#: What files were seen to import; who runs one once more finds these modules there already.
_loaded: dict[Path, set[Path]] = {}


@dataclass(frozen=True)
class Definition:
    """What a file says about a problem; see this module.

    Attributes:
        name: A short name, for directories and messages.
        path: The file, absolute.
        sha256: Of the file and of what it imports from its own directory and those below it.
        sources: These files.
        attributes: Of the object in the file that defines the problem, if it is one.
    """

    name: str
    path: Path
    sha256: str
    network: Callable[[], Any]
    loss: Callable[[Any, Any], Any]
    data: Callable[[str], Any]
    classes: Callable[[str], Any] | None = None
    num_valid: int = 0
    settings: dict[str, Any] | None = None
    regularization: Callable[[Any], Any] | None = None
    accuracy: Callable[[Any, Any], Any] | None = None
    sources: tuple[Path, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def call(self, name: str, *args: Any) -> Any:
        """Return what a function of the file returns.

        Raises:
            InputError: If it raises, in one line with the place in the file; or if it imports what
                the hash does not know of.
        """
        before = sys.modules.copy()
        try:
            found = getattr(self, name)(*args)
        except Exception as error:
            raise InputError(f"{self.path}: {name}{_shown(args)}: {_last_words(error)}") from error
        if unknown := loaded_files(self.path, before) - set(self.sources):
            raise InputError(
                f"{self.path}: {name}{_shown(args)} imports {min(unknown)}, which the hash of the "
                "problem does not know of; expected an import statement, or the import at the top "
                "of the file"
            )
        return found


def is_file(problem: str) -> bool:
    """Say whether a problem's name is that of a file."""
    return path_and_name(problem)[0].endswith(".py")


def path_and_name(problem: str) -> tuple[str, str]:
    """Return the path of a problem's file, and the name of an object in it, or an empty one."""
    before, colon, name = problem.rpartition(":")
    return (before, name) if colon and before.endswith(".py") else (problem, "")


def absolute(problem: str) -> str:
    """Return the name of a problem under which it is found from every directory."""
    path, name = path_and_name(problem)
    if not is_file(problem):
        return problem
    return str(Path(path).expanduser().resolve()) + (f":{name}" if name else "")


def short_name(problem: str) -> str:
    """Return a problem's name as a part of file names."""
    path, name = path_and_name(problem)
    return "-".join(filter(None, (Path(path).stem, name))) if is_file(problem) else problem


def load_definition(problem: str) -> Definition:
    """Import a file, once as long as it does not change, and check that it defines a problem.

    Raises:
        InputError: If there is no such file, it raises when it is imported, or lacks something; in
            one line.
    """
    text, name = path_and_name(problem)
    path = Path(text).expanduser().resolve()
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected one that defines a problem")
    return _load(path, name, short_name(problem), path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _load(path: Path, name: str, short: str, changed: int) -> Definition:
    module, sources = _import(path)
    found = _namespace(module, name, path)
    missing = [needed for needed in REQUIRED if not callable(getattr(found, needed, None))]
    if missing:
        raise InputError(
            f"{path}: expected functions {', '.join(REQUIRED)}{f' in {name}' if name else ''}, "
            f"missing {', '.join(missing)}{_perhaps(missing[0], found)}"
        )
    values = {key: getattr(found, key) for key in REQUIRED + OPTIONAL if hasattr(found, key)}
    _check_optional(values, path)
    sha256 = _hash(sources, path.parent)
    attributes = dict(getattr(found, "__dict__", {})) if name else {}
    return Definition(short, path, sha256, sources=tuple(sources), attributes=attributes, **values)


def _check_optional(values: dict[str, Any], path: Path) -> None:
    for key in ("classes", "regularization", "accuracy"):
        if not callable(values.get(key, print)):
            raise InputError(f"{path}: expected a function {key}, got {values[key]!r}")
    num = values.get("num_valid", 0)
    if type(num) is not int or num < 0:
        raise InputError(f"{path}: expected num_valid to be a number of data points, got {num!r}")
    if not isinstance(values.get("settings") or {}, dict):
        raise InputError(f"{path}: expected settings to be a dictionary")


def _import(path: Path) -> tuple[ModuleType, list[Path]]:
    """Run a file anew; return it, and all sources, there or below, that it is made of."""
    spec = importlib.util.spec_from_file_location(f"_problem_{path.stem}", path)
    module = importlib.util.module_from_spec(cast(ModuleSpec, spec))
    # Before it runs: data classes and pickles look their module up.
    sys.modules[module.__name__] = module
    before = sys.modules.copy()
    sys.path.insert(0, str(path.parent))
    try:
        _run(module, path)
        _loaded.setdefault(path, set()).update(loaded_files(path, before))
        sources = [path, *sorted(imported_files(path) | _loaded[path])]
    finally:
        sys.path.remove(str(path.parent))
    remember(sources)
    return module, sources


def _run(module: ModuleType, path: Path) -> None:
    try:
        cast(Loader, module.__loader__).exec_module(module)
    except Exception as error:
        raise InputError(f"{path}: {_last_words(error)}") from error


def _hash(sources: list[Path], directory: Path) -> str:
    digest = hashlib.sha256()
    for source in sources:
        name = source.relative_to(directory).as_posix()
        digest.update(name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()


def _namespace(module: ModuleType, name: str, path: Path) -> Any:
    """Return the file itself, or an object in it; of a class, an instance."""
    if not name:
        return module
    if not hasattr(module, name):
        raise InputError(f"{path}: expected {name!r} in it{_perhaps(name, module)}")
    found = getattr(module, name)
    if not isinstance(found, type):
        return found
    try:
        return found()
    except Exception as error:
        raise InputError(f"{path}: {name}(): {_last_words(error)}") from error


def _perhaps(name: str, found: Any) -> str:
    there = [other for other in vars(found) if not other.startswith("_")]
    return nearest(name, there)


def _shown(args: tuple[Any, ...]) -> str:
    return f"({', '.join(repr(a) if isinstance(a, str) else type(a).__name__ for a in args)})"


def _last_words(error: Exception) -> str:
    """Return the last line of a traceback, and the line of the file that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = (__file__, importlib.util.__file__)
    own = [f for f in frames if f.filename not in ours and "<frozen importlib" not in f.filename]
    words = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError):
        return f"{words} (line {error.lineno})"
    return f"{words} (line {own[0].lineno} of {Path(own[0].filename).name})" if own else words
