"""Texts, of a command line or of a settings file, as the values that they are written to be.

Numbers are decimal (see :mod:`skerch.written`). YAML 1.1 and OmegaConf would read some texts as
values that nobody wrote, so that what they are is decided here, by the type that is asked for.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable
from typing import Any, ClassVar

import yaml

from skerch.written import decimal_number, whole_number

#: How lists may be written, for people.
LIST_HELP = (
    "Lists: [0,1,100] or 0,1,100 or one value; of whole numbers also 0-99 (with 99),\n"
    "0:100 (without 100), and several such parts: 0-9,50:60."
)

_NOTHING = ("", "null", "none", "~")
_WORDS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_RANGE = re.compile(r"([0-9]+)([-:])([0-9]+)")
_ITEM = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)"|([^'",\[\]{}][^,\[\]{}]*?))\s*(?:,|$)""")
#: Nobody needs longer lists, and a typing error should not fill the memory.
LONGEST_RANGE = 10**7


def type_name(annotation: Any) -> str:
    """Return the name of a type for people: ``int``, also of ``int | None``; ``list of int``."""
    inner = without_none(annotation)
    if typing.get_origin(inner) is list:
        return f"list of {type_name(typing.get_args(inner)[0])}"
    return str(getattr(typing.get_origin(inner) or inner, "__name__", inner))


def without_none(annotation: Any) -> Any:
    """Return ``X`` of ``X | None``, and any other type as it is."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation
    (inner,) = (arg for arg in typing.get_args(annotation) if arg is not type(None))
    return inner


def read_value(value: Any, annotation: Any) -> Any:
    """Return a text as a value of the type ``annotation``; a value of that type as it is.

    Args:
        value: A text, or what a settings file holds: ``None``, a list, a dictionary.
        annotation: ``str``, ``int``, ``float``, ``bool``, a list or dictionary of these, or
            any of them ``| None``.

    Raises:
        ValueError: If it is written as a value of another type.
    """
    inner = without_none(annotation)
    if inner is not annotation:
        nothing = value is None or (isinstance(value, str) and value.lower() in _NOTHING)
        return None if nothing else read_value(value, inner)
    if typing.get_origin(inner) is list:
        (of,) = typing.get_args(inner)
        return _read_list(value, of) if isinstance(value, str) else _of_list(value, of)
    if typing.get_origin(inner) is dict:
        if not isinstance(value, dict):
            raise ValueError("no dictionary")
        return value
    return _read_scalar(value, inner)


def _read_scalar(value: Any, kind: Any) -> Any:
    if not isinstance(value, str):
        if type(value) is kind or (kind is float and type(value) is int):
            return kind(value)
        raise ValueError(f"no {kind.__name__}")
    text = value.strip()
    if kind is bool:
        if text.lower() not in _WORDS:
            raise ValueError("neither true nor false")
        return _WORDS[text.lower()]
    read: dict[Any, Callable[[str], Any]] = {int: whole_number, float: decimal_number, str: str}
    return read[kind](text)


def _of_list(value: Any, of: type) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("no list")
    return [_read_scalar(item, of) for item in value]


def _read_list(text: str, of: type) -> list[Any]:
    inside = text.strip()
    in_brackets = inside.startswith("[") and inside.endswith("]") and len(inside) > 1
    if in_brackets:
        inside = inside[1:-1].strip()
        if not inside:
            return []
    # As "seq -s," of some systems ends.
    parts = inside.removesuffix(",").split(",") if of is not str else _split_texts(inside)
    found: list[Any] = []
    for part in parts:
        ends = _RANGE.fullmatch(part.strip()) if of is int and not in_brackets else None
        found += [_read_scalar(part, of)] if ends is None else _range(*ends.groups())
    return found


def _split_texts(text: str) -> list[str]:
    """Split at commas; items may be in quotes."""
    items: list[str] = []
    position = 0
    while position < len(text) or not items:
        match = _ITEM.match(text, position)
        if match is None:
            raise ValueError("no list of texts")
        items.append(next(group for group in match.groups() if group is not None))
        position = match.end()
    return items


def _range(first: str, between: str, last: str) -> list[int]:
    begin, end = whole_number(first), whole_number(last) + (between == "-")
    if not 0 < end - begin <= LONGEST_RANGE:
        raise ValueError("an empty range, or one that is too long")
    return list(range(begin, end))


class AsWritten(yaml.SafeLoader):
    """Reads YAML with every plain word as a text, ``null`` apart; no key may stand twice."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, regexp) for tag, regexp in found if tag.endswith((":null", ":merge"))]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping of a node."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise yaml.constructor.ConstructorError(
                None, None, f"found {', '.join(twice)} twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


for _kind in ("int", "float", "bool", "timestamp"):  # as !!int 010
    AsWritten.add_constructor(f"tag:yaml.org,2002:{_kind}", AsWritten.construct_yaml_str)
