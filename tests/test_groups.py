"""Tests of one group share a worker, and what is expensive to prepare."""

import os

import pytest


@pytest.mark.xdist_group("groups")
@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process has no workers")
def test_the_name_of_a_test_says_its_group(request):
    """How xdist finds it; with some versions of pytest it does not."""
    assert request.node.nodeid.endswith("@groups")
