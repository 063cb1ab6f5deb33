from pathlib import Path

import pytest

from export.errors import UserError
from fbnetv5.deploy.derive import derive
from fbnetv5.runs.config import Run
from fbnetv5.runs.derivation import DerivationConfig
from fbnetv5.runs.folder import point_latest
from tests.fbnetv5.search.bmtas.conftest import tiny_config


def wanted(run: Path, output: Path | None = None) -> None:
    derive(run, flops="150M", output=output)


def test_a_run_of_a_method_without_derivation_is_refused(tmp_path: Path) -> None:
    DerivationConfig(run="r", budget="700M", task_names=("cls",)).save(tmp_path)
    with pytest.raises(
        UserError, match="is the folder of a derivation; networks of another budget come from runs of fbnetv5 search"
    ):
        wanted(tmp_path)


def test_the_link_to_the_newest_run_is_read_once(tmp_path: Path) -> None:
    DerivationConfig(run="r", budget="700M", task_names=("cls",)).save(tmp_path / "one")
    point_latest(tmp_path / "one", pytest.fail)
    with pytest.raises(UserError, match="one is the folder of a derivation"):
        wanted(tmp_path / "latest")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.json: name that of a finished fbnetv5 search, branch or nars"):
        wanted(tmp_path)


def test_a_folder_that_exists_is_refused_before_any_work(tmp_path: Path) -> None:
    tiny_config().save(tmp_path)
    (tmp_path / "derived").mkdir()
    with pytest.raises(UserError, match="derived exists already; remove it or choose another --output"):
        wanted(tmp_path, tmp_path / "derived")


def test_other_commands_read_the_folder_as_a_run(tmp_path: Path) -> None:
    DerivationConfig(run="r", budget="700M", task_names=("cls", "seg"), seed=3).save(tmp_path)
    assert Run.load(tmp_path).tasks == ("cls", "seg")
    assert DerivationConfig.load(tmp_path).budget == "700M"
