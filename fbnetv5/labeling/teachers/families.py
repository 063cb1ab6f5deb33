"""Finds the family of a teacher by its name: a file, a folder, or ``FAMILY:NAME``, and opens it."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch

from export.errors import UserError
from export.manifest import NAME as MANIFEST
from fbnetv5.labeling.teachers.named import NamedTeacher
from fbnetv5.labeling.teachers.teacher import Teacher

LIBRARIES = ("timm", "torchvision", "transformers")
"""Families of published networks; each is a module of this folder with a function ``open_named``."""


def open_teacher(
    task: str,
    name: str,
    *,
    class_names: tuple[str, ...] | None = None,
    device: str | None = None,
    download: bool = False,
) -> Teacher:
    """The teacher of a task.

    Args:
        task: e.g. "det".
        name: an ONNX file with its description beside it, a folder of ``fbnetv5 export``, or FAMILY:NAME[@FILE] with a
            library of ``LIBRARIES`` and a file of weights of the user's own.
        class_names: of a network of a library whose classes are the user's own.
        device: cpu or cuda; None for a GPU where there is one.
        download: whether weights that are not on this machine are downloaded.

    Raises:
        UserError: there is no such teacher, it is damaged, or it is of another task.
        UnavailableError: the library, its weights or the device are not on this machine.
    """
    library, colon, rest = name.partition(":")
    if colon and library in LIBRARIES:
        network, _, file = rest.partition("@")
        named = NamedTeacher(
            library=library,
            name=network,
            weights=Path(file) if file else None,
            class_names=class_names,
            device=torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")),
            download=download,
        )
        return _opener(library)(task, named)
    path = Path(name)
    if class_names is not None:
        raise UserError(
            f"teacher {name}: class_names are for networks of {', '.join(LIBRARIES)}; its own file names them"
        )
    folder = path if path.is_dir() else path.parent
    has_description = path.is_file() and path.with_suffix(".json").exists()
    if (folder / MANIFEST).exists() and not has_description:
        from fbnetv5.labeling.teachers.exported import open_exported

        return open_exported(task, folder, device=_onnx_device(device))
    if path.suffix == ".onnx":
        from fbnetv5.labeling.teachers.onnx import open_onnx

        return open_onnx(task, path, device=_onnx_device(device))
    raise UserError(
        f"there is no teacher {name!r}: name an ONNX file with a description beside it, a folder of fbnetv5 export, or "
        f"a published network such as timm:NAME ({', '.join(LIBRARIES)})"
    )


def _opener(library: str) -> Callable[[str, NamedTeacher], Teacher]:
    module = import_module(f"fbnetv5.labeling.teachers.{library}")
    opener: Callable[[str, NamedTeacher], Teacher] = module.open_named
    return opener


def _onnx_device(device: str | None) -> str:
    """The device of an ONNX file: the named one, else a GPU if this ONNX Runtime can use it."""
    if device is not None:
        return device
    import onnxruntime

    has_provider = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    return "cuda" if has_provider and torch.cuda.is_available() else "cpu"
