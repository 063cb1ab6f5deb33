import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fbnetv5.architecture import load_architecture
from fbnetv5.costs.tables import Counter
from fbnetv5.search.bmtas.prepare import Prepared
from fbnetv5.search.bmtas.results import (
    branched_architecture,
    build_tree,
    log_probabilities_of,
    pareto_document,
    score,
    write_network,
)
from fbnetv5.search.bmtas.supernet import BranchedSupernet
from fbnetv5.search.bmtas.trees import Tree, best_tree, copies_of_groups, routing_scores
from tests.fbnetv5.search.bmtas.conftest import SinglePrecision
from tests.fbnetv5.search.bmtas.test_supernet import flat


def log_probabilities(prepared: Prepared) -> np.ndarray:
    logits = torch.from_numpy(np.random.default_rng(0).normal(scale=2, size=(len(prepared.space.layers), 3, 3)))
    values: np.ndarray = logits.log_softmax(-1).numpy()
    return values


def found(prepared: Prepared) -> Tree:
    costs = prepared.costs
    return best_tree(routing_scores(log_probabilities(prepared)), costs, (costs.all_shared + costs.all_separate) / 2)


def test_the_built_tree_equals_the_supernet_under_its_routing(prepared: Prepared) -> None:
    torch.manual_seed(0)
    supernet = BranchedSupernet(prepared.space, prepared.tasks)
    with torch.no_grad():
        for parameter in supernet.layers.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02 * parameter.requires_grad)
    supernet.eval()
    routes, tree = log_probabilities(prepared), found(prepared)
    network = build_tree(supernet, branched_architecture(prepared, tree), routes).eval()
    copies = copies_of_groups(routes, tree.groups)
    routing = [[copies[n][groups[task]] for n, groups in enumerate(tree.groups)] for task in range(3)]
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        built, expected = network.raw(images), supernet.hard(images, routing)
    for name in prepared.tasks:
        for one, other in zip(flat(built[name]), flat(expected[name]), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_the_file_the_cost_of_trees_and_the_count_of_the_network_agree(prepared: Prepared, tmp_path: Path) -> None:
    tree, config = found(prepared), prepared.config
    config = config.changed(data=config.data.changed(fit="letterbox"))
    architecture = branched_architecture(replace(prepared, config=config), tree)
    assert architecture.provenance["fit"] == "letterbox"
    assert architecture.cost.macs == tree.cost
    counted = Counter(architecture.resolution).graph(architecture.graph, architecture.make_tasks())
    assert counted.macs == tree.cost
    write_network(tmp_path, architecture.build(), architecture)
    assert load_architecture(tmp_path / "branched.json") == architecture


def test_probabilities_are_doubles_also_from_an_accelerator_that_has_none() -> None:
    logits = torch.randn(2, 3, 3).as_subclass(SinglePrecision)
    values = np.exp(log_probabilities_of(logits))
    assert values.dtype == np.float64
    np.testing.assert_allclose(values.sum(-1), 1.0, rtol=1e-12)


def test_scores_are_the_metrics_of_all_tasks(prepared: Prepared) -> None:
    architecture = branched_architecture(prepared, found(prepared))
    torch.manual_seed(0)
    scores = score(architecture.build(), prepared, torch.device("cpu"))
    assert scores.keys() == prepared.tasks.keys()
    assert all(0 <= value <= 1 for value in scores.values())


def test_the_pareto_front_rises_from_all_shared(prepared: Prepared) -> None:
    document = pareto_document(prepared, log_probabilities(prepared))
    costs = [point["cost"] for point in document["points"]]
    assert costs == sorted(costs)
    assert costs[0] >= prepared.costs.all_shared
    assert json.loads(json.dumps(document)) == document
