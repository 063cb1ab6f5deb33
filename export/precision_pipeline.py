"""One network, from float32 down to the precision that ships: each rung is held against the float32 graph.

The float32 graph itself is held against the torch module by whoever exports it. The rungs below are compared inside
ONNX Runtime, where a selection of the best boxes does not get in the way: what goes into it is compared
(``export/graph_blocks.py``). Images come in kinds, such as seeded noise and real ones; int8 must pass on the real ones
alone, since noise is not what it was calibrated on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from export.calibration import Batches, Progress, quantised_nodes
from export.errors import VerificationError
from export.faulty_block import Culprit, find_culprit
from export.graph_blocks import before_selection, block_name, block_outputs, with_outputs
from export.parity import GATES, SAME_FILE, Gate, Parity, compare, sqnr_db
from export.precision import PRECISIONS, check_precision, to_half, to_int8
from export.runners import Array, OrtRunner

MOST_FLOAT_BLOCKS = 8
"""That int8 may leave alone of itself."""
REAL = "real"
SEEDED = "seeded"
Images = Mapping[str, Mapping[str, Array]]
"""Inputs by name, by kind of images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One network against another on one kind of images."""

    rung: str
    """What was compared: its precision and its runtime, such as "fp16 onnxruntime"."""
    precision: str
    images: str
    """Their kind."""
    outputs: tuple[Parity, ...]
    same: bool = False
    """Both sides ran the same file: then more is asked of int8, whose rounding is the same."""

    @property
    def gate(self) -> Gate:
        """What it must pass."""
        return (SAME_FILE if self.same else GATES)[self.precision]

    @property
    def gated(self) -> bool:
        """Whether it must pass the gate of its precision."""
        return self.precision != "int8" or self.images == REAL

    @property
    def complaint(self) -> str | None:
        """Why it does not pass; None if it does, or need not."""
        found = [self.gate.complaint(parity) for parity in self.outputs] if self.gated else []
        return next((complaint for complaint in found if complaint is not None), None)

    def to_json(self) -> list[dict[str, Any]]:
        """An object for each output."""
        return [
            {
                "rung": self.rung,
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
class Rung:
    """The network in one precision, as an ONNX graph that passed."""

    precision: str
    content: bytes
    compared: tuple[Compared, ...]
    kept_float: tuple[str, ...] = ()
    """Patterns of names of nodes that int8 left alone, those that were asked for first."""


def rungs_to(precision: str) -> tuple[str, ...]:
    """The precisions from float32 to this one, in order.

    Raises:
        UserError: there is no such precision.
    """
    check_precision(precision)
    return PRECISIONS[: PRECISIONS.index(precision) + 1]


def climb(
    content: bytes,
    precision: str,
    images: Images,
    *,
    calibration: Batches = (),
    keep_float: Sequence[str] = (),
    threads: int = 1,
    progress: Progress | None = None,
) -> Rung:
    """The graph in another precision, which passed the gate of it.

    Where int8 does not pass, the block at fault, or else the noisiest, is left in float and the rest is tried again, up
    to ``MOST_FLOAT_BLOCKS`` times: a few blocks whose channels have rare large values cost most of what is lost.

    Args:
        content: the graph, in float32.
        precision: fp16 or int8.
        images: to compare on.
        calibration: batches of inputs for int8.
        keep_float: patterns of names of nodes that int8 leaves alone.
        threads: processor threads one operator may use.
        progress: told of each batch of int8's calibration.

    Raises:
        UserError: there are no images to calibrate with.
        VerificationError: it does not pass; the message names the output, the figure and the block at fault.
    """
    kept = list(keep_float)
    while True:
        if precision == "fp16":
            lower = to_half(content)
        else:
            lower = to_int8(content, calibration, keep_float=kept, threads=threads, progress=progress)
        compared = compare_graphs(content, lower, precision, images, threads=threads)
        failed = next((one for one in compared if one.complaint is not None), None)
        if failed is None:
            return Rung(precision=precision, content=lower, compared=compared, kept_float=tuple(kept))
        culprit, noise = culprit_between(content, lower, precision, images[failed.images], threads=threads)
        left = _blocks_in_int8(content, kept) & noise.keys()
        if precision != "int8" or len(left) < 2 or len(kept) - len(keep_float) == MOST_FLOAT_BLOCKS:
            raise VerificationError(failure(failed, culprit))
        at_fault = culprit is not None and culprit.block in left
        kept.append(f"/{culprit.block if culprit and at_fault else min(left, key=noise.__getitem__)}/*")


def _blocks_in_int8(content: bytes, keep_float: Sequence[str]) -> set[str]:
    """The blocks that hold a node to quantise: others, such as an activation by itself, cannot be left in float."""
    import onnx

    graph = onnx.load_from_string(content).graph
    return {block_name(node.name) for node in quantised_nodes(graph, keep_float)}


def compare_graphs(
    content: bytes, lower: bytes, precision: str, images: Images, *, threads: int = 1
) -> tuple[Compared, ...]:
    """Both graphs in ONNX Runtime, by kind of images.

    Args:
        content: the graph in float32.
        lower: the same in ``precision``.
        precision: whose gate holds.
        images: to compare on.
        threads: processor threads one operator may use.

    Raises:
        VerificationError: there is nothing to compare.
    """
    names = before_selection(content)
    if not names:
        raise VerificationError("the ONNX graph has no output of floats that could be compared")
    runners = [OrtRunner(with_outputs(graph, names), threads=threads) for graph in (content, lower)]
    found = []
    for kind, inputs in images.items():
        values = [runner(inputs) for runner in runners]
        reference, candidate = ({name: one[name] for name in names} for one in values)
        found.append(
            Compared(
                rung=f"{precision} onnxruntime",
                precision=precision,
                images=kind,
                outputs=compare(reference, candidate),
            )
        )
    return tuple(found)


def culprit_between(
    content: bytes, lower: bytes, precision: str, inputs: Mapping[str, Array], *, threads: int = 1
) -> tuple[Culprit | None, dict[str, float]]:
    """The block of ``lower`` at fault, by what all blocks of both graphs give in ONNX Runtime; and each one's SQNR.

    None is at fault where every block passes by itself and what comes after the last of them does not.
    """
    reference, candidate = (values_of_blocks(graph, content, inputs, threads=threads) for graph in (content, lower))
    levels = {block: sqnr_db(values, candidate[block]) for block, values in reference.items()}
    return find_culprit(content, reference, candidate, precision), levels


def values_of_blocks(
    graph: bytes, content: bytes, inputs: Mapping[str, Array], *, threads: int = 1
) -> dict[str, Array]:
    """What each block of ``graph`` gives, by block; its tensors are called as in the float32 graph ``content``."""
    tensors = block_outputs(content)
    values = OrtRunner(with_outputs(graph, tensors.values()), threads=threads)(inputs)
    return {block: values[name] for block, name in tensors.items()}


def failure(compared: Compared, culprit: Culprit | None) -> str:
    """What to tell a user of a comparison that did not pass, whose blocks were compared too."""
    blame = "no block by itself is at fault" if culprit is None else str(culprit)
    return f"{complaint_of(compared)}; {blame}"


def complaint_of(compared: Compared) -> str:
    """What to tell a user of a comparison that did not pass."""
    return f"{compared.rung} on {compared.images} images: {compared.complaint}"
