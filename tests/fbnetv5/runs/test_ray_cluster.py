import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from export.errors import UnavailableError, UserError
from fbnetv5.runs.ray_cluster import connect, run_tasks

pytest.importorskip("ray")


def write_number(folder: Path, number: int) -> None:
    if number == 3:
        raise UserError("three is no number")
    time.sleep(0.1)
    (folder / str(number)).touch()


def test_a_cluster_that_is_not_there_is_one_line() -> None:
    with pytest.raises(UnavailableError, match=r"no Ray cluster is reachable at '127\.0\.0\.1:1'.*ray start --head"):
        connect("127.0.0.1:1")


@pytest.mark.slow
def test_tasks_run_although_a_node_is_removed_and_inputs_are_read_as_they_end(cluster: Any, tmp_path: Path) -> None:
    ray, read = connect(cluster.address), list[int]()
    numbers = [number for number in range(13) if number != 3]

    def inputs() -> Iterator[tuple[int, tuple[Path, int]]]:
        for number in numbers:
            read.append(number)
            yield number, (tmp_path, number)

    ended: list[int] = []
    for number, lost in run_tasks(ray, write_number, inputs(), gpus=0.0):
        assert lost is None
        if not ended:
            assert len(read) <= 5
            cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
        ended.append(number)
    assert sorted(ended) == numbers == sorted(int(path.name) for path in tmp_path.iterdir())
    with pytest.raises(UserError, match="three is no number"):
        list(run_tasks(ray, write_number, [(3, (tmp_path, 3))], gpus=0.0))
