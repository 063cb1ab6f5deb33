from pathlib import Path

from fbnetv5.architecture import load_architecture
from fbnetv5.deploy.report.files import open_run
from fbnetv5.deploy.report.fronts import branch_front, search_fronts


def test_finalists_lie_at_their_costs_and_losses_and_the_result_is_marked(search_run: Path) -> None:
    files = open_run(search_run)
    assert files.pareto is not None
    figures = search_fronts(files.pareto, files.architectures)
    assert [figure.title for figure in figures] == ["cls: finalists", "det: finalists", "seg: finalists"]
    front, ring = figures[0].plot.data
    assert (front.x, front.y) == ((3.0, 4.0), (2.5, 2.0))
    assert (ring.x, ring.y) == ((3.0,), (2.5,))
    assert figures[0].table is not None
    assert figures[0].table.rows[0][0] == "1 (chosen)"


def test_a_finalist_under_several_budgets_has_all_its_costs(search_run: Path) -> None:
    pareto = open_run(search_run).pareto
    assert pareto is not None
    for point in pareto["tasks"]["cls"]["points"]:
        point["costs"] = {"macs": point["cost"], "params": 2e6, "ms": 7.0}
    table = search_fronts(pareto, {})[0].table
    assert table is not None
    assert table.head[1:4] == ["multiply-adds", "parameters", "predicted latency in ms"]
    assert table.rows[0][1:4] == ["3.0M", "2.0M", "7 ms"]


def test_trees_lie_at_their_costs_and_say_where_tasks_part(branched: Path) -> None:
    found = load_architecture(branched)
    layers = len(found.choices["cls"])
    shared = {task: [0] * layers for task in found.choices}
    points = [
        {"cost": 1e6, "log_probability": -1.0, "choices": shared},
        {"cost": 2e6, "log_probability": -3.0, "choices": {task: list(own) for task, own in found.choices.items()}},
    ]
    figure = branch_front({"unit": "macs", "points": points}, found)
    assert figure is not None
    assert (figure.plot.data[0].x, figure.plot.data[0].y) == ((1.0, 2.0), (-1.0, -3.0))
    assert set(figure.plot.data[1].x) == {found.cost.macs / 1e6}
    assert figure.table is not None
    assert [row[-1] for row in figure.table.rows] == [
        "from layer 0: cls+det+seg",
        f"from layer 0: cls+det+seg; from layer 2: cls+seg | det; from layer {layers - 3}: cls | det | seg",
    ]
    assert branch_front({"unit": "macs", "points": []}, found) is None
