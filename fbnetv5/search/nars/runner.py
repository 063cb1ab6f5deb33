"""The choice of what trains the trials of a search."""

from export.errors import UserError
from export.progress import Progress
from fbnetv5.search.nars.cluster import on_cluster
from fbnetv5.search.nars.jobs import Runner, in_processes, in_this_process


def choose_runner(jobs: int, ray: str | None, gpus_per_trial: float, progress: Progress) -> Runner:
    """What trains the trials: this process, several processes, or a Ray cluster.

    Args:
        jobs: trainings at the same time on this machine.
        ray: address of a Ray cluster, or None.
        gpus_per_trial: GPUs of a training on the cluster.
        progress: of the trainings.

    Raises:
        UserError: the options contradict each other.
        UnavailableError: Ray is not installed, or its cluster is not reachable.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs}: at least one training must run at a time")
    if ray is None:
        if gpus_per_trial:
            raise UserError("--gpus-per-trial is for a Ray cluster: add --ray auto")
        return in_this_process(progress) if jobs == 1 else in_processes(jobs, progress)
    if jobs != 1:
        raise UserError("--jobs is for this machine alone; a Ray cluster runs as many trainings as its cores allow")
    return on_cluster(ray, gpus_per_trial, progress)
