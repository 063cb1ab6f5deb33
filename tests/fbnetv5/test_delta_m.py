import shutil
from pathlib import Path

import pytest

from export.errors import UserError
from fbnetv5.architecture import load_architecture, make_architecture
from fbnetv5.delta_m import baseline_files, compare, delta_m
from fbnetv5.evaluate import evaluate_file
from fbnetv5.tasks.task import MetricInfo
from fbnetv5.training.config import TrainConfig

HIGHER = MetricInfo(name="miou")
PASCAL_CONTEXT = {
    "seg": (59.69, 65.11, HIGHER),
    "parts": (55.96, 57.54, HIGHER),
    "saliency": (63.03, 65.41, HIGHER),
    "normals": (16.02, 13.98, MetricInfo(name="mean_angle", unit="degrees", lower_is_better=True)),
    "edges": (67.80, 69.50, HIGHER),
}
"""Task -> value of the shared MobileNetV2 and of one network per task, as BMTAS reports them; the metric."""


def test_delta_m_is_that_of_the_paper() -> None:
    values = {task: value for task, (value, _, _) in PASCAL_CONTEXT.items()}
    baselines = {task: baseline for task, (_, baseline, _) in PASCAL_CONTEXT.items()}
    metrics = {task: metric for task, (_, _, metric) in PASCAL_CONTEXT.items()}
    assert delta_m(values, baselines, metrics) == pytest.approx(-6.35, abs=5e-3)
    assert delta_m(baselines, baselines, metrics) == 0


def test_a_baseline_of_zero_has_no_relative_gain() -> None:
    with pytest.raises(UserError, match="the baseline's miou is 0"):
        delta_m({"seg": 0.5}, {"seg": 0.0}, {"seg": HIGHER})


def test_baselines_are_evaluated_on_the_same_images(branched: Path, networks: Path, image_folder: Path) -> None:
    ours, alone = (
        evaluate_file(file, task="seg", weights=None, data=image_folder, size=(32, 64))
        for file in (branched, networks / "seg.json")
    )
    comparison = compare({"seg": networks / "seg.json"}, ours, image_folder)
    value, reference = ours["seg"].value, alone["seg"].value
    assert comparison.baselines["seg"].value == reference > 0
    assert comparison.delta_m_percent == pytest.approx(100 * (value / reference - 1))


def test_a_folder_has_the_baselines_of_all_tasks(branched: Path, networks: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(networks, folder)
    TrainConfig(task_names=("det", "seg", "depth")).save(folder)
    files = baseline_files([folder, networks / "cls.json"], load_architecture(branched), ["cls", "det", "seg"])
    assert files == {"cls": networks / "cls.json", "det": folder / "det.json", "seg": folder / "seg.json"}


WRONG = {
    "missing": (["cls", "seg"], "there is no baseline for det: add --baseline FILE"),
    "two": (["cls", "det", "seg", "det"], r"there are two baselines for det: .*det\.json and .*det\.json"),
    "another task": (["depth"], r"depth\.json is a network for depth; one of these is needed: cls, det, seg"),
    "several tasks": (["branched"], r"branched\.json is a network for cls\+det\+seg; one of these is needed"),
    "other classes": (["renamed"], r"--baseline .*renamed\.json has other classes than the network"),
}


@pytest.mark.parametrize(("names", "message"), WRONG.values(), ids=WRONG)
def test_wrong_baselines_are_named(
    branched: Path, networks: Path, tmp_path: Path, names: list[str], message: str
) -> None:
    for name in ("cls", "det", "seg"):
        shutil.copy(networks / f"{name}.json", tmp_path)
    shutil.copy(branched, tmp_path)
    det = load_architecture(networks / "det.json")
    det.changed(classes={**det.classes, "boxes": tuple(reversed(det.classes["boxes"]))}).save(tmp_path / "renamed.json")
    make_architecture(det.space, {"depth": det.choices["det"]}, det.classes, det.resolution, provenance={}).save(
        tmp_path / "depth.json"
    )
    paths = [tmp_path / f"{name}.json" for name in names]
    with pytest.raises(UserError, match=message):
        baseline_files(paths, load_architecture(branched), ["cls", "det", "seg"])
