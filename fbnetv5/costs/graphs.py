"""The blocks and heads of a space as graphs that are exported to ONNX, to be timed or to count their memory."""

from collections.abc import Sequence

from fbnetv5.blocks.specs import Block
from fbnetv5.costs.tables import DeployedHead, block_key, block_shapes, head_key, head_shapes
from fbnetv5.data.resolution import Resolution
from fbnetv5.tasks.task import Task
from latency.profile import Graph


def block_graph(block: Block, stride: int, resolution: Resolution) -> Graph:
    """The graph of a block whose output has ``stride`` in a network at ``resolution``."""
    return Graph(
        key=block_key(block, stride, resolution),
        build=block.build,
        input_shapes=block_shapes(block, stride, resolution),
        output_names=("output",),
    )


def head_graph(task: Task, channels: Sequence[int], resolution: Resolution) -> Graph:
    """The graph of a task's head on features of these widths, with its deploy step."""
    return Graph(
        key=head_key(task, channels, resolution),
        build=lambda: DeployedHead(task, channels),
        input_shapes=head_shapes(task, channels, resolution),
        output_names=task.output_names,
    )
