"""Typed ``KEY=VALUE`` command lines for the numbered scripts.

A script declares its keys as a dataclass whose fields are made by :func:`key`, as OmegaConf's
structured configurations are. Text keys take their value verbatim, so that paths may hold any
character; all others are read by :mod:`~applesandoranges.app.values`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import MISSING
from rich.console import Console
from rich.table import Table

from skerch import heartbeat
from skerch.errors import InputError, expected, one_line
from skerch.streams import flushed, outlive_readers

from .screen import JSON, PEOPLE, SCREENS, shown_as
from .signals import Interrupted, interruptible
from .spelling import check_name, nearest
from .user_code import in_one_line
from .values import LIST_HELP, read_value, type_name

ConfigT = TypeVar("ConfigT")
#: Types of keys whose values are taken verbatim.
TEXT = (str, str | None)


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


@dataclasses.dataclass
class CommonConfig:
    """Keys that every script has beside its own; they change what is seen, and no result."""

    SCREEN: str = key(
        f"what the screen shows: {PEOPLE}, lines in words; {JSON}, the lines of the log", PEOPLE
    )

    def __post_init__(self) -> None:
        check_name("SCREEN", self.SCREEN, SCREENS)


def parse_config(config_type: type[ConfigT], argv: Sequence[str]) -> ConfigT:
    """Turn ``KEY=VALUE`` words into a ``config_type``.

    Raises:
        InputError: Unknown, repeated or missing key, or a value of the wrong type; in one line.
    """
    return config_type(**read_words(config_type, split_words(argv, (config_type,))))


def split_words(argv: Sequence[str], config_types: Iterable[type]) -> dict[str, str]:
    """Return the texts of ``KEY=VALUE`` words by key.

    Raises:
        InputError: A word is none, or its key is unknown or repeated.
    """
    known = [field.name for kind in config_types for field in dataclasses.fields(kind)]
    texts: dict[str, str] = {}
    for word in argv:
        name, equals, text = word.partition("=")
        if not equals:
            raise InputError(f"expected KEY=VALUE, got {word!r}")
        if name not in known:
            raise InputError(f"unknown key {name!r}{nearest(name.upper(), known)}")
        if name in texts:
            raise InputError(f"key {name} was given twice")
        texts[name] = text
    return texts


def read_words(config_type: type, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of the keys that were given; nothing is computed for the others.

    Raises:
        InputError: A value is of another type, or a key that must be given is not.
    """
    types = typing.get_type_hints(config_type)
    values, missing = coerce(
        config_type,
        texts,
        lambda name: f"key {name}: expected {type_name(types[name])}, got {texts[name]!r}",
    )
    if missing:
        raise InputError(f"missing key{'s' * (len(missing) > 1)} {', '.join(missing)}")
    for field in dataclasses.fields(config_type):
        if texts.get(field.name) == "" and field.default == MISSING:
            raise InputError(
                f"key {field.name}: expected {type_name(types[field.name])}, got nothing; is the "
                "shell variable set that it was to be taken from?"
            )
    return values


def coerce(
    schema: type, values: Mapping[str, Any], refusal: Callable[[str], str]
) -> tuple[dict[str, Any], list[str]]:
    """Return values with the types of a dataclass's fields, and the fields that still need one.

    Raises:
        InputError: A value is of another type; ``refusal`` makes the message, given its field.
    """
    types, typed = typing.get_type_hints(schema), {}
    for name, value in values.items():
        try:
            verbatim = types[name] in TEXT and isinstance(value, str)
            typed[name] = _text(value, types[name]) if verbatim else read_value(value, types[name])
        except ValueError:
            raise InputError(refusal(name)) from None
    needed = [f.name for f in dataclasses.fields(schema) if isinstance(f.default, str)
              and f.default == MISSING]  # fmt: skip
    return typed, [name for name in needed if name not in typed]


def _text(text: str, annotation: Any) -> str | None:
    return None if annotation is not str and text in ("", "null", "None") else text


def key_table(config_type: type) -> Table:
    """Return the table of all keys with types, defaults and meanings."""
    types = typing.get_type_hints(config_type) | typing.get_type_hints(CommonConfig)
    table = Table("key", "type", "default", "meaning", box=None, pad_edge=False)
    for field in (*dataclasses.fields(config_type), *dataclasses.fields(CommonConfig)):
        if field.metadata["shown"] is not None:
            default = field.metadata["shown"]
        elif field.default_factory is not dataclasses.MISSING:
            default = str(field.default_factory())
        else:
            default = "required" if field.default == MISSING else str(field.default)
        table.add_row(field.name, type_name(types[field.name]), default, field.metadata["help"])
    return table


@contextlib.contextmanager
def starting(module: str, config_type: type) -> Iterator[None]:
    """Check the command line of a script, then let its packages be loaded in the block.

    The script ends before it loads anything if its keys are wrong or ``--help`` is asked for. From
    here to the end of :func:`run_script` it says what it does. Where the script is no program but
    imported, as by tests, only the block is run.

    Args:
        module: ``__name__`` of the script.
        config_type: Its keys.
    """
    if module != "__main__":
        yield
        return
    outlive_readers()
    script = sys.modules[module]
    name, words = Path(str(script.__file__)).name, sys.argv[1:]
    try:
        if _asks_for_help(words):
            sys.exit(_print_help(name, config_type, script.__doc__))
        _read_command_line(config_type, words)
    except (InputError, OSError) as error:
        sys.exit(_refused(name, error))
    heartbeat.begin("").say(f"{name}: loading PyTorch")
    try:
        with interruptible():
            yield
    except Interrupted as stop:
        heartbeat.end()
        print(f"{name}: stopped by {stop}", file=sys.stderr)
        sys.exit(stop.status)
    except BaseException:
        heartbeat.end()
        raise
    heartbeat.doing(f"{name}: beginning")


def run_script(
    script: str,
    config_type: type[ConfigT],
    main: Callable[[ConfigT], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the command line, run ``main`` and turn errors into one line and an exit status.

    It goes on when whoever reads what it prints goes away.

    Returns:
        0; 2 for wrong input; 1 for a failure; 128 + the number of a signal that ended it. A
        ``main`` that wants another status raises :class:`SystemExit`.
    """
    outlive_readers()
    name = Path(script).name
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        if _asks_for_help(words):
            module = sys.modules.get(main.__module__)
            return _print_help(name, config_type, module.__doc__ if module else None)
        values, common = _read_command_line(config_type, words)
        with shown_as(common.SCREEN), interruptible():
            main(config_type(**values))
    except Exception as error:
        refusal = in_one_line(error)
        if not expected(refusal):
            raise
        return _refused(name, refusal)
    except Interrupted as stop:
        heartbeat.end()
        print(f"{name}: stopped by {stop}", file=sys.stderr)
        return stop.status
    finally:
        heartbeat.end()
    return flushed(name, 0)


def _asks_for_help(words: Sequence[str]) -> bool:
    return any(word in ("-h", "--help") for word in words)


def _read_command_line(
    config_type: type, words: Sequence[str]
) -> tuple[dict[str, Any], CommonConfig]:
    """Return the values of a script's own keys, and those of the common ones."""
    try:
        texts = split_words(words, (config_type, CommonConfig))
        names = [field.name for field in dataclasses.fields(CommonConfig)]
        common = {name: texts.pop(name) for name in names if name in texts}
        values = read_words(config_type, texts)
        return values, CommonConfig(**read_words(CommonConfig, common))
    except InputError as error:
        raise InputError(f"{error}; --help lists all keys") from None


def _refused(name: str, error: Exception) -> int:
    """Say in one line what is wrong and return the exit status."""
    heartbeat.end()
    print(f"{name}: {one_line(error)}", file=sys.stderr)
    return 2 if isinstance(error, InputError) else 1


def _print_help(name: str, config_type: type, document: str | None) -> int:
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    print((document or "").strip())
    print(f"\nUsage: python {name} KEY=VALUE ...\n")
    console.print(key_table(config_type), markup=False)
    if any(type_name(t).startswith("list") for t in typing.get_type_hints(config_type).values()):
        print(f"\n{LIST_HELP}")
    return flushed(name, 0)
