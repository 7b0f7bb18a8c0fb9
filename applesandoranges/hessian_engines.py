"""Door under the former name of hessian.engines."""

from .hessian.engines import ENGINES, Memory, ProductConfig, ProductPlan, ProductSettings

__all__ = ["ENGINES", "Memory", "ProductConfig", "ProductPlan", "ProductSettings"]
