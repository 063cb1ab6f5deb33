"""Converts a float32 ONNX graph to fp16 or int8 and verifies each precision against float32.

The stages are fp32, fp16 and int8 (``export/precision.py``). Whoever exports a network compares its fp32 graph with the
torch module. The lower precisions are compared with the fp32 graph in ONNX Runtime; of fp16 also a simulation with
every tensor in half precision, which ONNX Runtime's CPU kernels do not have. There the best boxes are not yet selected:
the inputs of a selection are compared, not its outputs (``export/graph_blocks.py``). Images come in two kinds, seeded
noise and real images. int8 must pass its gate on real images only, because it is not calibrated on noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from export.calibration import Batches, quantised_nodes
from export.errors import VerificationError
from export.faulty_block import FaultyBlock, find_faulty_block
from export.graph_blocks import add_outputs, block_name, block_outputs, blocks_before, tensors_before_selection
from export.parity import GATES, SAME_FILE_GATES, Gate, Parity, compare, sqnr_db
from export.precision import PRECISIONS, check_precision, rounded_to_half, to_half, to_int8
from export.progress import Progress
from export.runners import Array, OrtRunner

MAX_FLOAT_BLOCKS = 8
"""Blocks that int8 may leave in float without being asked to."""
SIMULATION = "fp16 rounded"
"""The stage of the graph that simulates half precision."""
REAL = "real"
SEEDED = "seeded"
Images = Mapping[str, Mapping[str, Array]]
"""Kind of images -> input name -> array."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The outputs of one network compared with the reference on one kind of images."""

    stage: str
    """Precision and runtime of the network, such as "fp16 onnxruntime"."""
    precision: str
    images: str
    """Kind of images: ``REAL`` or ``SEEDED``."""
    outputs: tuple[Parity, ...]
    same_file: bool = False
    """Both sides ran the same file. The gate of int8 is then stricter, because the rounding is the same."""

    @property
    def gate(self) -> Gate:
        """The limits that the outputs must keep."""
        return (SAME_FILE_GATES if self.same_file else GATES)[self.precision]

    @property
    def gated(self) -> bool:
        """Whether the outputs must pass the gate; int8 on noise need not."""
        return self.precision != "int8" or self.images == REAL

    @property
    def failure_reason(self) -> str | None:
        """Why the first failing output does not pass; None if all pass or need not."""
        return None if self._failure is None else self._failure[1]

    @property
    def failed_output(self) -> str:
        """The name of the first failing output."""
        assert self._failure is not None
        return self._failure[0]

    @property
    def _failure(self) -> tuple[str, str] | None:
        """Name of the first failing output, and why it does not pass."""
        reasons = ((parity.name, self.gate.failure_reason(parity)) for parity in self.outputs if self.gated)
        return next(((name, reason) for name, reason in reasons if reason is not None), None)

    @property
    def failure_message(self) -> str:
        """The failure reason with its stage and images, for the user."""
        return f"{self.stage} on {self.images} images: {self.failure_reason}"

    @property
    def max_error(self) -> float:
        """Largest error of the outputs, without those in a ranked list; 0 if there are no others."""
        return max((parity.error for parity in self.outputs if not parity.ranked), default=0.0)

    def to_json(self) -> list[dict[str, Any]]:
        """One object per output, as the manifest and ``--json`` have it."""
        return [
            {
                "stage": self.stage,
                "images": self.images,
                "output": parity.name,
                "error": parity.error if parity.finite else None,
                "cosine": parity.cosine,
                "sqnr_db": parity.sqnr_db,
                "agreement": parity.agreement,
                "smallest_tolerance": parity.smallest_tolerance,
                "gated": self.gated,
            }
            for parity in self.outputs
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionStage:
    """The network in one precision, as an ONNX graph that passed its gate."""

    precision: str
    content: bytes
    comparisons: tuple[Comparison, ...]
    kept_float: tuple[str, ...] = ()
    """Name patterns of the nodes that int8 left in float; the patterns of the user come first."""
    simulation: bytes | None = None
    """fp16: the graph whose outputs and metrics on a CPU are those of a GPU, see ``rounded_to_half``."""

    @property
    def measured(self) -> bytes:
        """The graph that is run here for the figures of this precision."""
        return self.content if self.simulation is None else self.simulation


def precisions_to(precision: str) -> tuple[str, ...]:
    """The precisions from fp32 down to ``precision``, in order.

    Raises:
        UserError: there is no such precision.
    """
    check_precision(precision)
    return PRECISIONS[: PRECISIONS.index(precision) + 1]


def convert_and_verify(
    content: bytes,
    precision: str,
    images: Images,
    *,
    calibration: Batches = (),
    keep_float: Sequence[str] = (),
    threads: int = 1,
    progress: Progress | None = None,
) -> PrecisionStage:
    """Convert the graph to a lower precision and check that it passes the gate of that precision.

    If an output fails in int8, its faulty block, or else the noisiest block that it depends on, stays in float and the
    rest is converted again, up to ``MAX_FLOAT_BLOCKS`` times: a few blocks whose channels have rare large values cause
    most of the loss.

    Args:
        content: the graph, in float32.
        precision: fp16 or int8.
        images: images to compare on.
        calibration: batches of inputs that int8 is calibrated on.
        keep_float: name patterns of nodes that int8 leaves in float.
        threads: CPU threads that one operator may use.
        progress: called after each batch of the int8 calibration.

    Raises:
        UserError: there are no images to calibrate on.
        VerificationError: the graph fails its gate; the message names the output, the figure and the faulty block.
    """
    kept = list(keep_float)
    while True:
        if precision == "fp16":
            graphs = {"fp16 onnxruntime": to_half(content), SIMULATION: rounded_to_half(content)}
        else:
            lower = to_int8(content, calibration, keep_float=kept, threads=threads, progress=progress)
            graphs = {"int8 onnxruntime": lower}
        comparisons = compare_graphs(content, graphs, precision, images, threads=threads)
        failed = next((comparison for comparison in comparisons if comparison.failure_reason is not None), None)
        if failed is None:
            return PrecisionStage(
                precision=precision,
                content=graphs[f"{precision} onnxruntime"],
                comparisons=comparisons,
                kept_float=tuple(kept),
                simulation=graphs.get(SIMULATION),
            )
        inputs, output = images[failed.images], failed.failed_output
        lower = graphs[failed.stage]
        faulty_block, noise = compare_blocks(content, lower, precision, inputs, output=output, threads=threads)
        int8_blocks = _blocks_in_int8(content, kept) & noise.keys()
        if precision != "int8" or len(int8_blocks) < 2 or len(kept) - len(keep_float) == MAX_FLOAT_BLOCKS:
            raise VerificationError(explain_failure(failed, faulty_block))
        if faulty_block is not None and faulty_block.block in int8_blocks:
            kept.append(f"/{faulty_block.block}/*")
        else:
            kept.append(f"/{min(int8_blocks, key=noise.__getitem__)}/*")


def _blocks_in_int8(content: bytes, keep_float: Sequence[str]) -> set[str]:
    """The blocks with a node to quantise; other blocks, such as a lone activation, cannot be left in float."""
    import onnx

    graph = onnx.load_from_string(content).graph
    return {block_name(node.name) for node in quantised_nodes(graph, keep_float)}


def compare_graphs(
    content: bytes, lower: Mapping[str, bytes], precision: str, images: Images, *, threads: int = 1
) -> tuple[Comparison, ...]:
    """Compare graphs with the float32 graph in ONNX Runtime, on each kind of images.

    Args:
        content: the graph in float32.
        lower: the same graph in ``precision``, by the stage that it is called.
        precision: the precision whose gate applies.
        images: images to compare on.
        threads: CPU threads that one operator may use.

    Raises:
        VerificationError: the graph has no float output to compare.
    """
    names = tensors_before_selection(content)
    if not names:
        raise VerificationError("the ONNX graph has no output of floats that could be compared")

    def outputs(graph: bytes) -> list[dict[str, Array]]:
        runner = OrtRunner(add_outputs(graph, names), threads=threads)
        arrays = [runner(inputs) for inputs in images.values()]
        return [{name: each[name] for name in names} for each in arrays]

    reference = outputs(content)
    return tuple(
        Comparison(stage=stage, precision=precision, images=kind, outputs=compare(expected, candidate))
        for stage, graph in lower.items()
        for kind, expected, candidate in zip(images, reference, outputs(graph), strict=True)
    )


def compare_blocks(
    content: bytes, lower: bytes, precision: str, inputs: Mapping[str, Array], *, output: str, threads: int = 1
) -> tuple[FaultyBlock | None, dict[str, float]]:
    """Compare the outputs of all blocks that an output of two graphs depends on, in ONNX Runtime.

    Returns:
        The faulty block of ``lower``, and the SQNR in dB of every such block. The faulty block is None if every block
        passes by itself and only the nodes after the last block fail.
    """
    reference, candidate = (block_values(graph, content, inputs, threads=threads) for graph in (content, lower))
    before = blocks_before(content, output)
    levels = {block: sqnr_db(values, candidate[block]) for block, values in reference.items() if block in before}
    return find_faulty_block(content, reference, candidate, precision, output=output), levels


def block_values(graph: bytes, content: bytes, inputs: Mapping[str, Array], *, threads: int = 1) -> dict[str, Array]:
    """The output of each block of ``graph``, by block; its tensors have the names of the fp32 graph ``content``."""
    tensors = block_outputs(content)
    values = OrtRunner(add_outputs(graph, tensors.values()), threads=threads)(inputs)
    return {block: values[name] for block, name in tensors.items()}


def explain_failure(comparison: Comparison, faulty_block: FaultyBlock | None) -> str:
    """The message for a failed comparison whose blocks were compared too."""
    cause = "no single block is faulty" if faulty_block is None else str(faulty_block)
    return f"{comparison.failure_message}; {cause}"
