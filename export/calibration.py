"""What a network's activations look like on real images, and how to round them to int8 with the least harm.

TensorRT gives a whole tensor one scale. Two things make that hurt, and both are mended before a graph is quantised:

- Channels of very different size. Each channel is divided by a factor of its own before it is rounded, and the weights
  that read it are multiplied by the same factor: the network stays what it was (SmoothQuant, arXiv 2211.10438,
  equation 4, with a migration strength of .7). A depthwise convolution's weights have a scale for each channel
  anyway, so there all of the difference moves into them.
- Rare large values. A tensor is clipped where the squared error of clipping and of rounding together is least.

On a searched classifier these took the noise of int8 from 14 to 28 dB below the signal (docs/lab-notes.md).
"""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from export.graph_blocks import weights_by_name, with_outputs
from export.runners import Array, OrtRunner

if TYPE_CHECKING:
    import onnx

Batches = Sequence[Mapping[str, Array]]
Progress = Callable[[str, int, int], None]
QUANTISED = ("Conv", "Gemm", "MatMul")
"""They hold nearly all of the work."""
_MIGRATION = 0.7
_LEAST = 1e-5
"""Channels smaller than this part of the largest are taken to be of this size."""
_LEVELS = 127
_BINS_PER_OCTAVE = 16
_OCTAVES = (-40, 20)
"""Magnitudes that are told apart: 1e-12 to 1e6."""


def quantised_nodes(graph: "onnx.GraphProto", keep_float: Sequence[str] = ()) -> "list[onnx.NodeProto]":
    """The nodes that have weights to quantise, without those whose names match a pattern such as ``/head/*``.

    What wraps a network, such as its preprocessing, is no part of the names that patterns are held against.
    """
    weights = weights_by_name(graph)
    return [
        node
        for node in graph.node
        if node.op_type in QUANTISED
        and node.input[1] in weights
        and not any(fnmatchcase(node.name.removeprefix("/network"), pattern) for pattern in keep_float)
    ]


def smooth(content: bytes, batches: Batches, *, keep_float: Sequence[str] = (), threads: int = 1) -> bytes:
    """The same network with a factor for each channel moved from its activations into its weights.

    Args:
        content: the graph, in float32.
        batches: inputs to observe it on.
        keep_float: patterns of node names, which stay as they are.
        threads: processor threads one operator may use.
    """
    import onnx

    model = onnx.load_from_string(content)
    inputs = {value.name for value in model.graph.input}
    nodes = [node for node in quantised_nodes(model.graph, keep_float) if node.input[0] not in inputs]
    names = {node.input[0]: _channel_axis(node) for node in nodes}
    largest = _largest_by_channel(content, batches, names, threads)
    weights = weights_by_name(model.graph)
    scaled = {node.name: _factors(node, weights[node.input[1]], largest[node.input[0]]) for node in nodes}
    changed: list[onnx.NodeProto] = []
    for node in model.graph.node:
        factors = scaled.get(node.name)
        if factors is not None:
            changed.append(_divide(model.graph, node, factors, weights[node.input[1]]))
        changed.append(node)
    del model.graph.node[:]
    model.graph.node.extend(changed)
    _drop_unused(model.graph)
    return bytes(model.SerializeToString())


def clip_limits(
    content: bytes,
    batches: Batches,
    *,
    keep_float: Sequence[str] = (),
    threads: int = 1,
    progress: Progress | None = None,
) -> dict[str, float]:
    """By tensor that is to be quantised: the magnitude beyond which it is best clipped.

    Args:
        content: the graph, in float32.
        batches: inputs to observe it on.
        keep_float: patterns of names of nodes that stay in float.
        threads: processor threads one operator may use.
        progress: told of each batch.
    """
    import onnx

    graph = onnx.load_from_string(content).graph
    names = list(dict.fromkeys(node.input[0] for node in quantised_nodes(graph, keep_float)))
    counts = {name: np.zeros(_bins(), dtype=np.int64) for name in names}
    runner = _observer(content, names, threads)
    for done, batch in enumerate(batches, start=1):
        seen = {**runner(batch), **batch}
        for name in names:
            counts[name] += _histogram(seen[name])
        if progress is not None:
            progress("calibrating", done, len(batches))
    return {name: best_limit(count) for name, count in counts.items()}


def best_limit(counts: Array) -> float:
    """The limit of least squared error, of magnitudes counted by ``_histogram``: int8 steps within, clipping beyond."""
    middles = np.exp2((np.arange(_bins()) + 0.5) / _BINS_PER_OCTAVE + _OCTAVES[0])
    edges = np.exp2((np.arange(_bins()) + 1.0) / _BINS_PER_OCTAVE + _OCTAVES[0])
    held = np.flatnonzero(counts)
    if held.size == 0:
        return 1.0  # all zero: any scale holds that
    candidates = edges[held[0] : held[-1] + 1]
    # A step's error is spread evenly over it, unless the value is so small that it becomes 0.
    within = np.minimum(middles**2, (candidates[:, None] / _LEVELS) ** 2 / 12)
    errors = np.where(middles <= candidates[:, None], within, (middles - candidates[:, None]) ** 2)
    return float(candidates[(errors * counts).sum(axis=1).argmin()])


def _observer(content: bytes, names: Sequence[str], threads: int) -> OrtRunner:
    """What gives the tensors of these names; the graph's own inputs are known without."""
    import onnx

    inputs = {value.name for value in onnx.load_from_string(content).graph.input}
    return OrtRunner(with_outputs(content, [name for name in names if name not in inputs]), threads=threads)


def _largest_by_channel(content: bytes, batches: Batches, axes: Mapping[str, int], threads: int) -> dict[str, Array]:
    """The largest magnitude of each channel [C], by tensor; ``axes`` says which axis of it is the channel."""
    runner = _observer(content, list(axes), threads)
    largest: dict[str, Array] = {}
    for batch in batches:
        seen = runner(batch)
        for name, channel in axes.items():
            array = seen[name]
            others = tuple(axis for axis in range(array.ndim) if axis != channel % array.ndim)
            found = np.abs(array).max(axis=others)
            largest[name] = np.maximum(largest[name], found) if name in largest else found
    return largest


def _channel_axis(node: "onnx.NodeProto") -> int:
    return -1 if node.op_type == "MatMul" else 1


def _factors(node: "onnx.NodeProto", tensor: "onnx.TensorProto", largest: Array) -> Array | None:
    """What each channel [C] is divided by; None where groups of channels share weights."""
    from onnx import numpy_helper

    weights = np.abs(numpy_helper.to_array(tensor))
    size = _at_least(largest)
    groups = _attribute(node, "group", 1)
    if groups == weights.shape[0] == largest.size and groups > 1:
        return size
    if groups > 1:
        return None
    read_by = _read_axis(node)
    needed = _at_least(weights.max(axis=tuple(axis for axis in range(weights.ndim) if axis != read_by)))
    return np.asarray(size**_MIGRATION / needed ** (1 - _MIGRATION))


def _at_least(sizes: Array) -> Array:
    """The sizes of channels, none too small to be divided by."""
    most = float(sizes.max(initial=0.0))
    raised: Array = np.maximum(sizes, most * _LEAST) if most > 0 else np.ones_like(sizes)
    return raised


def _read_axis(node: "onnx.NodeProto") -> int:
    """The axis of a node's weights that stands for its input's channels."""
    return 1 if node.op_type == "Conv" or _attribute(node, "transB", 0) else 0


def _divide(
    graph: "onnx.GraphProto", node: "onnx.NodeProto", factors: Array, tensor: "onnx.TensorProto"
) -> "onnx.NodeProto":
    """Let ``node`` read its input divided by ``factors`` [C] with weights that make up for it; gives the division."""
    from onnx import helper, numpy_helper

    weights = numpy_helper.to_array(tensor)
    depthwise = node.op_type == "Conv" and weights.shape[1] == 1 and weights.shape[0] == factors.size
    along = [1] * weights.ndim
    along[0 if depthwise else _read_axis(node)] = -1
    shape = (1, -1, 1, 1) if node.op_type == "Conv" else (1, -1)
    scaled, inverse, divided = (f"{node.name}/{what}" for what in ("weight", "inverse", "divided"))
    graph.initializer.append(numpy_helper.from_array((weights * factors.reshape(along)).astype(np.float32), scaled))
    graph.initializer.append(numpy_helper.from_array((1 / factors).astype(np.float32).reshape(shape), inverse))
    division = helper.make_node("Mul", [node.input[0], inverse], [divided], name=f"{node.name}/Mul")
    node.input[0], node.input[1] = divided, scaled
    return division


def _drop_unused(graph: "onnx.GraphProto") -> None:
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _attribute(node: "onnx.NodeProto", name: str, default: int) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)


def _bins() -> int:
    return (_OCTAVES[1] - _OCTAVES[0]) * _BINS_PER_OCTAVE


def _histogram(array: Array) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """How many magnitudes fall into each of the bins, which are even in the logarithm; zeros into none."""
    magnitudes = np.abs(array.ravel())
    found = np.log2(magnitudes[magnitudes > 0].astype(np.float64))
    index = ((found - _OCTAVES[0]) * _BINS_PER_OCTAVE).astype(np.int64)
    return np.bincount(index.clip(0, _bins() - 1), minlength=_bins())
