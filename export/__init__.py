"""A torch module becomes ONNX, and proof that it still is the same network. Knows no search and no task.

ONNX Runtime from 1.29 on reports its use to Microsoft and keeps a device id below the home folder, unless the variable
ORT_DISABLE_TELEMETRY is set before it is imported. Here it is off by default; ORT_DISABLE_TELEMETRY=0 turns it on.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
