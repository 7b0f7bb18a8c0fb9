"""How long scripts take until something is on the screen."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from typing import Any

from .harness import ROOT, case, summary

SCRIPTS = sorted(path.name for path in ROOT.glob("[0-9]*.py"))


def first_output(*words: str) -> tuple[float, float, str]:
    """Run a command; return seconds to its first output and to its end, and all it printed."""
    begin = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        seconds = time.perf_counter() - begin
        text = (first + process.stdout.read()).decode()
    return seconds, time.perf_counter() - begin, text


def keys_without_use(script: str) -> list[str]:
    """Return a word for each key that a script needs: it loads all it needs and then refuses."""
    _, _, line = first_output(script)
    return [f"{name}=0" for name in re.findall(r"[A-Z_]{4,}", line.partition("missing key")[2])]


@case(
    "start",
    "seconds until each script shows something; seconds to --help, and to refuse a wrong key",
    full={"repeats": 3, "scripts": SCRIPTS},
    tiny={"repeats": 1, "scripts": SCRIPTS[:1]},
)
def start(repeats: int, scripts: list[str]) -> dict[str, Any]:
    """Start every script three ways."""
    results: dict[str, Any] = {}
    for script in scripts:
        keys = keys_without_use(script)
        runs = [first_output(script, *keys) for _ in range(repeats)]
        helps = [first_output(script, "--help") for _ in range(repeats)]
        refusals = [first_output(script, "NO_SUCH_KEY=1") for _ in range(repeats)]
        results[script] = {
            "first_output_seconds": summary([first for first, _, _ in runs]),
            "loaded_seconds": summary([end for _, end, _ in runs]),
            "help_seconds": summary([end for _, end, _ in helps]),
            "refusal_seconds": summary([end for _, end, _ in refusals]),
        }
    return results
