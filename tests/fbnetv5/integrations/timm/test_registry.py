import subprocess
import sys
from pathlib import Path

import pytest
import timm

from export.errors import UserError
from fbnetv5.integrations.timm import register_architecture

ORDERS = {
    "timm first": "import timm, fbnetv5.integrations.timm",
    "the integration first": "import fbnetv5.integrations.timm, timm",
}


@pytest.mark.parametrize("imports", ORDERS.values(), ids=ORDERS)
def test_the_integration_registers_the_name(imports: str) -> None:
    code = f"{imports}; print(timm.is_model('fbnetv5'))"
    ran = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.strip()) == (0, "True"), ran.stderr


def test_the_package_alone_loads_neither_timm_nor_torch_and_hooks_no_import() -> None:
    code = (
        "import sys; before = list(sys.meta_path); import fbnetv5; "
        "print({'timm', 'torch'} & set(sys.modules), sys.meta_path == before)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set() True"


def test_a_model_without_an_architecture_is_refused() -> None:
    with pytest.raises(UserError, match=r'needs an architecture: timm.create_model\("fbnetv5", arch='):
        timm.create_model("fbnetv5")
    with pytest.raises(UserError, match="no tag and no pretrained_cfg; set a run's weights with weights="):
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
def test_an_invalid_name_is_refused(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        register_architecture(name, tmp_path / "missing.json")
    assert not timm.is_model("fbnetv5_new")
