"""Searched networks as timm models: the backbone alone, which returns features, or with FBNetV3's classifier on top.

Both contain only the blocks that the architecture's own task needs: the features are those of the paths that its head
reads, so a classification architecture has one at stride 32 and a segmentation architecture four. The classifier reads
the feature of the largest stride. A run's weights can be loaded: all of the backbone, and for a classification
architecture the head too.

Not supported: dilation (``output_stride`` below 32), since no search or profile has run dilated blocks; stochastic
depth; scripting (``torch.jit.script``). Tracing, exporting and compiling work.

Shape legend: N images, H x W pixels, both multiples of 32; C_p channels of the feature at stride p.
"""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from timm.layers import SelectAdaptivePool2d
from timm.models import FeatureInfo, PretrainedCfg, adapt_input_conv
from torch import Tensor, nn

from export.errors import UserError
from fbnetv5.architecture import Architecture, load_architecture, with_present_names
from fbnetv5.blocks.convolutions import is_traced
from fbnetv5.blocks.specs import PooledHead, initialise
from fbnetv5.data.preprocess import MEAN, STD
from fbnetv5.networks.backbone import Backbone
from fbnetv5.spaces.fbnetv3 import STRIDES
from fbnetv5.tasks.classification import Classification

COARSEST = STRIDES[-1]
RGB = 3
"""Channels of the images that a run's weights were trained on."""
IMAGENET_CLASSES = 1000
"""timm's default, for architectures that were not searched for classification."""
POOLS = ("avg", "max", "avgmax", "")
OF_THE_CLASSIFIER = ("num_classes", "global_pool", "drop_rate")
"""Options that ``FBNetV5Features`` ignores, as timm's own models do."""
RUN_HEAD = "heads.cls.pooled."
"""Prefix of the classifier's head in the weights file of a classification run."""
FEATURES = "features"
"""Stands for a task's name in the graph."""


class FBNetV5(nn.Module):
    """Base of both models: the live blocks, the attributes that timm expects of a model, and loading of weights."""

    def __init__(self, architecture: Architecture, paths: Sequence[int], in_chans: int) -> None:
        super().__init__()
        if in_chans < 1:
            raise UserError(f"in_chans must be at least 1, not {in_chans}")
        self.architecture = architecture
        self.backbone = Backbone(architecture.space.graph(architecture.choices_array, {FEATURES: paths}))
        stem = self.backbone.graph.steps[0].name
        self.first_conv = f"backbone.blocks.{stem}.0"
        if in_chans != RGB:
            _set_input_channels(self.backbone.blocks[stem], in_chans)
        initialise(self.backbone)
        self.in_chans = in_chans
        self.num_classes = 0
        self.pretrained_cfg: dict[str, Any] = {}

    @property
    def default_cfg(self) -> dict[str, Any]:
        """The older name of ``pretrained_cfg``."""
        return self.pretrained_cfg

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights as torch does; weights of a run's network, with their other names and head, are converted."""
        of_run = with_present_names(state_dict, self.architecture.name)
        if set(of_run) == _run_names(self.architecture):
            state_dict = {**self.state_dict(), **self._from_run(of_run)}
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def _from_run(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a run that this model has, under its own names, adapted to its number of input channels."""
        own = self.state_dict()
        renamed = {_own_name(name): tensor for name, tensor in tensors.items()}
        stem = f"{self.first_conv}.weight"
        renamed[stem] = adapt_input_conv(self.in_chans, renamed[stem])
        other_classes = renamed.get("classifier.weight", torch.empty(0)).shape[:1] != (self.num_classes,)
        return {
            name: tensor
            for name, tensor in renamed.items()
            if name in own and not (other_classes and name.startswith("classifier."))
        }

    def _features(self, images: Tensor) -> list[Tensor]:
        _check_size(images)
        features: list[Tensor] = self.backbone(images)[FEATURES]
        return features


class FBNetV5Features(FBNetV5):
    """With ``features_only``: images [N, in_chans, H, W] -> [N, C_p, H/p, W/p] per requested feature."""

    def __init__(
        self, architecture: Architecture, *, out_indices: int | Sequence[int] | None = None, in_chans: int = RGB
    ) -> None:
        paths = architecture.make_task().paths
        indices = _chosen(out_indices, architecture.task, paths)
        super().__init__(architecture, [paths[index] for index in indices], in_chans)
        self.feature_info = FeatureInfo(_describe(architecture, paths), indices)
        self.pretrained_cfg = _pretrained_cfg(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self._features(images)


class FBNetV5Classifier(FBNetV5):
    """Images [N, in_chans, H, W] -> logits [N, num_classes], or the last layer's input if ``num_classes`` is 0.

    This input is [N, head_hidden_size] with a pool, and the feature [N, C_32, H/32, W/32] with ``global_pool=""``.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        num_classes: int | None = None,
        in_chans: int = RGB,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        paths = (max(architecture.make_task().paths),)
        super().__init__(architecture, paths, in_chans)
        self.feature_info = _describe(architecture, paths)
        (self.num_features,) = self.backbone.graph.channels(FEATURES)
        self.head = ClassifierHead(self.num_features)
        self.head_hidden_size = self.head.hidden.out_features
        self.drop = nn.Dropout(drop_rate)
        self.global_pool = global_pool
        self.reset_classifier(_default_classes(architecture) if num_classes is None else num_classes, global_pool)
        self.pretrained_cfg = _pretrained_cfg(self)

    def get_classifier(self) -> nn.Module:
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one of ``num_classes`` classes, none if 0, and the pool if one is named.

        Raises:
            UserError: there is no such pool, or classes are requested of an unpooled feature.
        """
        pool = self.global_pool if global_pool is None else global_pool
        if pool not in POOLS:
            raise UserError(f"global_pool must be one of {', '.join(map(repr, POOLS))}, not {pool!r}")
        if num_classes < 0 or (num_classes and not pool):
            raise UserError(f"num_classes={num_classes} does not go with global_pool={pool!r}: without a pool it is 0")
        self.global_pool = pool
        self.num_classes = num_classes
        self.pool = SelectAdaptivePool2d(pool_type=pool, flatten=True) if pool else nn.Identity()
        device = self.head.hidden.weight.device
        self.classifier: nn.Module = (
            nn.Linear(self.head_hidden_size, num_classes, device=device) if num_classes else nn.Identity()
        )
        initialise(self.classifier)

    def forward_features(self, images: Tensor) -> Tensor:
        """-> [N, C_32, H/32, W/32]."""
        (coarsest,) = self._features(images)
        return coarsest

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The feature -> logits; with ``pre_logits``, the last layer's input."""
        if not self.global_pool:
            return x
        x = self.drop(self.head(x, self.pool))
        return x if pre_logits else self.classifier(x)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


class ClassifierHead(nn.Module):
    """``PooledHead`` without its last layer and with any pool: (feature [N, C, H, W], pool) -> [N, hidden]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        whole = PooledHead(channels, 1)
        self.expand, self.hidden, self.act = whole.expand, whole.hidden, whole.act
        initialise(self)

    def forward(self, x: Tensor, pool: nn.Module) -> Tensor:
        hidden: Tensor = self.act(self.hidden(pool(self.expand(x))))
        return hidden


def build(
    arch: Path,
    *,
    pretrained: bool = False,
    weights: str | Path | None = None,
    features_only: bool = False,
    output_stride: int = COARSEST,
    **options: Any,
) -> FBNetV5:
    """The model of an architecture file.

    Args:
        arch: the file.
        pretrained: load the run's weights, ``TASK.safetensors`` beside ``TASK.json``.
        weights: load these weights of a run's network instead.
        features_only: ``FBNetV5Features``, else ``FBNetV5Classifier``.
        output_stride: must be 32.
        options: arguments of the class; ``FBNetV5Features`` ignores those of the classifier.

    Raises:
        UserError: a file is refused, or an option is not supported.
    """
    if output_stride != COARSEST:
        raise UserError(f"output_stride must be {COARSEST}, not {output_stride}: searched blocks are not dilated")
    kind = FBNetV5Features if features_only else FBNetV5Classifier
    if features_only:
        options = {name: value for name, value in options.items() if name not in OF_THE_CLASSIFIER}
    _check_options(kind, options)
    architecture = load_architecture(arch)
    model = kind(architecture, **options)
    if weights is not None or pretrained:
        network = architecture.load(arch.with_suffix(".safetensors") if weights is None else Path(weights))
        model.load_state_dict(network.state_dict())
    return model


def _check_options(kind: type[FBNetV5], options: Mapping[str, Any]) -> None:
    _, *names = inspect.signature(kind).parameters  # the first is the architecture
    if unknown := sorted(set(options) - set(names)):
        raise UserError(
            f"{kind.__name__} has no option {', '.join(unknown)}. Its options are {', '.join(names)}, and every "
            "model's: arch, pretrained, weights, features_only, output_stride"
        )


def _set_input_channels(stem: nn.Module, in_chans: int) -> None:
    assert isinstance(stem, nn.Sequential)
    conv = stem[0]
    assert isinstance(conv, nn.Conv2d)
    stem[0] = nn.Conv2d(in_chans, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, bias=False)  # type: ignore[arg-type]


def _run_names(architecture: Architecture) -> set[str]:
    with torch.device("meta"):
        return set(architecture.build().state_dict())


def _own_name(run_name: str) -> str:
    name = run_name.removeprefix(RUN_HEAD)
    if name == run_name:
        return name
    return name if name.startswith("classifier.") else f"head.{name}"


def _describe(architecture: Architecture, paths: Sequence[int]) -> list[dict[str, Any]]:
    """Channels, stride and module of each path's feature; the module is the live block that computes it."""
    graph = architecture.space.graph(architecture.choices_array, {FEATURES: paths})
    return [
        {"num_chs": channels, "reduction": path, "module": f"backbone.blocks.{step}"}
        for path, channels, step in zip(paths, graph.channels(FEATURES), graph.features[FEATURES], strict=True)
    ]


def _chosen(out_indices: int | Sequence[int] | None, task: str, paths: Sequence[int]) -> list[int]:
    """Indices of the requested features: all for None, the last n for an int; negative ones count from the end."""
    if out_indices is None:
        return list(range(len(paths)))
    requested = range(-out_indices, 0) if isinstance(out_indices, int) else out_indices
    indices = [index + len(paths) if index < 0 else index for index in requested]
    if not indices or not all(0 <= index < len(paths) for index in indices):
        available = ", ".join(f"{index}: stride {path}" for index, path in enumerate(paths))
        raise UserError(f"out_indices {out_indices!r} do not fit; a {task} architecture has the features {available}")
    return indices


def _default_classes(architecture: Architecture) -> int:
    if architecture.task == Classification.name:
        return len(architecture.make_task().labels)
    return IMAGENET_CLASSES


def _pretrained_cfg(model: FBNetV5) -> dict[str, Any]:
    """Preprocessing of images: plain resizing to the deploy resolution, and the mean and deviation of training."""
    height, width = model.architecture.resolution
    cfg: dict[str, Any] = PretrainedCfg(
        architecture="fbnetv5",
        input_size=(RGB, height, width),
        min_input_size=(RGB, COARSEST, COARSEST),
        interpolation="bilinear",
        crop_pct=1.0,
        crop_mode="squash",
        mean=MEAN,
        std=STD,
        num_classes=model.num_classes,
        pool_size=(height // COARSEST, width // COARSEST),
        first_conv=model.first_conv,
        classifier="classifier",
    ).to_dict()
    if isinstance(model, FBNetV5Features):
        del cfg["num_classes"], cfg["classifier"]
    return cfg


def _check_size(images: Tensor) -> None:
    if is_traced():
        return
    height, width = images.shape[-2:]
    if height % COARSEST or width % COARSEST:
        raise UserError(f"images must be multiples of {COARSEST} high and wide, not {height}x{width}; resize or pad")
