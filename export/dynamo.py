"""Exports with torch's newer exporter, and names nodes as its older exporter does.

It captures a module with torch.export and detects what tracing would fix, such as a branch on a tensor's value. It
writes metadata to every node: the path of its module, but also the source lines with the local folders, 450 kB in the
file of a small network. The paths become the nodes' names, in the scheme of the TorchScript exporter, so that one rule
finds the nodes of a block; the metadata is removed. A convolution with a folded batch norm has the batch norm's name.
"""

import ast
import inspect
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import onnx

_SCOPES = "pkg.torch.onnx.name_scopes"
"""Metadata key of the paths of the modules around a node, outermost first, then the node's own name."""


def export_with_dynamo(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    axes: Mapping[str, Mapping[int, str]],
    opset: int,
) -> "onnx.ModelProto":
    """Export a module in eval mode.

    Args:
        module: the module to export.
        examples: one tensor per input.
        input_names: one per example.
        output_names: one per output.
        axes: input name -> names of its dynamic axes; other names are ignored.
        opset: the ONNX operator set; the result is at least 18.

    Raises:
        RuntimeError, TypeError, ValueError, IndexError: the module cannot be exported.
    """
    # torch.export treats an axis of length 1 as fixed, so a single example becomes two.
    batches = tuple(
        torch.cat([x, x]) if 0 in axes[name] and len(x) == 1 else x
        for name, x in zip(input_names, examples, strict=True)
    )
    with _quiet_dynamo(), _out_of_place(module):
        program = torch.onnx.export(
            module,
            batches,
            dynamo=True,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_shapes=_by_argument(module, [dict(axes[name]) for name in input_names]),
            opset_version=opset,
            external_data=False,
            verbose=False,
        )
        assert program is not None
        model = program.model_proto
    _name_after_modules(model.graph)
    _drop_metadata(model)
    return model


@contextmanager
def _quiet_dynamo() -> Iterator[None]:
    """Silence progress, internal warnings of torch, and the code that it prints at a failure."""
    threshold = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(threshold)


@contextmanager
def _out_of_place(module: nn.Module) -> Iterator[None]:
    """Disable in-place activations in the block: dynamo would rewrite each of them, which doubles its time."""
    changed = [child for child in module.modules() if getattr(child, "inplace", False) is True]
    for child in changed:
        child.inplace = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for child in changed:
            child.inplace = True  # type: ignore[assignment]


def _by_argument(module: nn.Module, shapes: list[dict[int, str]]) -> tuple[object, ...]:
    """The inputs' axes in dynamo's form: one entry per argument of forward; *arguments are one tuple."""
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return tuple(shapes)
    first = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*shapes[:first], tuple(shapes[first:]))


def _name_after_modules(graph: "onnx.GraphProto") -> None:
    """Name dynamo's nodes as TorchScript's exporter does: the modules, outermost first, then the operator."""
    seen: Counter[str] = Counter()
    for node in graph.node:
        metadata = {entry.key: entry.value for entry in node.metadata_props}
        modules = ast.literal_eval(metadata.get(_SCOPES, "[]"))[1:-1]
        name = "/".join(["", *map(_own_name, modules), node.op_type])
        node.name = f"{name}_{seen[name]}" if seen[name] else name
        seen[name] += 1


def _own_name(path: str) -> str:
    """TorchScript's name of a module: its path from the last part that is not a number."""
    parts = path.split(".")
    last = max((index for index, part in enumerate(parts) if not part.isdigit()), default=0)
    return ".".join(parts[last:])


def _drop_metadata(model: "onnx.ModelProto") -> None:
    """Remove metadata and docstrings everywhere."""
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info, *graph.initializer, *graph.node]
    for holder in [model, graph, *values]:
        holder.ClearField("metadata_props")
        holder.ClearField("doc_string")
