"""Stage 3 of MEPR.

`mepr_fusion.Run` opens a stage-3 run for use from Python, `mepr_fusion.Predictor` a bundle that
answers for videos; both are imported when they are asked for, since they need torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mepr_fusion.predict.predictor import Predictor
    from mepr_fusion.run import FusionRun as Run

__all__ = ["Predictor", "Run", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Run":
        from mepr_fusion.run import FusionRun

        return FusionRun
    if name == "Predictor":
        from mepr_fusion.predict.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
