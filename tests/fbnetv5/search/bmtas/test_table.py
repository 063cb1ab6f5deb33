from pathlib import Path

import pytest

from fbnetv5.data.config import DataConfig
from fbnetv5.search.bmtas.table import profile_options
from tests.fbnetv5.search.bmtas.conftest import tiny_config


def test_the_usual_folder_of_tables_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = tiny_config(width=1.0, data=DataConfig(folder="/my images"))
    expected = " --encoder fbnetv3-a --resolution 224x224 --tasks cls,det,seg --data '/my images'"
    assert profile_options(config, tmp_path / "luts") == profile_options(config, Path("luts")) == expected
