"""Expectations of the cost's gradient, over every architecture, against differences of the exact expected cost."""

import itertools

import numpy as np
import pytest
import torch

from fbnetv5.costs.tables import CostTable
from fbnetv5.search.reinforce.controller import Controller, Floats
from fbnetv5.search.reinforce.cost_gradient import cost_gradient, variable_effects
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Choices

SPACE = FourPathSpace(stages=1, blocks_per_path=1)
FREE = ("s1_p8_from_p4", "s1_p16_from_p8", "s1_p16_0", "s1_p32_from_p16", "s1_p32_0")
"""The other variables are skipped. The path at 1/8 is read by nobody once it is not fused into another."""


def make_controller() -> Controller:
    controller = Controller(SPACE.choice_counts, 2, lr=0.1)
    controller.logits[:, :, 1] = -80.0
    random = torch.from_numpy(np.random.default_rng(0).normal(size=(2, len(FREE))))
    controller.logits[:, [node.name in FREE for node in SPACE.variables], 1] = random
    return controller


def cost_table(paths: tuple[int, ...]) -> CostTable:
    blocks = np.random.default_rng(2).uniform(1, 9, (len(SPACE.nodes), 1))
    return CostTable(space=SPACE, paths=paths, unit="macs", blocks=blocks, head=3.0)


def every() -> Choices:
    choices = np.zeros((2 ** len(FREE), len(SPACE.variables)), dtype=np.int64)
    choices[:, [node.name in FREE for node in SPACE.variables]] = list(itertools.product(range(2), repeat=len(FREE)))
    return choices


def probabilities(controller: Controller, task: int) -> Floats:
    values: Floats = np.exp(controller.log_probs(every())[:, task])
    return values


def exact(controller: Controller, task: int, table: CostTable) -> tuple[Floats, float]:
    """Gradient [S, C] by central differences, and the expected cost."""
    costs, step, gradient = table(every()), 1e-5, np.zeros(controller.logits.shape[1:])
    expected = float(probabilities(controller, task) @ costs)
    for position in itertools.product(range(len(SPACE.variables)), range(2)):
        sides = []
        for sign in (1, -1):
            controller.logits[(task, *position)] += sign * step
            sides.append(float(probabilities(controller, task) @ costs))
            controller.logits[(task, *position)] -= sign * step
        gradient[position] = (sides[0] - sides[1]) / (2 * step)
    return gradient, expected


class Fixed(Controller):
    """A controller whose draws are given."""

    drawn: list[Choices]

    def sample(self, task: int, count: int, rng: np.random.Generator) -> Choices:
        return self.drawn.pop(0)


@pytest.mark.parametrize("paths", [(32,), (4, 8, 16, 32)], ids=["blocks may die", "all live"])
def test_gradient_and_expected_cost_are_unbiased(paths: tuple[int, ...]) -> None:
    controller, table = make_controller(), cost_table(paths)
    gradient, expected = exact(controller, 1, table)
    p, fixed = probabilities(controller, 1), Fixed(SPACE.choice_counts, 2, lr=0.1)
    fixed.logits.copy_(controller.logits)
    mean, mean_cost = np.zeros(gradient.shape), 0.0
    for one, other in itertools.product(range(len(p)), repeat=2):
        fixed.drawn = [every()[[one]], every()[[other]]]
        of_draw, cost = cost_gradient(fixed, 1, table, np.random.default_rng(0))
        mean += p[one] * p[other] * of_draw
        mean_cost += p[one] * p[other] * cost
    np.testing.assert_allclose(mean, gradient, atol=1e-7)
    assert mean_cost == pytest.approx(expected)


def test_one_draw_is_exact_where_all_is_live() -> None:
    controller, table = make_controller(), cost_table((4, 8, 16, 32))
    gradient, expected = exact(controller, 0, table)
    estimate, cost = cost_gradient(controller, 0, table, np.random.default_rng(0), draws=1, extra_draws=1)
    np.testing.assert_allclose(estimate, gradient, atol=1e-7)
    assert cost == pytest.approx(expected)


def test_the_effect_of_a_variable_is_what_its_block_costs() -> None:
    controller, table = make_controller(), cost_table((4, 8, 16, 32))
    effects = variable_effects(controller, table, every()[:3])
    blocks = [table.blocks[row, 0] for row, node in enumerate(SPACE.nodes) if node.variables]
    np.testing.assert_allclose(effects, np.column_stack([np.zeros(len(blocks)), blocks]))
