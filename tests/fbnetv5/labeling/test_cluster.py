import json
from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from fbnetv5.labeling.chunks import Job
from fbnetv5.labeling.cluster import label_on_worker, on_cluster
from fbnetv5.labeling.run import open_labelling, run_labelling
from tests.fbnetv5.labeling.labelled_scenes import make_config
from tests.fbnetv5.labeling.test_run import contents


@pytest.mark.slow
def test_a_cluster_that_loses_a_node_gives_the_bytes_of_one_process(cluster: Any, tmp_path: Path) -> None:
    config = make_config(tmp_path, count=24, chunk=2)
    run_labelling(open_labelling(config), tmp_path / "whole", lambda *stage: None)
    done: list[int] = []

    def report(_stage: str, finished: int, _total: int) -> None:
        if finished == 2:
            cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
        done.append(finished)

    runner = on_cluster(cluster.address, 0.0, device="cpu", download=False)
    run_labelling(open_labelling(config), tmp_path / "cluster", report, runner)
    assert done == list(range(13))
    assert contents(tmp_path / "cluster") == contents(tmp_path / "whole")


def test_files_of_teachers_are_relative_to_the_folder_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path)
    names = {
        task: teacher.changed(teacher=Path(str(teacher.teacher)).name) for task, teacher in config.teachers.items()
    }
    config = config.changed(teachers=names)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    arguments = json.dumps(config.to_json()), json.dumps(open_labelling(config).settings)
    monkeypatch.chdir(tmp_path / "elsewhere")
    job = Job(folder=tmp_path / "out", chunks={tmp_path / "chunk": range(2)})
    with pytest.raises(UserError, match="a node of the cluster does not have /none"):
        label_on_worker(*arguments, "/none", "cpu", False, job)
    label_on_worker(*arguments, str(tmp_path), "cpu", False, job)
    assert (tmp_path / "chunk").exists()
    assert Path.cwd() == tmp_path / "elsewhere"


def test_a_worker_that_sees_other_images_says_so(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    settings = {**open_labelling(config).settings, "source_sha256": "0"}
    arguments = (json.dumps(config.to_json()), json.dumps(settings), str(tmp_path), "cpu", False)
    with pytest.raises(UserError, match=r"sees other images or teachers .* \(source_sha256\)"):
        label_on_worker(*arguments, Job(folder=tmp_path / "out", chunks={tmp_path / "chunk": range(2)}))
