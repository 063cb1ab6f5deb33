import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from export.cuda import find_gpus
from tests.command_line import SMALL, assert_refused, document, in_process

AT_64 = (*SMALL, "--resolution", "64")
WRONG = {
    "unknown device": (["--device", "abacus"], "no device 'abacus'"),
    "no threads": (["--threads", "0"], "--threads"),
    "unknown runtime": (["--runtime", "tvm"], "no runtime 'tvm'; known are tensorrt, onnxruntime, torch"),
    "TensorRT on the CPU": (["--runtime", "tensorrt"], "cpu is measured through onnxruntime, torch or torch-compile"),
    "int8 through torch": (["--runtime", "torch", "--precision", "int8"], "torch measures a CPU at fp32, not at int8"),
    "a space of one network": (
        ["--encoder", "resnet50", "--tasks", "cls", "--dry-run"],
        "at least 9 measured networks, and this space has 1; leave the correction out with --networks 0",
    ),
    "few networks": (["--networks", "3"], "at least 9 measured networks, not 3"),
    "option before a sub-command": (
        ["--device", "orin", "estimate"],
        "come after its name: fbnetv5 profile estimate ... --device",
    ),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, options: list[str], message: str) -> None:
    assert_refused(["profile", *options], message, cwd=tmp_path)


def test_a_table_is_written_with_a_latency_of_each_block_and_a_report(work: Path) -> None:
    printed = json.loads((work / "profile.json").read_text(encoding="utf-8"))
    assert printed["table"] == "luts/cpu-fp32-b1.json"
    assert all(value > 0 for value in printed["latency_ms_p50"].values())
    assert printed["latency_ms"].keys() == printed["latency_ms_p50"].keys()
    assert printed["measured"] == len(printed["latency_ms"]) + 9 + 1  # the graph that does nothing is measured too
    assert printed["held_out"]["networks"] == 3
    assert sorted(path.name for path in (work / "luts").iterdir()) == ["cpu-fp32-b1.html", "cpu-fp32-b1.json"]
    assert printed["report"] == "luts/cpu-fp32-b1.html"
    report = (work / printed["report"]).read_text(encoding="utf-8")
    assert all(key in report for key in printed["latency_ms"])


def test_a_dry_run_lists_what_is_missing_and_writes_nothing(work: Path) -> None:
    before = (work / "luts" / "cpu-fp32-b1.json").read_bytes()
    missing = document("profile", *AT_64, "--networks", "10", "--dry-run", cwd=work)
    assert missing["blocks"] == []
    assert len(missing["networks"]) == 1
    other = document("profile", *AT_64, "--threads", "2", "--dry-run", cwd=work)
    assert other["table"] == "luts/cpu-fp32-b1-t2.json"
    assert len(other["blocks"]) > 20
    assert len(other["networks"]) == 48
    assert (work / "luts" / "cpu-fp32-b1.json").read_bytes() == before


def test_the_table_of_another_runtime_carries_its_name(tmp_path: Path) -> None:
    missing = document("profile", *AT_64, "--runtime", "torch", "--dry-run", cwd=tmp_path)
    assert missing["table"] == "luts/cpu-torch-fp32-b1.json"
    assert len(missing["networks"]) == 48


def test_by_default_all_trees_of_two_tasks_are_measured(tmp_path: Path) -> None:
    options = ("--encoder", "resnet50", "--width", "0.25", "--tasks", "cls,seg", "--resolution", "64")
    missing = document("profile", *options, "--dry-run", cwd=tmp_path)
    assert len(missing["networks"]) == 16 + 1  # the tasks part before one of 16 layers, or nowhere


@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU here")
@pytest.mark.parametrize("runtime", ["tensorrt", "onnxruntime", "torch", "torch-compile"])
def test_a_gpu_that_is_not_here_is_exit_code_3_through_any_runtime(tmp_path: Path, runtime: str) -> None:
    done = in_process("profile", "--device", "h100", "--precision", "fp16", "--runtime", runtime, cwd=tmp_path)
    assert done.returncode == 3
    assert "device 'h100' is not here" in done.stderr
    assert "fbnetv5 profile bundle FOLDER --device h100" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_an_interrupted_profile_keeps_its_repetitions_and_can_be_resumed(
    tmp_path: Path, number: signal.Signals
) -> None:
    options = ["--encoder", "resnet50", "--width", "0.25", "--tasks", "cls", "--resolution", "64", "--networks", "0"]
    command = [sys.executable, "-m", "fbnetv5", "profile", *options]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        while "blocks: measure" not in running.stderr.readline():
            pass
        time.sleep(1)
        running.send_signal(number)
        _, stderr = running.communicate()
    assert running.returncode == 2
    assert "run the same command again" in stderr
    assert "Traceback" not in stderr
    assert len((tmp_path / "luts" / "cpu-fp32-b1.journal.jsonl").read_text().splitlines()) > 1
