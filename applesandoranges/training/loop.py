"""The training loop of 10a and 12a: updates, evaluations, recorded steps, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skerch.errors import NumericalError

from ..app import events
from ..app.screen import Bar
from ..hessian.loss import Loss
from ..hessian.means import weight_of
from ..problems.minibatch import num_points
from ..problems.parameters import load_untrained, untrained_state
from ..problems.problem import Batch, DeviceBatches, Problem
from .checkpoints import TrainingState
from .optimisers import make_optimizer, make_schedule
from .run import TrainingRun


@torch.no_grad()
def evaluate(problem: Problem, which: str) -> tuple[float, float | None] | None:
    """Return mean loss (with the L2 term) and accuracy on ``which`` evaluation set.

    Returns:
        ``None`` if the problem has no such set; ``None`` as accuracy if it has nothing to classify.
    """
    problem.net.eval()
    loader = problem.eval_loader(which)
    if loader is None:
        return None
    total, weight, right, count = 0.0, 0.0, list[float | None](), 0
    for X, y in DeviceBatches(loader, problem.device):
        outputs, points = problem.net(X), num_points((X, y))
        here = weight_of(problem.criterion, X, y)
        total += float(problem.criterion(outputs, y)) * here if here else 0.0
        weight += here
        right.append(problem.num_right(outputs, y))
        count += points
    known = [number for number in right if number is not None]
    accuracy = sum(known) / count if len(known) == len(right) else None
    return total / weight + float(problem.regularization()), accuracy


def _final_epoch(run: TrainingRun) -> int:
    """Return the epoch, from 1, of FINAL EVALUATION.

    As in the published logs: the one after the epoch of the last update, the last one if there are
    no more.
    """
    last_update = run.total_steps - 1
    return min(run.settings.num_epochs, last_update // run.problem.steps_per_epoch + 2)


def _log_evaluation(run: TrainingRun, header: str, epoch: int, step: int) -> None:
    """Evaluate all splits and log it, if that is wanted and not logged yet; epochs count from 1."""
    body: dict[str, Any] = {"epoch": epoch, "global_step": step}
    if not run.with_eval or run.has_logged(header, body):
        return
    for which, prefix in (("train_eval", "train"), ("valid", "xv"), ("test", "test")):
        result = evaluate(run.problem, which)
        if result is not None:
            values = zip((f"{prefix}_loss", f"{prefix}_acc"), result, strict=True)
            body |= {name: value for name, value in values if value is not None}
    run.log_once(header, body)


def _batches(problem: Problem, begin: int) -> Iterator[Batch]:
    """Yield the mini-batches of steps ``begin, begin + 1, ...`` without end."""
    epoch, skip = divmod(begin, problem.steps_per_epoch)
    while True:
        yield from DeviceBatches(problem.train_loader(epoch, skip), problem.device)
        epoch, skip = epoch + 1, 0


class _Training:
    """A training under way: what is done at a step, in this order."""

    def __init__(self, run: TrainingRun, on_record: Callable[[int], None], checkpoint: Path | None):
        self.run, self.on_record, self.checkpoint = run, on_record, checkpoint
        net, settings = run.problem.net, run.settings
        self.optimizer = make_optimizer(settings, net.parameters())
        total = settings.num_epochs * run.problem.steps_per_epoch
        self.schedule = make_schedule(settings, self.optimizer, total)
        self.state = TrainingState(net, self.optimizer, self.schedule)

    def first_step(self) -> int:
        """Return 0, or the step of the checkpoint, whose state is taken."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return 0
        step = self.state.load(self.checkpoint, self.run.run_id)
        self.run.log.info(events.FROM_CHECKPOINT, {"global_step": step})
        return step

    def save_if_due(self, step: int) -> None:
        """Save the state at the beginning of an epoch, after a recorded step, and at the end."""
        run = self.run
        begins = step % run.problem.steps_per_epoch == 0
        due = begins or step - 1 in run.record_steps or step == run.total_steps
        if self.checkpoint is not None and due:
            self.state.save(self.checkpoint, run.run_id, step)

    def evaluate_if_due(self, step: int) -> None:
        """Evaluate at the beginning of an epoch."""
        epoch, position = divmod(step, self.run.problem.steps_per_epoch)
        if position == 0:
            _log_evaluation(self.run, events.EVAL_ROUND, epoch + 1, step)

    def record(self, step: int) -> dict[str, float]:
        """Record a step and return the losses of its Hessians; nothing if it is not recorded."""
        run, problem = self.run, self.run.problem
        if step not in run.record_steps:
            return {}
        problem.net.eval()
        self.on_record(step)
        return {
            f"H_{split}_loss": float(Loss.of(problem, split, run.num_hessian).value())
            for split in ("train", "test")
        }

    def forward(self, step: int, batch: Batch, losses: dict[str, float]) -> Tensor:
        """Return the loss of a mini-batch; log it beside the losses of a recorded step."""
        problem, (X, y) = self.run.problem, batch
        problem.net.train()
        loss = problem.criterion(problem.net(X), y)
        batch_loss = loss.item()
        if not math.isfinite(batch_loss):
            raise NumericalError(f"training diverged: the loss of step {step} is {batch_loss}")
        if losses:
            epoch = step // problem.steps_per_epoch + 1
            body = {"global_step": step, "epoch": epoch, "batch_loss": batch_loss, **losses}
            lr = self.optimizer.param_groups[0]["lr"]
            self.run.log_once(events.TRAINING_BATCH, body | {"lr": lr})
        return loss

    def update(self, loss: Tensor) -> None:
        """Make the update."""
        self.optimizer.zero_grad()
        (loss + self.run.problem.regularization()).backward()
        self.optimizer.step()
        self.schedule.step()

    def step(self, step: int, batches: Iterator[Batch]) -> None:
        """Go through one step."""
        self.save_if_due(step)  # before the mini-batch is drawn, which moves the generators
        batch = next(batches)
        self.evaluate_if_due(step)
        # Recorded before the batch passes through the network, which moves BatchNorm's statistics.
        losses = self.record(step)
        self.update(self.forward(step, batch, losses))

    def end(self, batches: Iterator[Batch]) -> None:
        """Record the state after the last update, if that is wanted, with a batch of no update."""
        run, step = self.run, self.run.total_steps
        self.save_if_due(step)
        if step in run.record_steps:
            batch = next(batches)
            losses = self.record(step)
            buffers = untrained_state(run.problem.net)
            self.forward(step, batch, losses)
            load_untrained(run.problem.net, buffers)
        _log_evaluation(run, events.FINAL_EVALUATION, _final_epoch(run), step)


def train(
    run: TrainingRun, on_record: Callable[[int], None], checkpoint: Path | None = None
) -> None:
    """Train, logging evaluations, and call ``on_record(step)`` at each recorded step.

    The network is in evaluation mode during that call and in training mode for each update.

    Args:
        run: The training.
        on_record: Called with the step.
        checkpoint: If given, the state is saved there at the beginning of each epoch and after each
            recorded step; where the file exists already, the training goes on from it.

    Raises:
        NumericalError: If the loss is not finite any more.
        StoreError: If the checkpoint is damaged or of another run.
    """
    training = _Training(run, on_record, checkpoint)
    begin, end = training.first_step(), run.total_steps
    batches = _batches(run.problem, begin)
    with Bar("training", "step", end, begin) as bar:
        for step in range(begin, end):
            training.step(step, batches)
            bar.advance()
        training.end(batches)
