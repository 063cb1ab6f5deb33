"""The options of ``fbnetv5 export``, except those of engines (``export/trt/options.py``)."""

import math
from dataclasses import dataclass

from export.errors import UserError
from export.graph import Exporter
from export.placement import Fit
from export.precision import Precision
from export.precision_pipeline import precisions_to


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """How networks are exported."""

    precision: Precision = "fp32"
    exporter: Exporter = "torchscript"
    """Which of torch's two exporters."""
    head: str | None = None
    """Form of a detector's outputs; None is topk."""
    from_pixels: bool = False
    """The network contains its preprocessing."""
    fixed_size: bool = False
    """The file accepts the deploy resolution only; the metric is then measured at that size."""
    max_drop: float | None = None
    """Maximum by which the metric may be worse than torch's, in its own unit."""
    fit: Fit | None = None
    """How images are fitted to the network's input; None is the fit of the run."""
    keep_float: tuple[str, ...] = ()
    """Name patterns of nodes that int8 leaves in float."""

    def __post_init__(self) -> None:
        precisions_to(self.precision)
        if self.max_drop is not None and not math.isfinite(self.max_drop):
            raise UserError(f"--max-drop is {self.max_drop}, where a number such as 0.01 is needed")
        if self.keep_float and self.precision != "int8":
            raise UserError("--keep-float names nodes that int8 leaves in float; it needs --precision int8")
