from fbnetv5.costs.tables import Counter
from fbnetv5.search.nars.prepare import Prepared, prepare
from tests.fbnetv5.search.nars.conftest import SIZE, SPACE, draw, tiny_config


def test_statistics_are_the_counts_of_the_networks(prepared: Prepared) -> None:
    architectures = prepared.pairs.architectures(draw(prepared.pairs, 3))
    for choices, (macs, params) in zip(architectures, prepared.statistics_of(architectures), strict=True):
        graph = SPACE.graph(choices, {"cls": prepared.task.paths})
        count = Counter(SIZE).graph(graph, {"cls": prepared.task})
        assert (macs, params) == (count.macs, count.params)


def test_a_metric_of_which_lower_is_better_has_a_negative_sign(prepared: Prepared) -> None:
    assert prepared.sign == 1.0
    assert prepare(tiny_config(task_name="depth")).sign == -1.0
