"""What ``fbnetv5 profile`` times: every distinct block and head of a space, at the deploy resolution."""

from collections.abc import Sequence

from fbnetv5.blocks import Block
from fbnetv5.cost import Resolution, block_key, block_shapes, check_resolution, deployed_head, head_key, head_shapes
from fbnetv5.data.sample import Classes
from fbnetv5.space import Space
from fbnetv5.tasks import make_tasks
from fbnetv5.tasks.task import Task
from latency.profile import Graph


def graphs_of(space: Space, task_names: Sequence[str], classes: Classes, resolution: Resolution) -> list[Graph]:
    """Every distinct block of the space and the head of every task, by table key."""
    check_resolution(resolution)
    graphs: dict[str, Graph] = {}
    for node in space.nodes:
        for block in node.candidates:
            graph = _block_graph(block, node.stride, resolution)
            graphs.setdefault(graph.key, graph)
    for task in make_tasks(tuple(task_names), classes).values():
        graph = _head_graph(task, space, resolution)
        graphs[graph.key] = graph
    return list(graphs.values())


def _block_graph(block: Block, stride: int, resolution: Resolution) -> Graph:
    return Graph(
        key=block_key(block, stride, resolution),
        build=block.build,
        input_shapes=block_shapes(block, stride, resolution),
        output_names=("output",),
    )


def _head_graph(task: Task, space: Space, resolution: Resolution) -> Graph:
    return Graph(
        key=head_key(task, space, resolution),
        build=lambda: deployed_head(task, space),
        input_shapes=head_shapes(task, space, resolution),
        output_names=task.output_names,
    )
