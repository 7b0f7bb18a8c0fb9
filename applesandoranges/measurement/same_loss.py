"""Whether a rebuilt problem computes what the training did: by its loss, the same to rounding.

Hashes tell sources, data and recorded states apart. What else a network may depend on (attributes
that it changes while it is trained, versions of libraries) shows here.
"""

from __future__ import annotations

import math

from skerch import heartbeat
from skerch.errors import InputError

from ..app import events
from ..app.log import Log
from ..hessian.loss import Loss
from ..problems.data_files import kept_generators
from ..problems.problem import Problem

#: Relative and absolute difference that rounding leaves, that of TF32 included.
RELATIVE, ABSOLUTE = 2e-3, 1e-5


def check_same_loss(problem: Problem, split: str, num_data: int, log: Log, step: int) -> None:
    """Raise :class:`InputError` unless the loss of a Hessian is the one that its training logged.

    Cost: one forward pass over the data of the Hessian. Nothing is checked where nothing was
    logged, or where the data are augmented at random.

    Args:
        problem: Its network has the state of the step, and is in evaluation mode.
        split: ``train`` or ``test``.
        num_data: Data points of the Hessian.
        log: Of the training.
        step: Which one.
    """
    logged = [
        body.get(f"H_{split}_loss")
        for body in log.bodies(events.TRAINING_BATCH)
        if body.get("global_step") == step
    ]
    is_random = split == "train" and problem.random_augmentation
    if is_random or not logged or not isinstance(expected := logged[-1], (int, float)):
        return
    heartbeat.doing("checking that the loss is that of the training")
    with kept_generators():
        found = float(Loss.of(problem, split, num_data).value())
    if not math.isclose(found, expected, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
        raise InputError(
            f"{problem.name}: its loss on the data of the Hessian ({split}, step {step}) is "
            f"{found:.6g}, in the training it was {expected:.6g} ({log.path}): it depends on "
            "something that was not recorded, such as attributes that a network changes while it "
            "is trained; make them buffers (register_buffer)"
        )
