from pathlib import Path

import pytest

from fbnetv5.data.config import DataConfig
from fbnetv5.runs.config import Run
from fbnetv5.runs.derivation import DerivationConfig, write_derived
from fbnetv5.training.config import TrainConfig

CONFIG = DerivationConfig(run="runs/s", budget="700M", task_names=("cls", "seg"))


def test_a_derivation_has_tasks_images_and_seed_of_its_run(tmp_path: Path) -> None:
    source = TrainConfig(task_names=("det",), data=DataConfig(size=(64, 32)), seed=3)
    derivation = DerivationConfig.of(tmp_path, source, "8ms")
    assert (derivation.run, derivation.budget) == (str(tmp_path.resolve()), "8ms")
    assert (derivation.tasks, derivation.data, derivation.seed) == (source.tasks, source.data, 3)


def test_a_folder_is_written_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "derived" / "700M"

    def interrupted(partial: Path) -> None:
        (partial / "cls.json").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_derived(folder, CONFIG, interrupted)
    assert not list(folder.parent.iterdir())
    write_derived(folder, CONFIG, lambda partial: (partial / "cls.json").touch())
    assert sorted(path.name for path in folder.iterdir()) == ["cls.json", "config.json"]
    assert [path.name for path in folder.parent.iterdir()] == ["700M"]
    assert Run.load(folder).tasks == ("cls", "seg")
