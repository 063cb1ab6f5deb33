"""Teachers in the folders that ``fbnetv5 export`` writes: one task, or a task of a network for several."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from export.errors import UserError
from export.manifest import Manifest, read_manifest
from export.validate import ONNX
from fbnetv5.data.predictions import NMS_IOU, TOP_K
from fbnetv5.labeling.teachers.decoders import Decoding, Name
from fbnetv5.labeling.teachers.onnx import OnnxNetwork
from fbnetv5.labeling.teachers.preparation import Preparation
from fbnetv5.labeling.teachers.teacher import Teacher

DECODERS: dict[str, Name] = {
    "cls": "logits",
    "det": "ssd",
    "seg": "pixel_logits",
    "parts": "pixel_logits",
    "saliency": "probability",
    "edges": "probability",
    "depth": "depth",
    "normals": "normals",
}
"""By task: the form of the outputs of its deployed network."""


@dataclass(frozen=True, slots=True)
class _WithBatchAxis:
    """A network of one image at a time; the detector of form "nms" returns its boxes without a batch axis."""

    network: OnnxNetwork

    def __call__(self, inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = self.network(inputs)
        return tuple(output[None] for output in outputs) if outputs[0].shape[1:] == (4,) else outputs


def open_exported(task: str, folder: Path, *, device: str) -> Teacher:
    """The network of a task in an exported folder.

    Raises:
        UserError: the folder is damaged, or its network has no such task.
        UnavailableError: this ONNX Runtime cannot use the device.
    """
    manifest = read_manifest(folder)
    if task not in manifest.task_outputs or task not in DECODERS:
        raise UserError(f"{folder} is a teacher of {', '.join(manifest.task_outputs)}, not of {task}")
    network = OnnxNetwork(folder / ONNX, device=device, outputs=manifest.task_outputs[task].outputs)
    classes = manifest.labels[task]
    decoding = Decoding(name=DECODERS[task], classes=len(classes), nms_iou=NMS_IOU, max_boxes=TOP_K)
    return Teacher(
        name=str(folder),
        task=task,
        classes=classes,
        preparation=_preparation(manifest),
        network=_WithBatchAxis(network) if network.max_batch == 1 else network,
        decoding=decoding,
        max_batch=network.max_batch,
        provenance={
            "family": "exported",
            "sha256": manifest.sha256[ONNX],
            "size": "x".join(map(str, manifest.image_size)),
        },
    )


def _preparation(manifest: Manifest) -> Preparation:
    """The steps of the manifest, at the size at which ``predict`` uses the network too."""
    steps = manifest.preprocessing
    return Preparation(
        size=manifest.image_size,
        scale=steps.scale,
        mean=steps.mean,
        std=steps.std,
        fit=steps.fit,
        bgr=steps.order == "BGR",
    )
