"""The table of the documentation names tests that exist, and each of this directory."""

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


def test_every_case_has_a_row():
    cases = DOCUMENT.partition("## What happens")[2].partition("\n## ")[0]
    rows = [r for r in cases.splitlines() if r.startswith("| ") and not r.startswith("| **")]
    assert len(rows) - 1 >= len(NAMED) > 40
