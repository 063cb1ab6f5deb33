from pathlib import Path

import pytest

from fbnetv5 import api
from tests.contract.schemas import check_document


def test_a_data_set_becomes_shards(image_folder: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    converted = api.convert(image_folder, tmp_path / "shards", progress=lambda stage, done, total: stages.append(stage))
    check_document(["convert"], converted.to_json())
    assert converted.images == sum(converted.splits.values()) == 24
    assert stages
    with pytest.raises(api.UserError, match="Correct the data set"):
        api.convert(image_folder, tmp_path / "strict", strict_data=True)
    assert not (tmp_path / "strict").exists()
