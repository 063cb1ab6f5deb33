from pathlib import Path

from fbnetv5.costs.tables import Counter, table_keys
from fbnetv5.data.scenes import CLASSES as SCENE_CLASSES
from fbnetv5.deploy.space import show_space, space
from fbnetv5.spaces import read_space
from fbnetv5.tasks import make_tasks
from tests.fbnetv5.deploy.test_show import CLASSES, SPACE


def test_a_space_shows_its_variables_and_the_costs_of_its_networks() -> None:
    document = show_space(SPACE, CLASSES, ("cls", "seg"), (64, 64)).to_json()
    assert document["log2_architectures"] == len(document["variables"]) == len(SPACE.variables)
    assert read_space(document["space"]) == SPACE
    for name, task in make_tasks(("cls", "seg"), CLASSES).items():
        costs, table = document["macs"][name], Counter((64, 64)).table(SPACE, task, "macs")
        assert (costs["min"], costs["max"]) == (table.cost_of(SPACE.empty()), table.cost_of(SPACE.full()))
        assert costs["min"] < costs["expected"] < costs["max"]


def test_a_cost_template_has_the_keys_of_all_tasks(tmp_path: Path) -> None:
    file = tmp_path / "energy.json"
    shown = space(stages=1, blocks_per_path=1, resolution=64, tasks="cls,seg", cost_template=file)
    tasks = make_tasks(("cls", "seg"), SCENE_CLASSES).values()
    assert set(shown.costs_to_fill_in) == {key for task in tasks for key in table_keys(shown.space, task, (64, 64))}
    assert space(stages=1, blocks_per_path=1, resolution=64, tasks="cls").costs_to_fill_in == ()
