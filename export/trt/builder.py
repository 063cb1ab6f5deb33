"""Builds TensorRT engines from ONNX graphs, loads them on a GPU, and reads the types of their layers.

NVIDIA's code may crash or write to stdout. ``build`` is therefore called through ``export.subprocesses``, and its
arguments and result are JSON values; ``EngineBuilder``, which it uses, is for a process that also runs its engines. A
Runtime is created only in ``EngineLoader.load`` and never without a driver, because that can end the process.

The module is also copied into a file that measures on devices where the project is not installed.
"""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from export.cuda import GpuInfo, find_gpus
from export.errors import UnavailableError, UserError, VerificationError
from export.progress import Progress
from export.trt.bindings import (
    BuilderConfig,
    CudaEngine,
    Network,
    Runtime,
    TensorRT,
    TensorRTVariant,
    TimingCache,
    empty_network,
    find_variant,
    first_error,
    load_variant,
    make_builder,
    make_logger,
    open_runtime,
)
from export.trt.options import EngineOptions, options_from_json
from export.trt.precision_check import inspected_types

Profile = Mapping[str, Sequence[Sequence[int]]]
"""Input name -> (smallest, typical, largest) shape."""

_RTX = "tensorrt_rtx"
_NOT_WITH_RTX = ("level", "compatible", "version_compatible")
"""Options that TensorRT-RTX ignores or cannot do. Measured with 1.7.1: every level builds the same bytes, compatibility
gives a warning and is ignored, and version compatibility needs a library that is not in the package."""


_RTX_OLDEST = (8, 0)
"""The lowest compute capability that TensorRT-RTX builds for unasked (docs.nvidia.com/deeplearning/tensorrt-rtx,
"CPU-Only AOT")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngine:
    """An engine in memory."""

    plan: bytes
    """Content of an engine file."""
    layers: dict[str, int]
    """Number of layers of the strongly typed network by the type of their output."""
    warnings: tuple[str, ...]
    """TensorRT's warnings during the build."""


class EngineLoader:
    """Loads engines with one TensorRT variant and one runtime."""

    def __init__(self, variant: TensorRTVariant, *, host_code: bool = False) -> None:
        """Store the arguments; NVIDIA's runtime starts with the first ``load``.

        Args:
            variant: the TensorRT variant.
            host_code: engines may contain code that runs on the CPU, as version-compatible engines do; allow it only
                for engines from a source that you trust.
        """
        self.variant = variant
        self._host_code = host_code
        self._logger = make_logger(variant.module)
        self._runtime: Runtime | None = None

    def load(self, plan: bytes) -> CudaEngine:
        """The engine, loaded on the current GPU; it must not outlive this loader.

        Raises:
            UnavailableError: there is no driver.
            VerificationError: the engine was built for another GPU or TensorRT, or does not fit into the GPU's memory.
        """
        self._logger.clear()
        if self._runtime is None:
            self._runtime = open_runtime(self.variant.module, self._logger)
            if self._host_code:
                self._runtime.engine_host_code_allowed = True
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise VerificationError(
                f"{self.variant.name} {self.variant.version} does not load the engine: {self.logged_errors()}. An "
                "engine runs in the TensorRT and on the kind of GPU that it was built for: build it here"
            )
        return engine

    def inspect(self, plan: bytes, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """Number of layers of an engine by the type of their output, at these input shapes; empty if it has no details.

        Raises:
            UnavailableError: there is no driver.
            VerificationError: the engine does not load.
        """
        trt, engine = self.variant.module, self.load(plan)
        context = engine.create_execution_context()
        if context is None:
            raise VerificationError(f"the engine does not fit on the GPU: {self.logged_errors()}")
        for name, shape in shapes.items():
            if min(engine.get_tensor_shape(name), default=0) < 0:
                context.set_input_shape(name, tuple(shape))
        inspector = engine.create_engine_inspector()
        inspector.execution_context = context  # which has the shapes and layouts that the engine leaves open
        return inspected_types(inspector.get_engine_information(trt.LayerInformationFormat.JSON))

    def logged_errors(self) -> str:
        """The errors that TensorRT logged since the last build or load began."""
        return " ".join(self._logger.errors) or "TensorRT gave no reason"


class EngineBuilder(EngineLoader):
    """Builds engines from ONNX graphs with the same options, and loads them on a GPU.

    The engines share a timing cache: a layer that occurs again gets the kernel that was fastest before, so that equal
    parts of two graphs take equal times. TF32, which TensorRT uses for float32 by default, is off: it keeps 10 of the
    23 bits of a fraction. There are no auxiliary streams, because a block alone and the same block in a network would
    run different branches in parallel.
    """

    def __init__(
        self,
        variant: TensorRTVariant,
        *,
        compute_capability: tuple[int, int] | None = None,
        options: EngineOptions | None = None,
        detailed: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Create the builder.

        Args:
            variant: the TensorRT variant.
            compute_capability: compute capability of the target GPU. TensorRT always builds for the GPU of this
                machine. TensorRT-RTX builds for this one, or by default for NVIDIA's selection.
            options: how engines are built.
            detailed: engines contain what an inspector needs to report their types.
            progress: called with the phases of each build.

        Raises:
            UserError: the variant does not support an option, or the timing cache cannot be read.
            UnavailableError: the variant cannot build here, or not for that GPU.
        """
        self._options = options or EngineOptions()
        super().__init__(variant, host_code=self._options.version_compatible)
        _check_options(variant, self._options)
        self._target = None if compute_capability is None else _rtx_target(variant, compute_capability)
        self._detailed = detailed
        # A reference, because TensorRT keeps none and calls the monitor as long as the builder lives.
        self._monitor = None if progress is None else _make_monitor(variant.module, progress)
        self._builder = make_builder(variant, self._logger)
        self._timing_cache: TimingCache | None = None

    def build(self, content: bytes, *, path: str | None = None, profile: Profile | None = None) -> BuiltEngine:
        """The engine of an ONNX graph.

        Args:
            content: the graph.
            path: the file of the graph, which may have weights in other files of its folder.
            profile: the shapes of every input; None for a graph of fixed shapes.

        Raises:
            VerificationError: the parser or the builder refuses the graph.
        """
        name, trt, source = self.variant.name, self.variant.module, path or "the ONNX graph"
        self._logger.clear()
        network = empty_network(trt, self._builder, self._logger)
        parser = trt.OnnxParser(network, self._logger)  # a reference, because the parser owns the network's weights
        if not parser.parse(content, path):
            advice = "" if path is None else f"; for all errors: fbnetv5 check {path}"
            raise VerificationError(f"{name}'s parser refuses {source}: {first_error(parser)}{advice}")
        config = self._config()
        if profile is not None:
            self._add_profile(config, profile)
        plan = self._builder.build_serialized_network(network, config)
        if plan is None:
            raise VerificationError(f"{name} builds no engine of {source}: {self.logged_errors()}")
        return BuiltEngine(plan=bytes(plan), layers=_layer_types(network), warnings=tuple(self._logger.warnings))

    def timing_cache(self) -> bytes | None:
        """The timing cache as bytes for a file; None before the first build, or if the variant does not use one."""
        if self._timing_cache is None or self.variant.name == _RTX:
            return None
        return bytes(self._timing_cache.serialize())

    def _config(self) -> BuilderConfig:
        trt = self.variant.module
        config = self._builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)
        config.max_aux_streams = 0
        if self._target is not None:
            config.num_compute_capabilities = 1
            config.set_compute_capability(self._target, 0)
        if self._detailed:
            config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if self._monitor is not None:
            config.progress_monitor = self._monitor
        _set_options(config, trt, self._options)
        self._set_timing_cache(config)
        return config

    def _set_timing_cache(self, config: BuilderConfig) -> None:
        with warnings.catch_warnings():
            # TensorRT-RTX does not use a timing cache; it accepts one with a DeprecationWarning.
            warnings.simplefilter("ignore", DeprecationWarning)
            if self._timing_cache is None:
                self._timing_cache = config.create_timing_cache(self._read_timing_cache())
            if not config.set_timing_cache(self._timing_cache, False):
                raise VerificationError(
                    f"{self.variant.name} refuses the timing cache {self._options.timing_cache}: "
                    f"{self.logged_errors()}. It is of another GPU or TensorRT: name another file, or remove it"
                )

    def _read_timing_cache(self) -> bytes:
        """Content of the file that the options name; empty without a file, or if the variant does not use it."""
        path = self._options.timing_cache
        if path is None or self.variant.name == _RTX:
            return b""
        try:
            return path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise UserError(f"cannot read the timing cache {path}: {error.strerror or error}") from None

    def _add_profile(self, config: BuilderConfig, profile: Profile) -> None:
        shapes = self._builder.create_optimization_profile()
        for name, (smallest, typical, largest) in profile.items():
            shapes.set_shape(name, smallest, typical, largest)
        if config.add_optimization_profile(shapes) != 0:
            raise VerificationError(f"{self.variant.name} refuses the shapes {profile}")


def build(
    onnx_path: str,
    engine_path: str,
    profile: dict[str, Sequence[Sequence[int]]],
    options: dict[str, Any],
    cache_path: str,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the engine of an ONNX file; with a GPU, load and inspect it.

    Args:
        onnx_path: the ONNX file.
        engine_path: file to write the engine to; an atomic write is left to the caller.
        profile: (smallest, typical, largest) shape of every input.
        options: fields of ``EngineOptions``.
        cache_path: file to write the timing cache to, if the options name one and the variant uses one.
        progress: called with the phases of the build.

    Returns:
        ``{"name", "version", "layers": {DataType: count}, "inspected": the same of the engine, or empty,
        "gpu": name or None, "warnings": [...]}``.

    Raises:
        UserError: the variant does not support an option.
        UnavailableError: no TensorRT that can build for this machine's GPU is installed.
        VerificationError: the parser or the builder refuses, or the engine does not load on this machine's GPU.
    """
    variant, engine_options, gpus = find_variant(), options_from_json(options), _usable_gpus()
    builder = EngineBuilder(
        variant,
        compute_capability=_old_target(gpus),
        options=engine_options,
        detailed=bool(gpus),
        progress=progress,
    )
    built = builder.build(Path(onnx_path).read_bytes(), path=onnx_path, profile=profile)
    Path(engine_path).write_bytes(built.plan)
    notes = list(built.warnings)
    if engine_options.timing_cache is not None:
        timing_cache = builder.timing_cache()
        if timing_cache is None:
            path = engine_options.timing_cache
            notes.append(f"{variant.name} uses no timing cache: {path} was neither read nor written")
        else:
            Path(cache_path).write_bytes(timing_cache)
    typical = {name: shapes[1] for name, shapes in profile.items()}
    return {
        "name": variant.name,
        "version": variant.version,
        "layers": built.layers,
        "inspected": _inspected(builder, built.plan, typical, notes) if gpus else {},
        "gpu": gpus[0].name if gpus else None,
        "warnings": notes,
    }


def check_options(options: dict[str, Any]) -> None:
    """Raise UserError if the installed variant does not support an option, a field of ``EngineOptions``.

    Raises:
        UnavailableError: none is installed.
    """
    _check_options(find_variant(), options_from_json(options))


def probe_runtime(name: str) -> str:
    """Create the runtime of a variant, which shows that it can load engines here, and return its version.

    Raises:
        UnavailableError: the variant cannot load engines here.
    """
    variant = load_variant(name)
    open_runtime(variant.module, make_logger(variant.module))
    return variant.version


def _inspected(
    builder: EngineBuilder, plan: bytes, typical: Mapping[str, Sequence[int]], notes: list[str]
) -> dict[str, int]:
    """The engine's layer types; empty, with a line in ``notes``, if an engine for other GPUs does not load here."""
    try:
        return builder.inspect(plan, typical)
    except ValueError as error:
        notes.append(f"the engine was not inspected: {error}")
    except VerificationError as error:
        if builder.variant.name != _RTX:
            raise
        notes.append(f"the engine was not inspected: {error}")
    return {}


def _usable_gpus() -> tuple[GpuInfo, ...]:
    """The GPUs of this machine; none if the driver does not start."""
    try:
        return find_gpus()
    except UnavailableError:
        return ()


def _old_target(gpus: Sequence[GpuInfo]) -> tuple[int, int] | None:
    """The compute capability of this machine's first GPU, if TensorRT-RTX builds for it only when asked."""
    here = gpus[0].compute_capability if gpus else _RTX_OLDEST
    return here if here < _RTX_OLDEST else None


def _check_options(variant: TensorRTVariant, options: EngineOptions) -> None:
    """Raise UserError if the variant would accept an option and ignore it, or does not know it."""
    changed = [field.name for field in fields(options) if getattr(options, field.name) != field.default]
    refused = [name for name in changed if name in _NOT_WITH_RTX] if variant.name == _RTX else []
    if refused:
        raise UserError(
            f"{variant.name} {variant.version} does not support the engine option {refused[0]!r}: leave it out, "
            "or pip install 'fbnetv5[tensorrt]' where the GPU is"
        )
    level = options.compatible.upper()
    if level and level not in variant.module.HardwareCompatibilityLevel.__members__:
        raise UserError(
            f"{variant.name} {variant.version} has no hardware compatibility {options.compatible!r}: leave the "
            "engine option 'compatible' out, or install a later version"
        )


def _set_options(config: BuilderConfig, trt: TensorRT, options: EngineOptions) -> None:
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb * 2**20)
    if options.level is not None:
        config.builder_optimization_level = options.level
    if options.compatible:
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, options.compatible.upper())
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)


def _make_monitor(trt: TensorRT, progress: Progress) -> Any:
    """An IProgressMonitor that passes TensorRT's phases on. Phases nest; no two open phases have the same name."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self._steps[phase] = steps
            progress(phase, 0, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            progress(phase, step + 1, self._steps[phase])
            return True

        def phase_finish(self, phase: str) -> None:
            """Report all steps as done: a phase may end before its last step."""
            steps = self._steps[phase]
            progress(phase, steps, steps)

    return Monitor()


def _rtx_target(variant: TensorRTVariant, compute_capability: tuple[int, int]) -> Any:
    """TensorRT-RTX's ComputeCapability of the target; None for TensorRT, which builds for this machine's GPU."""
    if variant.name != _RTX:
        return None
    trt = variant.module
    targets = trt.ComputeCapability.__members__
    major, minor = compute_capability
    if f"SM{major}{minor}" not in targets:
        others = ", ".join(name for name in targets if name.startswith("SM"))
        raise UnavailableError(
            f"{variant.name} {variant.version} builds for no GPU of compute capability {major}.{minor}, only for "
            f"{others}: pip install 'fbnetv5[tensorrt]' instead"
        )
    return targets[f"SM{major}{minor}"]


def _layer_types(network: Network) -> dict[str, int]:
    """Number of layers by the type of their output; a strongly typed network runs in these types."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    return dict(Counter(layer.get_output(0).dtype.name for layer in layers if layer.num_outputs))
