"""Part "profile": ``fbnetv5 profile`` of variant a through the runtimes of this machine, with its held-out error."""

from importlib.util import find_spec
from typing import Any

from tests.gpu.commands import run_fbnetv5
from tests.gpu.context import Context, SkippedError

RUNTIMES = ("torch", "onnxruntime", "tensorrt")
MIN_SECONDS = 30.0
"""A further runtime is skipped if less time is left."""


def run(context: Context) -> list[str]:
    """Profile through each runtime that is here; the first, torch, always."""
    context.check_torch()
    device = "cpu" if context.is_rehearsal else device_name()
    small = ["--stages", "1", "--blocks-per-path", "1", "--resolution", "64x64", "--networks", "9", "--tasks", "seg"]
    options = small if context.is_rehearsal else ["--precision", "fp16", "--networks", "24"]
    runtimes: dict[str, Any] = {}
    failures = []
    for runtime in RUNTIMES:
        reason = reason_to_skip(runtime, context) if runtime != RUNTIMES[0] else None
        if reason is not None:
            runtimes[runtime] = {"skipped": reason}
        else:
            arguments = ["profile", "--device", device, "--runtime", runtime, *options]
            runtimes[runtime] = run_fbnetv5(context, runtime, arguments)
            failures += [f"{runtime}: {runtimes[runtime]['failure']}"] if runtimes[runtime]["failure"] else []
        context.save({"device": device, "runtimes": runtimes})
    return failures


def device_name() -> str:
    """The ``--device`` of the first GPU.

    Raises:
        SkippedError: no device of this project is such a GPU.
    """
    from export.cuda import find_gpus
    from latency.devices import GPUS, matches

    gpu = find_gpus()[0]
    for name, device in GPUS.items():
        if matches(device, gpu.name, gpu.compute_capability):
            return name
    raise SkippedError(f"{gpu.name} is no device of this project; docs/extending.md tells how to add one")


def reason_to_skip(runtime: str, context: Context) -> str | None:
    """Why a runtime is not measured; None if it is."""
    if context.is_rehearsal:
        return "the rehearsal measures one runtime"
    if context.left_s < MIN_SECONDS:
        return "the time is used up"
    if runtime == "onnxruntime":
        return onnxruntime_reason()
    names = ("tensorrt", "tensorrt_rtx")
    return None if any(find_spec(name) for name in names) else f"not installed: {' or '.join(names)}"


def onnxruntime_reason() -> str | None:
    """Why ONNX Runtime cannot use the GPU; None if its CUDA provider is here."""
    if find_spec("onnxruntime") is None:
        return "not installed: onnxruntime"
    import onnxruntime

    here = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    return None if here else f"onnxruntime {onnxruntime.__version__} has no CUDAExecutionProvider (onnxruntime-gpu)"


def summarise(result: dict[str, Any]) -> list[str]:
    """Lines of the printed summary: a line per runtime."""
    return [f"{result['device']} {runtime}: {text_of(entry)}" for runtime, entry in result["runtimes"].items()]


def text_of(entry: dict[str, Any]) -> str:
    """The errors of a measured table, or why it was not measured."""
    document = entry.get("document")
    if document is None:
        return str(entry.get("skipped") or entry.get("failure"))
    errors = document["held_out"]
    figures = (
        f"mean error {errors['mape']:.1%}, rank {errors['kendall_tau']:.3f} and noise {errors['noise']:.1%} "
        f"on {errors['networks']} held-out networks"
    )
    return f"{figures}; {len(document['unstable'])} unstable; {entry['seconds']} s"
