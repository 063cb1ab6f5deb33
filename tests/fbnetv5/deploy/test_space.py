from fbnetv5.costs.tables import Counter
from fbnetv5.deploy.space import show_space
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
