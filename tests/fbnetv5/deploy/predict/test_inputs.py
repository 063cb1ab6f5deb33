"""Training, evaluation, export, validation and a user of the file read an image as the same input."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.manifest import read_manifest
from export.placement import Fit, fit_image, place
from export.reference import read_reference
from export.runners import OrtRunner
from fbnetv5.costs.budgets import Budget
from fbnetv5.data.config import DataConfig
from fbnetv5.data.preprocess import normalise
from fbnetv5.data.splits import TEST, split_of
from fbnetv5.deploy.predict.models import load, prepare
from fbnetv5.search.reinforce.config import SearchConfig
from tests.command_line import document
from tests.fbnetv5.conftest import SIZE, SPACE


@pytest.mark.parametrize(("fit", "pixels"), [("stretch", False), ("letterbox", True)])
def test_an_uneven_data_set_is_read_alike_by_all_commands(
    fit: Fit, pixels: bool, networks: Path, uneven_folder: Path, tmp_path: Path
) -> None:
    run, data = Path(shutil.copytree(networks, tmp_path / "run")), DataConfig.of(uneven_folder, size=SIZE, fit=fit)
    SearchConfig(budgets={"seg": (Budget(limit=4e8, unit="macs", resolution=SIZE),)}, space=SPACE, data=data).save(run)
    options = ["--run", "run", "--task", "seg", *(["--pixels"] if pixels else [])]
    metric = document("export", *options, cwd=tmp_path)["metric"]
    evaluated = document("eval", "--arch", "run/seg.json", "--data", str(uneven_folder), "--fit", fit, cwd=tmp_path)
    assert evaluated["fit"] == fit
    assert metric["torch"] == pytest.approx(evaluated["metric"]["value"], abs=1e-6)
    assert metric["onnxruntime"] == pytest.approx(evaluated["metric"]["value"], abs=1e-3)
    folder = run / "export" / "seg"
    assert document("validate", str(folder), cwd=tmp_path)["passed"]

    manifest, reference = read_manifest(folder), read_reference(folder)
    assert (manifest.preprocessing.fit, manifest.preprocessing.padding) == (fit, 114 if fit == "letterbox" else None)
    test = next(path for path in sorted((uneven_folder / "images").iterdir()) if split_of(path.name) == TEST)
    with Image.open(test) as image:
        planes, placement = fit_image(image, SIZE, fit)
    inputs = {"images": prepare(planes, load(folder).preprocessing)}
    assert placement == place((image.height, image.width), SIZE, fit) != place(SIZE, SIZE, fit)
    trained = data.open(["mask"]).test[0].image[None]
    np.testing.assert_allclose(inputs["images"], trained if pixels else normalise(trained), atol=1e-6)
    np.testing.assert_allclose(inputs["images"], reference.inputs["images"][:1], atol=1e-6)
    (outputs,) = OrtRunner(folder / "model.onnx")(inputs).values()
    np.testing.assert_allclose(outputs, reference.outputs["logits"][:1], atol=1e-5)


def test_export_uses_another_fit_if_told(networks: Path, uneven_folder: Path, tmp_path: Path) -> None:
    run, data = Path(shutil.copytree(networks, tmp_path / "run")), DataConfig.of(uneven_folder, size=SIZE)
    SearchConfig(budgets={"cls": (Budget(limit=4e8, unit="macs", resolution=SIZE),)}, space=SPACE, data=data).save(run)
    document("export", "--run", "run", "--task", "cls", "--fit", "letterbox", cwd=tmp_path)
    folder = run / "export" / "cls"
    assert read_manifest(folder).preprocessing.fit == "letterbox"
    trained = data.changed(fit="letterbox").open(["label"]).test[0].image[None]
    assert np.array_equal(read_reference(folder).inputs["images"][:1], normalise(trained).numpy())
