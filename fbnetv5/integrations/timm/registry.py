"""Makes searched networks known to timm by name, whichever of the two packages is imported first.

``timm.create_model("fbnetv5", arch="runs/latest/seg.json", ...)`` works as soon as both ``fbnetv5`` and ``timm`` are
imported. timm brings torch, so ``import fbnetv5`` may not import it, or every ``--help`` would wait for both. If timm
is here already, the name is registered at once; if not, an import hook waits for timm and registers it then. The hook
changes nothing of timm's own loading.

The network itself is in ``fbnetv5/integrations/timm/model.py``, which loads when one is created.
"""

import re
import sys
from collections.abc import Sequence
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from export.errors import UserError

if TYPE_CHECKING:
    from torch import nn

TIMM = "timm"


def enable() -> None:
    """Register the name ``fbnetv5`` with timm now, or when timm is imported."""
    if sys.modules.get(TIMM) is not None:
        _register(fbnetv5)
    else:
        sys.meta_path.insert(0, _AfterTimm())


def register_architecture(name: str, arch: str | Path) -> None:
    """Give one architecture a name of its own, for libraries that create timm models by name alone.

    Args:
        name: letters, digits, "_" and "-"; a name given here before is given anew.
        arch: the architecture file; ``create_model(name)`` reads it each time.

    Raises:
        UserError: the name does not do or is another model's, or the file is refused.
    """
    from timm.models import is_model, model_entrypoint

    from fbnetv5.architecture import load_architecture

    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UserError(f"a timm model's name consists of letters, digits, _ and -, which {name!r} does not")
    if is_model(name) and (name == fbnetv5.__name__ or model_entrypoint(name).__module__ != __name__):
        raise UserError(f"timm has a model {name!r} already; choose another name")
    path = Path(arch).resolve()
    load_architecture(path)
    entrypoint = partial(fbnetv5, arch=path)
    entrypoint.__name__ = name  # type: ignore[attr-defined]  # timm registers a function under its name and module
    entrypoint.__module__ = __name__
    _register(entrypoint)


def fbnetv5(
    pretrained: bool = False,
    *,
    arch: str | Path | None = None,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: Any = None,
    cache_dir: Any = None,  # timm passes it; nothing is downloaded
    **options: Any,
) -> "nn.Module":
    """What ``timm.create_model("fbnetv5", ...)`` calls.

    Args:
        pretrained: load the weights that lie beside the architecture file.
        arch: the architecture file.
        pretrained_cfg: refused: the architecture says what it would say.
        pretrained_cfg_overlay: refused likewise.
        cache_dir: of no effect.
        options: see ``fbnetv5.integrations.timm.model.build``.

    Raises:
        UserError: no architecture, a file that is refused, or an option that cannot be met.
    """
    if arch is None:
        raise UserError(
            'an fbnetv5 model needs its architecture: timm.create_model("fbnetv5", arch="runs/latest/seg.json"). For a '
            "library that creates models by name alone, fbnetv5.integrations.timm.registry.register_architecture "
            "gives it a name"
        )
    if pretrained_cfg or pretrained_cfg_overlay:
        raise UserError("an fbnetv5 model takes no tag and no pretrained_cfg; name a run's weights with weights=")
    from fbnetv5.integrations.timm.model import build

    return build(Path(arch), pretrained=pretrained, **options)


class _AfterTimm(MetaPathFinder):
    """Finds timm as the other finders do, and registers once it is loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != TIMM:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_register(module: ModuleType) -> None:
                load(module)
                _register(fbnetv5)

            spec.loader.exec_module = load_and_register  # type: ignore[method-assign]  # of this loader object only
        return spec


def _register(entrypoint: Any) -> None:
    from timm.models import register_model

    register_model(entrypoint)
