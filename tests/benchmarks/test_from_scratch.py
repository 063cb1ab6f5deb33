"""The from-scratch benchmark: common random numbers, its figures, and a tiny run from end to end."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import from_scratch, stats
from benchmarks.architectures import RANDOM_SEED, architecture_key, random_matched, worst_by_fit
from benchmarks.from_scratch import compare, correlate, predicted_losses, seeded_network, train
from benchmarks.stored_scenes import store_scenes
from export.errors import UserError
from export.files import write_json
from fbnetv5.data.config import DataConfig
from fbnetv5.data.scenes import CLASSES
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.tasks import make_tasks
from fbnetv5.training.config import TrainConfig
from tests.benchmarks.conftest import BUDGET, COUNTER, counted, record

SPACE = FourPathSpace()
DET = make_tasks(("det",), CLASSES)["det"]


def test_networks_start_with_the_same_weights_in_the_blocks_they_share() -> None:
    first, second = (seeded_network(DET, SPACE, choices, 1) for choices in (SPACE.full(), SPACE.empty()))
    full, empty = first.state_dict(), second.state_dict()
    assert set(empty) < set(full)
    assert all(torch.equal(full[name], tensor) for name, tensor in empty.items())
    other = seeded_network(DET, SPACE, SPACE.empty(), 2).state_dict()
    assert not torch.equal(other["backbone.blocks.s0_p4_0.0.weight"], empty["backbone.blocks.s0_p4_0.0.weight"])
    assert not torch.equal(
        full["backbone.blocks.s1_p8_0.expand.0.weight"], full["backbone.blocks.s2_p8_0.expand.0.weight"]
    )


def test_a_training_repeats_itself_and_lowers_the_loss(tmp_path: Path) -> None:
    small = FourPathSpace(stages=1, blocks_per_path=1)
    scenes = store_scenes(tmp_path / "x", "train", size=(32, 32), count=60, seed=0)
    config = TrainConfig(task_names=("det",), data=DataConfig(size=(32, 32)), steps=10, batch=6, warmup_steps=1)
    trained = [train(seeded_network(DET, small, small.empty(), 0), scenes, config) for _ in range(2)]
    first, second = (from_scratch.measure(network, scenes) for network in trained)
    assert first == second
    assert first[0] < from_scratch.measure(seeded_network(DET, small, small.empty(), 0).eval(), scenes)[0]


def test_layers_with_many_inputs_may_learn_more_slowly(tmp_path: Path) -> None:
    small = FourPathSpace(stages=1, blocks_per_path=1)
    scenes = store_scenes(tmp_path / "x", "train", size=(32, 32), count=6, seed=0)
    cls = make_tasks(("cls",), CLASSES)["cls"]

    def moved(*options: str) -> dict[str, float]:
        """The largest change of every matrix in one step, in which Adam changes weights by about the learning rate."""
        arguments = from_scratch.parse(
            ["r", "--output", "x", "--task", "cls", "--steps", "1", "--batch", "6", *options]
        )
        network = seeded_network(cls, small, small.empty(), 0)
        before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
        train(network, scenes, from_scratch.training_config(arguments, (32, 32)).changed(warmup_steps=0))
        return {
            name: float((weight.detach() - before[name]).abs().max() / min(1.0, 128 / max(1, weight[0].numel())))
            for name, weight in network.named_parameters()
            if weight.ndim > 1
        }

    alike, by_fan_in = moved("--lr", "0.01"), moved("--lr", "0.01", "--max-fan-in", "128")
    assert max(alike.values()) > 10 * 0.01  # 1984 inputs: as fast as all others
    assert max(by_fan_in.values()) == pytest.approx(0.01, rel=0.05)


def test_groups_are_compared_in_the_expected_direction() -> None:
    searched, others = [1.0, 1.1, 0.9, 1.05], [1.5, 1.4, 1.6, 1.45]
    comparison = compare(searched, others, better="less")
    assert comparison["difference"]["value"] == pytest.approx(np.mean(searched) - np.mean(others))
    assert comparison["p_one_sided"] == pytest.approx(1 / 70)  # of the 70 ways to choose four of eight
    assert comparison["settled"]
    assert compare(searched, [1.02, 0.93, 1.1, 1.04], better="less")["networks_per_group_to_settle"] > 4


def test_groups_without_any_spread_have_no_effect_size() -> None:
    comparison = compare([0.0, 0.0], [0.0, 0.0], better="greater")
    assert (comparison["p_two_sided"], comparison["settled"], "hedges_g" in comparison) == (1.0, False, False)


def test_predicted_losses_of_a_file_are_correlated(tmp_path: Path) -> None:
    write_json(tmp_path / "fit.json", {str(key): key * 2.0 for key in range(5)})
    losses = {str(key): key**3.0 for key in range(7)}
    predicted = predicted_losses(tmp_path / "fit.json", "det", list(losses))
    correlation = correlate(predicted, losses)
    assert (correlation["networks"], correlation["spearman"]["value"]) == (5, pytest.approx(1.0))
    assert correlate({"1": 1.0}, losses) == {"networks": 1}


def test_a_network_of_another_task_or_a_group_of_one_is_refused(runs: list[Path], tmp_path: Path) -> None:
    command = [str(runs[0]), "--output", str(tmp_path / "x")]
    with pytest.raises(UserError, match="group S has 1 network"):
        from_scratch.main(command)
    with pytest.raises(UserError, match="not a network for det"):
        from_scratch.main([*command, "--found", str(runs[1] / "seg.json")])
    with pytest.raises(UserError, match="has no task cls"):
        from_scratch.main([*command, "--task", "cls"])
    SearchConfig(budgets={"det": (BUDGET,)}, data=DataConfig(folder="/images")).save(runs[0])
    with pytest.raises(UserError, match="demo scenes alone"):
        from_scratch.main(command)


def test_groups_are_runs_files_random_bad_and_optional_networks(runs: list[Path], tmp_path: Path) -> None:
    table = counted(SPACE, "det")
    bad = random_matched(table, BUDGET, 2, seed=9)
    files = [str(tmp_path / f"worst-{number}.json") for number in range(2)]
    for file, choices in zip(files, bad, strict=True):
        record(SPACE, "det", choices).save(Path(file))
    command = [*map(str, runs), "--output", "x", "--found", files[0], "--worst", *files, "--count", "3"]
    asked = from_scratch.parse([*command, "--fbnetv3", "--other-task", "seg"])
    groups = from_scratch.draw_groups(asked, SearchConfig.load(runs[0]), table, COUNTER)
    sizes = {name: len(group) for name, group in groups.items()}
    assert sizes == {"S": 3, "R": 3, "W": 2, "fbnetv3-a": 1, "other task": 2}
    assert list(groups["W"]) == [architecture_key(choices) for choices in bad]


@pytest.mark.slow
def test_from_scratch_runs_from_end_to_end_and_is_resumed(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "RESAMPLES", 99)
    table = counted(SPACE, "det")
    known = random_matched(table, BUDGET, 2, seed=RANDOM_SEED)
    known += [worst_by_fit(run, "det") for run in runs]
    fit = {architecture_key(choices): float(number) for number, choices in enumerate(known)}
    write_json(tmp_path / "fit.json", fit)
    command = [*map(str, runs), "--output", str(tmp_path / "x"), "--count", "2", "--judge", str(tmp_path / "fit.json")]
    command += ["--processes", "1", "--batch", "4", "--test", "8", "--steps", "2"]
    from_scratch.main(command)
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {name: row["networks"] for name, row in report["groups"].items()} == {"S": 2, "R": 2, "W": 2}
    assert report["predicted"]["networks"] == 4
    assert set(report["searched_against"]) == {"W", "R"}
    assert all(0.93 * BUDGET.limit <= row["cost"] <= 0.99 * BUDGET.limit for row in report["networks"]["R"])
    monkeypatch.setattr(from_scratch, "train", lambda *arguments: pytest.fail("a network was trained again"))
    from_scratch.main(command)
    assert json.loads((tmp_path / "x" / "det" / "report.json").read_text()) == report
