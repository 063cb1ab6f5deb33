import contextlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from export.errors import UserError, VerificationError
from fbnetv5.architecture import load_architecture
from fbnetv5.data.config import DataConfig
from fbnetv5.data.splits import split_of
from fbnetv5.deploy.export_model import load_network
from fbnetv5.runs.checkpoint import load_tensors, save_tensors
from fbnetv5.runs.config import Run
from fbnetv5.runs.folder import networks_of
from fbnetv5.tasks.classification import Classification
from fbnetv5.training.config import TrainConfig
from fbnetv5.training.loop import TrainEntry, TrainLoop
from fbnetv5.training.optimizer import learning_rate
from fbnetv5.training.run import TrainResult, in_steps, prepare, run_training, start_training
from tests.fbnetv5.data.test_soft_labels import add as add_soft_labels

MakeTraining = Callable[..., TrainConfig]


def quiet(*_: object) -> None:
    """Say nothing."""


def resume(folder: Path, report: Callable[[TrainEntry], None]) -> TrainResult:
    return run_training(folder, prepare(TrainConfig.load(folder)), report, quiet)


def interrupt_at(step: int | None) -> Callable[[TrainEntry], None]:
    """A report that interrupts the training after a step."""

    def interrupt(now: TrainEntry) -> None:
        if now.step == step:
            raise KeyboardInterrupt

    return interrupt


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of whatever a training leaves, save its logs."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if "tensorboard" not in path.parts]
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


@pytest.fixture(scope="module")
def undisturbed(
    make_training: MakeTraining, networks: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TrainResult]:
    """A training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("trained") / "det"
    start_training(make_training("det", mixup=0.5), networks / "det.json", folder)
    return folder, resume(folder, quiet)


def test_the_folder_of_a_training_is_a_run_folder(undisturbed: tuple[Path, TrainResult]) -> None:
    folder, result = undisturbed
    names = {path.name for path in folder.iterdir()}
    files = {"det.json", "det.safetensors", "config.json", "history.jsonl"}
    assert names == {*files, ".lock", "checkpoint", "evaluation.json", "tensorboard"}
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["tasks"] == result.to_json()["tasks"]
    assert networks_of(folder) == [["det"]]
    architecture, network = load_network(folder, ["det"])
    assert architecture.provenance["score"] == result.best["det"] >= result.initial["det"]
    assert architecture.provenance["training"]["step"] == result.best_step
    assert all(bool(torch.isfinite(output).all()) for output in network(torch.randn(1, 3, 32, 32)))
    assert Run.load(folder).data == DataConfig(size=(32, 32), scenes=(24, 12, 16))


def test_history_holds_losses_and_scores(undisturbed: tuple[Path, TrainResult]) -> None:
    folder, result = undisturbed
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2, 4, 6]
    assert max(line["scores"]["det"] for line in lines) == result.best["det"]
    assert lines[0]["scores"] == result.initial
    assert all(line["losses"]["det"] > 0 for line in lines[1:])


def test_a_joint_training_that_is_interrupted_ends_with_the_same_files(
    make_training: MakeTraining, branched: Path, tmp_path: Path
) -> None:
    written = []
    for name in ("whole", "interrupted"):
        config = make_training("cls+det+seg", steps=4, mixup=0.5)
        folder, _ = start_training(config, branched, tmp_path / name)
        if name == "interrupted":
            with pytest.raises(KeyboardInterrupt):
                resume(folder, interrupt_at(2))
        result = resume(folder, quiet)
        written.append(contents(folder))
    assert written[0] == written[1]
    assert networks_of(folder) == [["cls", "det", "seg"]]
    architecture, _ = load_network(folder, ["cls", "det", "seg"])
    assert architecture.provenance["scores"] == result.best
    assert result.test.keys() == result.initial.keys() == {"cls", "det", "seg"}


@pytest.mark.parametrize("step", [0, 4])
def test_an_interrupted_training_ends_with_the_same_files(
    make_training: MakeTraining, networks: Path, undisturbed: tuple[Path, TrainResult], tmp_path: Path, step: int
) -> None:
    folder, _ = start_training(make_training("det", mixup=0.5), networks / "det.json", tmp_path / "again")
    with pytest.raises(KeyboardInterrupt):
        resume(folder, interrupt_at(step))
    resume(folder, quiet)
    assert contents(folder) == contents(undisturbed[0])


def test_momentum_is_resumed_too(make_training: MakeTraining, networks: Path, tmp_path: Path) -> None:
    written = []
    for name, stop in (("whole", None), ("halved", 4)):
        config = make_training("cls", optimizer="sgd", lr=0.05)
        folder, _ = start_training(config, networks / "cls.json", tmp_path / name)
        with contextlib.suppress(KeyboardInterrupt):
            resume(folder, interrupt_at(stop))
        resume(folder, quiet)
        written.append(contents(folder))
    assert written[0] == written[1]


EVERYTHING: dict[str, Any] = {
    "optimizer": "rmsprop",
    "ema_decay": 0.0,
    "dropout": 0.3,
    "stochastic_depth": 0.3,
    "mixup": 0.5,
    "cutmix": 0.5,
    "label_smoothing": 0.1,
    "augment": 0.5,
}


@pytest.mark.parametrize("tasks", ["cls", "seg"])
def test_a_training_with_every_regularizer_ends_with_the_same_files(
    make_training: MakeTraining, networks: Path, tmp_path: Path, tasks: str
) -> None:
    written = []
    for name in ("whole", "interrupted", "stopped"):
        config = make_training(tasks, **EVERYTHING, stop_at=2 if name == "stopped" else None)
        folder, _ = start_training(config, networks / f"{tasks}.json", tmp_path / name)
        if name == "interrupted":
            with pytest.raises(KeyboardInterrupt):
                resume(folder, interrupt_at(4))
        elif name == "stopped":
            stops_early_and_continues(folder)
        resume(folder, quiet)
        written.append(contents(folder))
    assert written[0] == written[1] == written[2]


def test_a_distillation_ends_with_the_same_files_and_only_with_its_teacher(
    make_training: MakeTraining, networks: Path, tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher.json"
    for suffix in (".json", ".safetensors"):
        shutil.copyfile(networks / f"cls{suffix}", teacher.with_suffix(suffix))
    written = []
    for name, step in (("whole", None), ("interrupted", 4)):
        config = make_training("cls", teacher=str(teacher), dropout=0.3, mixup=0.5)
        folder, _ = start_training(config, networks / "cls.json", tmp_path / name)
        with contextlib.suppress(KeyboardInterrupt):
            resume(folder, interrupt_at(step))
        resume(folder, quiet)
        written.append(contents(folder))
    assert written[0] == written[1]
    assert load_architecture(folder / "cls.json").provenance["training"]["teacher"] == str(teacher)
    weights = load_tensors(teacher.with_suffix(".safetensors"))
    save_tensors(teacher.with_suffix(".safetensors"), {name: 2 * tensor for name, tensor in weights.items()})
    with pytest.raises(UserError, match=r"was made with other teacher: .*Resume with the same teacher, or start"):
        resume(folder, quiet)


def test_soft_labels_alone_teach_a_class(
    make_training: MakeTraining, networks: Path, image_folder: Path, tmp_path: Path
) -> None:
    config = make_training("cls", folder=image_folder, teacher="soft-labels", distillation=1.0, evaluate_every=1)
    with pytest.raises(UserError, match="the images have no soft labels of cls: store them"):
        start_training(config, networks / "cls.json", tmp_path / "refused")
    add_soft_labels(image_folder, {f"{number:02d}.png": {"bag": 0.9} for number in range(24)})
    start_training(config, networks / "cls.json", tmp_path / "cls")
    losses: list[float] = []
    resume(tmp_path / "cls", lambda entry: losses.extend((entry.losses or {}).values()))
    assert losses[0] > 2 * losses[-1]
    provenance = load_architecture(tmp_path / "cls" / "cls.json").provenance
    assert provenance["training"]["teacher"] == "soft-labels"


def stops_early_and_continues(folder: Path) -> None:
    """Run a training to its early stop, then to a later one, and remove the stop from its configuration."""
    for stop in (2, 4):
        TrainConfig.load(folder).changed(stop_at=stop).save(folder)
        result = resume(folder, quiet)
        entries = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        assert (result.steps, entries[-1]["step"]) == (stop, stop)
        assert entries[-1]["scores"].keys() == result.test.keys()
        assert entries[-1]["lr"] == learning_rate(TrainConfig.load(folder), stop) > 1e-4  # of all 6 steps
        assert (folder / f"checkpoint/step-{stop}.safetensors").exists()
    TrainConfig.load(folder).changed(stop_at=None).save(folder)


def test_epochs_are_those_of_the_images_in_all_processes(
    make_training: MakeTraining, networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = make_training("det").model_dump(exclude={"steps", "data"})
    config = TrainConfig(**fields | {"data": make_training("det").data, "epochs": 2.5})
    folder, prepared = start_training(config, networks / "det.json", tmp_path / "det")
    assert (len(prepared.images), prepared.config.batch) == (28, 4)
    stored = TrainConfig.load(folder)
    assert (stored.steps, stored.epochs) == (18, None)  # 2.5 * 28 / 4 = 17.5
    assert stored == prepared.config
    monkeypatch.setattr("fbnetv5.training.run.make_accelerator", lambda: SimpleNamespace(num_processes=3))
    assert in_steps(config, 28).steps == 6  # 2.5 * 28 / 12 = 5.8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cutmix": 0.5}, "training: cutmix does not suit det"),
        ({"label_smoothing": 0.1}, "training: label_smoothing has no effect on the loss of det: set it to 0"),
    ],
    ids=["cutmix", "label smoothing"],
)
def test_a_recipe_that_does_not_suit_the_task_is_refused(
    make_training: MakeTraining, networks: Path, tmp_path: Path, fields: dict[str, float], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        start_training(make_training("det", **fields), networks / "det.json", tmp_path / "det")
    assert not (tmp_path / "det").exists()


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_files(
    make_training: MakeTraining, networks: Path, undisturbed: tuple[Path, TrainResult], tmp_path: Path
) -> None:
    folder, _ = start_training(make_training("det", mixup=0.5), networks / "det.json", tmp_path / "killed")
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-m", "fbnetv5", "train", "--resume", str(folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (folder / "checkpoint/step-0.json").exists() and process.poll() is None:
            time.sleep(0.02)
        time.sleep(random.uniform(0.0, 1.0))
        process.kill()
    assert process.returncode in (-signal.SIGKILL, 0)
    resume(folder, quiet)
    (folder / "report.html").unlink(missing_ok=True)  # of the command, if it was at its end already
    assert contents(folder) == contents(undisturbed[0])


@pytest.mark.slow
def test_ctrl_c_keeps_the_checkpoint_and_prints_how_to_resume(networks: Path, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"scenes": [24, 12, 16], "batch": 4, "evaluate_every": 5, "held_out": 8}')
    command = [sys.executable, "-m", "fbnetv5", "train", "--arch", str(networks / "det.json"), "--config", "c.json"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "step 5 of 1500" not in (line := process.stderr.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 2
    assert "To continue: fbnetv5 train --resume trained/det" in " ".join(said.split())
    assert "Traceback" not in said
    assert (tmp_path / "trained/det/checkpoint/step-0.safetensors").exists()


def test_a_finished_training_repeats_no_step(undisturbed: tuple[Path, TrainResult]) -> None:
    folder, result = undisturbed
    before, steps = contents(folder), list[TrainEntry]()
    assert resume(folder, steps.append) == result
    assert not steps
    assert contents(folder) == before


def test_a_loss_that_is_no_number_stops_it_and_names_the_last_good_checkpoint(
    make_training: MakeTraining, networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, own = list[int](), Classification.losses

    def losses(task: Classification, raw: Tensor, batch: object) -> Tensor:
        calls.append(0)
        return own(task, raw, batch) * (torch.nan if len(calls) == 4 else 1.0)  # type: ignore[arg-type]

    folder, _ = start_training(make_training("cls", max_skipped=0), networks / "cls.json", tmp_path / "cls")
    monkeypatch.setattr(Classification, "losses", losses)
    with pytest.raises(
        VerificationError, match=r"loss of cls is not finite at step 4; the last good checkpoint is .*step-2\.json"
    ):
        resume(folder, quiet)
    saved = load_tensors(folder / "checkpoint/step-2.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in saved.values())
    load_network(folder, ["cls"])


def test_a_first_score_that_is_not_finite_is_one_line(
    make_training: MakeTraining, networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = start_training(make_training("cls"), networks / "cls.json", tmp_path / "cls")
    monkeypatch.setattr(TrainLoop, "evaluate", lambda loop: {"cls": math.nan})
    with pytest.raises(VerificationError, match="the score of cls before the first step is nan"):
        resume(folder, quiet)


def test_a_resumed_training_that_rounds_differently_reports_the_weights_that_it_stores(
    make_training: MakeTraining, networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best weights, of step 2, were written after the last checkpoint, and are not the best when resumed."""
    folder, _ = start_training(make_training("cls", checkpoint_every=100), networks / "cls.json", tmp_path / "cls")
    monkeypatch.setattr(TrainLoop, "evaluate", lambda loop: {"cls": 0.5 if loop.done == 2 else 0.25})
    with pytest.raises(KeyboardInterrupt):
        resume(folder, interrupt_at(2))
    monkeypatch.setattr(TrainLoop, "evaluate", lambda loop: {"cls": 0.125 if loop.done == 2 else 0.25})
    result = resume(folder, quiet)
    assert (result.best, result.best_step) == ({"cls": 0.5}, 2)
    provenance = load_architecture(folder / "cls.json").provenance
    assert (provenance["score"], provenance["training"]["step"]) == (0.5, 2)


@pytest.mark.parametrize("error", [UserError, KeyboardInterrupt])
def test_the_folder_is_made_whole_or_not_at_all(
    make_training: MakeTraining,
    networks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    def fail(config: TrainConfig, written: Path) -> None:
        assert (written / "cls.safetensors").exists()
        assert not (tmp_path / "cls").exists()
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(TrainConfig, "save", fail)
        with pytest.raises(error):
            start_training(make_training("cls"), networks / "cls.json", tmp_path / "cls")
    assert not list(tmp_path.iterdir())
    start_training(make_training("cls"), networks / "cls.json", tmp_path / "cls")
    assert {path.name for path in (tmp_path / "cls").iterdir()} == {"cls.json", "cls.safetensors", "config.json"}


@pytest.mark.slow
def test_training_learns(make_training: MakeTraining, networks: Path, tmp_path: Path) -> None:
    config = make_training("seg", init="scratch", steps=20, batch=8, evaluate_every=20, ema_decay=0.5, lr=5e-3)
    folder, _ = start_training(config, networks / "seg.json", tmp_path / "seg")
    resume(folder, quiet)
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert lines[-1]["losses"]["seg"] < 0.75 * math.log(11)  # which is the loss of a network that knows nothing
    assert lines[-1]["scores"]["seg"] > lines[0]["scores"]["seg"]


@pytest.mark.slow
@pytest.mark.parametrize("tasks", ["seg", "cls+det+seg"])
def test_two_processes_share_a_training(networks: Path, branched: Path, tmp_path: Path, tasks: str) -> None:
    script = Path(__file__).with_name("two_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    folder = tmp_path / "both"
    file = branched if "+" in tasks else networks / f"{tasks}.json"
    arguments = [*command, str(file), str(folder)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len((folder / "history.jsonl").read_text().splitlines()) == 3
    load_network(folder, tasks.split("+"))


def test_a_folder_is_never_overwritten(
    make_training: MakeTraining, networks: Path, undisturbed: tuple[Path, TrainResult]
) -> None:
    with pytest.raises(UserError, match=r"exists already; resume it with --resume .* or choose another --output"):
        start_training(make_training("det"), networks / "det.json", undisturbed[0])


def test_a_folder_without_a_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run configuration file .*config\.json does not exist"):
        resume(tmp_path, quiet)


def test_images_of_other_classes_are_refused(
    make_training: MakeTraining, networks: Path, image_folder: Path, tmp_path: Path
) -> None:
    path = image_folder / "instances.json"
    path.write_text(path.read_text().replace('"bag"', '"sack"'))
    config = make_training("det", folder=image_folder)
    with pytest.raises(UserError, match=r"the network has 10 \(t-shirt, trouser, pullover, \.\.\.\) classes"):
        start_training(config, networks / "det.json", tmp_path / "det")
    assert not (tmp_path / "det").exists()


def test_images_without_labels_are_refused_before_the_training(
    make_training: MakeTraining, networks: Path, image_folder: Path, tmp_path: Path
) -> None:
    for mask in (image_folder / "masks").iterdir():
        if split_of(mask.stem + ".png") == 2:
            mask.unlink()
    config = make_training("seg", folder=image_folder)
    with pytest.raises(UserError, match=r"none of the \d+ images to test on has labels for seg"):
        start_training(config, networks / "seg.json", tmp_path / "seg")
    assert not (tmp_path / "seg").exists()


def test_a_checkpoint_of_more_processes_is_refused(undisturbed: tuple[Path, TrainResult], tmp_path: Path) -> None:
    folder = tmp_path / "det"
    shutil.copytree(undisturbed[0], folder)
    (state,) = (folder / "checkpoint").glob("*.json")
    state.write_text(state.read_text().replace('"processes": 1', '"processes": 2'))
    with pytest.raises(UserError, match=r"was made with other processes: 2, now 1\. Resume with the same processes"):
        resume(folder, quiet)


def test_a_checkpoint_of_other_images_is_refused(undisturbed: tuple[Path, TrainResult], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(undisturbed[0]), str(folder)], check=True)
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"held_out": 8', '"held_out": 9'))
    with pytest.raises(UserError, match=r"was made with other images: 28, now 27\. .* start a new training"):
        resume(folder, quiet)


def test_the_architecture_is_that_of_the_search(networks: Path, undisturbed: tuple[Path, TrainResult]) -> None:
    searched, trained = load_architecture(networks / "det.json"), load_architecture(undisturbed[0] / "det.json")
    for name in ("space", "choices", "classes", "resolution", "cost"):
        assert getattr(searched, name) == getattr(trained, name)
