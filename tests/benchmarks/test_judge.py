"""The judge of finished searches: its figures on made-up losses, and a tiny run from end to end."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks import judge, stats
from benchmarks.architectures import random_matched
from benchmarks.judge import (
    CONTROL,
    FOUND,
    PLANTED,
    RANDOM,
    SHUFFLED,
    WORST,
    Measured,
    agreement,
    assess,
    check_control,
    check_planted,
    count_cases,
    summarise,
)
from export.errors import UserError
from fbnetv5.architecture import load_architecture
from fbnetv5.data.scenes import Scenes
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.panel import PANEL
from fbnetv5.search.reinforce.prepare import prepare
from fbnetv5.spaces.wide import WideSpace
from fbnetv5.tasks.task import MetricInfo
from tests.benchmarks.conftest import BUDGET, counted, panel_of, record

TOP1 = MetricInfo(name="top1")
RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=50)
NOISE -= NOISE.mean()


def made_up(loss: float, metric: float = 0.5) -> Measured:
    own = RNG.normal(size=50) * 0.1
    losses = loss + NOISE + own - own.mean()
    return Measured(cost=380e6, losses=losses, of_supernets=np.array([loss, loss]), metric=metric)


OTHERS = [made_up(float(loss), metric) for loss, metric in zip(RNG.normal(1, 0.1, 64), RNG.random(64), strict=True)]


def test_the_best_network_beats_all_and_the_worst_none() -> None:
    best, worst = (assess(made_up(*figures), OTHERS, BUDGET, TOP1) for figures in ((0.0, 2.0), (2.0, -1.0)))
    assert best["percentile_by_loss"]["value"] == best["percentile_by_metric"]["value"] == 1.0
    assert best["p_by_loss"] == best["p_by_metric"] == pytest.approx(1 / 65)
    assert best["above_p90_by_loss"]
    assert best["p_over_images"] < 1e-3
    assert best["share_of_budget"] == pytest.approx(0.95)
    assert worst["percentile_by_loss"]["value"] == worst["percentile_by_metric"]["value"] == 0.0
    assert worst["p_over_images"] > 0.99
    assert count_cases({"det": {"runs": {"a": best, "b": worst}}}) == {"cases": 2, "above_p90_by_loss": 1}


def test_a_low_error_beats_a_high_one() -> None:
    rmse = MetricInfo(name="rmse", unit="m", lower_is_better=True)
    case = assess(made_up(0.0, -1.0), OTHERS, BUDGET, rmse)
    assert (case["metric"], case["percentile_by_metric"]["value"]) == (-1.0, 1.0)
    assert case["p_by_metric"] == pytest.approx(1 / 65)
    measured = {FOUND: [made_up(0.9)], RANDOM: OTHERS}
    measured |= {name: [] for name in (CONTROL, PLANTED, WORST, SHUFFLED)}
    random = summarise(measured, BUDGET, [Path("a")], rmse)["random"]
    assert random["metric_best"] == min(other.metric for other in OTHERS)
    assert random["metric_best"] < random["metric_p90"] < random["metric_p50"]


def test_differences_are_paired_by_image() -> None:
    mean = float(np.mean([other.loss for other in OTHERS]))
    difference = assess(made_up(mean - 0.05), OTHERS, BUDGET, TOP1)["loss_difference"]
    assert difference["value"] == pytest.approx(-0.05, abs=0.02)
    assert difference["high"] < 0  # unpaired, the images' own spread of 1 would drown it


def test_planted_bad_networks_must_be_below_the_median() -> None:
    assert check_planted([made_up(1.3), made_up(1.2), made_up(1.25)], OTHERS)["passed"]
    same = check_planted([made_up(0.9), made_up(1.0), made_up(1.1)], OTHERS)
    better = check_planted([made_up(0.7), made_up(0.7), made_up(0.75)], OTHERS)
    assert not same["passed"]
    assert not better["passed"]
    assert (better["below_median"], better["p_value"] > 0.9) == (0, True)


def test_random_networks_of_another_seed_must_not_differ() -> None:
    assert check_control([made_up(float(loss)) for loss in np.random.default_rng(9).normal(1, 0.1, 32)], OTHERS)[
        "passed"
    ]
    assert not check_control([made_up(float(loss)) for loss in RNG.normal(1.2, 0.1, 32)], OTHERS)["passed"]


def test_runs_of_different_budgets_or_sizes_are_refused(runs: list[Path]) -> None:
    SearchConfig(budgets={"det": (BUDGET,)}).save(runs[1])
    with pytest.raises(UserError, match="was searched with another budgets"):
        judge.judge_config(runs, steps=1, images=8)


def test_a_judge_learns_from_the_scenes_of_the_searches_or_from_more(runs: list[Path]) -> None:
    searched, hold_out, _ = SearchConfig.load(runs[0]).data.scenes
    assert judge.judge_config(runs, steps=1, images=8).data.scenes == (searched, hold_out, 8)
    assert judge.judge_config(runs, steps=1, images=8, learn=96000).data.scenes == (96000, hold_out, 8)
    with pytest.raises(UserError, match=f"at least the {searched} that the searches learned from"):
        judge.judge_config(runs, steps=1, images=8, learn=searched - 1)


def test_runs_of_the_default_and_the_wide_space_are_judged_in_the_wide_one(runs: list[Path]) -> None:
    default, wide = SearchConfig.load(runs[0]), SearchConfig.load(runs[1]).changed(space=WideSpace())
    wide.save(runs[1])
    panel_of(wide).save(runs[1] / PANEL)
    table = counted(wide.space, "det")
    network = random_matched(table, BUDGET, 1, seed=7)[0]
    record(wide.space, "det", network).save(runs[1] / "det.json")
    assert judge.judge_config(runs, steps=1, images=8).space == wide.space
    groups = judge.draw_groups("det", table, BUDGET, runs, {RANDOM: 2, CONTROL: 2, PLANTED: 2})
    found = load_architecture(runs[0] / "det.json").choices_array
    assert table.cost_of(groups[FOUND][0]) == counted(default.space, "det").cost_of(found)
    assert groups[FOUND][1].tolist() == network.tolist()
    assert len(groups[PLANTED]) == len(groups[WORST]) == len(groups[SHUFFLED]) == 2
    SearchConfig.load(runs[0]).changed(space=WideSpace(stages=2)).save(runs[0])
    with pytest.raises(UserError, match="was searched with another space"):
        judge.judge_config(runs, steps=1, images=8)


def test_agreement_is_the_rank_correlation_of_supernets_and_that_of_their_mean() -> None:
    skill, errors = np.random.default_rng(0).normal(size=(4000, 1)), np.random.default_rng(1).normal(size=(4000, 6))
    rows = skill + errors  # correlation 1/2 between supernets, and 3/4 between means of three

    def networks(losses: NDArray[np.float64]) -> list[Measured]:
        return [replace(OTHERS[0], of_supernets=row) for row in losses]

    of_three = agreement(networks(rows[:, :3]))
    assert of_three["supernets"] == pytest.approx(0.5, abs=0.03)
    means = rows[:, :3].mean(1), rows[:, 3:].mean(1)
    assert of_three["their_mean"] == pytest.approx(stats.spearman(*means).value, abs=0.03)
    assert agreement(networks(rows[:, :1])) == {"supernets": None, "their_mean": None}


@pytest.mark.slow
def test_a_judge_runs_from_end_to_end_and_is_resumed(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "RESAMPLES", 99)
    command = [*map(str, runs), "--output", str(tmp_path / "judge"), "--steps", "2", "--images", "8"]
    command += ["--supernets", "2", "--count", "3", "--controls", "2", "--planted", "2", "--processes", "1"]
    judge.main(command)
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (report["cases"], set(report["tasks"])) == (4, {"det", "seg"})
    of_det = report["tasks"]["det"]
    assert set(of_det["runs"]) == set(map(str, runs))
    assert report["supernets"] == [1000, 1001]
    assert -1 <= of_det["agreement"]["supernets"] <= 1
    trials = [json.loads(file.read_text())["gave"] for file in (tmp_path / "judge" / "trials" / "det").iterdir()]
    for trial in trials:
        assert np.mean(trial["losses"]) == pytest.approx(np.mean(trial["of_supernets"]), abs=1e-5)
    assert any(np.ptp(trial["of_supernets"]) > 0 for trial in trials)
    assert [of_det[name]["networks"] for name in (RANDOM, PLANTED, WORST, CONTROL, SHUFFLED)] == [3, 2, 2, 2, 2]
    monkeypatch.setattr(judge, "open_judge", lambda *_, **__: pytest.fail("a network was scored again"))
    judge.main([*command[:-6], "--count", "3", "--controls", "0", "--planted", "0", "--processes", "1"])
    again = json.loads((tmp_path / "judge" / "report.json").read_text())
    assert again["tasks"]["det"]["runs"][str(runs[0])]["loss"] == of_det["runs"][str(runs[0])]["loss"]
    assert not {PLANTED, WORST, CONTROL, SHUFFLED} & set(again["tasks"]["det"])
    monkeypatch.undo()
    monkeypatch.setattr(stats, "RESAMPLES", 99)
    on_fresh = [
        *command[:-6],
        "--count",
        "3",
        "--controls",
        "0",
        "--planted",
        "0",
        "--processes",
        "1",
        "--scenes",
        "fresh",
    ]
    with pytest.raises(UserError, match="was begun with other supernets"):
        judge.main([*on_fresh, "--supernets", "1"])
    trained = {file: file.read_bytes() for file in (tmp_path / "judge" / "supernets").rglob("*") if file.is_file()}
    judge.main(on_fresh)
    assert trained == {file: file.read_bytes() for file in trained}
    fresh = json.loads((tmp_path / "judge" / "fresh" / "report.json").read_text())
    assert (fresh["scenes"], again["scenes"]) == ("fresh", "test")
    assert fresh["tasks"]["det"]["runs"][str(runs[0])]["loss"] != of_det["runs"][str(runs[0])]["loss"]
    assert json.loads((tmp_path / "judge" / "report.json").read_text()) == again
    monkeypatch.setattr(judge, "open_judge", lambda *_, **__: pytest.fail("a network was scored again"))
    judge.main(on_fresh)
    judge.main([*on_fresh[:-1], "both"])
    both = json.loads((tmp_path / "judge" / "both" / "report.json").read_text())
    for run in map(str, runs):
        loss, *of_kinds = [report["tasks"]["det"]["runs"][run]["loss"] for report in (both, again, fresh)]
        assert loss == pytest.approx(np.mean(of_kinds))


def test_both_kinds_of_images_count_equally() -> None:
    first, second = replace(OTHERS[0], losses=np.array([1.0, 2.0])), replace(OTHERS[1], losses=np.array([3.0, 5.0]))
    (network,) = judge.joined([{FOUND: [first]}, {FOUND: [second]}])[FOUND]
    assert network.losses.tolist() == [1.0, 2.0, 3.0, 5.0]
    assert network.metric == pytest.approx((first.metric + second.metric) / 2)
    np.testing.assert_allclose(network.of_supernets, (first.of_supernets + second.of_supernets) / 2)


def test_fresh_scenes_are_of_the_weights_split_and_seen_by_no_search(runs: list[Path]) -> None:
    config = judge.judge_config(runs, steps=2, images=6)
    learn, hold_out, _ = config.data.scenes
    splits = prepare(config).splits
    fresh = judge.judged_images(config, splits, fresh=True)
    later = Scenes("train", size=config.data.size, count=6, first=learn + hold_out)
    assert len(fresh) == len(later)
    assert all(torch.equal(fresh[number].image, later[number].image) for number in range(6))
    assert judge.judged_images(config, splits, fresh=False) is splits.test
    of_user = config.changed(data=config.data.changed(folder="my-images"))
    with pytest.raises(
        UserError, match="--scenes fresh composes demo scenes, and the searches used images in my-images"
    ):
        judge.judged_images(of_user, splits, fresh=True)


def test_a_single_run_without_controls_is_reported_without_them() -> None:
    nobody: list[Measured] = []
    measured = {FOUND: [made_up(0.9)], RANDOM: OTHERS}
    measured |= dict.fromkeys((CONTROL, PLANTED, WORST, SHUFFLED), nobody)
    assert not {CONTROL, PLANTED, WORST, SHUFFLED, "all_runs"} & set(summarise(measured, BUDGET, [Path("a")], TOP1))
    of_the_run = measured | {WORST: [made_up(1.3)], SHUFFLED: [made_up(1.0)]}  # one network has no spread
    assert not {WORST, SHUFFLED} & set(summarise(of_the_run, BUDGET, [Path("a")], TOP1))
    with_control = summarise(measured | {CONTROL: OTHERS[:8]}, BUDGET, [Path("a")], TOP1)
    assert with_control["control"]["networks"] == 8
