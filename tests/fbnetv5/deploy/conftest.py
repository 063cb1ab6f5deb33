"""A classifier of the ``networks`` fixture, exported without the costly parts of ``fbnetv5 export``."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from export.graph import to_onnx_bytes
from export.parity import GATES, compare_groups
from export.precision_pipeline import SEEDED, Comparison
from export.runners import OrtRunner, TorchRunner
from fbnetv5.deploy.export_model import INPUT, ExportModel, load_export_model
from fbnetv5.deploy.exported import Exported

MakeExported = Callable[..., Exported]


@pytest.fixture(scope="session")
def classifier(networks: Path) -> ExportModel:
    """The classifier of 32x32 images."""
    return load_export_model(networks, ["cls"])


@pytest.fixture(scope="session")
def content(classifier: ExportModel) -> bytes:
    """The classifier's ONNX file."""
    example = torch.from_numpy(classifier.seeded(classifier.resolution, 2)[INPUT])
    return to_onnx_bytes(
        classifier.module,
        (example,),
        input_names=[INPUT],
        output_names=classifier.output_names,
        dynamic_batch=True,
        dynamic_size=True,
    )


@pytest.fixture(scope="session")
def make_exported(classifier: ExportModel, content: bytes) -> MakeExported:
    """(folder, top-1 in torch, top-1 of the ONNX file) -> the export of the classifier."""
    images = classifier.seeded(classifier.resolution, 2)
    reference = TorchRunner(classifier.module, [INPUT], classifier.output_names)(images)
    outputs = compare_groups(
        reference, OrtRunner(content)(images), classifier.task_outputs.values(), gate=GATES["fp32"]
    )

    def make(folder: Path, torch_top1: float = 0.5, onnx_top1: float = 0.5) -> Exported:
        return Exported(
            run=folder / "run",
            folder=folder / "cls",
            model=classifier,
            precision="fp32",
            comparisons=(Comparison(stage="fp32 onnxruntime", precision="fp32", images=SEEDED, outputs=outputs),),
            metrics={"torch": {"cls": torch_top1}, "fp32": {"cls": onnx_top1}},
            metric_size=classifier.resolution,
            max_drop=None,
            kept_float=(),
            latency_ms_p50=1.25,
        )

    return make
