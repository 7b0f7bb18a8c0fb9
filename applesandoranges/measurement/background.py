"""Writing that overlaps computing: one thread, few tasks at a time, and no error lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ..app.signals import uninterrupted


class BackgroundWriter:
    """Runs tasks one after the other in a thread of its own.

    At most one task waits while another one runs: :meth:`submit` blocks until then, so that what
    tasks hold is bounded. Use as a context; leaving it waits for all tasks, also after an error or
    an interrupt in the caller, because what was computed is worth keeping.

    Raises:
        Exception: What a task raised, in the caller, from the next :meth:`submit` or on leaving.
            Tasks that wait then are dropped.
    """

    WAITING = 1

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._pending: deque[Future[Any]] = deque()

    def submit(self, task: Callable[[], Any]) -> None:
        """Run ``task`` after those before it."""
        with uninterrupted():
            while len(self._pending) > self.WAITING:
                self._collect()
            self._pending.append(self._pool.submit(task))

    def _collect(self) -> None:
        try:
            self._pending.popleft().result()
        except BaseException:
            while self._pending:
                self._pending.pop().cancel()
            raise

    def __enter__(self) -> BackgroundWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            while self._pending:
                self._collect()
        finally:
            self._pool.shutdown(wait=True)


class HostCopy:
    """A tensor on its way to the host: through pinned memory, while the GPU computes on.

    Args:
        tensor: Anywhere; on the CPU it is taken as it is.
    """

    def __init__(self, tensor: Tensor):
        self._arrived: torch.cuda.Event | None = None
        if tensor.device.type != "cuda":
            self._host = tensor.cpu()
            return
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._host.copy_(tensor, non_blocking=True)
        self._arrived = torch.cuda.Event()
        self._arrived.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> Tensor:
        """Return the tensor on the host, once it is there."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._host
