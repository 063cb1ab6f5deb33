from fbnetv5.costs.graphs import block_graph, head_graph
from fbnetv5.costs.tables import table_keys
from fbnetv5.data.scenes import CLASSES
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.tasks import make_tasks
from latency.profile import onnx_of


def test_graphs_have_the_keys_and_inputs_of_tables() -> None:
    space, task = FourPathSpace(stages=1, blocks_per_path=1), make_tasks(("seg",), CLASSES)["seg"]
    head = head_graph(task, space.channels(task.paths), (64, 96))
    blocks = [block_graph(node.candidates[0], node.stride, (64, 96)) for node in space.nodes]
    assert list(dict.fromkeys([*(graph.key for graph in blocks), head.key])) == table_keys(space, task, (64, 96))
    _, inputs = onnx_of(head)
    assert [tensor.shape[2:] for tensor in inputs.values()] == [(64 // path, 96 // path) for path in task.paths]
