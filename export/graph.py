"""A torch module becomes an ONNX graph: folded, checked, with the names and the opset that were asked for.

``torch.onnx.export(dynamo=False)`` is used on purpose: on two cores the newer exporter took 32 s for a whole network
and 0.6 s for a block where this one takes 2 s and 0.01 s, and a latency table wants blocks by the hundred. It traces,
so it records one pass: a branch on a tensor's value is frozen, which the parity check is there to catch.

In eval mode this exporter folds a batch norm into the convolution before it and shares equal weights through Identity
nodes; those are inlined here, because a convolution's weights should be plain initialisers to whatever parses them.

Shape legend: N pictures ("batch"), C channels, H x W pixels ("height", "width").
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from export.errors import CheckFailed
from export.files import written_whole

if TYPE_CHECKING:
    import onnx

# What tracing raises when a module cannot be expressed; torch's own exporter errors are RuntimeErrors.
_EXPORTER_ERRORS = (RuntimeError, TypeError, ValueError, IndexError)


def to_onnx(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    path: Path,
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_batch: bool = True,
    dynamic_size: bool = False,
    opset: int = 20,
) -> None:
    """Write ``module`` to ``path`` as one ONNX file, weights inside; nothing is written unless every check passes.

    Args:
        module: exported in eval mode; its training flags are put back.
        examples: one tensor per input, of the shapes that stay fixed where no axis is dynamic.
        path: the ``.onnx`` file, written whole or not at all.
        input_names: one per example.
        output_names: one per output.
        dynamic_batch: axis 0 of every input and output is "batch".
        dynamic_size: axes 2 and 3 of every [N, C, H, W] input are "height" and "width".
        opset: the ONNX operator set, which the file is verified to have.

    Raises:
        CheckFailed: the module cannot be exported, or the graph is not valid, or not what was asked for.
        UserError: the file cannot be written.
    """
    content = to_onnx_bytes(
        module,
        examples,
        input_names=input_names,
        output_names=output_names,
        dynamic_batch=dynamic_batch,
        dynamic_size=dynamic_size,
        opset=opset,
    )
    with written_whole(path) as temporary:
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
) -> bytes:
    """The content ``to_onnx`` writes, for graphs that need no file; same arguments and errors."""
    import onnx

    name = type(module).__name__
    axes = _dynamic_axes(examples, input_names, output_names, batch=dynamic_batch, size=dynamic_size)
    buffer = io.BytesIO()
    try:
        with _evaluating(module), _quiet_exporter(), torch.no_grad():
            torch.onnx.export(
                module,
                examples,
                buffer,  # type: ignore[arg-type]  # the annotation omits it; this exporter takes buffers
                dynamo=False,
                input_names=list(input_names),
                output_names=list(output_names),
                dynamic_axes=axes,
                opset_version=opset,
                do_constant_folding=True,
            )
    except _EXPORTER_ERRORS as error:
        raise CheckFailed(f"{name} cannot be exported to ONNX: {_first_line(error)}") from error
    model = onnx.load_from_string(buffer.getvalue())
    _inline_shared_weights(model.graph)
    _check(model, name, input_names=input_names, output_names=output_names, opset=opset)
    return bytes(model.SerializeToString())


def _dynamic_axes(
    examples: Sequence[Tensor], input_names: Sequence[str], output_names: Sequence[str], *, batch: bool, size: bool
) -> dict[str, dict[int, str]]:
    """The named axes of every input and output; how an output's size follows the input's is left to shape inference."""
    first = {0: "batch"} if batch else {}
    spatial = {2: "height", 3: "width"} if size else {}
    axes = {name: {**first, **(spatial if x.ndim == 4 else {})} for name, x in zip(input_names, examples, strict=True)}
    return {**axes, **{name: dict(first) for name in output_names}}


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards each submodule has its own training flag back."""
    training = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, flag in training.items():
            child.training = flag


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what choosing this exporter always says, and the tracer's remark on sizes read as Python numbers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are using the legacy TorchScript", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="The feature will be removed", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _inline_shared_weights(graph: "onnx.GraphProto") -> None:
    """Let readers of an Identity of an initialiser read the initialiser itself."""
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
    """Raise CheckFailed unless the graph is valid and has exactly these inputs, outputs and opset."""
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckFailed(f"the ONNX graph of {name} is not valid: {_first_line(error)}") from error
    obtained = {entry.domain: entry.version for entry in model.opset_import}.get("")
    if obtained != opset:
        raise CheckFailed(f"the ONNX graph of {name} has opset {obtained}, not the {opset} asked for")
    found = ([value.name for value in model.graph.input], [value.name for value in model.graph.output])
    for kind, wanted, got in zip(("inputs", "outputs"), (input_names, output_names), found, strict=True):
        if list(wanted) != got:
            raise CheckFailed(
                f"the ONNX graph of {name} has {kind} {got}, not {list(wanted)}: an input it does not use is dropped, "
                "and names must be as many as tensors"
            )
