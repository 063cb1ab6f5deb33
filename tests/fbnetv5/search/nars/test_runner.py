import pytest

from export.errors import UserError
from fbnetv5.search.nars.runner import choose_runner
from tests.fbnetv5.search.nars.conftest import silent


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UserError, match="--gpus-per-trial is for a Ray cluster"):
        choose_runner(1, None, 0.5, silent)
    with pytest.raises(UserError, match="--jobs is for this machine alone"):
        choose_runner(2, "auto", 0.0, silent)


def test_without_a_cluster_this_machine_trains() -> None:
    assert callable(choose_runner(1, None, 0.0, silent))
    assert callable(choose_runner(3, None, 0.0, silent))


@pytest.mark.parametrize("jobs", [0, -1])
def test_at_least_one_training_runs_at_a_time(jobs: int) -> None:
    with pytest.raises(UserError, match="at least one training must run at a time"):
        choose_runner(jobs, None, 0.0, silent)
