from pathlib import Path

import pytest

from export.errors import VerificationError
from export.manifest import read_manifest
from fbnetv5.deploy.export import export_tasks
from fbnetv5.deploy.export_options import ExportOptions
from tests.contract.stored import stored_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored_run(tmp_path_factory.mktemp("stored") / "run")


def test_every_stage_has_a_metric_and_the_folder_is_complete(run: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    options = ExportOptions(precision="fp16", max_drop=1.0)
    exported = export_tasks(run, ["cls"], tmp_path / "cls", options, lines.append)
    assert list(exported.metrics) == ["torch", "fp32", "fp16"]
    assert exported.metrics["fp32"] == pytest.approx(exported.metrics["torch"], abs=1e-3)
    assert exported.latency_ms_p50 > 0
    manifest = read_manifest(tmp_path / "cls")
    assert (manifest.precision, set(manifest.sha256)) == ("fp16", {"model.onnx", "reference.npz"})
    assert manifest.metrics["cls"]["stages"].keys() == exported.metrics.keys()
    assert [line.partition(": ")[2] for line in lines] == [
        "exporting",
        "converting to fp16",
        "measuring on the test images",
        "timing",
    ]


def test_a_drop_beyond_the_limit_is_refused_before_anything_is_written(run: Path, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"cls: top1 goes from .* at most -0\.5 was allowed \(--max-drop\)"):
        export_tasks(run, ["cls"], tmp_path / "cls", ExportOptions(max_drop=-0.5), lambda line: None)
    assert not (tmp_path / "cls").exists()
