"""The entry points of searched networks in timm's registry.

``import fbnetv5.integrations.timm`` registers the name ``fbnetv5``; then ``timm.create_model("fbnetv5",
arch="runs/latest/seg.json", ...)`` works. ``import fbnetv5`` alone does not register it, since timm brings torch, and
every ``--help`` would wait for both.

The network itself is in ``fbnetv5/integrations/timm/model.py``, which loads when one is created.
"""

import re
from functools import partial
from pathlib import Path
from typing import Any

from timm.models import is_model, model_entrypoint, register_model
from torch import nn

from export.errors import UserError
from fbnetv5.architecture import load_architecture


def enable() -> None:
    """Register the name ``fbnetv5`` with timm."""
    register_model(fbnetv5)


def register_architecture(name: str, arch: str | Path) -> None:
    """Give one architecture a name of its own, for libraries that create timm models by name alone.

    Args:
        name: letters, digits, "_" and "-"; a name that was registered here before is registered again.
        arch: the architecture file; ``create_model(name)`` reads it each time.

    Raises:
        UserError: the name is invalid or is another model's, or the file is refused.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UserError(f"a timm model's name consists of letters, digits, _ and -, which {name!r} does not")
    if is_model(name) and (name == fbnetv5.__name__ or model_entrypoint(name).__module__ != __name__):
        raise UserError(f"timm has a model {name!r} already; choose another name")
    path = Path(arch).resolve()
    load_architecture(path)
    entrypoint = partial(fbnetv5, arch=path)
    entrypoint.__name__ = name  # type: ignore[attr-defined]  # timm registers a function under its name and module
    entrypoint.__module__ = __name__
    register_model(entrypoint)


def fbnetv5(
    pretrained: bool = False,
    *,
    arch: str | Path | None = None,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: Any = None,
    cache_dir: Any = None,  # timm passes it; nothing is downloaded
    **options: Any,
) -> nn.Module:
    """Entry point of ``timm.create_model("fbnetv5", ...)``.

    Args:
        pretrained: load the weights beside the architecture file.
        arch: the architecture file.
        pretrained_cfg: refused; the architecture has this information.
        pretrained_cfg_overlay: refused too.
        cache_dir: ignored.
        options: see ``fbnetv5.integrations.timm.model.build``.

    Raises:
        UserError: the architecture is missing, a file is refused, or an option is not supported.
    """
    if arch is None:
        raise UserError(
            'an fbnetv5 model needs an architecture: timm.create_model("fbnetv5", arch="runs/latest/seg.json"). For a '
            "library that creates models by name alone, fbnetv5.integrations.timm.register_architecture "
            "gives it a name"
        )
    if pretrained_cfg or pretrained_cfg_overlay:
        raise UserError("an fbnetv5 model has no tag and no pretrained_cfg; set a run's weights with weights=")
    from fbnetv5.integrations.timm.model import build

    return build(Path(arch), pretrained=pretrained, **options)
