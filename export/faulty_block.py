"""Which block of a network went wrong, where its outputs say that one did.

Every block's output is compared with what it should be. The one to blame is not the first that is bad, since in int8
all are a little worse than float32 from the start: it is the bad one that lost most against what it was given.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from export.graph_blocks import block_outputs, block_sources
from export.parity import MOST_DB, sqnr_db
from export.runners import Array

_BAD_DB = {"fp32": 60.0, "fp16": 45.0, "int8": 25.0}
"""A block above this passes. Right float32 was seen above 100, half precision above 55."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Culprit:
    """A block that adds more noise than its precision explains."""

    block: str
    sqnr_db: float
    """Of what it gives."""
    given_db: float
    """The least SQNR of what it read from other blocks; ``MOST_DB`` where it read the network's input."""

    def __str__(self) -> str:
        before = "" if self.given_db == MOST_DB else f", and reads what is {self.given_db:.1f} dB above it"
        return f"the block at fault is {self.block}: what it gives is {self.sqnr_db:.1f} dB above its noise{before}"


def find_culprit(
    content: bytes, reference: Mapping[str, Array], candidate: Mapping[str, Array], precision: str
) -> Culprit | None:
    """The block to blame, or None if all are as good as the precision lets them be.

    Args:
        content: the ONNX graph, in float32: how its blocks hang together.
        reference: what blocks should give, by block; some may be missing.
        candidate: what they do give, by block.
        precision: of the candidate.
    """
    noise = {
        block: sqnr_db(reference[block], candidate[block])
        for block in block_outputs(content)
        if block in reference and block in candidate and reference[block].shape == candidate[block].shape
    }
    sources = block_sources(content)
    found = []
    for block, level in noise.items():
        if level < _BAD_DB[precision]:
            found.append(Culprit(block=block, sqnr_db=level, given_db=_given(block, noise, sources)))
    return max(found, key=lambda one: one.given_db - one.sqnr_db) if found else None


def _given(block: str, noise: Mapping[str, float], sources: Mapping[str, set[str]]) -> float:
    """The least SQNR of what a block reads; blocks that were not compared pass on what they read themselves."""
    levels, seen, left = [MOST_DB], {block}, list(sources[block])
    while left:
        source = left.pop()
        if source in noise:
            levels.append(noise[source])
        elif source not in seen:  # what a module does between its blocks may read from and feed the same ones
            left.extend(sources[source])
        seen.add(source)
    return min(levels)
