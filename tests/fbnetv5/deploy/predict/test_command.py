from pathlib import Path

import pytest

from fbnetv5 import api
from tests.contract.schemas import check_document


def test_a_folder_of_images_is_predicted_on(networks: Path, image_folder: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    model, images = networks / "cls.json", image_folder / "images"
    result = api.predict(model, images, tmp_path / "out", draw=False, report=lambda frame: seen.append(frame.name))
    check_document(["predict"], result.to_json())
    assert result.file.exists()
    assert len(seen) == result.images == 24
    with pytest.raises(api.UserError, match="is in the folder of the images"):
        api.predict(model, images, images)
