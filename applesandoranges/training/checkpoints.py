"""Checkpoints of a training, from which it goes on as if it had never been stopped.

A checkpoint holds everything that the following updates depend on: parameters, buffers, the state
of the optimiser and of the schedule, and of every global random generator (dropout and random
augmentation draw from them). It is an HDF5 file that replaces the one before when it is complete,
and a hash over its content tells whether it was damaged since.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from skerch.errors import StoreError
from skerch.store.files import create_h5, own_dataset, reading, replacing, reserve_space

from ..problems.constants import attribute_hashes
from ..problems.parameters import named_hash, storable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingState:
    """The objects that a training changes."""

    net: nn.Module
    optimizer: Optimizer
    schedule: LambdaLR

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, value in {**dict(self.net.named_buffers()), **self.net.state_dict()}.items():
            yield f"net/{name}", storable(value)  # buffers that are not persistent included
        for number, entries in self.optimizer.state_dict()["state"].items():
            for name, value in entries.items():
                if value is not None:
                    yield f"optimizer/{number}/{name}", torch.as_tensor(value)
        for name, state in _generator_states().items():
            yield f"generators/{name}", state

    def save(self, path: Path, run_id: str, step: int) -> None:
        """Write the state before the update of ``step``, replacing an earlier checkpoint."""
        tensors = dict(self._tensors())
        facts = {
            "run_id": run_id,
            "step": step,
            "learning_rates": [group["lr"] for group in self.optimizer.param_groups],
            "attributes": attribute_hashes(self.net),
            "python_random": random.getstate(),
            "numpy_random": np.random.get_state(legacy=False),
        }
        with replacing(path, durable=True) as aside, create_h5(aside) as file:
            reserve_space(file, sum(value.nbytes for value in tensors.values()))
            for name, value in tensors.items():
                file[name] = value.detach().cpu().numpy()
            file.attrs["facts"] = text = json.dumps(facts, default=lambda array: array.tolist())
            file.attrs["sha256"] = named_hash(tensors, text)

    def load(self, path: Path, run_id: str) -> int:
        """Set everything to the state of a checkpoint and return its step.

        Raises:
            StoreError: If it is damaged, or of another run.
        """
        with reading(path) as file:
            names: list[str] = []
            file.visititems(lambda name, item: names.append(name) if _is_dataset(item) else None)
            tensors = {name: torch.as_tensor(own_dataset(file, name)[()]) for name in names}
            text = str(file.attrs.get("facts"))
            intact = file.attrs.get("sha256") == named_hash(tensors, text)
        if not intact:
            raise StoreError(f"{path}: the checkpoint is damaged; start the training anew")
        facts = json.loads(text)
        if facts["run_id"] != run_id:
            raise StoreError(f"{path}: is of run {facts['run_id']}, expected {run_id}")
        self._set(tensors, facts)
        return int(facts["step"])

    def _set(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self._set_network(_below("net/", tensors), facts.get("attributes"))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _below("optimizer/", tensors).items():
            number, _, entry = name.partition("/")
            state.setdefault(int(number), {})[entry] = value
        groups = self.optimizer.state_dict()["param_groups"]
        for group, lr in zip(groups, facts["learning_rates"], strict=True):
            group["lr"] = lr
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.schedule.last_epoch = facts["step"]
        _set_generators(_below("generators/", tensors))
        version, internal, gauss = facts["python_random"]
        random.setstate((version, tuple(internal), gauss))
        numpy_state = facts["numpy_random"]
        numpy_state["state"]["key"] = np.asarray(numpy_state["state"]["key"], dtype=np.uint32)
        np.random.set_state(numpy_state)

    @torch.no_grad()
    def _set_network(self, state: dict[str, Tensor], attributes: dict[str, str] | None) -> None:
        persistent = self.net.state_dict().keys()
        for name, buffer in self.net.named_buffers():
            if name not in persistent and name in state:
                buffer.copy_(state.pop(name))
        self.net.load_state_dict(state)
        now = attribute_hashes(self.net)
        if changed := _changed(now if attributes is None else attributes, now):
            log.warning(
                "the training changed attributes of the network that are not in its checkpoint "
                "(%s): if they matter, its numbers are not those of one that was never stopped; "
                "buffers (register_buffer) are in it",
                ", ".join(changed[:5]),
            )


def _is_dataset(item: Any) -> bool:
    return isinstance(item, h5py.Dataset)


def _changed(before: dict[str, str], now: dict[str, str]) -> list[str]:
    return sorted(name for name in before.keys() | now if before.get(name) != now.get(name))


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _generator_states() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    for number in range(torch.cuda.device_count()):
        states[f"cuda{number}"] = torch.cuda.get_rng_state(number)
    return states


def _set_generators(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    for number in range(torch.cuda.device_count()):
        if f"cuda{number}" in states:
            torch.cuda.set_rng_state(states[f"cuda{number}"], number)
