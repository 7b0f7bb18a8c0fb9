"""Keys of the scripts that multiply with Hessians."""

from __future__ import annotations

from dataclasses import dataclass

from ..app.keys import key

#: More vectors per product than this did not speed up any problem.
MAX_VECTORS = 128


@dataclass(kw_only=True)
class ProductConfig:
    """Keys of the scripts that multiply with Hessians."""

    MEMORY_BUDGET_GB: float | None = key(
        "memory to use at most", None, shown="a quarter of the machine"
    )
    HVP_ENGINE: str = key("how to multiply: vmap, graph, or auto, the faster one of both", "auto")
    VECTORS_PER_PRODUCT: int | None = key(
        "vectors per product", None, shown=f"as many as fit, at most {MAX_VECTORS}"
    )
    ALLOW_TF32: bool = key("let GPUs round to TensorFloat-32: faster, 3 digits", False)
    CURVATURE: str = key("hessian, ggn (generalised Gauss-Newton) or fisher (exact)", "hessian")
    PARAMETERS: str = key(
        "parameters that span it: names, patterns (*.weight), layers, weights, biases or norms, "
        "with commas; -NAME leaves out",
        "",
        shown="all",
    )
