import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export.errors import UnavailableError, UserError
from export.manifest import Preprocessing
from fbnetv5.data.preprocess import MEAN, STD, normalise
from fbnetv5.deploy.predict.models import as_image, load, prepare
from tests.fbnetv5.labeling.teachers.test_exported import BOXES, LABELS, SCORES, write_export


def test_images_are_prepared_as_in_training() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    planes = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
    steps = Preprocessing(resize=(6, 8), mean=MEAN, std=STD)
    np.testing.assert_allclose(prepare(pixels, steps), normalise(planes), atol=1e-6)
    reversed_channels = prepare(pixels, steps.changed(order="BGR", mean=MEAN[::-1], std=STD[::-1]))
    np.testing.assert_allclose(reversed_channels[:, ::-1], normalise(planes), atol=1e-6)
    as_they_are = prepare(pixels, Preprocessing(resize=(6, 8), mean=(0.0,) * 3, std=(1.0,) * 3, scale=1.0))
    assert as_they_are.dtype == np.uint8
    np.testing.assert_array_equal(as_they_are, planes)


@pytest.mark.parametrize("mode", ["I", "I;16", "F"])
def test_a_deep_image_is_refused_from_a_file_and_from_memory(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (8, 6), 300)
    image.save(tmp_path / "deep.tif")
    for source in (image, tmp_path / "deep.tif"):
        with pytest.raises(UserError, match=rf"has more than 8 bits a channel \(mode {mode}\)"):
            as_image(source)


def test_an_architecture_file_predicts_at_the_size_of_its_training(networks: Path) -> None:
    model = load(networks / "cls.json")
    assert (model.tasks, model.preprocessing.resize, model.runtime) == (("cls",), (32, 32), "torch")
    assert load(networks / "cls.json", size=(64, 32)).preprocessing.resize == (64, 32)
    scores = model(Image.new("RGB", (50, 40), "red"))["cls"]
    assert scores.probabilities.sum() == pytest.approx(1.0)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cls.onnx", {}, r"cls\.onnx is neither a folder with a manifest\.json"),
        (".", {}, r"manifest\.json"),
        (".", {"runtime": "torch"}, "is an exported folder, which has its weights and needs no torch"),
        ("cls.json", {"runtime": "cuda"}, "is an architecture file, which torch runs: export it to use cuda"),
        ("cls.json", {"runtime": "tvm"}, "unknown runtime 'tvm'; there are: onnxruntime, cuda"),
    ],
)
def test_what_is_no_network_is_refused(name: str, options: dict[str, str], message: str, networks: Path) -> None:
    with pytest.raises(UserError, match=message):
        load(networks / name, **options)  # type: ignore[arg-type]


def test_a_missing_runtime_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_export(tmp_path / "det", {"boxes": BOXES, "scores": SCORES, "labels": LABELS})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UnavailableError, match=r"^onnxruntime is not installed here, .*: pip install onnxruntime$"):
        load(folder)
