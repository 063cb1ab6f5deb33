from pathlib import Path

import pytest

from fbnetv5 import api
from tests.contract.schemas import check_document

TINY = {"scenes": [24, 12, 16], "steps": 2, "batch": 4, "held_out": 8, "warmup_steps": 1}


def test_a_network_is_trained_and_resumed(networks: Path, tmp_path: Path) -> None:
    config, before = dict(TINY), dict(TINY)
    trained = api.train(arch=networks / "cls.json", output=tmp_path / "cls", config=config)
    assert config == before
    check_document(["train"], trained.to_json())
    assert api.resume_train(trained.folder).to_json() == trained.to_json()
    with pytest.raises(api.UserError, match="is a network for cls, not for det"):
        api.train("det", arch=trained.folder / "cls.json", output=tmp_path / "det")
