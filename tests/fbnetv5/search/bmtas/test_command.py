from pathlib import Path

import pytest

from fbnetv5 import api
from tests.contract.schemas import check_document


def test_a_branched_network_is_found_and_derived_for_another_budget(tmp_path: Path) -> None:
    config = {"steps": 8, "batch": 8, "scenes": [24, 24, 16], "width": 0.25, "score_images": 16, "routing_every": 2}
    lines: list[str] = []
    result = api.branch(flops="10M@64x64", tasks="cls,seg", config=config, name="b", runs=tmp_path, log=lines.append)
    check_document(["branch"], result.to_json())
    assert "if all tasks share every layer" in lines[0]
    assert api.load_architecture(result.file) == result.architecture
    derived = api.derive(result.run, flops=["11M", 9e6])
    check_document(["derive"], derived.to_json())
    (smaller,) = derived.family.values()
    assert smaller.folder == result.run / "derived" / "9M"
    assert smaller.architectures["branched"].cost.macs <= 9e6
    assert derived.architectures["branched"].cost.macs > result.architecture.cost.macs
    with pytest.raises(api.UserError, match="is the folder of a branch, not of a search"):
        api.resume_search(result.run)
