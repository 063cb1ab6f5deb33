"""Builds TensorRT engines of ONNX graphs, loads them where there is a GPU, and asks what they compute in.

NVIDIA's code may crash or write to stdout. So ``build`` is called through ``export.subprocesses``, and takes and gives
what
JSON can carry; ``EngineBuilder``, which it uses, is for a process that also runs its engines. A Runtime is made nowhere
but in ``EngineLoader.load`` and never without a driver, which can end the process.

The module is also copied into a file that measures on devices where the project is not installed.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from export.cuda import FoundGpu, found_gpus
from export.errors import UnavailableError, UserError, VerificationError
from export.trt.bindings import (
    BuilderConfig,
    CudaEngine,
    Flavour,
    Network,
    Runtime,
    TensorRT,
    TimingCache,
    empty_network,
    find_flavour,
    first_error,
    load,
    make_builder,
    make_logger,
    open_runtime,
)
from export.trt.options import EngineOptions, options_from_json
from export.trt.precision_check import inspected_types

Profile = Mapping[str, Sequence[Sequence[int]]]
"""(smallest, typical, largest) shape of every input, by name."""
Report = Callable[[str, int, int], None]
"""Told what is being done, how many steps of it are done, and of how many."""

_RTX = "tensorrt_rtx"
_NOT_WITH_RTX = ("level", "compatible", "version_compatible")
"""Measured with 1.7.1: every level builds the same bytes, compatibility is warned of and ignored, and version
compatibility wants a library that is not in the package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngine:
    """An engine in memory."""

    plan: bytes
    """What an engine file holds."""
    layers: dict[str, int]
    """How many layers of the strongly typed network give each type."""
    warnings: tuple[str, ...]


class EngineLoader:
    """Loads engines of one TensorRT, all in one way."""

    def __init__(self, flavour: Flavour, *, host_code: bool = False) -> None:
        """Nothing of NVIDIA's starts yet.

        Args:
            flavour: of TensorRT.
            host_code: engines may bring code of their own that runs on the processor, as those do that were built to
                be version compatible; only for engines from a source that is trusted.
        """
        self.flavour = flavour
        self._host_code = host_code
        self._logger = make_logger(flavour.module)
        self._runtime: Runtime | None = None

    def load(self, plan: bytes) -> CudaEngine:
        """The engine on the current GPU, where it lives no longer than this loader.

        Raises:
            UnavailableError: there is no driver.
            VerificationError: the engine is of another GPU or TensorRT, or does not fit into the GPU's memory.
        """
        self._logger.forget()
        if self._runtime is None:
            self._runtime = open_runtime(self.flavour.module, self._logger)
            if self._host_code:
                self._runtime.engine_host_code_allowed = True
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise VerificationError(
                f"{self.flavour.name} {self.flavour.version} does not load the engine: {self.complaint()}. An engine "
                "runs in the TensorRT and on the kind of GPU that it was built for: build it here"
            )
        return engine

    def inspect(self, plan: bytes, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """How many layers of an engine give each type, at these shapes of its inputs; empty where it does not tell.

        Raises:
            UnavailableError: there is no driver.
            VerificationError: the engine does not load.
        """
        trt, engine = self.flavour.module, self.load(plan)
        context = engine.create_execution_context()
        if context is None:
            raise VerificationError(f"the engine does not fit on the GPU: {self.complaint()}")
        for name, shape in shapes.items():
            if min(engine.get_tensor_shape(name), default=0) < 0:
                context.set_input_shape(name, tuple(shape))
        inspector = engine.create_engine_inspector()
        inspector.execution_context = context  # which knows shapes and layouts that the engine leaves open
        return inspected_types(inspector.get_engine_information(trt.LayerInformationFormat.JSON))

    def complaint(self) -> str:
        """What TensorRT logged as errors since the last build or load began."""
        return " ".join(self._logger.errors) or "it says not why"


class EngineBuilder(EngineLoader):
    """Builds engines of ONNX graphs one after another, all in one way, and loads them where there is a GPU.

    They share a timing cache: a layer that occurs again gets the kernel that was found fastest before, so that equal
    parts of two graphs take equal times. TF32, which TensorRT uses for float32 unless told otherwise, is off: it keeps
    10 of the 23 bits of a fraction. There are no auxiliary streams: which branches ran side by side would differ
    between a block alone and the same block in a network.
    """

    def __init__(
        self,
        flavour: Flavour,
        *,
        compute_capability: tuple[int, int] | None = None,
        options: EngineOptions | None = None,
        detailed: bool = False,
        report: Report | None = None,
    ) -> None:
        """Make the builder.

        Args:
            flavour: of TensorRT.
            compute_capability: the GPU's that the engines are for. TensorRT always builds for the GPU that is here;
                TensorRT-RTX builds for it alone if told so, and for a choice of NVIDIA's otherwise.
            options: how engines are built.
            detailed: engines carry what an inspector needs to tell their types.
            report: told how each build gets on.

        Raises:
            UserError: the flavour cannot do what an option asks for, or the timing cache cannot be read.
            UnavailableError: the flavour makes no builder here, or none for that GPU.
        """
        self._options = options or EngineOptions()
        super().__init__(flavour, host_code=self._options.version_compatible)
        _check_options(flavour, self._options)
        self._target = None if compute_capability is None else _rtx_target(flavour, compute_capability)
        self._detailed = detailed
        # Kept, because TensorRT does not, and calls it as long as the builder lives.
        self._monitor = None if report is None else _make_monitor(flavour.module, report)
        self._builder = make_builder(flavour, self._logger)
        self._timing_cache: TimingCache | None = None

    def build(self, content: bytes, *, path: str | None = None, profile: Profile | None = None) -> BuiltEngine:
        """The engine of an ONNX graph.

        Args:
            content: the graph.
            path: the file it is from, where its weights may lie in files beside that.
            profile: the shapes of every input; None for a graph of fixed shapes.

        Raises:
            VerificationError: the parser or the builder refuses, and why.
        """
        name, trt, what = self.flavour.name, self.flavour.module, path or "the ONNX graph"
        self._logger.forget()
        network = empty_network(trt, self._builder, self._logger)
        parser = trt.OnnxParser(network, self._logger)  # named, because the network's weights are the parser's
        if not parser.parse(content, path):
            advice = "" if path is None else f"; all of it: fbnetv5 check {path}"
            raise VerificationError(f"{name}'s parser refuses {what}: {first_error(parser)}{advice}")
        config = self._config()
        if profile is not None:
            self._add_profile(config, profile)
        plan = self._builder.build_serialized_network(network, config)
        if plan is None:
            raise VerificationError(f"{name} builds no engine of {what}: {self.complaint()}")
        return BuiltEngine(plan=bytes(plan), layers=_layer_types(network), warnings=tuple(self._logger.warnings))

    def timing_cache(self) -> bytes | None:
        """What a file keeps of the kernels' times; None where none were taken, or the flavour takes none."""
        if self._timing_cache is None or self.flavour.name == _RTX:
            return None
        return bytes(self._timing_cache.serialize())

    def _config(self) -> BuilderConfig:
        trt = self.flavour.module
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
            # TensorRT-RTX has no use for a timing cache, takes it all the same and says that this is deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            if self._timing_cache is None:
                self._timing_cache = config.create_timing_cache(self._kept_times())
            if not config.set_timing_cache(self._timing_cache, False):
                raise VerificationError(
                    f"{self.flavour.name} refuses the timing cache {self._options.timing_cache}: {self.complaint()}. "
                    "It is of another GPU or TensorRT: name another file, or remove it"
                )

    def _kept_times(self) -> bytes:
        """Of the file that the options name; nothing where there is none yet, or the flavour has no use for it."""
        path = self._options.timing_cache
        if path is None or self.flavour.name == _RTX:
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
            raise VerificationError(f"{self.flavour.name} refuses the shapes {profile}")


def build(
    onnx_path: str,
    engine_path: str,
    profile: dict[str, Sequence[Sequence[int]]],
    options: dict[str, Any],
    cache_path: str,
    report: Report | None = None,
) -> dict[str, Any]:
    """Write the engine of an ONNX file, and load and inspect it where there is a GPU.

    Args:
        onnx_path: the graph.
        engine_path: written there; it is left to the caller that this be whole or not at all.
        profile: (smallest, typical, largest) shape of every input.
        options: of ``EngineOptions``.
        cache_path: where the timing cache is put if the options ask for one and the flavour has one.
        report: told how it gets on.

    Returns:
        ``{"name", "version", "layers": {DataType: count}, "inspected": the same of the engine, or empty,
        "gpu": name or None, "warnings": [...]}``.

    Raises:
        UserError: an option asks for what the flavour cannot do.
        UnavailableError: there is no TensorRT here that can.
        VerificationError: the parser or the builder refuses, or the engine does not load on the GPU that is here.
    """
    flavour, chosen, gpus = find_flavour(), options_from_json(options), _gpus()
    builder = EngineBuilder(flavour, options=chosen, detailed=bool(gpus), report=report)
    built = builder.build(Path(onnx_path).read_bytes(), path=onnx_path, profile=profile)
    Path(engine_path).write_bytes(built.plan)
    notes = list(built.warnings)
    if chosen.timing_cache is not None:
        times = builder.timing_cache()
        if times is None:
            notes.append(f"{flavour.name} takes no times: {chosen.timing_cache} was neither read nor written")
        else:
            Path(cache_path).write_bytes(times)
    typical = {name: shapes[1] for name, shapes in profile.items()}
    return {
        "name": flavour.name,
        "version": flavour.version,
        "layers": built.layers,
        "inspected": _inspected(builder, built.plan, typical, notes) if gpus else {},
        "gpu": gpus[0].name if gpus else None,
        "warnings": notes,
    }


def runtime_ready(name: str) -> str:
    """The version of the flavour of that name, once its runtime has been made: then it can load engines here.

    Raises:
        UnavailableError: it cannot.
    """
    flavour = load(name)
    open_runtime(flavour.module, make_logger(flavour.module))
    return flavour.version


def _inspected(
    builder: EngineBuilder, plan: bytes, typical: Mapping[str, Sequence[int]], notes: list[str]
) -> dict[str, int]:
    """The engine's types; empty, and why in ``notes``, where one made for other GPUs does not load on this one."""
    try:
        return builder.inspect(plan, typical)
    except ValueError as error:
        notes.append(f"the engine was not inspected: {error}")
    except VerificationError as error:
        if builder.flavour.name != _RTX:
            raise
        notes.append(f"the engine was not inspected: {error}")
    return {}


def _gpus() -> tuple[FoundGpu, ...]:
    """Those that can be used: a driver that does not start is none."""
    try:
        return found_gpus()
    except UnavailableError:
        return ()


def _check_options(flavour: Flavour, options: EngineOptions) -> None:
    """Raise UserError where the flavour would take an option and not honour it, or does not know it."""
    given = [field.name for field in fields(options) if getattr(options, field.name) != field.default]
    refused = [name for name in given if name in _NOT_WITH_RTX] if flavour.name == _RTX else []
    if refused:
        raise UserError(
            f"{flavour.name} {flavour.version} does not do what the engine option {refused[0]!r} asks for: leave it "
            "out, or pip install 'fbnetv5[tensorrt]' where the GPU is"
        )
    level = options.compatible.upper()
    if level and level not in flavour.module.HardwareCompatibilityLevel.__members__:
        raise UserError(
            f"{flavour.name} {flavour.version} knows no hardware compatibility {options.compatible!r}: leave the "
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


def _make_monitor(trt: TensorRT, report: Report) -> Any:
    """Passes TensorRT's phases on to ``report``; they nest, and the names of those under way differ."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self._steps[phase] = steps
            report(phase, 0, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            report(phase, step + 1, self._steps[phase])
            return True

        def phase_finish(self, phase: str) -> None:
            """It may end before its last step."""
            steps = self._steps[phase]
            report(phase, steps, steps)

    return Monitor()


def _rtx_target(flavour: Flavour, compute_capability: tuple[int, int]) -> Any:
    """TensorRT-RTX's ComputeCapability for it; None for TensorRT, which builds for the GPU that is here."""
    if flavour.name != _RTX:
        return None
    trt = flavour.module
    known = trt.ComputeCapability.__members__
    major, minor = compute_capability
    if f"SM{major}{minor}" not in known:
        others = ", ".join(name for name in known if name.startswith("SM"))
        raise UnavailableError(
            f"{flavour.name} {flavour.version} builds for no GPU of compute capability {major}.{minor}, only for "
            f"{others}: pip install 'fbnetv5[tensorrt]' instead"
        )
    return known[f"SM{major}{minor}"]


def _layer_types(network: Network) -> dict[str, int]:
    """How many layers give each type; of a strongly typed network, these are the types it will be run in."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    return dict(Counter(layer.get_output(0).dtype.name for layer in layers if layer.num_outputs))
