"""torch's newer exporter, made to give graphs that look like those of its older one.

It captures a module with torch.export and notices what tracing would freeze, such as a branch on a tensor's value. It
writes notes onto every node: the path of its module, but also the source lines, with the folders of whoever exported,
450 kB in the file of a small network. The paths become the nodes' names, in the scheme of the TorchScript exporter, so
that whoever looks for the nodes of a block needs one rule; the notes are dropped. A convolution into which a batch norm
was folded bears the batch norm's name.
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
"""The note that holds the paths of the modules a node is in, outermost first, then a name of its own."""


def export_with_dynamo(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    axes: Mapping[str, Mapping[int, str]],
    opset: int,
) -> "onnx.ModelProto":
    """The graph of a module in eval mode.

    Args:
        module: what to export.
        examples: one tensor per input.
        input_names: one per example.
        output_names: one per output.
        axes: by name of an input, the names of its axes that may vary; those of other names are not looked at.
        opset: the ONNX operator set; asking for less than 18 gives 18.

    Raises:
        RuntimeError, TypeError, ValueError, IndexError: the module cannot be expressed.
    """
    # An axis of length 1 is taken for a fixed one, so a single example becomes two.
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
    _drop_notes(model)
    return model


@contextmanager
def _quiet_dynamo() -> Iterator[None]:
    """Silence progress, warnings about what torch and its parts do among themselves, and code printed at a failure."""
    threshold = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(threshold)


@contextmanager
def _out_of_place(module: nn.Module) -> Iterator[None]:
    """No activation overwrites its input inside: dynamo would rewrite each of them, which doubles its time."""
    changed = [child for child in module.modules() if getattr(child, "inplace", False) is True]
    for child in changed:
        child.inplace = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for child in changed:
            child.inplace = True  # type: ignore[assignment]


def _by_argument(module: nn.Module, shapes: list[dict[int, str]]) -> tuple[object, ...]:
    """The inputs' axes as dynamo wants them: one entry per argument of forward, so that *arguments are one tuple."""
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return tuple(shapes)
    first = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*shapes[:first], tuple(shapes[first:]))


def _name_after_modules(graph: "onnx.GraphProto") -> None:
    """Give dynamo's nodes names as TorchScript's exporter would: the modules from outside in, then the operator."""
    seen: Counter[str] = Counter()
    for node in graph.node:
        notes = {note.key: note.value for note in node.metadata_props}
        modules = ast.literal_eval(notes.get(_SCOPES, "[]"))[1:-1]
        name = "/".join(["", *map(_own_name, modules), node.op_type])
        node.name = f"{name}_{seen[name]}" if seen[name] else name
        seen[name] += 1


def _own_name(path: str) -> str:
    """What TorchScript's exporter calls a module: its path from the last part on that is not a number."""
    parts = path.split(".")
    last = max((index for index, part in enumerate(parts) if not part.isdigit()), default=0)
    return ".".join(parts[last:])


def _drop_notes(model: "onnx.ModelProto") -> None:
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info, *graph.initializer, *graph.node]
    for holder in [model, graph, *values]:
        holder.ClearField("metadata_props")
        holder.ClearField("doc_string")
