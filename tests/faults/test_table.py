"""Each row of the table of the documentation names a test that exists."""

import ast
import re

import pytest

from tests.script_loader import REPOSITORY

DOCUMENT = (REPOSITORY / "docs" / "reliability.md").read_text()
NAMED = re.findall(r"\| `(\w+/test_\w+\.py)::(test_\w+)` \|$", DOCUMENT, re.MULTILINE)


def functions_of(path):
    tree = ast.parse((REPOSITORY / "tests" / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_row_names_a_test(path, name):
    assert name in functions_of(path)


def rows():
    """Yield the cells of each row of the table, without its head and its headings."""
    cases = DOCUMENT.partition("## What happens")[2].partition("\n## ")[0]
    for line in cases.splitlines():
        if line.startswith("| ") and not line.startswith(("| **", "| case |")):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


@pytest.mark.parametrize("cells", list(rows()), ids=lambda cells: cells[0])
def test_every_row_says_what_happens_and_names_one_test(cells):
    case, happens, test = cells
    assert case
    assert happens
    assert (re.fullmatch(r"`(\w+/test_\w+\.py)::(test_\w+)`", test) or [None])[0]


def test_the_table_was_found():
    assert len(list(rows())) == len(NAMED) > 80
