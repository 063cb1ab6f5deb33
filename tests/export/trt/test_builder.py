import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from onnx import TensorProto, helper

from export.cuda import GpuInfo
from export.errors import UnavailableError, UserError, VerificationError
from export.subprocesses import run_in_subprocess
from export.trt import bindings
from export.trt import builder as module
from export.trt.bindings import TensorRTVariant, find_variant
from export.trt.builder import BuiltEngine, EngineBuilder, EngineLoader
from export.trt.options import EngineOptions
from tests.tensorrt_marks import with_rtx, with_tensorrt


def relu() -> bytes:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()
    )


class FakeConfig(SimpleNamespace):
    """A builder configuration that stores what is set."""

    def set_flag(self, flag: Any) -> None:
        self.flag = flag

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.limit = (pool, size)


def fake_module(**parts: Any) -> Any:
    """The parts of TensorRT that loading an engine uses; ``parts`` adds others."""

    class Logger:
        ERROR, WARNING, INTERNAL_ERROR = "error", "warning", "internal"

    enums = {
        "BuilderFlag": SimpleNamespace(VERSION_COMPATIBLE="version"),
        "HardwareCompatibilityLevel": SimpleNamespace(__members__={"AMPERE_PLUS": 1}, AMPERE_PLUS="ampere"),
        "LayerInformationFormat": SimpleNamespace(JSON="json"),
        "MemoryPoolType": SimpleNamespace(WORKSPACE="workspace"),
    }
    return SimpleNamespace(ILogger=Logger, __version__="10.13", **enums, **parts)


class FakeRuntime:
    """A runtime of engines with dynamic batch, whose inspector needs a context with shapes."""

    engine_host_code_allowed = False

    def __init__(self, logger: Any, types: str | None = "Half") -> None:
        self._logger, self._types = logger, types
        self.shapes: dict[str, tuple[int, ...]] = {}

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        if plan == b"other machine":
            self._logger.log("error", "Serialization.cpp:12: Platform specific tag mismatch")
            return None
        context = SimpleNamespace(set_input_shape=self.shapes.__setitem__)
        return SimpleNamespace(
            create_execution_context=lambda: context,
            get_tensor_shape=lambda name: {"x": (-1, 3), "scale": (1,)}[name],
            create_engine_inspector=lambda: SimpleNamespace(get_engine_information=self._information),
        )

    def _information(self, form: str) -> str:
        assert form == "json"
        assert self.shapes == {"x": (2, 3)}
        return json.dumps({"Layers": [{"Outputs": [{"DataType": self._types}]}], "I/O Tensors": []})


@pytest.fixture
def runtimes(monkeypatch: pytest.MonkeyPatch) -> list[FakeRuntime]:
    """The list of created runtimes, on a machine with a driver."""
    created: list[FakeRuntime] = []
    monkeypatch.setattr(bindings, "load_driver", lambda: object())
    return created


def loader(created: list[FakeRuntime], **arguments: Any) -> EngineLoader:
    def new(logger: Any) -> FakeRuntime:
        created.append(FakeRuntime(logger))
        return created[-1]

    return EngineLoader(TensorRTVariant(name="tensorrt", module=fake_module(Runtime=new)), **arguments)


def test_an_engine_is_inspected_with_shapes_of_its_dynamic_inputs(runtimes: list[FakeRuntime]) -> None:
    assert loader(runtimes).inspect(b"plan", {"x": [2, 3], "scale": [1]}) == {"HALF": 1}


def test_an_engine_of_another_machine_is_refused_with_tensorrts_reason(runtimes: list[FakeRuntime]) -> None:
    with pytest.raises(
        VerificationError,
        match=r"tensorrt 10\.13 does not load the engine: Platform specific tag mismatch\. .*build it here",
    ):
        loader(runtimes).load(b"other machine")


@pytest.mark.parametrize("allowed", [True, False])
def test_an_engines_own_code_runs_only_if_allowed(runtimes: list[FakeRuntime], allowed: bool) -> None:
    engine_loader = loader(runtimes, host_code=allowed)
    engine_loader.load(b"one")
    engine_loader.load(b"two")
    assert [runtime.engine_host_code_allowed for runtime in runtimes] == [allowed]


def test_without_a_driver_no_runtime_is_created(runtimes: list[FakeRuntime], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings, "load_driver", lambda: None)
    with pytest.raises(UnavailableError, match="only with an NVIDIA driver"):
        loader(runtimes).load(b"plan")
    assert runtimes == []


def test_every_option_reaches_tensorrt() -> None:
    options = EngineOptions(workspace_mb=2, level=4, compatible="ampere_plus", version_compatible=True)
    config: Any = FakeConfig()
    module._set_options(config, fake_module(), options)
    assert vars(config) == {
        "limit": ("workspace", 2 * 2**20),
        "builder_optimization_level": 4,
        "hardware_compatibility_level": "ampere",
        "flag": "version",
    }
    untouched: Any = FakeConfig()
    module._set_options(untouched, fake_module(), EngineOptions())
    assert vars(untouched) == {}


REFUSED: dict[str, tuple[str, EngineOptions, str]] = {
    "level": ("tensorrt_rtx", EngineOptions(level=0), "does not support the engine option 'level'"),
    "hardware": ("tensorrt_rtx", EngineOptions(compatible="ampere_plus"), "the engine option 'compatible'"),
    "version": ("tensorrt_rtx", EngineOptions(version_compatible=True), "the engine option 'version_compatible'"),
    "too old": ("tensorrt", EngineOptions(compatible="same_compute_capability"), "has no hardware compatibility"),
}


@pytest.mark.parametrize(("name", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_an_unsupported_option_is_refused(name: str, options: EngineOptions, message: str) -> None:
    with pytest.raises(UserError, match=message):
        EngineBuilder(TensorRTVariant(name=name, module=fake_module()), options=options)


def test_tensorrt_rtx_is_asked_to_build_for_an_old_gpu() -> None:
    def gpu(*capability: int) -> GpuInfo:
        return GpuInfo(name="GPU", compute_capability=(capability[0], capability[1]), memory_mb=1)

    assert module._old_target([]) is None
    assert module._old_target([gpu(8, 9), gpu(7, 5)]) is None
    assert module._old_target([gpu(7, 5), gpu(8, 9)]) == (7, 5)


def built(variant: TensorRTVariant, **options: Any) -> BuiltEngine:
    return EngineBuilder(variant, options=EngineOptions(**options)).build(relu(), profile={"x": [(1, 2)] * 3})


def refused_by_rtx() -> list[str]:
    """In a subprocess: the effect of the refused options in TensorRT-RTX."""
    variant = find_variant()
    # Under the other variant's name no option is refused.
    unguarded = TensorRTVariant(name="tensorrt", module=variant.module)
    effects = []
    for options in ({"level": 0}, {"level": 5}, {"compatible": "ampere_plus"}):
        engine = built(unguarded, **options)
        effects.append("same" if engine.plan == built(variant).plan else "other")
        effects += [line for line in engine.warnings if "unsupported" in line]
    try:
        built(unguarded, version_compatible=True)
    except VerificationError as error:
        effects.append(str(error))
    return effects


@with_rtx
def test_tensorrt_rtx_does_not_support_the_refused_options() -> None:
    effects = run_in_subprocess(refused_by_rtx, timeout_s=120)
    assert effects[:3] == ["same"] * 3
    assert "setHardwareCompatibilityLevel() is unsupported in TensorRT-RTX." in effects[3]
    assert "libnvinfer_lean" in effects[4]


def timing_cache_sizes(path: str) -> list[int]:
    """In a subprocess: sizes of the timing caches of two builds; the second build continues the first cache."""
    variant = TensorRTVariant(name="tensorrt", module=find_variant().module)
    sizes = []
    for _ in range(2):
        builder = EngineBuilder(variant, options=EngineOptions(timing_cache=Path(path)))
        builder.build(relu(), profile={"x": [(1, 2)] * 3})
        timing_cache = builder.timing_cache()
        assert timing_cache is not None
        Path(path).write_bytes(timing_cache)
        sizes.append(len(timing_cache))
    return sizes


@with_tensorrt
def test_the_timing_cache_is_written_and_read(tmp_path: Path) -> None:
    first, second = run_in_subprocess(timing_cache_sizes, str(tmp_path / "times"), timeout_s=120)
    assert second >= first > 0


def reports_of_a_build() -> list[tuple[str, int, int]]:
    """In a subprocess: the progress of a build."""
    reports: list[tuple[str, int, int]] = []
    builder = EngineBuilder(find_variant(), progress=lambda *report: reports.append(report))
    builder.build(relu(), profile={"x": [(1, 2)] * 3})
    return reports


@with_tensorrt
def test_a_build_reports_its_phases() -> None:
    reports = run_in_subprocess(reports_of_a_build, timeout_s=120)
    outermost = [(done, total) for phase, done, total in reports if phase == reports[0][0]]
    assert outermost[0][0] == 0
    assert outermost[-1][0] == outermost[-1][1] > 1
    assert outermost == sorted(outermost)
    assert len({phase for phase, _, _ in reports}) > 2
    assert all(0 <= done <= total for _, done, total in reports)


@pytest.mark.parametrize(("name", "refused"), [("tensorrt", True), ("tensorrt_rtx", False)])
def test_an_engine_must_load_here_unless_it_is_for_other_gpus(name: str, refused: bool) -> None:
    def inspect(*_: Any) -> None:
        raise VerificationError("Platform specific tag mismatch")

    builder: Any = SimpleNamespace(inspect=inspect, variant=SimpleNamespace(name=name))
    notes: list[str] = []
    if refused:
        with pytest.raises(VerificationError, match="tag mismatch"):
            module._inspected(builder, b"plan", {}, notes)
    else:
        assert module._inspected(builder, b"plan", {}, notes) == {}
        assert notes == ["the engine was not inspected: Platform specific tag mismatch"]


def test_a_driver_that_does_not_start_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> tuple[GpuInfo, ...]:
        raise UnavailableError("the NVIDIA driver on this machine does not start")

    monkeypatch.setattr(module, "find_gpus", refuse)
    assert module._usable_gpus() == ()
