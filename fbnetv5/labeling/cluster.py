"""Labels the chunks of a data set on a Ray cluster.

Every worker opens the images and teachers once and keeps them for its next chunks. A chunk whose worker or node is lost
is labelled again on another one. All nodes must see the images, the files of the teachers and the new data set under
the same paths.
"""

import json
from collections.abc import Callable
from contextlib import chdir
from dataclasses import replace
from functools import cache
from pathlib import Path

from export.errors import UserError
from fbnetv5.labeling.chunks import Job, label_chunk
from fbnetv5.labeling.config import LabelConfig
from fbnetv5.labeling.run import ChunkRunner, Labelling, open_labelling
from fbnetv5.runs.ray_cluster import connect, run_tasks


def on_cluster(address: str, gpus_per_teacher: float, *, device: str | None, download: bool) -> ChunkRunner:
    """A runner on the cluster at an address; "auto" is that of this machine.

    Args:
        address: of the cluster.
        gpus_per_teacher: GPUs of a worker, which runs all teachers; fractions share a GPU.
        device: as of ``open_labelling``, and so is ``download``; each worker's own.
        download: see ``device``.

    Raises:
        UnavailableError: Ray is not installed, or no cluster is reachable at the address.
    """
    ray = connect(address)

    def run(labelling: Labelling, job: Job, report: Callable[[int], None]) -> None:
        place = device or (None if gpus_per_teacher else "cpu")  # without a GPU of its own a worker must not share one
        config, settings = (json.dumps(each) for each in (labelling.config.to_json(), labelling.settings))
        opening = (config, settings, str(Path.cwd()), place, download)
        inputs = ((file, (*opening, _of_chunk(job, file))) for file in job.chunks)
        report(0)
        for done, (file, lost) in enumerate(run_tasks(ray, label_on_worker, inputs, gpus=gpus_per_teacher), start=1):
            if lost is not None:
                first = labelling.labeller.source.names[job.chunks[file][0]]
                raise UserError(
                    f"the workers that labelled the {len(job.chunks[file])} images from {first!a} on were lost in "
                    f"every attempt, perhaps for lack of memory: lower batch with --config, and repeat the command"
                )
            report(done)

    return run


def _of_chunk(job: Job, file: Path) -> Job:
    """The job of one chunk, with absolute paths."""
    return replace(job, folder=job.folder.resolve(), chunks={file.resolve(): job.chunks[file]})


def label_on_worker(config: str, settings: str, folder: str, device: str | None, download: bool, job: Job) -> None:
    """Label a chunk in a worker, unless an earlier attempt has finished it.

    Args:
        config: the ``LabelConfig`` as JSON.
        settings: of the labelling as its first process sees it, as JSON.
        folder: that files of teachers are relative to.
        device: as of ``open_labelling``, and so is ``download``.
        download: see ``device``.
        job: one chunk.

    Raises:
        UserError: as of ``label_chunk``; or this node has other images or teachers.
    """
    labelling = _opened(config, settings, folder, device, download)
    for file in job.chunks:
        if not file.exists():
            label_chunk(job, labelling.labeller, file)


@cache
def _opened(config: str, settings: str, folder: str, device: str | None, download: bool) -> Labelling:
    """The labelling, opened once per worker."""
    if not Path(folder).is_dir():
        raise UserError(f"a node of the cluster does not have {folder}: put it on a file system that all nodes share")
    with chdir(folder):
        labelling = open_labelling(LabelConfig(**json.loads(config)), device=device, download=download)
    expected = json.loads(settings)
    differing = [name for name, value in labelling.settings.items() if value != expected.get(name)]
    if differing:
        raise UserError(
            f"a node of the cluster sees other images or teachers than the machine that started the labelling "
            f"({', '.join(differing)}): put them on a file system that all nodes share"
        )
    return labelling
