import json
import shutil
from pathlib import Path

import pytest
from rich.progress import Progress

from fbnetv5.architecture import load_architecture, make_architecture
from fbnetv5.cli.train import train_report
from fbnetv5.data.scenes import CLASSES
from fbnetv5.spaces.branching import BranchingSpace
from fbnetv5.training.config import TrainConfig
from fbnetv5.training.loop import TrainEntry
from tests.command_line import assert_refused, document, in_process

WRONG = {
    "other options": (["--resume", "r", "--init", "timm", "--size", "64"], "leave out --init, --size"),
    "fit of a resumed run": (["--resume", "r", "--fit", "stretch"], "leave out --fit"),
    "no network": ([], "name a network: --task det for runs/latest/det.json, or --arch FILE"),
    "no such file": (["--task", "det"], "runs/latest/det.json does not exist"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, options: list[str], message: str) -> None:
    assert_refused(["train", *options], message, cwd=tmp_path)


TRANSFERS = {
    "unknown variant": ("det.json", ["--variant", "q"], "variant: must be 'a', 'c', 'f', 'ac' or 'a-lite', not 'q'"),
    "unknown task": ("det.json", ["--task", "pose"], "unknown task 'pose'"),
    "several tasks": ("branched.json", ["--variant", "c"], "is one network for cls+det+seg, trained as a whole"),
    "a tree to scale": (
        "branched.json",
        ["--scale-to", "9M"],
        "only networks of one task, of the default",
    ),
    "a target out of reach": ("det.json", ["--scale-to", "1K"], "cannot be scaled to 1K: at 32x32 the nearest network"),
    "no target": ("det.json", ["--scale-to", "9ms"], "budget '9ms' is not a positive number with its unit"),
}


@pytest.mark.parametrize(("name", "options", "message"), TRANSFERS.values(), ids=TRANSFERS)
def test_a_topology_that_does_not_transfer_is_refused(
    networks: Path, branched: Path, tmp_path: Path, name: str, options: list[str], message: str
) -> None:
    file = branched if name == branched.name else networks / name
    assert_refused(["train", "--arch", str(file), *options], message, cwd=tmp_path)


def test_a_network_in_another_variant_is_shown_with_its_origin(networks: Path, tmp_path: Path) -> None:
    fields = {"scenes": [24, 12, 16], "steps": 1, "batch": 4, "evaluate_every": 1, "held_out": 8, "warmup_steps": 1}
    (tmp_path / "c.json").write_text(json.dumps(fields))
    options = ["--arch", str(networks / "cls.json"), "--variant", "f", "--config", "c.json"]
    folder = document("train", *options, cwd=tmp_path)["folder"]
    shown = document("show", f"{folder}/cls.json", cwd=tmp_path)
    origin = {"file": str(networks / "cls.json"), "task": "cls", "space": "variant a"}
    assert shown["provenance"]["transferred_from"] == origin


def test_a_scaled_network_is_shown_and_evaluated_like_any_other(networks: Path, tmp_path: Path) -> None:
    fields = {"scenes": [24, 12, 16], "steps": 1, "batch": 4, "evaluate_every": 1, "held_out": 8, "warmup_steps": 1}
    (tmp_path / "c.json").write_text(json.dumps(fields))
    options = ["--arch", str(networks / "det.json"), "--scale-to", "20M@64x64", "--config", "c.json"]
    trained = document("train", *options, cwd=tmp_path)
    shown = document("show", f"{trained['folder']}/det.json", cwd=tmp_path)
    assert 19e6 < shown["macs"] <= 20e6
    assert shown["provenance"]["scaled_from"]["file"] == str(networks / "det.json")
    assert trained["tasks"]["det"]["test"]["size"] == shown["resolution"] == [64, 64]
    assert document("eval", "--arch", f"{trained['folder']}/det.json", cwd=tmp_path)["size"] == [64, 64]


def test_a_network_is_trained_and_resumed(networks: Path, tmp_path: Path) -> None:
    fields = {"scenes": [24, 12, 16], "steps": 2, "batch": 4, "evaluate_every": 1, "held_out": 8, "warmup_steps": 1}
    (tmp_path / "c.json").write_text(json.dumps(fields))
    trained = document("train", "--arch", str(networks / "cls.json"), "--config", "c.json", cwd=tmp_path)
    assert (trained["folder"], trained["steps"], list(trained["tasks"])) == ("trained/cls", 2, ["cls"])
    assert trained["tasks"]["cls"]["test"]["size"] == [32, 32]
    assert trained["tasks"]["cls"]["test"]["fit"] == "stretch"
    done = in_process("train", "--resume", "trained/cls", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "trained/cls/cls.json: held-out top1 " in done.stdout
    assert "cls on 16 test images of 32x32: top1 " in done.stdout


def test_a_network_is_trained_with_a_teacher(networks: Path, tmp_path: Path) -> None:
    fields = {"scenes": [24, 12, 16], "steps": 2, "batch": 4, "held_out": 8, "temperature": 2.0}
    (tmp_path / "c.json").write_text(json.dumps(fields))
    command = ["train", "--arch", str(networks / "cls.json"), "--config", "c.json"]
    trained = document(*command, "--teacher", str(networks / "cls.json"), cwd=tmp_path)
    assert trained["steps"] == 2
    for options, message in (
        ((), "c.json: training: temperature has no effect without a teacher: name one"),
        (("--teacher", "no.onnx"), f"there is no teacher {tmp_path / 'no.onnx'}: name an architecture file"),
        (("--teacher", str(networks / "det.json")), "det.json is a network for det: it cannot teach cls"),
    ):
        assert_refused([*command, *options, "--output", "x"], message, cwd=tmp_path)
    assert not (tmp_path / "x").exists()


def test_a_network_is_trained_with_the_fit_of_its_search_unless_told_otherwise(
    networks: Path, uneven_folder: Path, tmp_path: Path
) -> None:
    file = Path(shutil.copytree(networks, tmp_path / "networks")) / "seg.json"
    architecture = load_architecture(file)
    architecture.changed(provenance={**architecture.provenance, "fit": "letterbox"}).save(file)
    (tmp_path / "c.json").write_text(json.dumps({"steps": 2, "batch": 4, "held_out": 8}))
    command = ["train", "--arch", str(file), "--data", str(uneven_folder), "--config", "c.json"]
    done = in_process(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "images are letterboxed to 32x32" in " ".join(done.stderr.split())
    trained, folder = load_architecture(tmp_path / "trained/seg/seg.json"), tmp_path / "trained/seg"
    assert (trained.provenance["fit"], TrainConfig.load(folder).data.fit) == ("letterbox",) * 2
    score = document("eval", "--arch", "trained/seg/seg.json", "--data", str(uneven_folder), cwd=tmp_path)
    line = f"seg on {score['images']} test images letterboxed to 32x32: miou {score['metric']['value']:.4f}"
    assert line in done.stdout
    assert score["fit"] == "letterbox"
    assert_refused([*command, "--fit", "pad"], "unknown fit 'pad'; there are: stretch, letterbox", cwd=tmp_path)
    assert document(*command, "--fit", "stretch", "-o", "s", cwd=tmp_path)["tasks"]["seg"]["test"]["fit"] == "stretch"
    assert load_architecture(tmp_path / "s/seg.json").provenance["fit"] == "stretch"


def test_a_recipe_file_sets_the_size_and_the_length(networks: Path, tmp_path: Path) -> None:
    fields = {"scenes": [24, 12, 16], "epochs": 0.2, "batch": 4, "held_out": 8, "size": [64, 32]}
    (tmp_path / "recipe.json").write_text(json.dumps({"schema": 1, "kind": "recipe", **fields}))
    command = ["train", "--arch", str(networks / "cls.json"), "--config", "recipe.json"]
    trained = document(*command, cwd=tmp_path)
    assert trained["steps"] == 2  # 0.2 * 28 / 4 = 1.4
    assert trained["tasks"]["cls"]["test"]["size"] == [64, 32]
    message = "recipe.json: size is also set by --size: remove one of the two"
    assert_refused([*command, "--size", "64", "-o", "x"], message, cwd=tmp_path)


def test_a_network_of_several_tasks_is_trained_jointly(branched: Path, tmp_path: Path) -> None:
    fields = {"scenes": [24, 12, 16], "steps": 2, "batch": 4, "held_out": 8, "task_weights": "paper"}
    (tmp_path / "c.json").write_text(json.dumps(fields))
    done = in_process("train", "--arch", str(branched), "--config", "c.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for task, metric in {"cls": "top1", "det": "ap", "seg": "miou"}.items():
        assert f"trained/branched/branched.json: {task}, held-out {metric} " in done.stdout
        assert f"{task} on 16 test images of 32x32: {metric} " in done.stdout
        assert f"step 2 of 2: {task}: loss " in " ".join(done.stderr.split())
    finished = document("train", "--resume", "trained/branched", cwd=tmp_path)
    assert list(finished["tasks"]) == ["cls", "det", "seg"]
    wrong = ["train", "--arch", str(branched), "--task", "det"]
    assert_refused(wrong, "is one network for cls+det+seg, trained as a whole", cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("copies", [(0, 0), (0, 1)], ids=["all shared", "only the stem shared"])
def test_a_tree_at_either_extreme_is_trained_and_exported(tmp_path: Path, copies: tuple[int, ...]) -> None:
    space = BranchingSpace(encoder="mobilenetv2", width=0.25, copies=2)
    choices = {task: [copy] * len(space.layers) for task, copy in zip(("cls", "seg"), copies, strict=True)}
    make_architecture(space, choices, CLASSES, (64, 64), provenance={}).save(tmp_path / "branched.json")
    fields = {"scenes": [32, 16, 16], "steps": 4, "batch": 8, "held_out": 8}
    (tmp_path / "c.json").write_text(json.dumps(fields))
    options = ("--init", "scratch", "--size", "64", "--config", "c.json")
    trained = document("train", "--arch", "branched.json", *options, cwd=tmp_path)
    assert (trained["steps"], list(trained["tasks"])) == (4, ["cls", "seg"])
    (exported,) = document("export", "--run", "trained/branched", cwd=tmp_path)["exported"]
    assert {parity["output"].partition("_")[0] for parity in exported["parity"] if parity["gated"]} == {*choices}
    assert all(parity["error"] <= 1e-4 for parity in exported["parity"])


def test_the_progress_names_the_metric(capsys: pytest.CaptureFixture[str]) -> None:
    report = train_report(Progress(disable=True), TrainConfig(task_names=("depth",), steps=10))
    for step, score, best in ((0, 2.0, 2.0), (5, 1.5, 1.5)):
        losses = None if step == 0 else {"depth": 0.5}
        scores, of_best = {"depth": score}, {"depth": best}
        report(TrainEntry(step=step, losses=losses, lr=0.1, scores=scores, best=of_best, best_step=step))
    printed = " ".join(capsys.readouterr().err.split())
    assert "step 0 of 10: held-out rmse in m (lower is better) 2.0000, best 2.0000 at step 0" in printed
    assert "step 5 of 10: loss 0.500, held-out rmse in m (lower is better) 1.5000, best 1.5000 at step 5" in printed
