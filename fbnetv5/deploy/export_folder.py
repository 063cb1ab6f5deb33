"""Writes the folder of an export: the ONNX file, its manifest, and the outputs for a few images.

With them, ``fbnetv5 validate`` can check the network on any machine.
"""

from collections.abc import Mapping

from export.files import atomic_write
from export.manifest import Manifest, TensorEntry, export_versions, write_manifest
from export.precision_pipeline import block_values
from export.reference import NAME as REFERENCE
from export.reference import Reference, sample, write_reference
from export.runners import Array, OrtRunner, TensorSpec
from export.trt.engine import NAME as ENGINE
from export.validate import ONNX
from fbnetv5 import __version__
from fbnetv5.deploy.exported import Exported, metric_document
from latency.runtimes.onnxruntime import cpu_name


def write_export_folder(exported: Exported, content: bytes, inputs: Mapping[str, Array]) -> None:
    """Write the folder of an export; the manifest is written last, after the files that it names.

    Args:
        exported: the export; its ``folder`` is written.
        content: the ONNX file.
        inputs: inputs of the network whose outputs are stored.
    """
    folder, runner = exported.folder, OrtRunner(content)
    manifest = _manifest(exported, runner.inputs, runner.outputs)
    blocks = {name: sample(values) for name, values in block_values(content, content, inputs).items()}
    reference = Reference(inputs=inputs, outputs=runner(inputs), blocks=blocks)
    with atomic_write(folder / ONNX) as temporary:
        temporary.write_bytes(content)
        (folder / ENGINE).unlink(missing_ok=True)  # of an earlier export: it would be of another network
    write_reference(folder, reference)
    write_manifest(folder, manifest, files=[ONNX, REFERENCE])


def _manifest(exported: Exported, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Manifest:
    model = exported.model
    return Manifest(
        precision=exported.precision,
        inputs=tuple(map(TensorEntry.of, inputs)),
        outputs=tuple(map(TensorEntry.of, outputs)),
        task_outputs=model.task_outputs,
        preprocessing=model.preprocessing,
        labels={name: task.labels for name, task in model.tasks.items()},
        architecture={name: architecture.to_json() for name, architecture in model.architectures.items()},
        versions={"fbnetv5": __version__, **export_versions()},
        parity=exported.parity_rows,
        metrics={task: metric_document(exported, task) for task in model.tasks},
        latency_ms={"onnxruntime": exported.latency_ms_p50},
        machine=cpu_name(),
    )
