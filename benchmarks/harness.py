"""What all benchmarks share: registration, timing, environment, one JSON file per case."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SIZES = ("full", "tiny")
PACKAGES = ("torch", "numpy", "scipy", "h5py", "curvlinops-for-pytorch")

Run = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """A benchmark.

    Attributes:
        name: Its name.
        what: What it measures, in a line.
        run: Returns results that JSON can hold.
        parameters: Arguments of ``run`` for each size.
        long: Not among those that run by default.
    """

    name: str
    what: str
    run: Run
    parameters: dict[str, dict[str, Any]]
    long: bool


_cases: dict[str, Case] = {}


def case(
    name: str, what: str, full: dict[str, Any], tiny: dict[str, Any], long: bool = False
) -> Callable[[Run], Run]:
    """Register a function as a benchmark."""

    def register(run: Run) -> Run:
        _cases[name] = Case(name, what, run, {"full": full, "tiny": full | tiny}, long)
        return run

    return register


def cases() -> dict[str, Case]:
    """Return all benchmarks by name."""
    return dict(_cases)


def summary(values: list[float]) -> dict[str, Any]:
    """Return median, range and number of repeated measurements."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "runs": len(values),
    }


def seconds(function: Callable[[], Any]) -> float:
    """Time one call."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def peak_rss() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # there, getrusage reports the peak of the parent if that was larger
        (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


class Stages:
    """Times stages by name, and the peak memory of each where the system tells.

    Attributes:
        seconds: Seconds of each stage.
        peak_rss_bytes: Largest resident memory during each stage.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak_rss_bytes: dict[str, int] = {}

    def __call__(self, name: str, function: Callable[[], Any]) -> Any:
        """Run a stage and return its result."""
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
        begin = time.perf_counter()
        result = function()
        self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - begin
        self.peak_rss_bytes[name] = max(self.peak_rss_bytes.get(name, 0), peak_rss())
        return result


def environment() -> dict[str, Any]:
    """Return what the numbers depend on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> dict[str, Any]:
    """Return the commit of the working tree, and whether the code has changes."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    return {
        "commit": git("rev-parse", "HEAD"),
        "changed": bool(
            git("status", "--porcelain", "-uno", "--", ":!benchmarks/results", ":!docs")
        ),
    }


def run_here(chosen: Case, size: str, output: str | Path) -> Path:
    """Run a case in this process and write its JSON file."""
    load, begin = os.getloadavg()[0], time.perf_counter()
    parameters = chosen.parameters[size]
    results = chosen.run(**parameters)
    record = {
        "case": chosen.name,
        "what": chosen.what,
        "size": size,
        "parameters": parameters,
        **commit(),
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "environment": environment(),
        "load_before": load,
        "wall_seconds": time.perf_counter() - begin,
        "peak_rss_bytes": peak_rss(),
        "results": results,
    }
    path = Path(output) / f"{chosen.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def run_in_subprocess(name: str, size: str, output: str | Path) -> bool:
    """Run a case in a process of its own, so that its peak memory is its own."""
    print(f"{name} ...", end=" ", flush=True)
    words = [sys.executable, "-m", "benchmarks", "--here", "--size", size, "--output", str(output)]
    begin = time.perf_counter()
    finished = subprocess.run(
        [*words, name], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    print(f"{time.perf_counter() - begin:.1f} s", flush=True)
    if finished.returncode:
        print(finished.stdout[-2000:], file=sys.stderr)
    return finished.returncode == 0


def scratch() -> tempfile.TemporaryDirectory[str]:
    """Return a temporary directory; TMPDIR says on which disk (some cases need 8 GB)."""
    return tempfile.TemporaryDirectory(prefix="apples-and-oranges-bench-")
