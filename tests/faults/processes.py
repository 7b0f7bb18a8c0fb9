"""Scripts and commands in processes of their own, to be killed, limited or run at the same time.

They are forked from a server that has imported everything (``forkserver``), which saves each of
them seconds; nothing was computed in that server, so that they are as good as new.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from skerch.__main__ import main as skerch
from tests.conftest import run

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults.warm"])

#: Keys of 10c and 10d that make their numbers independent of what runs at the same time, and of
#: which engine happens to be faster.
SAME_NUMBERS = {"VECTORS_PER_PRODUCT": 1, "HVP_ENGINE": "vmap"}

#: Called in the new process before the command.
Before = Callable[[], None]


def start(words: Sequence[object], output: Path, before: Before | None = None) -> BaseProcess:
    """Start a script (``10a_....py KEY=VALUE ...``) or ``skerch COMMAND ...``.

    What it prints goes to ``output``.
    """
    process = CONTEXT.Process(target=_run, args=([str(word) for word in words], output, before))
    process.start()
    return process


def finish(words: Sequence[object], output: Path, before: Before | None = None) -> int:
    """Run it to its end and return its exit status (negative: the signal that killed it)."""
    process = start(words, output, before)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _run(words: list[str], output: Path, before: Before | None) -> None:
    with output.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    # As in a shell's foreground job, whatever started the server.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if before is not None:
        before()
    status = skerch(words[1:]) if words[0] == "skerch" else run(*words)
    sys.exit(status)


# ------------------------------------------------------------------ to be called before a command


def limit_open_files(number: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))


def limit_file_size(number: int) -> None:
    """Let writing fail beyond ``number`` bytes of a file, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))


def without_privileges() -> None:
    """Lose what makes root write where permissions forbid it (see capset(2))."""
    version_3 = struct.pack("Ii", 0x20080522, 0)
    if ctypes.CDLL(None, use_errno=True).capset(version_3, bytes(24)):
        raise OSError(ctypes.get_errno(), "capset")


class SignalAt:
    """A signal at the ``number``-th time that Python touches a file below ``directory``.

    Opening, renaming, linking, removing and making directories count; if ``count`` is given, there
    is no signal, and the number is written there instead.
    """

    EVENTS = ("open", "os.rename", "os.remove", "os.link", "os.mkdir")

    def __init__(
        self, directory: Path, number: int = 0, which: int = signal.SIGKILL,
        count: Path | None = None,
    ):  # fmt: skip
        self.directory, self.number, self.which, self.count = str(directory), number, which, count
        self.seen = 0

    def __call__(self) -> None:
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[object, ...]) -> None:
        if event in self.EVENTS and str(args[0]).startswith(self.directory):
            self.seen += 1
            if self.count is not None:
                self.count.write_text(str(self.seen))
            elif self.seen == self.number:
                os.kill(os.getpid(), self.which)


class WaitFor:
    """Wait until a file is there, so that several processes begin at the same time."""

    def __init__(self, path: Path):
        self.path = path

    def __call__(self) -> None:
        while not self.path.exists():
            time.sleep(0.001)


def start_together(commands: Sequence[Sequence[object]], directory: Path) -> list[BaseProcess]:
    """Start commands that all begin at the same time; what they print goes into ``directory``."""
    signal_to_go = directory / "go"
    outputs = [directory / f"terminal{number}" for number in range(len(commands))]
    for path in (signal_to_go, *outputs):
        path.unlink(missing_ok=True)
    begin = WaitFor(signal_to_go)
    processes = [start(c, output, begin) for c, output in zip(commands, outputs, strict=True)]
    while not all(output.exists() for output in outputs):
        time.sleep(0.001)
    signal_to_go.touch()
    return processes
