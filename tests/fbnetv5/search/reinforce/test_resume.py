from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from export.progress import silent
from fbnetv5.runs.derivation import DerivationConfig
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.resume import resume_search
from fbnetv5.search.reinforce.run import start_run


def test_an_interrupted_search_goes_on(make_config: Callable[..., SearchConfig], tmp_path: Path) -> None:
    folder, _ = start_run(make_config("cls", checkpoint_every=1), tmp_path / "s", silent, silent)
    starts: list[Path] = []

    def started(run: Path, prepared: Any) -> None:
        starts.append(run)
        if len(starts) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resume_search(folder, started=started)
    result = resume_search(folder, started=started)
    assert starts == [folder, folder]
    assert (result.run, list(result.architectures)) == (folder, ["cls"])
    assert (folder / "cls.json").exists()


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    DerivationConfig(run="r", budget="700M", task_names=("cls",)).save(tmp_path)
    with pytest.raises(UserError, match="is the folder of a derivation, not of a search"):
        resume_search(tmp_path)
