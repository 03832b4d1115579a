"""Methods: what becomes of the label during pretraining.  One class per name in `METHODS`."""

from backbones.methods import (  # noqa: F401  (registers the methods)
    adaptive,
    bootstrapping,
    byot,
    distillation,
    instance,
    mixing,
    online,
    smoothing,
)
from backbones.methods.base import METHODS, Context, Method, MethodStep

__all__ = ["METHODS", "Context", "Method", "MethodStep"]
