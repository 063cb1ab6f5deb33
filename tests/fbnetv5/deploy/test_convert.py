from pathlib import Path

import pytest

from export.precision_pipeline import REAL, SEEDED
from fbnetv5.data.config import DataConfig
from fbnetv5.deploy.convert import ExportData, _calibration_batches, convert_stages
from fbnetv5.deploy.export_model import INPUT, ExportModel, load_export_model
from fbnetv5.deploy.export_options import ExportOptions
from tests.contract.stored import stored_run

DATA = DataConfig(size=(64, 64), scenes=(40, 1, 8))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ExportModel:
    """A classifier of 64x64 images."""
    run: Path = stored_run(tmp_path_factory.mktemp("stored") / "run")
    return load_export_model(run, ["cls"])


def test_images_of_one_size_are_opened_once(model: ExportModel) -> None:
    data = ExportData.of(DATA, model, ExportOptions())
    assert data.at_metric_size is data.at_deploy_size
    assert [batch[INPUT].shape for batch in _calibration_batches(model, data)] == [(4, 3, 64, 64)] * 8


def test_int8_is_calibrated_on_both_sizes(model: ExportModel) -> None:
    data = ExportData.of(DATA.changed(size=(32, 32)), model, ExportOptions())
    sides = [batch[INPUT].shape[2] for batch in _calibration_batches(model, data)]
    assert sides == [32] * 3 + [64] * 8  # 40 images in batches of 16, and 32 in batches of 4


def test_a_file_of_fixed_size_is_measured_at_the_deploy_resolution(model: ExportModel) -> None:
    data = ExportData.of(DATA.changed(size=(32, 32)), model, ExportOptions(fixed_size=True))
    assert data.metric_size == model.resolution == (64, 64)


def test_every_precision_is_a_stage(model: ExportModel) -> None:
    options, lines = ExportOptions(precision="fp16"), list[str]()
    stages = convert_stages(model, ExportData.of(DATA, model, options), options, lines.append, None)
    assert [stage.precision for stage in stages] == ["fp32", "fp16"]
    assert [comparison.images for stage in stages for comparison in stage.comparisons] == [SEEDED, REAL] * 3
    assert lines == ["cls: converting to fp16"]
