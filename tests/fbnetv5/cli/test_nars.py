import json
from pathlib import Path

import pytest

from fbnetv5.architecture import load_architecture, make_architecture
from fbnetv5.data.scenes import CLASSES
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.training.recipe import Recipe
from fbnetv5.training.scaling import scale
from tests.command_line import assert_refused, document, in_process
from tests.contract.stored import STORED

QUICK = {
    "scenes": [48, 24, 16],
    "training": {"steps": 4, "evaluate_every": 2, "batch": 8, "held_out": 16, "warmup_steps": 1},
    "first_batch": 2,
    "batch": 1,
    "iterations": 2,
    "finalists": 1,
    "pool": 64,
    "pretraining_pool": 64,
    "members": 2,
}
SMALL = ("--width", "0.25", "--flops", "2M@32x32", "--size", "32x32", "--config", "quick.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished search in ``runs/n``, and the configuration."""
    folder = tmp_path_factory.mktemp("nars")
    (folder / "quick.json").write_text(json.dumps(QUICK), encoding="utf-8")
    printed = document("nars", *SMALL, "--name", "n", cwd=folder)
    (folder / "printed.json").write_text(json.dumps(printed), encoding="utf-8")
    return folder


def test_the_result_is_an_architecture_weights_and_a_recipe(folder: Path) -> None:
    printed = json.loads((folder / "printed.json").read_text(encoding="utf-8"))
    architecture = load_architecture(folder / "runs/n/cls.json")
    assert printed["architecture"] == architecture.to_json()
    assert architecture.cost.macs <= 2e6
    architecture.load(folder / "runs/n/cls.safetensors")
    recipe = Recipe.load(folder / "runs/n/recipe.json").to_json()
    assert printed["recipe"].items() <= recipe.items()
    assert printed["train_command"] == (
        "fbnetv5 train --arch runs/n/cls.json --init scratch --config runs/n/recipe.json"
    )


def test_the_printed_command_trains_the_pair(folder: Path) -> None:
    arguments = json.loads((folder / "printed.json").read_text(encoding="utf-8"))["train_command"].split()[1:]
    (folder / "short.json").write_text(
        json.dumps(json.loads((folder / "runs/n/recipe.json").read_text(encoding="utf-8")) | {"scenes": [48, 24, 16]}),
        encoding="utf-8",
    )
    arguments[arguments.index("--config") + 1] = "short.json"
    assert document(*arguments, "--size", "32x32", cwd=folder)["steps"] == 4


def test_other_commands_read_the_run(folder: Path) -> None:
    assert document("show", "runs/n/cls.json", cwd=folder)["task"] == "cls"
    assert document("eval", "--arch", "runs/n/cls.json", cwd=folder)["task"] == "cls"


def test_a_pair_for_another_budget_takes_no_training(folder: Path) -> None:
    printed = document("derive", "runs/n", "--flops", "1.7M", "-o", "other", cwd=folder)
    architecture = load_architecture(folder / "other/cls.json")
    assert architecture.cost.macs <= 1.7e6
    assert architecture.provenance["predicted"]["score"] >= 0
    assert printed["recipe"].items() <= Recipe.load(folder / "other/recipe.json").to_json().items()
    done = in_process("derive", "runs/n", "--flops", "1.8M", "--flops", "1.6M", cwd=folder)
    assert done.returncode == 0
    for label in ("1.8M", "1.6M"):
        assert f"runs/n/derived/{label}" in done.stdout
        assert (folder / f"runs/n/derived/{label}/recipe.json").exists()


def test_the_recipe_of_one_architecture_is_searched_within_its_own_cost_and_with_a_teacher(folder: Path) -> None:
    options = ("--arch", "runs/n/cls.json", "--size", "32x32", "--config", "quick.json", "--name", "r")
    printed = document("nars", *options, "--teacher", "runs/n/cls.json", cwd=folder)
    assert printed["architecture"]["choices"] == load_architecture(folder / "runs/n/cls.json").to_json()["choices"]
    teacher = str(folder / "runs/n/cls.json")
    assert printed["architecture"]["provenance"]["training"]["teacher"] == teacher
    assert printed["train_command"].endswith(f"--config runs/r/recipe.json --teacher {teacher}")
    message = "searched the recipe of one architecture"
    assert_refused(["derive", "runs/r", "--flops", "2M"], message, cwd=folder)
    config = folder / "runs/r/config.json"
    config.write_text(config.read_text(encoding="utf-8").replace(teacher, "/gone.json"), encoding="utf-8")
    assert_refused(["nars", "--resume", "runs/r"], "architecture file /gone.json does not exist", cwd=folder)


def test_the_recipe_of_a_scaled_network_is_searched(folder: Path) -> None:
    space = FourPathSpace(stages=1, blocks_per_path=1)
    small = make_architecture(space, {"cls": space.empty()}, CLASSES, (32, 32), provenance={})
    scale(small, folder / "cls.json", "10M@32x32").save(folder / "scaled.json")
    options = ("--size", "32x32", "--config", "quick.json", "--name", "scaled")
    printed = document("nars", "--arch", "scaled.json", *options, cwd=folder)
    assert printed["architecture"]["space"] == load_architecture(folder / "scaled.json").space.to_json()


def test_resuming_a_finished_search_prints_the_same(folder: Path) -> None:
    again = document("nars", "--resume", "runs/n", cwd=folder)
    assert again == json.loads((folder / "printed.json").read_text(encoding="utf-8"))


def test_the_table_of_a_person_names_the_files(folder: Path) -> None:
    done = in_process("nars", "--resume", "runs/n", "--jobs", "1", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "runs/n/cls.json: 2.0M multiply-adds" in done.stdout or "runs/n/cls.json: 1." in done.stdout
    assert "To train it: fbnetv5 train --arch runs/n/cls.json" in done.stdout


WRONG = {
    "no budget": ([], "needs a budget: --flops, --latency or --params; or --arch FILE"),
    "an unknown task": (["--task", "weather", "--flops", "40M"], "unknown task 'weather'"),
    "an unknown space": (["--space", "round", "--flops", "40M"], "unknown space 'round'; there are: stages, four-path"),
    "a width of another space": (["--space", "four-path", "--width", "0.5", "--flops", "40M"], "--width is for"),
    "a budget out of range": (["--flops", "1M"], "is outside what FBNetV3's stages offers"),
    "budgets for two sizes": (["--flops", "40M@64x64", "--params", "5M@96x96"], "for one resolution"),
    "a latency without a table": (["--latency", "9ms"], "--latency needs a latency table"),
    "a device without a table": (
        ["--latency", "9ms@64x96", "--device", "cpu", "--width", "0.5"],
        "make it with: fbnetv5 profile --device cpu --encoder stages --width 0.5 --resolution 64x96 --tasks cls",
    ),
    "an architecture of another task": (["--arch", "runs/n/cls.json", "--task", "det"], "add --task cls"),
    "GPUs without a cluster": (["--flops", "2M@32x32", "--gpus-per-trial", "1"], "--gpus-per-trial is for a Ray"),
    "an unknown field to search": (["--flops", "40M@64x64", "--config", "unknown.json"], "no field 'learning_rate'"),
    "a value out of range": (["--flops", "40M@64x64", "--config", "range.json"], "dropout"),
    "a resumed run of another kind": (["--resume", str(STORED / "run")], "is the folder of a search, not of a nars"),
    "an unknown fit": (["--flops", "2M@32x32", "--fit", "crop"], "unknown fit 'crop'; there are: stretch, letterbox"),
    "options beside --resume": (["--resume", "runs/n", "--flops", "2M"], "leave out --flops"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line_and_exit_code_2(folder: Path, options: list[str], message: str) -> None:
    unknown = {"recipes": {"learning_rate": {"values": [1, 2]}}}
    (folder / "unknown.json").write_text(json.dumps(unknown), encoding="utf-8")
    (folder / "range.json").write_text(json.dumps({"recipes": {"dropout": {"values": [0.1, 1.5]}}}), encoding="utf-8")
    assert_refused(["nars", *options], message, cwd=folder)
