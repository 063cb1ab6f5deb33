from pathlib import Path

import pytest

from export.errors import UserError
from fbnetv5.search.nars.prepare import Prepared, prepare
from fbnetv5.search.nars.table import profile_options
from fbnetv5.spaces.four_path import FourPathSpace
from tests.contract.stored import STORED
from tests.fbnetv5.search.nars.conftest import tiny_config


def test_the_options_measure_the_space_of_the_search(tmp_path: Path) -> None:
    options = " --encoder stages --width 0.25 --resolution 32x32 --tasks cls"
    assert profile_options(tiny_config(), Path("luts")) == options
    assert profile_options(tiny_config(), tmp_path) == f"{options} --luts {tmp_path}"
    assert profile_options(tiny_config(space=FourPathSpace()), Path("luts")) == " --resolution 32x32 --tasks cls"


def test_a_table_of_other_blocks_is_refused_with_the_command(prepared: Prepared) -> None:
    file = next((STORED / "luts").glob("cpu-fp32-b1.json"), None) or next(STORED.rglob("cpu*b1.json"))
    config = tiny_config(table=str(file), other_machine_table=True)
    with pytest.raises(
        UserError, match=r"lacks \d+ of \d+ blocks of FBNetV3's stages of width 0\.25 at 32x32.*--encoder stages"
    ):
        prepare(config)
