"""The benchmark of distillation: its control, its figures, and a tiny run from end to end."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import distillation
from benchmarks.distillation import (
    ARMS,
    LABELS,
    TEACHER,
    TEACHER_SEED,
    Settings,
    Work,
    paired,
    parse,
    summarise,
    trial_of,
    with_reversed_images,
)
from export.errors import UserError
from fbnetv5.training.distillation import DistillationTeacher

LINE = ["--tasks", "depth", "--seeds", "0", "1", "--steps", "2", "--teacher-steps", "2", "--batch", "4", "--size", "32"]
LINE += ["--scenes", "16", "--test", "8", "--processes", "1"]
SETTINGS = Settings(
    size=32, steps=9, teacher_steps=20, batch=4, scenes=16, test=8, width=0.25, share=0.6, temperature=2.0
)


def test_the_control_gives_each_image_the_outputs_of_another() -> None:
    teacher = DistillationTeacher(tasks=frozenset({"cls"}), checksum="", run=lambda images: {"cls": images.sum((1, 2))})
    images = torch.arange(6.0).reshape(3, 2, 1)
    assert with_reversed_images(teacher).raw(images)["cls"].tolist() == [9.0, 5.0, 1.0]


def test_arms_differ_in_the_teacher_alone() -> None:
    work = Work(folder=Path("/x"), settings=SETTINGS)
    trainings = {arm: work.training("det", arm, 3) for arm in ARMS}
    architecture, labels = trainings[LABELS]
    for arm in ARMS[1:]:
        other, config = trainings[arm]
        assert other == architecture
        assert (config.teacher, config.distillation, config.temperature) == (
            "/x/trainings/det/teacher/det.json",
            0.6,
            2,
        )
        assert config.changed(teacher=None, distillation=0.8, temperature=1.0) == labels
    teacher, config = work.training("det", TEACHER, TEACHER_SEED)
    assert teacher.cost.macs > 5 * architecture.cost.macs
    assert config == labels.changed(seed=TEACHER_SEED, steps=20, evaluate_every=20, warmup_steps=4)


def test_differences_are_those_of_pairs() -> None:
    row = paired([1.0, 2.0, 5.0], [2.0, 4.0, 4.0], lower=True)
    assert (row["better"], row["pairs"], row["mean"]["value"]) == (2, 3, pytest.approx(-2 / 3))
    assert row["p"] == pytest.approx(6 / 8)  # of the 8 ways to set the signs, all but two are as far from 0
    assert paired([1.0, 2.0, 5.0], [2.0, 4.0, 4.0], lower=False)["better"] == 1


def test_the_report_has_every_seed_and_the_direction_of_the_metric() -> None:
    def result(value: float) -> dict[str, float]:
        return {"metric": value, "loss": 10 * value, "seconds": 1.0, "macs": 5, "params": 6}

    values = {(LABELS, 0): 3.0, (LABELS, 1): 4.0, ("shuffled", 0): 2.0, ("shuffled", 1): 5.0}
    results = {trial_of("depth", arm, seed): result(value) for (arm, seed), value in values.items()}
    results[trial_of("depth", TEACHER, TEACHER_SEED)] = result(1.0)
    report = summarise("depth", (LABELS, "shuffled"), (0, 1), results)
    assert report["arms"]["shuffled"]["metric"] == [2.0, 5.0]
    assert report["less_labels"]["shuffled"]["metric"]["better"] == 1  # of a lower rmse
    assert report["teacher"]["metric"] == 1.0


def test_one_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one pair has no interval: name two seeds at least"):
        distillation.run(parse(["--output", str(tmp_path / "x"), "--seeds", "0"]))


@pytest.mark.slow
def test_distillation_runs_from_end_to_end_and_is_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["--output", str(tmp_path / "x"), *LINE]
    distillation.main(line)
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    arms = report["tasks"]["depth"]["arms"]
    assert set(arms) == set(ARMS)
    assert len({tuple(arm["loss"]) for arm in arms.values()}) == len(ARMS)
    assert [path.name for path in (tmp_path / "x/trainings/depth").iterdir()] == ["teacher"]
    monkeypatch.setattr(distillation, "train", lambda *_, **__: pytest.fail("a network was trained again"))
    distillation.main(line)
    assert json.loads((tmp_path / "x/report.json").read_text(encoding="utf-8")) == report
