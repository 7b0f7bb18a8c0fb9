"""A problem of a file, with the interface of those that are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.utils.data import Dataset, IterableDataset, default_collate

from skerch.errors import InputError

from .base import SMALLER, Problem
from .constants import constants_hash
from .data_files import DataFiles, check_files, kept_generators
from .definition import Definition
from .minibatch import Batch, first_points, hash_of, leaves, num_points
from .parameters import trainable
from .samplers import balanced_indices, balanced_sizes, split_indices

SPLITS = ("train", "test")


class OwnProblem(Problem):
    """A problem that a :class:`Definition` describes.

    Args:
        definition: What the file says.
        seed: Of the validation split and the training order; weights are drawn from torch's global
            generator, which has been seeded.
        batch_size: Data points per mini-batch; mini-batches of the file are taken as
            they come.
        device: Where the network goes, and the data of Hessians.
        load_data: Whether the data are needed.

    Raises:
        InputError: If anything in the file is not what it should be; in one line.
    """

    def __init__(
        self,
        definition: Definition,
        seed: int,
        batch_size: int,
        device: torch.device,
        load_data: bool = True,
    ):
        self.definition = definition
        super().__init__(
            definition.name, _network(definition), _loss(definition), seed, batch_size, device
        )
        # Before anything can change them.
        self._constants = constants_hash(
            definition.sources, self.net, self.criterion, definition.attributes
        )
        self._parts: dict[str, _Points | _MiniBatches] = {}
        if load_data:
            self._parts = {split: _part(definition, split) for split in SPLITS}
            self._train, self._valid = self._split()

    def _split(self) -> tuple[Tensor, Tensor]:
        """Return training and validation indices of the training data."""
        num, part = self.definition.num_valid, self._parts["train"]
        if isinstance(part, _MiniBatches):
            for name in ("num_valid", "classes"):
                if getattr(self.definition, name):
                    raise InputError(
                        f"{self.definition.path}: {name} takes a Dataset of data points; data that "
                        "come as mini-batches are taken as they come"
                    )
            return torch.arange(len(part)), torch.arange(0)
        train, valid = split_indices(len(part), self._seed, num)
        if len(train) < self.batch_size:
            raise InputError(
                f"{self.definition.path}: the batch size {self.batch_size} is larger than its "
                f"training data ({len(train)} data points, {num} more for validation){SMALLER}"
            )
        return train, valid

    def _of(self, split: str) -> _Points | _MiniBatches:
        self._check_split(split)
        if split not in self._parts:
            raise InputError(f"{self.name} was built without its data")
        return self._parts[split]

    @property
    def source(self) -> str:
        """Where the data come from: from the file."""
        return "own"

    @cached_property
    def data_files(self) -> DataFiles:
        """How many data points each split has, and their hash: one pass over all of them."""
        with kept_generators():
            return {split: self._points(split) | self._hash(split) for split in SPLITS}

    def _points(self, split: str) -> dict[str, Any]:
        return {"points": len(self._of(split))}

    def _hash(self, split: str) -> dict[str, Any]:
        part = self._of(split)
        data = iter(part) if isinstance(part, _MiniBatches) else part.each()
        try:
            return {"sha256": hash_of(data)}
        except Exception as error:
            reason = error if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            raise InputError(f"{self.definition.path}: data({split!r}): {reason}") from error

    def check_data_files(self, expected: Any, where: str, quick: bool = False) -> None:
        """See :meth:`Problem.check_data_files`; ``quick`` counts the data points alone."""
        if not quick:
            super().check_data_files(expected, where)
            return
        if isinstance(expected, Mapping):
            counts = {name: _only_points(facts) for name, facts in expected.items()}
            check_files(counts, {split: self._points(split) for split in SPLITS}, where)
        else:
            check_files(expected, {}, where)

    @property
    def steps_per_epoch(self) -> int:
        """Mini-batches of training data in an epoch; full ones, where they are made here."""
        part = self._of("train")
        if isinstance(part, _MiniBatches):
            return part.num_batches
        return len(self._train) // self.batch_size

    def num_valid(self, of_full: int | None = None) -> int:
        """Return how many of the training data validate."""
        return self.definition.num_valid

    def hessian_sizes(self, split: str) -> tuple[int, int]:
        """See :meth:`Problem.hessian_sizes`; subsets are balanced where there are classes."""
        part = self._of(split)
        if self.definition.classes is not None and isinstance(part, _Points):
            return balanced_sizes(_classes(self.definition, split, len(part)))
        return 1, len(part)

    def hessian_subset(self, split: str, size: int) -> Tensor:
        """Return the indices of the data points of a Hessian: balanced by classes, or the first."""
        part = self._of(split)
        if self.definition.classes is not None and isinstance(part, _Points):
            return balanced_indices(_classes(self.definition, split, len(part)), size)
        if not 1 <= size <= len(part):
            raise InputError(
                f"{self.definition.path}: expected 1 to {len(part)} data points for a Hessian "
                f"({split}), got {size}"
            )
        return torch.arange(size)

    def subset_hash(self, split: str, size: int) -> str:
        """Return a SHA-256 over the data of a Hessian, in the mini-batches that it is made of.

        Raises:
            InputError: If they differ between two passes.
        """
        hashes = {hash_of(self._hessian_loader(split, size)) for _ in range(2)}
        if len(hashes) > 1:
            raise InputError(
                f"{self.definition.path}: data({split!r}) gives other data at each pass (shuffled "
                "or augmented at random?); a Hessian needs the same ones: give them in fixed order"
            )
        return hashes.pop()

    def train_loader(self, epoch: int, skip: int = 0) -> Iterable[Batch]:
        """Return the mini-batches of an epoch: shuffled, or as they come."""
        part = self._of("train")
        if isinstance(part, _MiniBatches):
            return islice(part, skip, None)
        return self._shuffled(part.dataset, self._train, epoch, skip)

    def eval_loader(self, which: str) -> Iterable[Batch] | None:
        """Return the mini-batches of an evaluation set.

        ``train_eval`` has as many training data, the first ones, as there are test data.
        """
        part = self._of("test" if which == "test" else "train")
        if which == "valid":
            if isinstance(part, _MiniBatches) or len(self._valid) == 0:
                return None
            return self._subset_loader(part.dataset, self._valid, drop_last=False)
        return self._first(part, min(len(part), len(self._of("test"))))

    def _first(self, part: _Points | _MiniBatches, num: int) -> Iterable[Batch]:
        if isinstance(part, _MiniBatches):
            return first_points(part, num)
        return self._subset_loader(part.dataset, torch.arange(num), drop_last=False)

    def _hessian_loader(self, split: str, size: int) -> Iterable[Batch]:
        part, idxs = self._of(split), self.hessian_subset(split, size)
        if isinstance(part, _MiniBatches):
            return first_points(part, size)
        return self._subset_loader(part.dataset, idxs, drop_last=False)

    def regularization(self) -> Tensor:
        """Return the term that the file adds to the loss of an update, or zero."""
        if self.definition.regularization is None:
            return super().regularization()
        term = self.definition.call("regularization", self.net)
        return torch.as_tensor(term, device=self.device)

    def num_right(self, outputs: Any, targets: Any) -> float | None:
        """Return how many points are classified rightly, where there is anything to classify."""
        points = num_points((outputs, targets))
        if self.definition.accuracy is not None:
            return float(self.definition.call("accuracy", outputs, targets)) * points
        if not (isinstance(targets, Tensor) and isinstance(outputs, Tensor)):
            return None
        if targets.is_floating_point() or (outputs.ndim, targets.ndim) != (2, 1):
            return None
        return int((outputs.argmax(1) == targets).sum())

    def facts(self) -> dict[str, Any]:
        """Return the hashes of the source, and of numbers that it may have read elsewhere."""
        return {
            "problem_sha256": self.definition.sha256,
            "problem_constants_sha256": self._constants,
        }


def _only_points(facts: Any) -> dict[str, Any]:
    return {"points": facts.get("points") if isinstance(facts, Mapping) else None}


class _Points:
    """Data points one by one."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def each(self) -> Iterator[Any]:
        """Yield all in order."""
        return (self.dataset[idx] for idx in range(len(self)))

    def __len__(self) -> int:
        return len(self.dataset)


class _MiniBatches:
    """Mini-batches as they come, iterable again and again."""

    def __init__(self, batches: Iterable[Batch]):
        self.batches = batches
        sizes = [num_points(batch) for batch in batches]
        self.num_batches, self._points = len(sizes), sum(sizes)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def __len__(self) -> int:
        return self._points


def _network(definition: Definition) -> nn.Module:
    net = definition.call("network")
    if not isinstance(net, nn.Module):
        raise InputError(
            f"{definition.path}: expected network() to return a torch.nn.Module, got a "
            f"{type(net).__name__}"
        )
    if any(isinstance(p, UninitializedParameter) for p in net.parameters()):
        raise InputError(
            f"{definition.path}: network() has parameters without a shape (lazy modules); call it "
            "with data once before it is returned"
        )
    if unknown := [type(m).__name__ for m in net.modules() if _has_more_state(m)]:
        raise InputError(
            f"{definition.path}: network() has modules with state that is not recorded, sparse "
            f"buffers or get_extra_state(): {unknown[0]}; expected dense buffers and parameters"
        )
    dtypes = {p.dtype for p in trainable(net).values()}
    if dtypes != {torch.float32}:
        found = ", ".join(sorted(map(str, dtypes))) or "none that is trained"
        raise InputError(
            f"{definition.path}: expected a network with parameters of torch.float32, got {found}"
        )
    return net


def _has_more_state(module: nn.Module) -> bool:
    sparse = any(b is not None and b.layout != torch.strided for b in module.buffers(recurse=False))
    return sparse or type(module).get_extra_state is not nn.Module.get_extra_state


class _FunctionLoss(nn.Module):
    """A mean loss that is a function, as the module that second derivatives are taken of."""

    reduction = "mean"

    def __init__(self, function: Callable[[Any, Any], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, outputs: Any, targets: Any) -> Tensor:
        return self.function(outputs, targets)


def _loss(definition: Definition) -> nn.Module:
    loss = definition.loss
    return loss if isinstance(loss, nn.Module) else _FunctionLoss(loss)


def _part(definition: Definition, split: str) -> _Points | _MiniBatches:
    """Return the data of a split, made sure that they are what a problem needs."""
    data = definition.call("data", split)
    where = f"{definition.path}: data({split!r})"
    if isinstance(data, IterableDataset) or not (
        isinstance(data, Dataset) or hasattr(type(data), "__iter__")
    ):
        raise InputError(
            f"{where}: expected a Dataset of data points, or mini-batches to be iterated, got a "
            f"{type(data).__name__}"
        )
    if not isinstance(data, Dataset) and iter(data) is iter(data):
        raise InputError(
            f"{where}: its data end after one pass; expected what can be iterated again and again: "
            "a list, a DataLoader, or a class with __iter__"
        )
    try:
        part, example = _opened(data)
        if len(part) > 0:
            _check_pair(example)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except Exception as error:
        raise InputError(f"{where}: {type(error).__name__}: {error}") from error
    if len(part) == 0:
        raise InputError(f"{where}: expected data points, got none")
    return part


def _opened(data: Any) -> tuple[_Points | _MiniBatches, Any]:
    """Return the data, and a mini-batch of them."""
    if not isinstance(data, Dataset):
        _check_pair(next(iter(data), (torch.zeros(1), None)))
        return _MiniBatches(data), next(iter(data), None)
    part = _Points(data)
    return part, default_collate([data[0], data[0]]) if len(part) else None


def _check_pair(example: Any) -> None:
    if not (isinstance(example, (tuple, list)) and len(example) == 2):
        is_sequence = isinstance(example, (tuple, list))
        found = f"{len(example)} values" if is_sequence else f"a {type(example).__name__}"
        raise InputError(
            f"expected pairs (inputs, targets), either of which may be a dictionary; got {found}"
        )
    if not any(isinstance(x, Tensor) for x in leaves(example[0])):
        raise InputError("expected tensors as inputs")
    num_points((example[0], example[1]))


def _classes(definition: Definition, split: str, num: int) -> Tensor:
    labels = torch.as_tensor(definition.call("classes", split))
    if labels.is_floating_point() or tuple(labels.shape) != (num,):
        raise InputError(
            f"{definition.path}: expected classes({split!r}) to be {num} whole numbers, one per "
            f"data point, got {labels.dtype} {list(labels.shape)}"
        )
    return labels
