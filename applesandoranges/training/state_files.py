"""State dictionaries that other programs saved: ``torch.save`` or safetensors."""

from __future__ import annotations

import glob
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skerch.errors import InputError
from skerch.utils import check_finite

#: Where training programs put the state dictionary, if it is not the whole file.
USUAL_ENTRIES = ("state_dict", "model_state_dict", "model", "net", "network")
#: What wrappers put before the names of parameters.
WRAPPERS = ("module.", "_orig_mod.")


def find_files(pattern: str, steps: Sequence[int]) -> dict[int, Path]:
    """Return files by step, ascending.

    Args:
        pattern: Files, with ``*`` as in shells.
        steps: Their steps, in the order of the sorted names; if empty, the last number in each
            name.

    Raises:
        InputError: If there is none, or steps are missing, too many or repeated.
    """
    paths = [Path(name) for name in sorted(glob.glob(str(Path(pattern).expanduser())))]
    if not paths:
        raise InputError(f"CHECKPOINTS: no file matches {pattern}")
    found = list(steps) if steps else [_step_of(path) for path in paths]
    if len(found) != len(paths) or len(set(found)) != len(paths) or min(found) < 0:
        raise InputError(
            f"expected {len(paths)} different steps, one for each of "
            f"{', '.join(path.name for path in paths)}; got {found}"
        )
    return dict(sorted(zip(found, paths, strict=True)))


def _step_of(path: Path) -> int:
    numbers = re.findall(r"\d+", path.stem)
    if not numbers:
        raise InputError(f"{path}: no number in its name says which step it is; give STEPS=[...]")
    return int(numbers[-1])


def load_into(net: nn.Module, path: Path, entry: str | None = None) -> None:
    """Set parameters and buffers of ``net`` to those of a file.

    Args:
        net: The network.
        path: Written by ``torch.save`` (read with ``weights_only=True``: no code in it is run), or
            a ``.safetensors`` file.
        entry: Name of the state dictionary in the file; by default the file is one, or has one of
            :data:`USUAL_ENTRIES`.

    Raises:
        InputError: If the file cannot be read or is not of this network; in one line.
    """
    state = _state_dict(_read(path), path, entry)
    own = net.state_dict()
    state = {_unwrapped(name, own): value for name, value in state.items()}
    missing, unknown = own.keys() - state.keys(), state.keys() - own.keys()
    shapes = [n for n in own.keys() & state.keys() if own[n].shape != state[n].shape]
    if missing or unknown or shapes:
        raise InputError(
            f"{path}: is not of this network: {len(missing)} names are missing {_some(missing)}, "
            f"{len(unknown)} are unknown {_some(unknown)}, {len(shapes)} have another shape "
            f"{_some(shapes)}"
        )
    for name, value in state.items():
        if value.is_complex() or value.is_floating_point() != own[name].is_floating_point():
            raise InputError(
                f"{path}: expected {name} in {own[name].dtype}, found {value.dtype}: a conversion "
                "would change it"
            )
        check_finite(value, f"{path}, {name}")
    net.load_state_dict(state)


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" not in str(error):
            raise InputError(f"{path}: cannot be read: not written by torch.save") from None
        raise InputError(
            f"{path}: holds more than tensors, numbers and texts, which is not loaded because it "
            "could run code; save net.state_dict() alone"
        ) from None
    except Exception as error:  # as many kinds as there are ways to damage a file
        raise InputError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error


def _state_dict(content: Any, path: Path, entry: str | None) -> Mapping[str, Tensor]:
    if entry is None and not _is_state(content) and isinstance(content, Mapping):
        usual = [name for name in USUAL_ENTRIES if _is_state(content.get(name))]
        entry = usual[0] if len(usual) == 1 else None
    found = content
    if entry is not None:
        found = content.get(entry) if isinstance(content, Mapping) else None
    if not _is_state(found):
        there = list(content) if isinstance(content, Mapping) else type(content).__name__
        raise InputError(
            f"{path}: expected a state dictionary{f' under {entry!r}' if entry else ''}, found "
            f"{there}; ENTRY=... says where it is"
        )
    state: Mapping[str, Tensor] = found
    return state


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(value, Tensor) for value in content.values())
    )


def _unwrapped(name: str, own: Mapping[str, Tensor]) -> str:
    """Return the name without what wrappers put before it."""
    while name not in own and (found := [w for w in WRAPPERS if name.startswith(w)]):
        name = name.removeprefix(found[0])
    return name


def _some(names: Any) -> str:
    return f"({', '.join(sorted(names)[:3])}{', ...' if len(names) > 3 else ''})" if names else ""
