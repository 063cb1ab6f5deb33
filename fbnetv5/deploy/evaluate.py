"""Evaluates a network on the test images: ``fbnetv5.api.evaluate``, which ``fbnetv5 eval`` calls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.files import AnyPath
from export.progress import Log, silent
from fbnetv5.architecture import load_architecture
from fbnetv5.data.fit import parse_fit
from fbnetv5.data.resolution import parse_resolution
from fbnetv5.evaluate import Comparison, Evaluation, baseline_files, check_task, compare, evaluate_file
from fbnetv5.runs import options
from fbnetv5.runs.options import Size
from fbnetv5.runs.start import describe_images


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateResult:
    """The figures of a network on the test images, and their comparison with baselines."""

    tasks: Mapping[str, Evaluation]
    """By task: the metric, all other figures, and the images."""
    comparison: Comparison | None
    """The gains over networks of one task each and Delta_m in percent; None without baselines."""

    def to_json(self) -> dict[str, Any]:
        """The document of ``fbnetv5 eval --json``: of the only task, or of several tasks and their comparison."""
        documents = {name: evaluation.to_json() for name, evaluation in self.tasks.items()}
        if self.comparison is not None:
            return {"tasks": documents, **self.comparison.to_json()}
        return {"tasks": documents} if len(documents) > 1 else next(iter(documents.values()))


def evaluate(
    task: str | None = None,
    *,
    arch: AnyPath | None = None,
    weights: AnyPath | None = None,
    baselines: Sequence[AnyPath] = (),
    data: AnyPath | None = None,
    strict_data: bool = False,
    size: Size | None = None,
    fit: str | None = None,
    log: Log = silent,
) -> EvaluateResult:
    """Evaluate a network on the test images, with all metrics of its tasks.

    Examples:
        >>> result = api.evaluate(arch="trained/seg/seg.json")
        >>> miou, by_class = result.tasks["seg"].value, result.tasks["seg"].figures

    Args:
        task: task whose network in ``runs/latest`` is evaluated, or the only task of ``arch`` to evaluate.
        arch: architecture file of the network.
        weights: safetensors file; None for the file beside the architecture file.
        baselines: architecture files of networks of one task alone, or run folders of such networks, to compare with;
            one for each task.
        data: folder of images and labels in one of the known layouts; None for the demo scenes.
        strict_data: refuse a data set of which something was repaired, left out or not used.
        size: height and width in pixels that images are fitted to; None for those of the training.
        fit: "stretch" or "letterbox"; None for that of the training.
        log: called with lines for the user.

    Raises:
        UserError: an option is wrong, a file is missing, damaged or of another network, or the images have other
            classes.
    """
    folder = options.path_of(data)
    describe_images(folder, log, strict=strict_data)
    image_size = None if size is None else parse_resolution(size)
    image_fit = None if fit is None else parse_fit(fit)
    file = options.architecture_file(task, arch)
    files: dict[str, Path] = {}
    if baselines:
        architecture = load_architecture(file)
        check_task(architecture, task, file)
        files = baseline_files(map(Path, baselines), architecture, [task] if task else list(architecture.choices))
    evaluations = evaluate_file(
        file, task=task, weights=options.path_of(weights), data=folder, size=image_size, fit=image_fit
    )
    comparison = compare(files, evaluations, folder, image_fit) if files else None
    return EvaluateResult(tasks=evaluations, comparison=comparison)
