"""Marks of the tests that need TensorRT, of either variant or of TensorRT-RTX alone."""

import pytest

from export.errors import UnavailableError
from export.trt.bindings import TensorRTVariant, find_variant

VARIANT: TensorRTVariant | None
try:
    VARIANT = find_variant()
except UnavailableError:
    VARIANT = None
with_tensorrt = pytest.mark.skipif(VARIANT is None, reason="no TensorRT is installed: pip install 'fbnetv5[rtx]'")
with_rtx = pytest.mark.skipif(
    VARIANT is None or VARIANT.name != "tensorrt_rtx", reason="of TensorRT-RTX: pip install 'fbnetv5[rtx]'"
)
