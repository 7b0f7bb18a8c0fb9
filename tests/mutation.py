"""Do the tests notice? Changes one place of the code at a time, and runs the tests nearest to it.

    python -m tests.mutation --mutants 100 --seed 0

Places are drawn from the decompositions (``skerch``), the analysis and the figures, all equally
likely. Each change is made in a copy of the files that git knows, for which the fast tests of the
module are run: those that import it first, then those of its package. Prints the share of changes
that some test noticed, and the others in the form of ``mutation_survivors.md``; those that stand
there cannot be noticed, for the reason that stands there. What takes too long counts as noticed.
"""

from __future__ import annotations

import argparse
import ast
import functools
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.mutants import REPOSITORY, Mutant, mutants_of

EXPLAINED = Path(__file__).with_name("mutation_survivors.md")

#: What is changed, and where its tests are: those that import something of it.
SCOPE = {
    "skerch": "tests/skerch/test_*.py",
    "applesandoranges/analysis": "tests/applesandoranges/test_*.py",
    "applesandoranges/figures": "tests/applesandoranges/test_*.py",
}
#: These take too long.
LONG = {"test_every_problem.py"}
#: Tests of some modules that live elsewhere.
ELSEWHERE = {
    "skerch/streams.py": ["tests/faults/test_readers.py"],
    "skerch/store/basis.py": ["tests/scripts/test_accuracy.py"],
    "skerch/store/": ["tests/faults/test_bad_files.py"],
    "applesandoranges/analysis/accuracy.py": ["tests/scripts/test_accuracy.py"],
    "applesandoranges/analysis/report.py": [
        "tests/scripts/test_accuracy.py",
        "tests/scripts/test_pipeline.py",
    ],
    "applesandoranges/analysis/exact.py": ["tests/scripts/test_12a.py"],
    "applesandoranges/analysis/comparing.py": ["tests/scripts/test_12a.py"],
    "applesandoranges/figures/": ["tests/scripts/test_13a.py"],
}


def tests_for(path: str, root: Path) -> tuple[list[str], list[str]]:
    """Return the test files of a module, below ``root``: those that import it, and others."""
    scope = next(scope for scope in SCOPE if path.startswith(f"{scope}/"))
    files = [file for file in sorted(root.glob(SCOPE[scope])) if file.name not in LONG]
    room, module = (name.replace("/", ".") for name in (scope, path.removesuffix(".py")))
    own = f"test_{module.rpartition('.')[2]}.py"
    near = [file for file in files if file.name == own or module in _imported(file)]
    others = [f for f in files if f not in near and any(m.startswith(room) for m in _imported(f))]
    names = [str(file.relative_to(root)) for file in [*near, *others]]
    names += [test for part in ELSEWHERE if path.startswith(part) for test in ELSEWHERE[part]]
    return names[: len(near)], names[len(near) :]


@functools.cache
def _imported(file: Path) -> set[str]:
    """Return the modules that a file imports, and what it imports of packages."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


class Copy:
    """A copy of the files that git knows, in which one change at a time is tried."""

    def __init__(self, root: Path):
        self.root, self.changes = root, 0
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        for name in filter(None, names.stdout.split("\0")):
            if (REPOSITORY / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(REPOSITORY / name, root / name)
                os.utime(root / name, (0, 0))

    def notices(self, mutant: Mutant, timeout: float) -> bool:
        """Return whether a test fails with this change, or does not come to its end."""
        file = self.root / mutant.path
        source = file.read_bytes()
        file.write_bytes(source[: mutant.begin] + mutant.new.encode() + source[mutant.end :])
        # No compiled code of another version may be taken for this one, nor the other way round.
        self.changes += 1
        os.utime(file, (self.changes, self.changes))
        try:
            return any(self.fail(tests, timeout) for tests in tests_for(mutant.path, self.root))
        finally:
            file.write_bytes(source)
            os.utime(file, (0, 0))

    def fail(self, tests: list[str], timeout: float) -> bool:
        """Return whether one of the tests fails."""
        if not tests:
            return False
        options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow and not slurm and not gpu"]
        command = [sys.executable, "-m", "pytest", *options, "--tb=no", *tests]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(self.root.parent)}
        process = subprocess.Popen(
            command, cwd=self.root, env=environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            return process.wait(timeout) != 0
        except subprocess.TimeoutExpired:
            return True
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def explained() -> dict[tuple[str, str], str]:
    """Return the reasons of changes that cannot be noticed, from the table of the document."""
    rows = {}
    for line in EXPLAINED.read_text().splitlines():
        if line.startswith("| `"):
            path, change, reason = (cell.strip() for cell in line.strip("| ").split(" ¦ "))
            rows[path.strip("`"), change.strip("`")] = reason
    return rows


def try_all(mutants: list[Mutant], jobs: int) -> list[Mutant]:
    """Return the changes that no test notices, some at the same time."""
    survivors: list[Mutant] = []
    waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
    for mutant in mutants:
        waiting.put(mutant)

    def work(copy: Copy, timeout: float) -> None:
        while True:
            try:
                mutant = waiting.get_nowait()
            except queue.Empty:
                return
            noticed = copy.notices(mutant, timeout)
            number, before, after = mutant.lines
            what = f"{mutant.path}:{number}: {before} -> {after}"
            print(f"{'noticed ' if noticed else 'SURVIVED'} {what}", flush=True)
            if not noticed:
                survivors.append(mutant)

    with tempfile.TemporaryDirectory(prefix="mutants") as directory:
        copies = [Copy(Path(directory) / str(n) / "tree") for n in range(jobs)]
        paths = {mutant.path for mutant in mutants}
        groups = [group for path in paths for group in tests_for(path, copies[0].root)]
        begin = time.monotonic()
        if copies[0].fail(sorted({test for group in groups for test in group}), 3600):
            raise SystemExit("the tests fail without any change: mend that first")
        timeout = 60 + 3 * (time.monotonic() - begin)
        threads = [threading.Thread(target=work, args=(copy, timeout)) for copy in copies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return survivors


def main() -> int:
    """Draw, try, and say how many were noticed; 1 if fewer than wanted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mutants", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="changes tried at the same time")
    parser.add_argument("--least", type=float, default=0.9, help="share that must be noticed")
    parser.add_argument("--only", default="", help="of these, those in files whose path has this")
    args = parser.parse_args()
    listed = ["git", "ls-files", *(f"{scope}/*.py" for scope in SCOPE)]
    found = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    places = [mutant for path in sorted(found.stdout.split()) for mutant in mutants_of(path)]
    drawn = random.Random(args.seed).sample(places, min(args.mutants, len(places)))
    drawn = [mutant for mutant in drawn if args.only in mutant.path]
    survivors, reasons = try_all(drawn, args.jobs), explained()
    killed = 1 - len(survivors) / len(drawn)
    unexplained = [mutant for mutant in survivors if mutant.key not in reasons]
    print(
        f"{len(drawn)} of {len(places)} changes, seed {args.seed}: {killed:.0%} noticed, "
        f"{len(survivors) - len(unexplained)} explained, {len(unexplained)} not"
    )
    for mutant in unexplained:
        path, change = mutant.key
        print(f"| `{path}` ¦ `{change}` ¦  |")
    return int(killed < args.least)


if __name__ == "__main__":
    sys.exit(main())
