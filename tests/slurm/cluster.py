"""A private Slurm cluster on this machine: every file under one directory, no process left behind.

Runs as root or as an ordinary user, and reads nothing in /etc/slurm or /etc/munge. A process of its
own cleans up as soon as the one that started the cluster is gone, even if that was killed.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "jq")
INSTALL = (
    "apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge jq "
    "(Debian, Ubuntu)"
)
SEARCH_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
#: The largest array has MAX_ARRAY - 1 tasks.
MAX_ARRAY = 6
#: A start takes about one second. One that takes this long has failed, as where somebody else took
#: one of its ports; the next one has others.
START_SECONDS, ATTEMPTS = 60.0, 3

CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits for the expiry of its credential, by default two minutes.
AuthInfo=socket={root}/munge.sock,cred_expire=5
{bind}
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.%n.pid
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MailProg=/bin/true
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
SlurmdTimeout=10
BatchStartTimeout=10
MinJobAge=100000
MaxArraySize={max_array}
"""


def missing_programs() -> list[str]:
    """Return which of the programs are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=SEARCH_PATH) is None]


def free_ports(number: int) -> list[int]:
    """Return ports that nobody listens on, below the range of outgoing connections."""
    held: list[socket.socket] = []
    while len(held) < number:
        candidate = socket.socket()
        try:
            candidate.bind(("", random.randrange(12000, 32000)))
            held.append(candidate)
        except OSError:
            candidate.close()
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 300) -> Any:
    """Return the first true value of ``condition``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise TimeoutError(f"after {seconds} s still not: {what}")


def processes_of(root: Path) -> Iterator[int]:
    """Yield all processes that belong to the cluster in ``root``, by their environment."""
    mark = f"SLURM_CONF={root}/slurm.conf".encode()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            ours = mark in path.joinpath("environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if ours:
            yield int(path.name)


def remove(root: Path) -> None:
    """Kill what is left of the cluster in ``root``, unmount its disks and delete its files."""

    def all_killed() -> bool:
        left = list(processes_of(root))
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_until(all_killed, "no process of the cluster is left", 20)
    for line in Path("/proc/self/mounts").read_text().splitlines():
        mounted = line.split()[1]
        if root in Path(mounted).parents:
            subprocess.run(["umount", "--lazy", mounted], check=True)
    shutil.rmtree(root, ignore_errors=True)


class Cluster:
    """A controller and some nodes of one CPU each; a context manager."""

    def __init__(self, nodes: int = 3) -> None:
        # Unix sockets have short paths: not in pytest's long directories.
        self.root = Path(tempfile.mkdtemp(prefix="slurm."))
        self.nodes = [f"n{i + 1}" for i in range(nodes)]
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not re.match("SLURM|SBATCH|SQUEUE|SCANCEL|SINFO|PMI", name)
        } | {"SLURM_CONF": str(self.root / "slurm.conf"), "PATH": SEARCH_PATH}
        self.daemons: dict[str, subprocess.Popen] = {}
        self.cleaner: subprocess.Popen | None = None

    def __enter__(self) -> Cluster:
        # Nobody else holds the other end of its standard input: it ends with this process.
        self.cleaner = subprocess.Popen(
            [sys.executable, __file__, str(self.root)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self._configure()
            self._start("munged", "munged", "--foreground", "--force", "--origin=127.0.0.1",
                        *(f"--{name}={self.root / path}" for name, path in (
                            ("key-file", "munge.key"), ("socket", "munge.sock"),
                            ("pid-file", "munged.pid"), ("seed-file", "munge.seed"),
                            ("log-file", "munged.log"))))  # fmt: skip
            wait_until((self.root / "munge.sock").exists, "munged listens", 20)
            self._start("slurmctld", "slurmctld", "-D", "-c")
            for node in self.nodes:
                self.start_node(node)
            wait_until(self.is_idle, "all nodes are idle", START_SECONDS)
        except TimeoutError as error:
            words = self.last_words()
            self.__exit__()
            raise TimeoutError(f"{error}\n{words}") from None
        except BaseException:
            self.__exit__()
            raise
        return self

    def last_words(self) -> str:
        """Return which daemons run, and the ends of their logs."""
        states = [
            f"{name}: {'runs' if (status := daemon.poll()) is None else f'exit status {status}'}"
            for name, daemon in self.daemons.items()
        ]
        logs = sorted([*self.root.glob("*.log"), *self.root.glob("*.out")])
        ends = [f"{path.name}: {path.read_text(errors='replace')[-1000:]}" for path in logs]
        return "\n".join(states + ends)

    def _configure(self) -> None:
        host = socket.gethostname().partition(".")[0]
        controller, *ports = free_ports(len(self.nodes) + 1)
        try:
            alone = socket.gethostbyname(host) == "127.0.0.1"
        except OSError:
            alone = False
        bind = "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny" if alone else ""
        text = CONFIG.format(
            host=host, port=controller, user=getpass.getuser(), root=self.root, bind=bind,
            max_array=MAX_ARRAY,
        )  # fmt: skip
        for node, port in zip(self.nodes, ports, strict=True):
            text += (
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 "
                "RealMemory=64000 State=UNKNOWN\n"
            )
            (self.root / "spool" / node).mkdir(parents=True)
        text += "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n"
        (self.root / "state").mkdir()
        (self.root / "slurm.conf").write_text(text)
        # Otherwise slurmd ends at once where cgroup v2 is mounted.
        (self.root / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        key = self.root / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))

    def _start(self, name: str, *command: str) -> None:
        log = self.root / f"{name}.out"
        with log.open("ab") as output:
            self.daemons[name] = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, start_new_session=True,
            )  # fmt: skip

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self._start(node, "slurmd", "-D", "-N", node)

    def stop_node(self, node: str) -> None:
        """Kill the daemon of a node; its jobs go on."""
        self.daemons[node].kill()
        self.daemons.pop(node).wait()

    def is_idle(self) -> bool:
        """Say whether all nodes are up and without jobs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                ["sinfo", "-h", "-N", "-o", "%t"], env=self.environment, capture_output=True,
                text=True, timeout=20,
            )  # fmt: skip
            return done.stdout.split() == ["idle"] * len(self.nodes)
        return False

    def run(self, *command: str, **environment: str) -> str:
        """Run a client command and return what it prints."""
        return subprocess.run(
            command, env=self.environment | environment, check=True, text=True,
            stdout=subprocess.PIPE, timeout=60,
        ).stdout.strip()  # fmt: skip

    def queue(self) -> list[tuple[str, str, str, str]]:
        """Return ``(job, array task, name, state)`` of all jobs of the cluster, old ones too."""
        lines = self.run("squeue", "-h", "-r", "-t", "all", "-o", "%F|%K|%j|%T").splitlines()
        return [tuple(line.split("|")) for line in lines]  # type: ignore[misc]

    def states(self, job: str) -> list[str]:
        """Return the states of a job, of each of its tasks if it is an array."""
        return [state for number, _, _, state in self.queue() if number == job]

    def is_busy(self) -> bool:
        """Say whether any job waits or runs."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        return any(state not in over for *_, state in self.queue())

    def __exit__(self, *exception: object) -> None:
        if "slurmctld" in self.daemons and self.daemons["slurmctld"].poll() is None:
            command = ["scancel", "-u", getpass.getuser()]
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(command, env=self.environment, timeout=20, check=False)
            time.sleep(0.5)
        for daemon in self.daemons.values():
            daemon.terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        # Jobs outlive the daemons.
        assert self.cleaner is not None
        self.cleaner.communicate(timeout=60)
        assert self.cleaner.returncode == 0, f"{self.root} is not removed"


def start_cluster() -> Cluster:
    """Start a cluster; another one, on other ports, where the first does not come up in time."""
    for left in reversed(range(ATTEMPTS)):
        try:
            return Cluster().__enter__()
        except TimeoutError as error:
            if not left:
                raise
            print(f"trying again: {error}", file=sys.stderr)
    raise AssertionError("not reached")


if __name__ == "__main__":
    sys.stdin.read()
    remove(Path(sys.argv[1]))
