"""Exports a torch module to an ONNX graph: folded, checked, with the requested names and opset.

torch has two exporters. "torchscript" is the default here on purpose: on two cores the newer one took 32 s for a whole
network and 0.6 s for a block where this one takes 2 s and 0.01 s, and a latency table needs hundreds of blocks. It
traces one pass, so it fixes a branch on a tensor's value, which the parity check detects. "dynamo" is the exporter that
torch develops further (``export.dynamo``).

Both fold a batch norm into the convolution before it, and name nodes after the modules they come from:
"/backbone/s0_p4_0/s0_p4_0.0/Conv". TorchScript's exporter shares equal weights through Identity nodes. They are inlined
here, because parsers expect a convolution's weights to be initialisers.

Shape legend: N images ("batch"), C channels, H x W pixels ("height", "width").
"""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict, Unpack, get_args

import torch
from torch import Tensor, nn

from export.dynamo import export_with_dynamo
from export.errors import UserError, VerificationError
from export.files import atomic_write

if TYPE_CHECKING:
    import onnx

# Raised by tracing if a module cannot be exported; torch's own exporter errors are RuntimeErrors.
_EXPORTER_ERRORS = (RuntimeError, TypeError, ValueError, IndexError)

Exporter = Literal["torchscript", "dynamo"]
"""One of torch's exporters."""
EXPORTERS: tuple[Exporter, ...] = get_args(Exporter)


class Options(TypedDict):
    """The keyword arguments of ``to_onnx`` and ``to_onnx_bytes``."""

    input_names: Sequence[str]
    output_names: Sequence[str]
    dynamic_batch: NotRequired[bool]
    dynamic_size: NotRequired[bool]
    opset: NotRequired[int]
    exporter: NotRequired[Exporter]


def to_onnx(module: nn.Module, examples: tuple[Tensor, ...], path: Path, **options: Unpack[Options]) -> None:
    """Write ``module`` with its weights to the ONNX file ``path``; nothing is written unless every check passes.

    Args:
        module: see ``to_onnx_bytes``.
        examples: one tensor per input.
        path: the ``.onnx`` file, written with an atomic write.
        options: names, axes, opset and exporter.

    Raises:
        VerificationError: the module cannot be exported, or the graph is not valid, or not as requested.
        UserError: the file cannot be written, or there is no such exporter.
    """
    content = to_onnx_bytes(module, examples, **options)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def to_onnx_bytes(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_batch: bool = True,
    dynamic_size: bool = False,
    opset: int = 20,
    exporter: Exporter = "torchscript",
) -> bytes:
    """The content that ``to_onnx`` writes, for graphs that need no file.

    Args:
        module: exported in eval mode; its training flags are restored.
        examples: one tensor per input; their sizes are fixed on axes that are not dynamic.
        input_names: one per example.
        output_names: one per output.
        dynamic_batch: axis 0 of every input and output is "batch".
        dynamic_size: axes 2 and 3 of every [N, C, H, W] input are "height" and "width"; with the input's name as
            prefix if the example is not as high or wide as the first one.
        opset: the ONNX operator set, which the graph is checked to have.
        exporter: which of torch's exporters.

    Raises:
        VerificationError: the module cannot be exported, or the graph is not valid, or not as requested.
        UserError: there is no such exporter.
    """
    if exporter not in EXPORTERS:
        raise UserError(f"there is no exporter {exporter!r}; known are {', '.join(EXPORTERS)}")
    name = type(module).__name__
    axes = _dynamic_axes(examples, input_names, output_names, batch=dynamic_batch, size=dynamic_size)
    export = export_with_dynamo if exporter == "dynamo" else _export_with_torchscript
    try:
        with _evaluating(module), torch.no_grad():
            model = export(module, examples, input_names, output_names, axes, opset)
    except _EXPORTER_ERRORS as error:
        raise VerificationError(f"{name} cannot be exported to ONNX: {_first_line(error)}") from error
    _inline_shared_weights(model.graph)
    _check(model, name, input_names=input_names, output_names=output_names, opset=opset)
    return bytes(model.SerializeToString())


def _export_with_torchscript(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    axes: Mapping[str, Mapping[int, str]],
    opset: int,
) -> "onnx.ModelProto":
    import onnx

    buffer = io.BytesIO()
    with _quiet_torchscript():
        torch.onnx.export(
            module,
            examples,
            buffer,  # type: ignore[arg-type]  # the annotation omits buffers, which this exporter accepts
            dynamo=False,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_axes=axes,
            opset_version=opset,
            do_constant_folding=True,
        )
    return onnx.load_from_string(buffer.getvalue())


def _dynamic_axes(
    examples: Sequence[Tensor], input_names: Sequence[str], output_names: Sequence[str], *, batch: bool, size: bool
) -> dict[str, dict[int, str]]:
    """The dynamic axes of every input and output; the height and width of outputs are left to shape inference.

    Axes of the same name have equal lengths, and runtimes reuse memory accordingly: an input of another size than the
    first one therefore has its own names.
    """
    first = {0: "batch"} if batch else {}
    sizes = [x.shape for x in examples if x.ndim == 4]
    axes = {name: dict(first) for name in (*input_names, *output_names)}
    for name, x in zip(input_names, examples, strict=True):
        for axis, side in ((2, "height"), (3, "width")) if size and x.ndim == 4 else ():
            axes[name][axis] = side if x.shape[axis] == sizes[0][axis] else f"{name}_{side}"
    return axes


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Set eval mode in the block and restore the training flag of each submodule after it."""
    training = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, flag in training.items():
            child.training = flag


@contextmanager
def _quiet_torchscript() -> Iterator[None]:
    """Silence the warnings about the choice of this exporter and about sizes that are read as Python numbers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are using the legacy TorchScript", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="The feature will be removed", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield


def _first_line(error: Exception) -> str:
    """First line of the cause, because dynamo's message only names its failed step; two lines if one is a title."""
    cause = error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def _inline_shared_weights(graph: "onnx.GraphProto") -> None:
    """Replace the Identity of an initialiser by the initialiser."""
    weights = {tensor.name for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    source: dict[str, str] = {}
    for node in list(graph.node):
        if node.op_type == "Identity" and node.input[0] in weights and node.output[0] not in outputs:
            source[node.output[0]] = node.input[0]
            graph.node.remove(node)
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = source.get(name, name)


def _check(
    model: "onnx.ModelProto", name: str, *, input_names: Sequence[str], output_names: Sequence[str], opset: int
) -> None:
    """Raise VerificationError unless the graph is valid and has exactly these inputs, outputs and opset."""
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise VerificationError(f"the ONNX graph of {name} is not valid: {_first_line(error)}") from error
    obtained = {entry.domain: entry.version for entry in model.opset_import}.get("")
    if obtained != opset:
        raise VerificationError(f"the ONNX graph of {name} has opset {obtained}, not the requested {opset}")
    actual_names = ([value.name for value in model.graph.input], [value.name for value in model.graph.output])
    expected_names = (list(input_names), list(output_names))
    for kind, expected, actual in zip(("inputs", "outputs"), expected_names, actual_names, strict=True):
        if expected != actual:
            raise VerificationError(
                f"the ONNX graph of {name} has {kind} {actual}, not {expected}: an unused input is dropped, and "
                "there must be one name per tensor"
            )
