from pathlib import Path

import pytest

from fbnetv5 import api
from tests.contract.schemas import check_document
from tests.fbnetv5.cli.test_nars import QUICK


@pytest.mark.slow
def test_a_pair_is_found(tmp_path: Path) -> None:
    result = api.nars(flops="2M@32x32", width=0.25, size=32, config=QUICK, name="n", runs=tmp_path)
    check_document(["nars"], result.to_json())
    assert api.resume_nars(result.run).to_json() == result.to_json()


def test_a_pair_needs_a_budget_and_one_place_for_its_trainings(tmp_path: Path) -> None:
    with pytest.raises(api.UserError, match="needs a budget"):
        api.nars(runs=tmp_path)
    with pytest.raises(api.UserError, match="for this machine alone"):
        api.resume_nars(tmp_path, jobs=2, ray="auto")
