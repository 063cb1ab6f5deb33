"""Exports torch modules to ONNX and TensorRT and verifies that the network stays the same. Knows no search, no task.

From version 1.29 on, ONNX Runtime reports its use to Microsoft and stores a device id in the home folder, unless the
variable ORT_DISABLE_TELEMETRY is set before its import. Here it is off by default; ORT_DISABLE_TELEMETRY=0 turns it on.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
