"""One training from its options to its result: ``fbnetv5.api.train``, which ``fbnetv5 train`` calls."""

from collections.abc import Callable
from pathlib import Path

from export.files import AnyPath
from export.progress import Log, silent
from fbnetv5.architecture import load_architecture
from fbnetv5.data.config import DataConfig
from fbnetv5.data.fit import parse_fit
from fbnetv5.data.resolution import parse_resolution
from fbnetv5.evaluate import trained_fit, trained_size
from fbnetv5.runs.options import Fields, Size, architecture_file, describe_fit, fields_of, path_of
from fbnetv5.runs.start import describe_images
from fbnetv5.training.change import changed_network, fitting_init
from fbnetv5.training.config import TrainConfig, fitting_defaults
from fbnetv5.training.loop import TrainEntry
from fbnetv5.training.notes import describe_soft_labels, describe_teacher_fit
from fbnetv5.training.run import Prepared, TrainResult, check_resumed, prepare, run_training, start_training

Started = Callable[[Path, Prepared], None]
"""Called with the run folder and its opened configuration when all inputs are checked, before the first step."""


def train(
    task: str | None = None,
    *,
    arch: AnyPath | None = None,
    variant: str | None = None,
    scale_to: str | None = None,
    data: AnyPath | None = None,
    strict_data: bool = False,
    init: str = "inherited",
    teacher: str | None = None,
    size: Size | None = None,
    fit: str | None = None,
    output: AnyPath | None = None,
    config: Fields | None = None,
    seed: int = 0,
    log: Log = silent,
    started: Started = silent,
    report: Callable[[TrainEntry], None] = silent,
) -> TrainResult:
    """Train a network on its task, or jointly on all of its tasks, and evaluate it on the test images.

    Examples:
        >>> result = api.train(arch="runs/latest/det.json", config={"steps": 2000}, log=print)
        >>> ap = result.test["det"].value  # the metric of detection, on the test images

    Args:
        task: task whose network in ``runs/latest`` is trained, if no ``arch`` is named; with ``arch``, a task that the
            topology of that network is trained for, with a head of its own.
        arch: architecture file of the network.
        variant: "a", "c", "f", "ac" or "a-lite": train the topology of a network of ``search`` in that variant of its
            space.
        scale_to: multiply-adds to scale a network of ``search`` to, in depth, width and resolution: "200M", or
            "200M@192x192" with the deploy resolution.
        data: folder of images and labels in one of the known layouts; None for the demo scenes.
        strict_data: refuse a data set of which something was repaired, left out or not used.
        init: initial weights: "inherited" (from the search), "scratch", "torchvision", "timm", or a safetensors file.
        teacher: trained network to imitate: an architecture or ONNX file, an exported folder, "timm:NAME", or
            "soft-labels" for the probabilities that ``label`` stored with the images.
        size: height and width in pixels that images are fitted to; None for those of the search.
        fit: "stretch" or "letterbox"; None for that of the search.
        output: run folder to make; None for ``trained/TASK``.
        config: further fields of ``TrainConfig``, such as {"steps": 2000}, or a file with them.
        seed: of everything random.
        log: called with lines for the user.
        started: called with the run folder and its opened configuration before the first step.
        report: called with the state of the training after every step.

    Returns:
        The scores on held-out and test images; the weights are in the run folder.

    Raises:
        UserError: an option is wrong, the images do not fit the network, or the run folder exists already.
        UnavailableError: published weights, or the library of a teacher, are not on this machine.
        VerificationError: too many losses, or the first score, are not finite, or too many images unreadable.
    """
    folder = path_of(data)
    describe_images(folder, log, strict=strict_data)
    file = architecture_file(task, arch)
    source = load_architecture(file)
    architecture = changed_network(source, file, task=task, variant=variant, scale_to=scale_to, data=folder, log=log)
    images = DataConfig.of(
        folder,
        size=trained_size(architecture) if size is None else parse_resolution(size),
        fit=trained_fit(architecture) if fit is None else parse_fit(fit),
    )
    fields, init = fields_of(config), fitting_init(init, source, architecture, log)
    tasks = architecture.make_tasks().values()
    settings = TrainConfig.make(
        fields,
        defaults=fitting_defaults((task.training for task in tasks), init, fields),
        task_names=tuple(architecture.choices),
        init=init,
        teacher=teacher,
        data=images,
        seed=seed,
        used=() if size is None else ("size",),
    )
    describe_fit(settings.data, log)
    describe_teacher_fit(settings.teacher, settings.data, log)
    if settings.teacher is None:
        describe_soft_labels(folder, settings.tasks, log)
    target = path_of(output) or Path("trained") / architecture.file_name
    transferred = None if architecture is source else architecture
    run, prepared = start_training(settings, file, target, transferred=transferred)
    started(run, prepared)
    return run_training(run, prepared, report, log)


def resume_train(
    run: AnyPath,
    *,
    log: Log = silent,
    started: Started = silent,
    report: Callable[[TrainEntry], None] = silent,
) -> TrainResult:
    """Continue an interrupted training from its run folder; on one CPU process it ends with the same bytes.

    Examples:
        >>> api.resume_train("trained/det")

    Args:
        run: the run folder, which has all settings.
        log: called with lines for the user.
        started: called with the run folder and its opened configuration before the first step.
        report: called with the state of the training after every step.

    Raises:
        UserError: the folder is of another method, or damaged.
        VerificationError: too many losses, or the first score, are not finite, or too many images unreadable.
    """
    folder = Path(run)
    prepared = prepare(TrainConfig.load(folder))
    check_resumed(folder, prepared)
    started(folder, prepared)
    return run_training(folder, prepared, report, log)
