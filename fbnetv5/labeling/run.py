"""Labels a folder of images, chunk by chunk, into a data set for several tasks; a killed run continues where it was.

DIR/images/, instances.json, masks/, ...   the data set, see ``fbnetv5.data.folder``
DIR/data/, index.json                      instead of these, the data set in Parquet shards
DIR/labels.json                            counts, teachers with checksums, thresholds; written last
DIR/left-out.jsonl                         unreadable images, if any
DIR/.labeling/                             settings.json and a file per finished chunk, until labels.json is written
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from export.errors import UserError
from export.files import read_json, write_json
from export.locks import locked
from export.progress import Progress
from fbnetv5.data.instance_masks import instance_masks_digest
from fbnetv5.labeling.assemble import LABELS, SCHEMA, LabelSummary, assemble, read_labels
from fbnetv5.labeling.chunks import SETTINGS, WORK, Job, check_chunks, chunk_file, label_chunk, remove_temporaries
from fbnetv5.labeling.config import LabelConfig
from fbnetv5.labeling.derive import make_derivations
from fbnetv5.labeling.labeller import Labelled, Labeller
from fbnetv5.labeling.rules import make_rule
from fbnetv5.labeling.shards import Shards
from fbnetv5.labeling.sources import open_source
from fbnetv5.labeling.teachers.families import open_teacher

SOURCE = {"source_sha256", "instances_sha256"}
"""The settings that change with the images and their own labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelling:
    """Opened images and teachers."""

    config: LabelConfig
    labeller: Labeller

    @property
    def settings(self) -> dict[str, Any]:
        """All that determines the labels, as JSON."""
        teachers = {
            task: {**self.config.teachers[task].to_json(), "threshold": rule.threshold, **teacher.provenance}
            for task, (teacher, rule) in self.labeller.teachers.items()
        }
        settings = {**self.config.to_json(), "teachers": teachers, "source_sha256": self.labeller.source.digest}
        if self.config.soft_labels is None:
            del settings["soft_labels"]  # labellings of earlier versions do not have it
        if self.labeller.source.has_ignored_boxes:
            settings["ignored_boxes"] = True  # labellings of earlier versions lost them
        if "instances" in self.config.derive.values():
            settings["instances_sha256"] = instance_masks_digest(Path(self.config.images))
        text = json.dumps(settings, ensure_ascii=False).encode(errors="replace")  # names of files may not be UTF-8
        return dict(json.loads(text))


def open_labelling(config: LabelConfig, *, device: str | None = None, download: bool = False) -> Labelling:
    """Open the images and teachers, and try the teachers on an image; nothing is written.

    Args:
        config: the settings.
        device: cpu or cuda, which the teachers run on; None for a GPU where there is one.
        download: whether published weights that are not on this machine are downloaded.

    Raises:
        UserError: no image is readable, a teacher does not fit, or class names do not match.
        UnavailableError: a library, weights or the device are not on this machine.
    """
    source = open_source(Path(config.images), ignore_labels=config.ignore_labels)
    teachers = {}
    for task, settings in config.teachers.items():
        teacher = open_teacher(
            task, str(settings.teacher), class_names=settings.class_names, device=device, download=download
        )
        teachers[task] = (teacher, make_rule(task, teacher.classes, settings, config.threshold, source.targets))
    made = {rule.target: rule.made for _, rule in teachers.values()}
    derivations = make_derivations(config.derive, Path(config.images), {**made, **source.targets})
    labeller = Labeller(
        source=source,
        teachers=teachers,
        derivations=derivations,
        batch=config.batch,
        soft_labels=config.soft_labels,
    )
    _try(labeller, config)
    return Labelling(config=config, labeller=labeller)


def _try(labeller: Labeller, config: LabelConfig) -> None:
    """Label the first readable image, so that unfit teachers fail before anything is written."""
    first_reason = ""
    for index in range(len(labeller.source)):
        (result,) = labeller.label([index])
        if isinstance(result, Labelled):
            return
        first_reason = first_reason or result.reason
    raise UserError(f"none of the {len(labeller.source)} images of {config.images} is readable: {first_reason}")


ChunkRunner = Callable[[Labelling, Job, Callable[[int], None]], None]
"""Labels the chunks of a job; calls a function with the number of finished ones."""


def in_this_process(labelling: Labelling, job: Job, report: Callable[[int], None]) -> None:
    """Label one chunk after the other."""
    for done, file in enumerate(job.chunks):
        report(done)
        label_chunk(job, labelling.labeller, file)
    report(len(job.chunks))


class Output(Protocol):
    """What becomes of the chunks of a labelling."""

    @property
    def job(self) -> Job:
        """All chunks."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that determines the files."""

    def update(self) -> None:
        """Write what finished chunks allow to write; called after each chunk."""

    def finish(self) -> LabelSummary:
        """Write the rest, after all chunks are finished."""


class Folder:
    """The layout for several tasks: ``instances.json`` is written after all images and maps."""

    def __init__(self, labelling: Labelling, folder: Path) -> None:
        count, size = len(labelling.labeller.source), labelling.config.chunk
        ranges = [range(start, min(start + size, count)) for start in range(0, count, size)]
        self.job = Job(folder=folder, chunks={chunk_file(folder, n): indices for n, indices in enumerate(ranges)})
        self.settings = labelling.settings
        self._targets = labelling.labeller.targets

    def update(self) -> None:
        """See ``Output``: nothing."""

    def finish(self) -> LabelSummary:
        return assemble(self.job.folder, self.job.chunks, self._targets, self.settings)


def run_labelling(
    labelling: Labelling,
    folder: Path,
    report: Progress,
    runner: ChunkRunner = in_this_process,
    *,
    shards: bool = False,
    shard_rows: int | None = None,
) -> LabelSummary:
    """Label all images into ``folder``; an unfinished labelling of the same settings in it is continued.

    Args:
        labelling: the images and teachers.
        folder: of the new data set.
        report: called after every chunk.
        runner: labels the chunks that are not finished.
        shards: write Parquet shards instead of images and maps.
        shard_rows: as of ``Shards``.

    Raises:
        UserError: the folder contains something else, or is being written by another process; the images or their
            labels have changed since it was begun; a teacher fails, or a file cannot be written.
        UnavailableError: pyarrow is not installed, for shards.
    """
    output: Output = Folder(labelling, folder)
    if shards:
        output = Shards(labelling.labeller, labelling.config.chunk, labelling.settings, folder, shard_rows)
    if (folder / LABELS).exists():
        summary, settings = read_labels(folder)
        _check_settings(settings, output.settings, folder)
        shutil.rmtree(folder / WORK, ignore_errors=True)
        return summary
    _start(labelling, output.settings, folder)
    with locked(folder / WORK / "lock", f"another fbnetv5 label is writing {folder}: wait for it"):
        remove_temporaries(folder)
        chunks = output.job.chunks
        left = {file: indices for file, indices in chunks.items() if not file.exists()}
        finished = len(chunks) - len(left)

        def update(done: int) -> None:
            report("label", finished + done, len(chunks))
            output.update()

        runner(labelling, replace(output.job, chunks=left), update)
        remove_temporaries(folder)  # of workers of a cluster that were lost
        check_chunks(chunks, labelling.labeller.source.names)
        summary = output.finish()
    shutil.rmtree(folder / WORK)
    return summary


def _start(labelling: Labelling, settings: Mapping[str, Any], folder: Path) -> None:
    """Write the settings into a new folder, or compare them with those of an unfinished labelling.

    Raises:
        UserError: the folder contains something else, or other settings.
    """
    if folder.resolve().is_relative_to(labelling.config.images):
        raise UserError(f"{folder} is inside of {labelling.config.images}: name a folder outside of the images with -o")
    file = folder / WORK / SETTINGS
    if file.exists():
        document = read_json(file, what="labelling", schema=SCHEMA)
        _check_settings(document["settings"], settings, folder)
        return
    others = [path for path in folder.iterdir() if path.name != WORK] if folder.is_dir() else []
    if others or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder} exists already and is no unfinished labelling: name another folder with -o")
    write_json(file, {"schema": SCHEMA, "settings": settings})


def _check_settings(stored: Mapping[str, Any], settings: Mapping[str, Any], folder: Path) -> None:
    differing = [name for name in {**settings, **stored} if settings.get(name) != stored.get(name)]
    if not SOURCE.isdisjoint(differing):
        raise UserError(
            f"{folder} has labels of other images, or they have changed since: remove {folder}, or name another folder "
            "with -o"
        )
    if differing:
        raise UserError(
            f"{folder} was labelled with other settings ({', '.join(differing)}): name another folder with -o, or use "
            "the same settings to continue it"
        )
