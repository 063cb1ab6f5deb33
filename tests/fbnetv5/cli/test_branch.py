import json
from pathlib import Path

import onnx
import pytest

from fbnetv5.architecture import load_architecture
from fbnetv5.runs.checkpoint import save_tensors
from tests.command_line import assert_refused, document, in_process

QUICK = {"steps": 8, "batch": 8, "scenes": [24, 24, 16], "width": 0.25, "score_images": 16, "routing_every": 2}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "quick.json"
    path.write_text(json.dumps(QUICK), encoding="utf-8")
    return path


def test_a_branched_network_is_found_shown_evaluated_and_exported_as_one_file(tmp_path: Path, config: Path) -> None:
    options = ("--tasks", "cls,seg", "--config", str(config), "--name", "b")
    printed = document("branch", "--flops", "10M@64x64", *options, cwd=tmp_path)
    assert printed["file"] == "runs/b/branched.json"
    assert 9e6 <= printed["architecture"]["cost"]["macs"] <= 10e6
    shown = document("show", "runs/b/branched.json", cwd=tmp_path)
    assert shown["macs"] == printed["architecture"]["cost"]["macs"]
    assert shown["tree"][0].endswith("cls+seg")
    assert document("eval", "--arch", "runs/b/branched.json", cwd=tmp_path)["tasks"].keys() == {"cls", "seg"}
    # After eight steps some channels hardly vary, which their last norm amplifies beyond the gate of the export.
    network = load_architecture(tmp_path / "runs/b/branched.json").build()
    save_tensors(tmp_path / "runs/b/branched.safetensors", network.state_dict())
    done = in_process("export", "--output", "shipped", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    outputs = onnx.load(tmp_path / "shipped" / "cls+seg" / "model.onnx").graph.output
    assert [output.name for output in outputs] == ["cls_logits", "seg_logits"]


WRONG = {
    "one task": (["--flops", "900M", "--tasks", "cls"], "serves 2 to 8 tasks, not 1"),
    "unknown fit": (["--flops", "900M", "--fit", "crop"], "unknown fit 'crop'; there are: stretch, letterbox"),
    "no budget": ([], "exactly one budget"),
    "a budget below all shared": (["--flops", "1M"], "if all tasks share every layer"),
    "an unknown encoder": (["--flops", "900M", "--encoder", "vgg"], "unknown encoder 'vgg'"),
    "a latency without a table": (["--latency", "9ms"], "needs a latency table"),
    "a device without a table": (
        ["--latency", "9ms@64x96", "--device", "cpu", "--encoder", "resnet50", "--tasks", "cls,seg"],
        "make it with: fbnetv5 profile --device cpu --encoder resnet50 --resolution 64x96 --tasks cls,seg",
    ),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, options: list[str], message: str) -> None:
    assert_refused(["branch", *options], message, cwd=tmp_path)


def test_a_file_of_initial_weights_is_found_from_any_folder_later(tmp_path: Path) -> None:
    options = ["--flops", "700M", "--tasks", "cls,seg", "--init", "w.safetensors"]
    assert_refused(["branch", *options], f"--init {tmp_path}/w.safetensors: ", cwd=tmp_path)
