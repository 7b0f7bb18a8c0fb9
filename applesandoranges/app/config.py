"""Typed ``KEY=VALUE`` command lines for the numbered scripts.

A script declares its keys as a dataclass whose fields are made by :func:`key`; OmegaConf checks
the types. Text keys take their value verbatim, so that paths may hold any character.
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table

from skerch.errors import InputError, SkerchError

from .names import nearest
from .signals import Interrupted, interruptible

ConfigT = TypeVar("ConfigT")


def key(help: str, default: Any = MISSING, shown: str | None = None) -> Any:
    """Declare one key of a script.

    Args:
        help: What it means, in a few words.
        default: Its default, or a function that computes it; without one the key must be given.
        shown: How the default is shown in the table, where its value would not explain itself.
    """
    metadata = {"help": help, "shown": shown}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def parse_config(config_type: type[ConfigT], argv: Sequence[str]) -> ConfigT:
    """Turn ``KEY=VALUE`` words into a ``config_type``.

    Raises:
        InputError: Unknown, repeated or missing key, or a value of the wrong type; in one line.
    """
    types = typing.get_type_hints(config_type)
    texts: dict[str, str] = {}
    for word in argv:
        name, equals, text = word.partition("=")
        if not equals:
            raise InputError(f"expected KEY=VALUE, got {word!r}")
        if name not in types:
            near = nearest(name.upper(), types)
            raise InputError(f"unknown key {name!r}; the nearest valid one is {near}")
        if name in texts:
            raise InputError(f"key {name} was given twice")
        texts[name] = text
    values = {name: _parse_value(name, text, types[name]) for name, text in texts.items()}
    base = OmegaConf.structured(config_type)
    for name, value in values.items():
        if types[name] in (str, str | None):
            continue  # verbatim; OmegaConf would look for ${interpolations} in it
        try:
            OmegaConf.update(base, name, value)
            values[name] = OmegaConf.to_container(base)[name]  # type: ignore[index,call-overload]
        except (OmegaConfBaseException, RecursionError):  # a list may be an item of itself
            raise InputError(
                f"key {name}: expected {_type_name(types[name])}, got {texts[name]!r}"
            ) from None
    missing = [name for name in types if name not in values and OmegaConf.is_missing(base, name)]
    if missing:
        raise InputError(f"missing key{'s' * (len(missing) > 1)} {', '.join(missing)}")
    return config_type(**values)


def _parse_value(name: str, text: str, annotation: Any) -> Any:
    if annotation is str:
        return text
    if annotation == str | None:
        return None if text in ("", "null", "None") else text
    try:
        if "${" in text or "???" in text:
            raise ValueError("OmegaConf would take it for an interpolation, or for missing")
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # of "0x_", "2026-13-01" and "[[[..."
        raise InputError(f"key {name}: expected {_type_name(annotation)}, got {text!r}") from None
    if isinstance(value, str) and _type_name(annotation) == "float":
        # YAML 1.1 reads 1e-3 (no dot) as text.
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _type_name(annotation: Any) -> str:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    args = [a for a in typing.get_args(annotation) if a is not type(None)]
    if typing.get_origin(annotation) is list:
        return f"list of {_type_name(args[0])}"
    return _type_name(args[0])


def key_table(config_type: type) -> Table:
    """Return the table of all keys with types, defaults and meanings."""
    types = typing.get_type_hints(config_type)
    table = Table("key", "type", "default", "meaning", box=None, pad_edge=False)
    for field in dataclasses.fields(config_type):
        if field.metadata["shown"] is not None:
            default = field.metadata["shown"]
        elif field.default_factory is not dataclasses.MISSING:
            default = str(field.default_factory())
        else:
            default = "required" if field.default == MISSING else str(field.default)
        table.add_row(field.name, _type_name(types[field.name]), default, field.metadata["help"])
    return table


def _print_table(config_type: type, to_stderr: bool) -> None:
    console = Console(stderr=to_stderr)
    if not console.is_terminal:
        console = Console(stderr=to_stderr, width=140)
    console.print(key_table(config_type), markup=False)


def run_script(
    script: str,
    config_type: type[ConfigT],
    main: Callable[[ConfigT], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the command line, run ``main`` and turn errors into one line and an exit status.

    Returns:
        0; 2 for wrong input; 1 for a failure; 128 + the number of a signal that ended it. A
        ``main`` that wants another status raises :class:`SystemExit`.
    """
    name = Path(script).name
    words = sys.argv[1:] if argv is None else list(argv)
    if any(word in ("-h", "--help") for word in words):
        document = sys.modules[main.__module__].__doc__ if main.__module__ in sys.modules else None
        print((document or main.__globals__.get("__doc__") or "").strip())
        print(f"\nUsage: python {name} KEY=VALUE ...\n")
        _print_table(config_type, to_stderr=False)
        return 0
    try:
        config = parse_config(config_type, words)
    except InputError as error:
        print(f"{name}: {one_line(error)}", file=sys.stderr)
        _print_table(config_type, to_stderr=True)
        return 2
    try:
        with interruptible():
            main(config)
    except InputError as error:
        print(f"{name}: {one_line(error)}", file=sys.stderr)
        return 2
    except (SkerchError, OSError, MemoryError) as error:
        print(f"{name}: {one_line(error)}", file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(f"{name}: stopped by {stop}", file=sys.stderr)
        return stop.status
    return 0


def one_line(error: BaseException) -> str:
    """Return the message of ``error`` on one line."""
    return " ".join(str(error).split()) or type(error).__name__
