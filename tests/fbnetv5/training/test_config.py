import json
import math
from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from fbnetv5.data.config import DataConfig
from fbnetv5.networks.pretrained import PUBLISHED, SCRATCH
from fbnetv5.tasks import task_types
from fbnetv5.training.config import TrainConfig, common_defaults, fitting_defaults
from fbnetv5.training.initial import INHERITED


def made(tmp_path: Path, task: str = "det", **fields: Any) -> TrainConfig:
    file = tmp_path / "c.json"
    file.write_text(json.dumps(fields))
    return TrainConfig.make(
        file,
        defaults=task_types()[task].training,
        task_names=(task,),
        init="scratch",
        data=DataConfig(size=(64, 64)),
        seed=3,
    )


def test_the_description_of_init_has_every_source_of_weights() -> None:
    description = TrainConfig.model_fields["init"].description or ""
    assert all(f'"{source}"' in description for source in (INHERITED, SCRATCH, *PUBLISHED))


@pytest.mark.parametrize("task", list(task_types()))
def test_a_configuration_is_loaded_from_its_folder(tmp_path: Path, task: str) -> None:
    config = made(tmp_path, task, lr=1, scale=[0.5, 2])
    config.save(tmp_path)
    assert TrainConfig.load(tmp_path) == config
    assert (config.tasks, config.lr, config.scale, config.seed) == ((task,), 1, (0.5, 2), 3)


def test_a_file_goes_before_the_tasks_fields_and_these_before_the_defaults(tmp_path: Path) -> None:
    assert (
        made(tmp_path, "det").scale
        == task_types()["det"].training["scale"]
        != TrainConfig.model_fields["scale"].default
    )
    assert made(tmp_path, "det", scale=[1.0, 1.0]).scale == (1.0, 1.0)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"speed": 1}, "there is no field 'speed' to set; there are: augment, batch"),
    "has a flag": ({"seed": 1}, "there is no field 'seed' to set"),
    "type": ({"steps": "9"}, "steps: must be a valid integer, not '9'"),
    "length": ({"scale": [1.0]}, "scale.1 is missing"),
    "range": ({"scale": [2.0, 1.0]}, "scale must be a range of factors above 0"),
    "batch": ({"batch": 1}, "batch: must be greater than or equal to 2"),
    "optimizer": ({"optimizer": "lion"}, "optimizer: must be 'adamw', 'sgd' or 'rmsprop', not 'lion'"),
    "probability": ({"flip": 1.5}, "flip: must be less than or equal to 1"),
    "sign": ({"lr": -0.001}, "lr: must be greater than 0"),
    "not finite": ({"weight_decay": math.inf}, "weight_decay: must be a finite number"),
    "momentum": ({"momentum": -1.0}, "momentum: must be greater than or equal to 0"),
    "both lengths": ({"steps": 6, "epochs": 2}, "steps and epochs both set the length of the training"),
    "stop": ({"stop_at": 100}, r"stop_at must be a multiple of evaluate_every \(250\), not 100"),
    "certain dropout": ({"dropout": 1.0}, "dropout: must be less than 1, not 1.0"),
    "no such weights": (
        {"task_weights": "equal"},
        "task_weights must be 'average', 'paper' or an object of .*, not 'equal'$",
    ),
    "weights of other tasks": (
        {"task_weights": {"seg": 1.0}},
        "task_weights must have a weight for each of det: det is missing, seg is unknown$",
    ),
    "no weight": ({"task_weights": {}}, "task_weights .* det: det is missing$"),
    "sign of a weight": ({"task_weights": {"det": 0}}, "weight of det must be a number above 0, at most 1e12, not 0$"),
    "size of a weight": ({"task_weights": {"det": 1e13}}, "at most 1e12, not 10000000000000.0$"),
    "type of a weight": ({"task_weights": {"det": "2"}}, "weight of det must be a number above 0, .*, not '2'$"),
    "counts": ({"scenes": [8, -4, 4]}, "data: scenes.1: must be greater than or equal to 1, not -4"),
    "too small": ({"scale": [0.005, 0.02]}, "scale .* leaves nothing of images of 64x64"),
}


@pytest.mark.parametrize(("fields", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_field_is_named(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        made(tmp_path, **fields)


def test_a_configuration_without_later_fields_has_their_defaults(tmp_path: Path) -> None:
    config = made(tmp_path, lr=0.5)
    config.save(tmp_path)
    path = tmp_path / "config.json"
    document = json.loads(path.read_text())
    for added in ("epochs", "augment", "dropout", "stochastic_depth", "cutmix", "label_smoothing", "stop_at"):
        del document[added]
    path.write_text(json.dumps(document))
    assert TrainConfig.load(tmp_path) == config
    del document["task_names"]
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"of another version; fields that differ: .*task_names"):
        TrainConfig.load(tmp_path)


def test_the_last_step_is_the_earlier_of_both(tmp_path: Path) -> None:
    ends = {stop: made(tmp_path, steps=600, stop_at=stop).last_step for stop in (None, 250, 750)}
    assert ends == {None: 600, 250: 250, 750: 600}


def test_a_configuration_of_another_version_is_refused(tmp_path: Path) -> None:
    made(tmp_path).save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"lr"', '"rate"'))
    with pytest.raises(UserError, match="of another version; fields that differ: rate"):
        TrainConfig.load(tmp_path)


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        (["cls"], {"lr": 7e-4, "colour": 0.0}),
        (["det", "seg"], {"scale": (0.7, 1.4)}),
        (["det", "seg", "edges"], {}),
        (["cls", "det"], {}),
    ],
    ids=str,
)
def test_a_joint_training_has_the_settings_that_all_tasks_agree_on(tasks: list[str], expected: dict[str, Any]) -> None:
    assert common_defaults(task_types()[task].training for task in tasks) == expected


def test_random_weights_have_the_learning_rates_of_a_search(tmp_path: Path) -> None:
    trainings, file = [task_types()["cls"].training], tmp_path / "recipe.json"
    file.write_text('{"kind": "recipe", "schema": 1, "weight_decay": 0.1}')
    rates = {"lr": 1e-2, "max_fan_in": 128}
    for fields in (None, {}, {"steps": 9}, file):
        assert fitting_defaults(trainings, "scratch", fields) == {"colour": 0.0, **rates}
        assert fitting_defaults(trainings, "inherited", fields) == trainings[0]
    for field, value in {"lr": 1e-3, "max_fan_in": None, "optimizer": "sgd"}.items():
        assert fitting_defaults(trainings, "scratch", {field: value}) == trainings[0]
    with pytest.raises(UserError, match="does not exist"):
        fitting_defaults(trainings, "scratch", tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("a/cls.json", "HERE/a/cls.json"),
        ("/b/cls.json", "/b/cls.json"),
        ("c:d.onnx", "HERE/c:d.onnx"),
        ("timm:resnet50.a1_in1k", "timm:resnet50.a1_in1k"),
        ("timm:resnet50@w.pt", "timm:resnet50@HERE/w.pt"),
        ("transformers:folder", "transformers:HERE/folder"),
        ("transformers:google/vit", "transformers:google/vit"),
    ],
)
def test_the_teacher_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, stored: str
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    config = TrainConfig(task_names=("cls",), teacher=name)
    assert config.teacher == stored.replace("HERE", str(tmp_path))
    assert TrainConfig(**config.model_dump(exclude={"data", "epochs"})).teacher == config.teacher


def test_fields_of_a_distillation_need_a_teacher(tmp_path: Path) -> None:
    values: dict[str, Any] = {"distillation": 0.5, "temperature": 2.0}
    for field, value in values.items():
        fields: dict[str, Any] = {field: value}
        with pytest.raises(UserError, match=rf"c\.json: training: {field} has no effect without a teacher: name one"):
            made(tmp_path, **fields)
        assert getattr(TrainConfig(task_names=("cls",), teacher="t", **fields), field) == value
