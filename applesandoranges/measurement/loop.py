"""Measuring one Hessian into a store; a rerun measures only what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from skerch.errors import NumericalError

from ..app import events
from ..app.log import JsonLog
from ..app.screen import Bar
from .background import BackgroundWriter, HostCopy
from .recovery import Recovery


def measure(recovery: Recovery, missing: Sequence[int], log: JsonLog) -> None:
    """Measure ``missing``, in blocks of as many vectors as the plan of the operator says.

    Writing a block overlaps computing the next one. A measurement is logged as successful once its
    files are there.

    Args:
        recovery: What to measure, and where to.
        missing: Their indices.
        log: Each measurement is logged.

    Raises:
        NumericalError: If a product is NaN or infinite; the line names step, split, indices and
            mini-batch.
    """
    recorded = recovery.recorded
    where = {"step": recorded.step, "H_test": recorded.test}
    plan = recorded.operator.plan
    log.info(events.PRODUCTS, where | plan.summary())

    def compute(block: Sequence[int]) -> list[HostCopy]:
        try:
            results = recovery.measure(block)
        except NumericalError as error:
            reason = str(error)
            if error.indices:
                v = recovery.vectors(error.indices[:1])[0]
                reason += f", from {recorded.culprit(v)}"
            raise NumericalError(f"{recorded.where}: {reason}") from None
        return [HostCopy(result.T.contiguous()) for result in results]

    def write(block: Sequence[int], copies: Sequence[HostCopy]) -> None:
        arrays = [copy.wait().numpy() for copy in copies]
        for row, idx in enumerate(block):
            recovery.write(idx, [array[row] for array in arrays])
            which = {"idx": idx, "meas_idx": idx, "with_outer": recovery.with_outer(idx)}
            log.info(events.MEASURED, where | which)
        bar.advance(len(block))

    with Bar("measuring", "product", len(missing)) as bar, BackgroundWriter() as writer:
        for begin in range(0, len(missing), plan.vectors):
            block = missing[begin : begin + plan.vectors]
            for idx in block:
                log.info(events.MEASURING, where | {"idx": idx, "meas_idx": idx})
            writer.submit(partial(write, block, compute(block)))
