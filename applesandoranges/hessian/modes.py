"""The state in which networks are differentiated twice, put back afterwards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@contextmanager
def differentiable(net: nn.Module, by_formula: bool = True) -> Iterator[None]:
    """Put a network into evaluation mode, with kernels that have second derivatives.

    Dropout and BatchNorm are then functions of the parameters alone. Attention is computed by its
    formula: the fused kernels have no second derivatives. Compiled modules run as they were
    written, and recurrent ones on GPUs without cuDNN, for the same reason.

    Args:
        net: The network.
        by_formula: Also compute what is in :data:`FORMULAS` step by step.
    """
    training = [module for module in net.modules() if module.training]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if _is_compiled(net):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if _has_fused_recurrence(net):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        if by_formula:
            stack.enter_context(_ByFormula())
        torch.backends.mha.set_fastpath_enabled(False)
        net.eval()
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)
            for module in training:
                module.training = True


def _is_compiled(net: nn.Module) -> bool:
    if "torch._dynamo" not in sys.modules:  # which takes seconds to import
        return False
    return any(hasattr(m, "_orig_mod") or _compiled_call(m) is not None for m in net.modules())


def _compiled_call(module: nn.Module) -> Any:
    return getattr(module, "_compiled_call_impl", None)


def _has_fused_recurrence(net: nn.Module) -> bool:
    return any(
        isinstance(module, nn.RNNBase) and any(p.is_cuda for p in module.parameters())
        for module in net.modules()
    )


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Return ``g v / |v|``, norms over all dimensions but ``dim`` (over all for -1)."""
    if dim == -1:
        return v * (g / v.norm())
    others = [i for i in range(v.ndim) if i != dim]
    return v * (g / torch.linalg.vector_norm(v, dim=others, keepdim=True))


def _hardsigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    return F.relu6(x + 3) / 6


#: What replaces functions whose second derivatives are missing (hardsigmoid) or wrong (the fused
#: kernel of weight_norm, on CPUs) in torch 2.14.
FORMULAS: dict[Any, Callable[..., Tensor]] = {
    torch._weight_norm: _weight_norm,
    F.hardsigmoid: _hardsigmoid,
}


class _ByFormula(TorchFunctionMode):
    """Calls formulas in place of the functions that they replace."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return FORMULAS.get(func, func)(*args, **(kwargs or {}))
