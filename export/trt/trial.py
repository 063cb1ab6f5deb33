"""Asks NVIDIA's parser and builder whether an ONNX file becomes an engine, and where it fails.

The builder works in two parts. It first validates the network and computes its shapes, for which it folds constants
and enters subgraphs and functions; this takes milliseconds. It then chooses and compiles kernels, which takes nearly
all of the time. Without a full build only the first part runs: the build is cancelled as soon as kernels are timed.
What the second part alone refuses is attention without a kernel (tensorrt-rtx 1.7.1), which is therefore reported as
undecided.

NVIDIA's code may crash or write to stdout. The functions here are called through ``export.subprocesses``; their
arguments and results are JSON values.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from export.errors import UserError
from export.progress import Progress
from export.trt.bindings import (
    BuilderConfig,
    Layer,
    Network,
    OptimizationProfile,
    ParserError,
    Tensor,
    TensorRT,
    describe_error,
    empty_network,
    find_variant,
    make_builder,
    make_logger,
)

PARSED = "parsed"
"""The stage that ``run`` reports once the parser has accepted the file: what fails later is the builder."""
IMAGE_SIDE = 224
_COMPILING = "Computing profile costs"
"""The phase of the builder in which kernels are timed and compiled."""
_ATTENTION = "ATTENTION_OUTPUT"
"""The type of the layer that has the name of its ONNX node."""
_UNDECIDED = "Only a build shows whether there is a kernel for this attention."


def identify() -> dict[str, str]:
    """Name and version of the installed TensorRT, as ``{"name", "version"}``.

    Raises:
        UnavailableError: no TensorRT is installed.
    """
    variant = find_variant()
    return {"name": variant.name, "version": variant.version}


def run(path: str, shapes: Mapping[str, Sequence[int]], build: bool, progress: Progress) -> dict[str, Any]:
    """Parse an ONNX file, let the builder validate it and, if asked, build it.

    The parser accepts some files that are not ONNX as empty networks: read the file with onnx first.

    Args:
        path: the ONNX file.
        shapes: shape of each dynamic input, or values of each input that sets sizes; dynamic axes of other inputs get
            chosen lengths.
        build: also choose and compile kernels.
        progress: called with ``PARSED`` and with the builder's outermost phase.

    Returns:
        ``{"name", "version", "warnings": [...], "parser_errors": [...], "builder_errors": [...], "shapes": those that
        the network was built for, "chosen": names of the inputs whose shapes were chosen, "unset": {name: number of
        values} of the inputs that set sizes and have no values}``.

    Raises:
        UserError: a shape does not fit its input.
        UnavailableError: no TensorRT that can parse is installed.
    """
    variant = find_variant()
    trt, logger = variant.module, make_logger(variant.module)
    builder = make_builder(variant, logger)
    network = empty_network(trt, builder, logger)  # a reference, because the parser keeps none
    parser = trt.OnnxParser(network, logger)
    accepted = parser.parse_from_file(path)
    log = logger.errors if parser.num_errors == 1 else []
    errors = [_describe(parser.get_error(index), log) for index in range(parser.num_errors)]
    if not accepted and not errors:
        errors = [{"code": "UNKNOWN", "node": None, "name": "", "operator": "", "within": [], "message": "no reason"}]
    result: dict[str, Any] = {"name": variant.name, "version": variant.version, "warnings": list(logger.warnings)}
    result |= {"parser_errors": errors, "builder_errors": [], "shapes": {}, "chosen": [], "unset": {}}
    if not errors:
        progress(PARSED, 1, 1)
        result |= choose_shapes([network.get_input(index) for index in range(network.num_inputs)], shapes)
        config = builder.create_builder_config()
        _add_profile(config, builder.create_optimization_profile(), network, result["shapes"])
        monitor = _make_monitor(trt, progress, stop=not build)  # a reference, because TensorRT keeps none
        config.progress_monitor = monitor
        logger.clear()
        if builder.build_serialized_network(network, config) is None:
            result["builder_errors"] = _refusals(network, [] if monitor.stopped else logger.errors or ["no reason"])
    return result


def choose_shapes(inputs: Sequence[Tensor], named: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """``{"shapes", "chosen", "unset"}`` of ``run`` for the inputs of a network.

    Dynamic axes get length 1, and 3 x 224 x 224 after the first axis of a 4-D input, unless a shape is named.

    Raises:
        UserError: a named shape does not fit its input.
    """
    shapes: dict[str, list[int]] = {}
    chosen: list[str] = []
    unset: dict[str, int] = {}
    for tensor in inputs:
        axes = list(tensor.shape)
        if tensor.name in named:
            shapes[tensor.name] = _fitting(tensor, axes, list(named[tensor.name]))
        elif tensor.is_shape_tensor:
            unset[tensor.name] = max(1, axes[0]) if axes else 1
        elif -1 in axes:
            lengths = (1, 3, IMAGE_SIDE, IMAGE_SIDE) if len(axes) == 4 else (1,) * len(axes)
            shapes[tensor.name] = [length if axis == -1 else axis for axis, length in zip(axes, lengths, strict=True)]
            chosen.append(tensor.name)
    return {"shapes": shapes, "chosen": chosen, "unset": unset}


def _fitting(tensor: Tensor, axes: list[int], numbers: list[int]) -> list[int]:
    """The numbers, if they are a shape of the input or, of an input that sets sizes, its values."""
    if tensor.is_shape_tensor:
        count = axes[0] if axes else 1
        if count not in (-1, len(numbers)):
            raise UserError(f"input {tensor.name!r} sets sizes: it needs its {count} values, not {numbers}")
    elif len(axes) != len(numbers) or any(axis not in (-1, size) for axis, size in zip(axes, numbers, strict=True)):
        accepted = "x".join("?" if axis == -1 else str(axis) for axis in axes)
        raise UserError(f"input {tensor.name!r} accepts {accepted or 'a single number'}, not {numbers}")
    elif min(numbers, default=1) < 1:
        raise UserError(f"input {tensor.name!r} needs axes of at least 1, not {numbers}")
    return numbers


def _refusals(network: Network, messages: Sequence[str]) -> list[dict[str, Any]]:
    """What the builder refuses, as ``[{"message", "names"}]`` with the node's name and those that contain it.

    Args:
        network: the network.
        messages: the builder's errors; none if it was stopped. Then attention is undecided.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    if messages:
        return [{"message": " ".join(messages), "names": refused_node(layers, messages[0])}]
    attention = [layer for layer in layers if layer.type.name == _ATTENTION]
    return [{"message": _UNDECIDED, "names": _onnx_names(layer)} for layer in attention[:1]]


def _add_profile(
    config: BuilderConfig, profile: OptimizationProfile, network: Network, shapes: Mapping[str, Sequence[int]]
) -> None:
    """Add an optimisation profile of exactly these shapes and values, if there are any."""
    if not shapes:
        return
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.name in shapes:
            numbers = shapes[tensor.name]
            set_numbers = profile.set_shape_input if tensor.is_shape_tensor else profile.set_shape
            set_numbers(tensor.name, numbers, numbers, numbers)
    config.add_optimization_profile(profile)


def _make_monitor(trt: TensorRT, progress: Progress, *, stop: bool) -> Any:
    """An IProgressMonitor that passes the outermost phase on and can stop the build where kernels are compiled."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._outermost: tuple[str, int] | None = None
            self._compiling = False
            self.stopped = False

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self._outermost = self._outermost or (phase, steps)
            self._compiling = self._compiling or phase == _COMPILING

        def step_complete(self, phase: str, step: int) -> bool:
            if self._outermost is not None and phase == self._outermost[0]:
                progress(phase, step + 1, self._outermost[1])
            self.stopped = stop and self._compiling
            return not self.stopped

        def phase_finish(self, phase: str) -> None: ...

    return Monitor()


def refused_node(layers: Sequence[Layer], message: str) -> list[str]:
    """The names of the ONNX node that a message is about, innermost first; empty if it names none.

    A message names a layer, a tensor or, for attention, only the operator.
    """
    named = [layer for layer in layers if layer.name in message and _is_word(layer.name, message)]
    named.sort(key=lambda layer: -len(layer.name))  # "conv.1" before "conv"
    tensors = re.findall(r"Tensor (\S+) has", message)
    by_tensor = [layer for layer in layers if not _tensor_names(layer).isdisjoint(tensors)]
    by_type = [layer for layer in layers if layer.type.name == _ATTENTION and "Attention operation" in message]
    return next((names for layer in (*named, *by_tensor, *by_type) if (names := _onnx_names(layer))), [])


def _is_word(name: str, message: str) -> bool:
    return re.search(rf"(?<![\w/.]){re.escape(name)}(?![\w/])", message) is not None


def _tensor_names(layer: Layer) -> set[str]:
    outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
    inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
    return {tensor.name for tensor in (*outputs, *inputs) if tensor is not None}


def _onnx_names(layer: Layer) -> list[str]:
    """The ONNX node that the parser made a layer of: from metadata such as "[ONNX Layer: top | then (If)]"."""
    source = re.search(r"\[ONNX Layer: (.*?)\]", layer.metadata)
    return source[1].split(" | ") if source else []


def _describe(error: ParserError, log: Sequence[str]) -> dict[str, Any]:
    message = describe_error(error)
    if "Error Code" not in message:  # then the cause may be in the log
        message = " ".join([message, *(line for line in log if "::" in line[:40] and "API Usage Error" in line)])
    return {
        "code": error.code().name,
        "node": error.node() if error.node() >= 0 else None,
        "name": error.node_name(),
        "operator": error.node_operator(),
        "within": list(error.local_function_stack()),
        "message": message,
    }
