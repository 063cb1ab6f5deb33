from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from export.errors import UserError
from fbnetv5.runs.checkpoint import save_tensors
from fbnetv5.search.reinforce.loss_model import live_features
from fbnetv5.search.reinforce.panel import Observations, Panel, fit_losses, measure_fit
from fbnetv5.search.reinforce.ridge import Floats
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Choices

SPACE = FourPathSpace(stages=1, blocks_per_path=1)
PATHS = (16, 32)
BATCHES = 4


def features_of(choices: Choices) -> Floats:
    """The features of the blocks that are live in these architectures."""
    return live_features(SPACE, SPACE.live_candidates(choices, PATHS))


def observations(count: int, signal: float, seed: int, *, each: bool = False) -> tuple[Observations, Floats]:
    """Losses of random architectures, a sum over live blocks, levels of batches, and noise of 1; and the true sums."""
    rng = np.random.default_rng(seed)
    choices: Choices = rng.integers(0, 2, (count, len(SPACE.variables)))
    effects = np.random.default_rng(7).normal(size=features_of(choices).shape[1])
    true = signal * features_of(choices) @ effects
    if each:
        choices, true = np.repeat(choices, BATCHES, axis=0), np.repeat(true, BATCHES)
    batches = np.arange(len(choices)) % BATCHES
    losses = true + 10.0 * batches + rng.normal(size=len(choices))
    return Observations(choices=choices, batches=batches, losses=losses[:, None]), true


def test_a_model_predicts_networks_that_it_has_not_seen() -> None:
    model = fit_losses(SPACE, PATHS, observations(300, 1.0, 0)[0], 0)
    unseen, true = observations(100, 1.0, 1)
    predicted = model.table(unseen.choices)
    assert np.corrcoef(predicted, true)[0, 1] > 0.95


@pytest.mark.parametrize(("signal", "has_signal"), [(1.0, True), (0.0, False)])
def test_the_fit_quality_detects_a_signal(signal: float, has_signal: bool) -> None:
    model = fit_losses(SPACE, PATHS, observations(200, signal, 0)[0], 0)
    quality = measure_fit(model, observations(24, signal, 1, each=True)[0], 0)
    assert quality.architectures == 24
    assert quality.has_signal is has_signal
    assert quality.has_effects is has_signal


def test_no_effects_are_seen_in_shuffled_losses() -> None:
    seen = observations(200, 1.0, 0)[0]
    for seed in range(20):
        losses = seen.losses.copy()
        for batch in range(BATCHES):
            losses[seen.batches == batch] = np.random.default_rng([seed, batch]).permutation(
                losses[seen.batches == batch]
            )
        model = fit_losses(SPACE, PATHS, replace(seen, losses=losses), 0)
        assert not measure_fit(model, observations(24, 1.0, 1, each=True)[0], 0).has_effects


def test_the_fit_quality_counts_the_architectures_that_ran_the_task() -> None:
    model = fit_losses(SPACE, PATHS, observations(200, 1.0, 0)[0], 0)
    own, others = (observations(24, 1.0, seed, each=True)[0] for seed in (1, 2))
    others = replace(others, batches=others.batches + own.batches.max() + 1, losses=np.full_like(others.losses, np.nan))
    assert measure_fit(model, others.joined(own), 0) == measure_fit(model, own.joined(others), 0)
    assert measure_fit(model, own.joined(others), 0) == measure_fit(model, own, 0)


def test_false_signals_are_rare() -> None:
    signals = []
    for seed in range(60):
        model = fit_losses(SPACE, PATHS, observations(60, 0.0, seed)[0], 0)
        signals.append(measure_fit(model, observations(12, 0.0, 1000 + seed, each=True)[0], 0).has_signal)
    assert np.mean(signals) < 0.15


def test_images_without_labels_are_left_out() -> None:
    seen, _ = observations(300, 1.0, 0)
    gaps = seen.losses.copy()
    gaps[::3] = np.nan
    part = Observations(
        choices=seen.choices[gaps[:, 0] == gaps[:, 0]],
        batches=seen.batches[~np.isnan(gaps[:, 0])],
        losses=seen.losses[~np.isnan(gaps[:, 0])],
    )
    with_gaps = fit_losses(SPACE, PATHS, Observations(choices=seen.choices, batches=seen.batches, losses=gaps), 0)
    np.testing.assert_allclose(with_gaps.posterior.effects, fit_losses(SPACE, PATHS, part, 0).posterior.effects)


def test_a_task_without_any_label_has_no_signal() -> None:
    seen, _ = observations(40, 1.0, 0)
    nothing = Observations(choices=seen.choices, batches=seen.batches, losses=np.full((40, 1), np.nan))
    model = fit_losses(SPACE, PATHS, nothing, 0)
    quality = measure_fit(model, nothing, 0)
    assert (quality.rank_correlation, quality.has_signal) == (0.0, False)


def test_a_panel_is_read_as_it_was_written(tmp_path: Path) -> None:
    panel = Panel(drawn=observations(8, 1.0, 0)[0], checks=observations(3, 1.0, 1, each=True)[0])
    panel.save(tmp_path / "panel")
    read = Panel.load(tmp_path / "panel", variables=len(SPACE.variables), tasks=1)
    for ours, theirs in ((read.drawn, panel.drawn), (read.checks, panel.checks)):
        for name, array in theirs.arrays().items():
            np.testing.assert_array_equal(ours.arrays()[name], array, strict=True)


def test_a_panel_of_another_search_is_refused(tmp_path: Path) -> None:
    panel = Panel(drawn=observations(8, 1.0, 0)[0], checks=observations(3, 1.0, 1)[0])
    panel.save(tmp_path / "panel")
    for variables, tasks in ((len(SPACE.variables) + 1, 1), (len(SPACE.variables), 2)):
        with pytest.raises(UserError, match=f"{tmp_path / 'panel'} has the panel of another search"):
            Panel.load(tmp_path / "panel", variables=variables, tasks=tasks)


def test_each_pooled_panel_has_levels_of_its_own() -> None:
    panels = [
        Panel(drawn=observations(60, 1.0, seed)[0], checks=observations(12, 1.0, 100 + seed, each=True)[0])
        for seed in range(3)
    ]
    shifted = [
        replace(
            panel,
            drawn=replace(panel.drawn, losses=panel.drawn.losses + 7.0 * number),
            checks=replace(panel.checks, losses=panel.checks.losses + 7.0 * number),
        )
        for number, panel in enumerate(panels)
    ]
    pooled, of_shifted = panels[0].pooled(panels[1:]), shifted[0].pooled(shifted[1:])
    assert len(pooled.drawn.losses) == 3 * 60 + 2 * 12 * BATCHES
    assert len(np.unique(pooled.drawn.batches)) == 3 * BATCHES
    np.testing.assert_array_equal(pooled.checks.losses, panels[0].checks.losses)
    effects, of_shifted_effects = (
        fit_losses(SPACE, PATHS, each.drawn, 0).posterior.effects for each in (pooled, of_shifted)
    )
    np.testing.assert_allclose(effects, of_shifted_effects, atol=1e-12)


def test_a_fit_to_several_panels_finds_what_their_effects_have_in_common() -> None:
    unseen, true = observations(200, 1.0, 1)
    features = features_of(unseen.choices)

    def of_weights(seed: int) -> Panel:
        """Losses by weights that add effects of their own, as large as the common ones."""
        seen, _ = observations(200, 1.0, seed)
        own = np.random.default_rng(1000 + seed).normal(size=features.shape[1])
        losses = seen.losses + (features_of(seen.choices) @ own)[:, None]
        return Panel(drawn=replace(seen, losses=losses), checks=observations(3, 1.0, seed, each=True)[0])

    def correlation(panel: Panel) -> float:
        return float(np.corrcoef(fit_losses(SPACE, PATHS, panel.drawn, 0).table(unseen.choices), true)[0, 1])

    panels = [of_weights(10 + number) for number in range(4)]
    assert correlation(panels[0].pooled(panels[1:])) > max(correlation(panel) for panel in panels)


def test_choices_that_are_no_whole_numbers_are_refused(tmp_path: Path) -> None:
    seen, _ = observations(8, 1.0, 0)
    arrays = seen.arrays()
    rows = {
        f"{part}/{name}": torch.from_numpy(array.copy())
        for part in ("drawn", "checks")
        for name, array in arrays.items()
    }
    rows["drawn/choices"] = rows["drawn/choices"] + 0.5
    save_tensors(tmp_path / "panel", rows)
    with pytest.raises(UserError, match="has not the panel of a search"):
        Panel.load(tmp_path / "panel", variables=seen.choices.shape[1], tasks=1)


@pytest.mark.parametrize("names", [("drawn/choices", "checks/choices"), ("weights/x",)])
def test_a_file_that_is_no_panel_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    save_tensors(tmp_path / "panel", {name: torch.zeros(2) for name in names})
    with pytest.raises(UserError, match="has not the panel of a search"):
        Panel.load(tmp_path / "panel", variables=1, tasks=1)
