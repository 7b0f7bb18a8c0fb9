"""The private cluster itself."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.script_loader import REPOSITORY
from tests.slurm import cluster
from tests.slurm.cluster import Cluster, processes_of, wait_until

pytestmark = pytest.mark.slurm

TESTS = """
from tests.slurm.cluster import Cluster

with Cluster(nodes=1) as cluster:
    cluster.run("sbatch", "--output=/dev/null", "--wrap", "sleep 1000")
    print(cluster.root, flush=True)
    input()
"""


def names_of(root: Path) -> set[str]:
    """Return the names of all processes of a cluster."""
    names = set()
    for pid in processes_of(root):
        with contextlib.suppress(OSError):
            names.add(Path(f"/proc/{pid}/comm").read_text().strip())
    return names


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_the_tests_are_killed(how):
    with subprocess.Popen(
        [sys.executable, "-c", TESTS], cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": "."},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as tests:  # fmt: skip
        root = Path(tests.stdout.readline().strip())
        try:
            everybody = {"munged", "slurmctld", "slurmd", "slurmstepd", "sleep"}
            wait_until(lambda: names_of(root) >= everybody, "the job runs", 60)
            tests.send_signal(how)
            wait_until(lambda: not root.exists(), "the cluster's directory is removed", 60)
            assert not names_of(root)
        finally:
            tests.kill()


def test_a_start_that_fails_is_tried_again(monkeypatch, capsys):
    really, asked = Cluster.is_idle, []

    def is_idle(self):
        asked.append(self.root)
        return self.root != asked[0] and really(self)

    monkeypatch.setattr(Cluster, "is_idle", is_idle)
    monkeypatch.setattr(cluster, "START_SECONDS", 5.0)
    started = cluster.start_cluster()
    try:
        assert started.root != asked[0]
        assert not asked[0].exists()
        assert "slurmctld: runs" in capsys.readouterr().err
    finally:
        started.__exit__()


def test_after_the_last_start_the_daemons_logs_are_shown(monkeypatch):
    monkeypatch.setattr(Cluster, "is_idle", lambda self: False)
    monkeypatch.setattr(cluster, "START_SECONDS", 0.5)
    monkeypatch.setattr(cluster, "ATTEMPTS", 1)
    with pytest.raises(TimeoutError, match=r"all nodes are idle\n(.*\n)*slurmctld\.log: "):
        cluster.start_cluster()
