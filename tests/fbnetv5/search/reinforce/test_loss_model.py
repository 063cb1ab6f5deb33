import numpy as np
import pytest

from fbnetv5.blocks.specs import InvertedResidual
from fbnetv5.search.reinforce.loss_model import (
    depth_features,
    fit_model,
    live_features,
    related_features,
)
from fbnetv5.search.reinforce.panel import Observations, fit_losses
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Choices, Space
from fbnetv5.spaces.stages import StageSpace
from fbnetv5.spaces.wide import WideSpace
from tests.fbnetv5.search.reinforce.test_panel import BATCHES, PATHS, SPACE, observations

DEEP = FourPathSpace(stages=2, blocks_per_path=2)


def test_features_are_the_live_variables() -> None:
    drawn = np.random.default_rng(0).integers(0, 2, (50, len(SPACE.variables)))
    columns = [column for column, node in enumerate(SPACE.nodes) if node.variables]
    features = live_features(SPACE, SPACE.live_candidates(drawn, PATHS))
    np.testing.assert_array_equal(features, SPACE.live(drawn, PATHS)[:, columns])


def test_a_live_block_has_a_feature_per_choice_of_its_variables() -> None:
    space = WideSpace(stages=1, blocks_per_path=1)
    drawn = np.random.default_rng(0).integers(np.array(space.choice_counts), size=(200, len(space.variables)))
    features, expected = live_features(space, space.live_candidates(drawn, PATHS)), []
    for node, live in zip(space.nodes, space.live(drawn, PATHS).T, strict=True):
        for variable in node.variables:
            choices = range(int(space.skipping[variable]), space.choice_counts[variable])
            expected += [live & (drawn[:, variable] == choice) for choice in choices]
    np.testing.assert_array_equal(features, np.stack(expected, axis=1))


def test_a_loss_is_the_sum_of_the_effects_of_choices_and_depths() -> None:
    space = WideSpace(stages=1, blocks_per_path=1)
    drawn = np.random.default_rng(0).integers(np.array(space.choice_counts), size=(200, len(space.variables)))
    seen = Observations(
        choices=drawn, batches=np.arange(200) % BATCHES, losses=np.random.default_rng(1).random((200, 1))
    )
    model = fit_losses(space, PATHS, seen, 0)
    live = space.live_candidates(drawn, PATHS)
    blocks = live_features(space, live)
    effects, depths = np.split(model.posterior.effects, [blocks.shape[1]])
    expected = blocks @ effects + depth_features(space, live) @ depths
    np.testing.assert_allclose(model.table(drawn), expected)


def test_features_are_related_by_path_stage_and_choice() -> None:
    space = WideSpace(stages=2, blocks_per_path=2)
    related = related_features(space)
    features = [
        (type(node.candidates[0]), space.variables[variable].name.removeprefix(node.name), choice, node)
        for node in space.nodes
        for variable in node.variables
        for choice in range(int(space.skipping[variable]), space.choice_counts[variable])
    ]
    assert len(related) == len(features)
    for row, (*what, node) in zip(related, features, strict=True):
        for other_row, (*other_what, other) in zip(related, features, strict=True):
            shared = [node.stride == other.stride, node.stage == other.stage]
            expected = (what == other_what) * (sum(shared) + all(shared))
            assert row @ other_row == expected


def test_sampled_tables_lie_around_the_mean() -> None:
    model = fit_losses(SPACE, PATHS, observations(300, 1.0, 0)[0], 0)
    networks = observations(20, 1.0, 1)[0].choices
    sampled = np.array([table(networks) for table in model.sample_tables(400, np.random.default_rng(0))])
    losses = sampled.mean(0)
    assert (sampled.std(0) > 0.01).all()
    predicted = model.table(networks)
    np.testing.assert_allclose(losses - losses.mean(), predicted - predicted.mean(), atol=0.1)


@pytest.mark.parametrize("space", [DEEP, WideSpace(stages=2, blocks_per_path=2), StageSpace()], ids=lambda s: s.kind)
def test_depths_are_numbers_of_live_optional_blocks(space: Space) -> None:
    counts = np.array(space.choice_counts)
    drawn: Choices = np.random.default_rng(0).integers(counts, size=(50, len(counts)))
    optional = [node.skippable and isinstance(node.candidates[0], InvertedResidual) for node in space.nodes]
    expected = []
    for stride in sorted({node.stride for node in space.nodes}):
        pairs = zip(space.nodes, optional, strict=True)
        stages = [node.stage if node.stride == stride and own else None for node, own in pairs]
        of_path = sorted({stage for stage in stages if stage is not None})
        groups = [of_path, of_path[:1], of_path[1:]] if len(of_path) > 1 else [of_path] * bool(of_path)
        for group in groups:
            count = np.zeros(50)
            for column, stage in enumerate(stages):
                if stage in group:
                    count += space.live(drawn, PATHS)[:, column]
            expected.append(30 * np.exp(-count / 2))
    features = depth_features(space, space.live_candidates(drawn, PATHS))
    np.testing.assert_allclose(features, np.stack(expected, axis=1))


def test_diminishing_returns_are_found() -> None:
    """Every block of a path is worth the same, less with each that is there: a sum of blocks cannot tell that."""
    rng = np.random.default_rng(0)
    drawn: Choices = (rng.random((700, len(DEEP.variables))) < rng.uniform(0.1, 0.9, (700, 1))).astype(np.int64)
    features = depth_features(DEEP, DEEP.live_candidates(drawn, PATHS))
    true = features @ np.linspace(0.02, 0.1, features.shape[1])
    losses = true + rng.normal(0, 0.1, 700)
    seen, unseen = slice(0, 600), slice(600, 700)
    model = fit_model(DEEP, PATHS, drawn[seen], losses[seen], np.arange(600) % BATCHES)
    predicted = model.table(drawn[unseen])
    assert np.corrcoef(predicted, true[unseen])[0, 1] > 0.99
    block = next(node.variables[0] for node in DEEP.nodes if node.skippable and node.stride == 16)
    full, without, empty, single = DEEP.full(), DEEP.full(), DEEP.empty(), DEEP.empty()
    without[block], single[block] = 0, 1
    loss = model.table
    assert loss.cost_of(empty) - loss.cost_of(single) > 5 * abs(loss.cost_of(without) - loss.cost_of(full))
