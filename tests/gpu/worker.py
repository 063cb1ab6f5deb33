"""The process of one part: ``python -m tests.gpu.worker MODULE FOLDER DEVICE SECONDS``.

It writes ``end.json`` with the status and the reason. Without that file the process has crashed or was killed.
"""

import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Literal, cast

from tests.gpu.context import Context, SkippedError, write_json

END = "end.json"
OWN_PACKAGES = {"export", "latency", "fbnetv5", "tests", "benchmarks"}


def main(module: str, folder: str, device: str, seconds: str) -> None:
    """Run the part and write how it ended; an error of the part itself ends the process with a traceback."""
    context = Context(
        folder=Path(folder),
        device=cast('Literal["cuda", "cpu"]', device),
        deadline=time.monotonic() + float(seconds),
    )
    try:
        failures = import_module(module).run(context)
        end = {"status": "failed" if failures else "passed", "reason": "; ".join(failures) or None}
    except SkippedError as error:
        end = {"status": "skipped", "reason": str(error)}
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in OWN_PACKAGES:
            raise
        end = {"status": "skipped", "reason": f"not installed: {package or error}"}
    write_json(Path(folder) / END, end)


if __name__ == "__main__":
    main(*sys.argv[1:])
