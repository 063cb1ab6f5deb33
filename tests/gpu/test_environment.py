import platform
import sys

from packaging.requirements import Requirement

from tests.gpu.environment import dependencies, how_to_bring, name_of
from tests.gpu.parts import PARTS


def test_names_of_requirements_are_those_of_packaging() -> None:
    assert [name_of(text) for text in dependencies()] == [Requirement(text).name for text in dependencies()]


def test_parts_need_nothing_that_the_package_does_not_install() -> None:
    installed = {name_of(text) for text in dependencies()} | {"pytest"}
    assert {package for part in PARTS for package in part.packages} <= installed


def test_missing_packages_come_as_wheels_for_this_python_and_its_torch() -> None:
    download, install, _ = how_to_bring(["pydantic>=2.7", "torchvision>=0.24"], "2.11.0+cu130")
    assert "'pydantic>=2.7' 'torchvision==0.26.*'" in download
    assert f"--python-version {sys.version_info.major}.{sys.version_info.minor} " in download
    assert f"--platform manylinux_2_28_{platform.machine()}" in download
    assert "--no-index" in install


def test_a_complete_machine_needs_nothing() -> None:
    assert how_to_bring([], "2.11.0") == []
