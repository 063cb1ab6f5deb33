"""Finds the block that made an output of a network wrong.

The output of every block that it depends on is compared with its reference: another output may come from noisier blocks
and pass nevertheless. The faulty block is not the first one below the limit: in int8 all
blocks are slightly noisier than float32 from the start. It is the block below the limit whose output lost most SQNR
compared with its inputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from export.graph_blocks import block_outputs, block_sources, blocks_before
from export.parity import MAX_SQNR_DB, sqnr_db
from export.runners import Array

_MIN_SQNR_DB = {"fp32": 60.0, "fp16": 45.0, "int8": 25.0}
"""A block above this passes. Correct float32 was measured above 100, half precision above 55."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultyBlock:
    """A block that adds more noise than its precision explains."""

    block: str
    sqnr_db: float
    """SQNR of the block's output."""
    input_sqnr_db: float
    """Lowest SQNR of the blocks that it reads; ``MAX_SQNR_DB`` if it reads the network's input."""

    def __str__(self) -> str:
        inputs = "" if self.input_sqnr_db == MAX_SQNR_DB else f" (its inputs: {self.input_sqnr_db:.1f} dB)"
        return f"the faulty block is {self.block}: SQNR of its output {self.sqnr_db:.1f} dB{inputs}"


def find_faulty_block(
    content: bytes, reference: Mapping[str, Array], candidate: Mapping[str, Array], precision: str, *, output: str
) -> FaultyBlock | None:
    """The faulty block of an output, or None if every block that it depends on passes the limit of the precision.

    Args:
        content: the ONNX graph in float32, which says how its blocks are connected.
        reference: correct output of each block, by block; some may be missing.
        candidate: actual output of each block, by block.
        precision: precision of the candidate.
        output: name of the output, or of another tensor of the graph, that is wrong.
    """
    before = blocks_before(content, output)
    levels = {
        block: sqnr_db(reference[block], candidate[block])
        for block in block_outputs(content)
        if block in reference and block in candidate and reference[block].shape == candidate[block].shape
    }
    sources = block_sources(content)
    faulty = [
        FaultyBlock(block=block, sqnr_db=level, input_sqnr_db=_input_sqnr_db(block, levels, sources))
        for block, level in levels.items()
        if level < _MIN_SQNR_DB[precision] and block in before
    ]
    return max(faulty, key=lambda block: block.input_sqnr_db - block.sqnr_db) if faulty else None


def _input_sqnr_db(block: str, levels: Mapping[str, float], sources: Mapping[str, set[str]]) -> float:
    """The lowest SQNR of a block's inputs; a source that was not compared is replaced by its own sources."""
    lowest, seen, pending = MAX_SQNR_DB, {block}, list(sources[block])
    while pending:
        source = pending.pop()
        if source in levels:
            lowest = min(lowest, levels[source])
        elif source not in seen:  # nodes of a module between its blocks may read from a block and feed the same one
            pending.extend(sources[source])
        seen.add(source)
    return lowest
