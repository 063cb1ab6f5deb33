import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from export.errors import UserError
from latency.bundle import Target, import_bundle, write_bundle
from latency.correction import MIN_NETWORKS
from latency.devices import resolve
from latency.on_device import BUNDLE_FILE, RESULTS_FILE
from latency.profile import Graph, Network, profile
from latency.protocol import Timing
from latency.table import LatencyTable
from tests.bare_python import bare_python

BRIEF = Timing(repetitions=2, warmup_ms=0, min_ms=0, min_runs=3, max_cv=1e9, reference_ms=0)
CONV = Graph(key="conv@8", build=lambda: nn.Conv2d(3, 3, 3), input_shapes=((3, 8, 8),))
NETWORKS = [
    Network(
        key=f"net{n}@8",
        build=lambda n=n: nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(n))),  # type: ignore[misc]
        input_shapes=((3, 8, 8),),
        task="net",
        blocks={"conv@8": n},
        macs=n,
    )
    for n in range(1, MIN_NETWORKS + 1)
]


def bundle_in(folder: Path, target: Target | None = None) -> Path:
    write_bundle([CONV], NETWORKS, folder=folder, target=target or Target(device="cpu"), timing=BRIEF)
    return folder


def measure(
    folder: Path, python: str = sys.executable, *, home: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [python, "-P", str(folder / "measure.py")], capture_output=True, text=True, cwd=home or folder, env=environment
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for the CPU of this machine, measured by its own script."""
    folder = bundle_in(tmp_path_factory.mktemp("bundle") / "b")
    done = measure(folder)
    assert done.returncode == 0, done.stderr
    assert f"{RESULTS_FILE}\ncopy this folder back, then run: fbnetv5 profile import b\n" in done.stdout
    assert "networks: measure: 18 of 18" in done.stderr
    return folder


@pytest.fixture
def copy(measured: Path, tmp_path: Path) -> Path:
    return shutil.copytree(measured, tmp_path / "copy")


def test_a_bundle_is_measured_where_there_is_no_torch(tmp_path: Path) -> None:
    python = bare_python(tmp_path / "venv", "onnxruntime")
    for name in ("torch", "fbnetv5", "latency", "export", "onnx"):
        assert subprocess.run([python, "-P", "-c", f"import {name}"], capture_output=True).returncode == 1
    folder = bundle_in(tmp_path / "b")
    done = measure(folder, python, home=tmp_path)
    assert done.returncode == 0, done.stderr
    path, profiled = import_bundle(folder, tmp_path / "luts")
    assert path == tmp_path / "luts" / "cpu-fp32-b1.json"
    assert profiled.table.correction is not None
    assert LatencyTable.load(path).check_name(path) == profiled.table


def test_the_table_of_a_bundle_equals_a_table_measured_locally(copy: Path, tmp_path: Path) -> None:
    _, imported = import_bundle(copy, tmp_path / "luts")
    here = profile([CONV], NETWORKS, path=tmp_path / "here.json", backend=resolve("cpu"), timing=BRIEF)
    for table in (imported.table, here.table):
        assert table.entries.keys() == {"null", "conv@8"}
        assert table.networks.keys() == {network.key for network in NETWORKS}
    assert imported.table.fingerprint == here.table.fingerprint
    assert imported.table.changed(entries={}, networks={}, correction=None, conditions=()) == here.table.changed(
        entries={}, networks={}, correction=None, conditions=()
    )
    assert imported.measured == ("null", "conv@8", *(network.key for network in NETWORKS))


def test_a_bundle_without_networks_gives_a_table_without_a_correction(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    write_bundle([CONV], [], folder=folder, target=Target(device="cpu"), timing=BRIEF)
    done = measure(folder)
    assert done.returncode == 0, done.stderr
    assert import_bundle(folder, tmp_path)[1].table.correction is None


def test_a_table_is_not_overwritten(copy: Path, tmp_path: Path) -> None:
    path, _ = import_bundle(copy, tmp_path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="exists already"):
        import_bundle(copy, tmp_path)
    assert path.read_bytes() == before


def test_a_measured_bundle_is_not_measured_again(copy: Path) -> None:
    done = measure(copy)
    assert (done.returncode, done.stdout) == (2, "")
    assert "results.json exists already" in done.stderr


def test_missing_packages_are_exit_code_3_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    write_bundle([CONV], [], folder=folder, target=Target(device="cpu"), timing=BRIEF)
    without_packages = [sys.executable, "-S", str(folder / "measure.py")]
    without_onnxruntime = [
        sys.executable,
        "-c",
        f"import sys, runpy; sys.modules['onnxruntime'] = None; "
        f"runpy.run_path({str(folder / 'measure.py')!r}, run_name='__main__')",
    ]
    for command, package in ((without_packages, "numpy"), (without_onnxruntime, "onnxruntime")):
        done = subprocess.run(command, capture_output=True, text=True)
        message = f"error: {package} is not installed here; README.md names what to install\n"
        assert (done.returncode, done.stderr) == (3, message)


def test_a_file_that_cannot_be_written_is_exit_code_2_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    write_bundle([CONV], [], folder=folder, target=Target(device="cpu"), timing=BRIEF)
    (folder / "results.lock").mkdir()
    done = measure(folder)
    assert (done.returncode, done.stderr) == (2, f"error: {folder / 'results.lock'}: Is a directory\n")


def test_an_interrupted_bundle_is_resumed(copy: Path) -> None:
    (copy / RESULTS_FILE).unlink()
    killed = subprocess.Popen([sys.executable, str(copy / "measure.py")], stderr=subprocess.PIPE, text=True)
    assert killed.stderr is not None
    while "networks: measure: 1 of" not in killed.stderr.readline():
        pass
    killed.kill()
    killed.communicate()
    lines = (copy / "results.journal.jsonl").read_text().splitlines()
    done = measure(copy)
    assert done.returncode == 0, done.stderr
    assert len(lines) > 1 + 2 * 2  # a header and two blocks in two rounds
    results = json.loads((copy / RESULTS_FILE).read_text())
    assert all(measurement["runs"] == 6 for measurement in results["measured"].values())
    assert not (copy / "results.journal.jsonl").exists()


@pytest.mark.parametrize(("name", "old", "new"), [(BUNDLE_FILE, b"conv", b"vnoc"), ("graphs/001.onnx", b"i", b"o")])
def test_an_edited_or_missing_file_is_refused_on_measuring_and_on_importing(
    copy: Path, tmp_path: Path, name: str, old: bytes, new: bytes
) -> None:
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content.replace(old, new))
    with pytest.raises(UserError, match=r"edited or damaged|not the file"):
        import_bundle(copy, tmp_path)
    (copy / RESULTS_FILE).unlink()
    assert measure(copy).returncode == 2
    (copy / name).unlink()
    done = measure(copy)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


def test_results_that_are_missing_edited_or_of_another_bundle_are_refused(copy: Path, tmp_path: Path) -> None:
    text = (copy / RESULTS_FILE).read_text()
    (copy / RESULTS_FILE).write_text(text.replace('"runs": 6', '"runs": 7'))
    with pytest.raises(UserError, match="edited or damaged"):
        import_bundle(copy, tmp_path)
    (copy / RESULTS_FILE).unlink()
    with pytest.raises(UserError, match="was not measured yet"):
        import_bundle(copy, tmp_path)
    other = tmp_path / "other"
    write_bundle([CONV], folder=other, networks=[], target=Target(device="cpu"), timing=BRIEF)
    (other / RESULTS_FILE).write_text(text)
    with pytest.raises(UserError, match="results of another bundle"):
        import_bundle(other, tmp_path)
    assert not list(tmp_path.glob("*.json"))


def test_a_bundle_for_a_gpu_lists_its_requirements_and_refuses_this_machine(tmp_path: Path) -> None:
    folder = bundle_in(tmp_path / "orin", Target(device="orin", precision="fp16"))
    assert "JetPack" in (folder / "README.md").read_text()
    done = measure(folder)
    assert done.returncode == 3
    assert "device 'orin' is not here" in done.stderr


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"device": "tpu"}, "no device 'tpu'"),
        ({"device": "cpu", "precision": "fp16"}, "fp32 or int8"),
        ({"device": "a100", "precision": "fp64"}, "not at 'fp64'"),
        ({"device": "a100", "threads": 2}, "--threads is for CPUs"),
    ],
)
def test_a_target_that_cannot_be_measured_is_refused(target: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Target(**target)  # type: ignore[arg-type]


def test_a_bundle_is_written_atomically(tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_bundle([CONV], NETWORKS, folder=tmp_path / "b", target=Target(device="cpu"), timing=BRIEF, progress=stop)
    assert list(tmp_path.iterdir()) == []
    bundle_in(tmp_path / "b")
    with pytest.raises(UserError, match="exists already"):
        bundle_in(tmp_path / "b")
