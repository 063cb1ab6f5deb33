import subprocess
import sys
from pathlib import Path

import pytest
import timm

from export.errors import UserError
from fbnetv5.integrations.timm.registry import register_architecture

ORDERS = {
    "fbnetv5 first": "import sys, fbnetv5; assert not {'timm', 'torch'} & set(sys.modules); import timm",
    "a module of timm first": "import timm.layers, fbnetv5.spaces.space",
}


@pytest.mark.parametrize("imports", ORDERS.values(), ids=ORDERS)
def test_timm_knows_the_name_in_any_order_of_imports(imports: str) -> None:
    code = f"{imports}; assert timm.is_model('fbnetv5'); print(timm.__loader__.get_filename('timm') == timm.__file__)"
    ran = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.strip()) == (0, "True"), ran.stderr


def test_looking_for_timm_does_not_load_it() -> None:
    code = (
        "import sys, fbnetv5, importlib.util as util; "
        "assert util.find_spec('timm').origin.endswith('__init__.py'); assert util.find_spec('timm2') is None; "
        "print('timm' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_fbnetv5_works_where_timm_is_missing() -> None:
    code = "import sys, fbnetv5\nsys.path[:] = []\ntry: import timm\nexcept ModuleNotFoundError as error: print(error)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "No module named 'timm'"


def test_a_model_without_an_architecture_is_refused() -> None:
    with pytest.raises(UserError, match=r'needs its architecture: timm.create_model\("fbnetv5", arch='):
        timm.create_model("fbnetv5")
    with pytest.raises(UserError, match="no tag and no pretrained_cfg; name a run's weights with weights="):
        timm.create_model("fbnetv5.in1k", arch="a.json")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.b", "which 'a.b' does not"),
        ("fbnetv5", "timm has a model 'fbnetv5' already"),
        ("resnet18", "timm has a model 'resnet18' already"),
        ("fbnetv5_new", "missing.json does not exist"),
    ],
)
def test_a_name_that_does_not_do_is_refused(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        register_architecture(name, tmp_path / "missing.json")
    assert not timm.is_model("fbnetv5_new")
