from pathlib import Path

import pytest

from fbnetv5.cli.eval import print_evaluation
from fbnetv5.evaluate import Evaluation
from fbnetv5.tasks import task_types
from tests.command_line import assert_refused, document, in_process


def test_the_metric_is_printed_with_its_unit_and_direction(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"rmse": 0.25, "abs_rel": None, "ratio": {"1.25": 0.5}}
    evaluation = Evaluation(
        task="depth",
        metric=task_types()["depth"].metric,
        value=0.25,
        figures=figures,
        images=16,
        size=(32, 64),
        fit="stretch",
    )
    print_evaluation(evaluation)
    first, *table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert " ".join(first) == "depth on 16 test images of 32x64: rmse in m (lower is better) 0.2500"
    assert table == [["metric", "value"], ["rmse", "0.2500"], ["abs_rel", "-"], ["ratio", "1.25", "0.5000"]]


def test_a_network_is_evaluated_on_a_folder(networks: Path, image_folder: Path, tmp_path: Path) -> None:
    options = ["--arch", str(networks / "seg.json"), "--data", str(image_folder), "--size", "64x32"]
    done = in_process("eval", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "images: read as several tasks" in " ".join(done.stderr.split())
    assert done.stdout.startswith("seg on ")
    assert "test images of 64x32: miou 0." in done.stdout


def test_without_a_network_the_two_ways_to_name_it_are_printed(tmp_path: Path) -> None:
    assert_refused(["eval"], "name a network: --task det for runs/latest/det.json, or --arch FILE", cwd=tmp_path)


def test_a_network_is_compared_with_its_baselines(
    branched: Path, networks: Path, image_folder: Path, tmp_path: Path
) -> None:
    options = ["--arch", str(branched), "--data", str(image_folder), "--task", "seg"]
    options += ["--baseline", str(networks / "seg.json")]
    found = document("eval", *options, cwd=tmp_path)
    assert found["delta_m_percent"] == found["baselines"]["seg"]["gain_percent"]
    printed = in_process("eval", *options, cwd=tmp_path).stdout
    assert f"Delta_m {found['delta_m_percent']:+.2f} %, the mean of the gains" in printed
    wrong = [*options, "--baseline", str(networks / "det.json")]
    assert_refused(["eval", *wrong], "det.json is a network for det; one of these is needed: seg", cwd=tmp_path)
