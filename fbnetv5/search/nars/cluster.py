"""Runs trials on a Ray cluster.

A trial whose worker or node is lost runs again on another one, from its last checkpoint. All nodes must see the run
folder under the same path.
"""

from collections.abc import Sequence
from pathlib import Path

from export.progress import Progress
from fbnetv5.runs.ray_cluster import connect, run_tasks
from fbnetv5.search.nars.jobs import Runner, record_loss, stage_name
from fbnetv5.search.nars.trial import train_trial


def on_cluster(address: str, gpus_per_trial: float, progress: Progress) -> Runner:
    """A runner on the cluster at an address; "auto" is that of this machine.

    Raises:
        UnavailableError: Ray is not installed, or no cluster is reachable at the address.
    """
    ray = connect(address)

    def run(folders: Sequence[Path]) -> None:
        inputs = ((folder, (folder.resolve(),)) for folder in folders)
        progress(stage_name(folders), 0, len(folders))
        for done, (folder, lost) in enumerate(run_tasks(ray, train_trial, inputs, gpus=gpus_per_trial), start=1):
            if lost is not None:
                record_loss(folder)
            progress(stage_name(folders), done, len(folders))

    return run
