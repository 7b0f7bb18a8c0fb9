"""The changes that ``mutation.py`` makes to the code, one at a time.

Comparisons, arithmetic, constants, conditions, removed statements, ends of slices, functions that
are left out, exchanged arguments and factors. What figures look like is left alone, and all texts.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent

#: What of a figure is not what it shows: sizes, places and widths, by key or keyword.
LOOKS = {
    "alpha", "capsize", "figsize", "fontsize", "lw", "markerscale", "mew", "ms", "ncols", "padding",
    "rotation", "shrink", "zorder", "bbox_to_anchor", "pad", "x",
}  # fmt: skip

COMPARISONS: dict[type, list[str]] = {
    ast.Lt: ["<=", ">="], ast.LtE: ["<", ">"], ast.Gt: [">=", "<="], ast.GtE: [">", "<"],
    ast.Eq: ["!="], ast.NotEq: ["=="], ast.Is: ["is not"], ast.IsNot: ["is"], ast.In: ["not in"],
    ast.NotIn: ["in"],
}  # fmt: skip
ARITHMETIC: dict[type, str] = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "/", ast.Mod: "*",
    ast.Pow: "*", ast.BitAnd: "|", ast.BitOr: "&",
}  # fmt: skip
#: Functions and methods that give way to what they are applied to.
DROPPED = {"sqrt", "abs", "sqrt_", "abs_", "square", "sorted", "flip", "conj", "sign", "clip"}
DROPPED |= {"clamp", "clamp_min", "clamp_max", "nan_to_num", "fabs", "unique", "contiguous"}
#: Functions that do not care which argument comes first.
SYMMETRIC = {"min", "max", "minimum", "maximum", "hypot", "zip", "isclose", "allclose", "equal"}


@dataclass(frozen=True)
class Mutant:
    """One change: ``new`` in place of the bytes ``begin ... end`` of a file."""

    path: str
    begin: int
    end: int
    new: str

    @property
    def lines(self) -> tuple[int, str, str]:
        """Number of the line on which it begins, that line before and after."""
        source = (REPOSITORY / self.path).read_bytes()
        start = source.rfind(b"\n", 0, self.begin) + 1
        stop = source.find(b"\n", self.end)
        before, after = source[start:stop], source[start : self.begin] + self.new.encode()
        after += source[self.end : stop]
        tidy = (" ".join(text.decode().split()) for text in (before, after))
        return source[:start].count(b"\n") + 1, *tidy

    @property
    def key(self) -> tuple[str, str]:
        """What it is called in the table of those that cannot be noticed."""
        _, before, after = self.lines
        return self.path, f"{before} -> {after}"


def changes(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Yield parts of a node, and what is put in their place."""
    text = ast.unparse
    match node:
        case ast.Compare(left, [op], [right]):
            yield from ((node, f"{_in(left)} {o} {_in(right)}") for o in COMPARISONS[type(op)])
        case ast.BinOp(left, ast.MatMult(), right):
            yield node, f"({_in(right)} @ {_in(left)})"
        case ast.BinOp(left, op, right) if type(op) in ARITHMETIC and not _is_text(left, right):
            yield node, f"({_in(left)} {ARITHMETIC[type(op)]} {_in(right)})"
            if isinstance(op, ast.Pow):
                yield node, _in(left)
        case ast.BoolOp(op, values):
            yield (
                node,
                f"({(' or ' if isinstance(op, ast.And) else ' and ').join(map(_in, values))})",
            )
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield node, _in(operand)
        case ast.If(test) | ast.IfExp(test) | ast.While(test):
            yield test, f"(not {_in(test)})"
        case ast.Constant(bool(value)):
            yield node, str(not value)
        case ast.Constant(int(value)):
            yield node, str(value + 1)
            yield node, f"({value - 1})"
        case ast.Constant(float(value)):
            yield node, f"{2 * value!r}"
        case ast.Expr(ast.Call()) | ast.AugAssign() | ast.Raise():
            yield node, "pass"
        case ast.Slice(lower, upper):
            yield from ((part, f"{_in(part)} + 1") for part in (lower, upper) if part)
        case ast.Call(ast.Attribute(value, name), arguments) if name in DROPPED:
            is_module = isinstance(value, ast.Name) and value.id in ("np", "torch", "math")
            yield node, _in(arguments[0] if is_module else value)
        case ast.Call(ast.Name(name), [first, *_]) if name in DROPPED:
            yield node, _in(first)
        case ast.Call(function, [first, second, *rest]):
            if text(function).rpartition(".")[2] not in SYMMETRIC:
                swapped = [second, first, *rest, *node.keywords]
                yield node, f"{text(function)}({', '.join(map(text, swapped))})"


def _in(node: ast.AST) -> str:
    simple = isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.Subscript | ast.Constant)
    return ast.unparse(node) if simple else f"({ast.unparse(node)})"


def _is_text(*nodes: ast.AST) -> bool:
    return any(isinstance(n, ast.JoinedStr) or isinstance(getattr(n, 'value', None), str)
               for n in nodes)  # fmt: skip


def code_of(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that compute: no annotations, texts, and :data:`LOOKS`."""
    left_alone = {*LOOKS, "strict"}  # of zip: a guard, which nothing that works can meet
    if isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.keyword) and node.arg in left_alone
    ):
        return
    yield node
    left_out = {"annotation", "returns", "decorator_list", "type_params"}
    if isinstance(node, ast.Raise):
        left_out |= {"exc", "cause"}
    for name, value in ast.iter_fields(node):
        children = value if isinstance(value, list) else [value]
        if isinstance(node, ast.Dict) and name == "values":
            pairs = zip(node.keys, node.values, strict=True)
            children = [v for k, v in pairs if not (k and getattr(k, "value", None) in LOOKS)]
        for child in children:
            if isinstance(child, ast.AST) and name not in left_out:
                yield from code_of(child)


def mutants_of(path: str) -> list[Mutant]:
    """Return all changes of a file that leave it Python."""
    source = (REPOSITORY / path).read_bytes()
    offsets = [0]
    for line in source.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    found = []
    for node in code_of(ast.parse(source)):
        for part, new in changes(node):
            if ast.unparse(part) in (new, f"({new})"):
                continue  # what was exchanged is the same
            begin = offsets[part.lineno - 1] + part.col_offset
            end = offsets[part.end_lineno - 1] + part.end_col_offset
            found.append(Mutant(path, begin, end, new))
    return found
