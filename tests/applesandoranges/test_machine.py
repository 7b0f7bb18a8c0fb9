"""Memory: budgets, and what becomes of freed blocks."""

import platform
import subprocess
import sys

import pytest

from applesandoranges.app.machine import budget_bytes
from skerch.errors import InputError
from tests.script_loader import REPOSITORY

#: Prints which share of a block comes anew from the system, if it was freed just before.
CODE = """
import resource, sys
import torch
from applesandoranges.app import machine as resources

getattr(resources, sys.argv[1])()
size, times = int(sys.argv[2]), 20

def pages():
    for _ in range(times):
        torch.ones(size, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

first, second = pages(), pages()  # the first ones also make room for small blocks between them
print((second - first) * resource.getpagesize() / size / times)
"""


@pytest.mark.parametrize("gigabytes", [0, -1, 1e308, 1e12, float("inf"), float("nan")])
def test_a_budget_that_is_none_is_refused(gigabytes):
    with pytest.raises(InputError, match="MEMORY_BUDGET_GB must be a positive number below"):
        budget_bytes(gigabytes)


def test_a_budget_is_in_bytes():
    assert [budget_bytes(gigabytes) for gigabytes in (1e-6, 2.5)] == [1000, 2_500_000_000]


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc's malloc has these settings"
)
@pytest.mark.parametrize(
    ("choice", "megabytes", "share"),
    [
        ("keep_freed_memory", 8, 0),
        ("keep_freed_memory", 64, 0),
        ("return_freed_memory", 8, 0),
        ("return_freed_memory", 24, 1),
    ],
)
def test_freed_blocks(choice, megabytes, share):
    command = [sys.executable, "-c", CODE, choice, str(megabytes * 2**20)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(share, abs=0.05)
