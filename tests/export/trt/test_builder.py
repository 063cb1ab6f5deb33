import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from onnx import TensorProto, helper

from export.cuda import FoundGpu
from export.errors import UnavailableError, UserError, VerificationError
from export.subprocesses import call
from export.trt import bindings
from export.trt import builder as module
from export.trt.bindings import Flavour, find_flavour
from export.trt.builder import BuiltEngine, EngineBuilder, EngineLoader
from export.trt.options import EngineOptions

try:
    FLAVOUR: Flavour | None = find_flavour()
except UnavailableError:
    FLAVOUR = None
with_tensorrt = pytest.mark.skipif(FLAVOUR is None, reason="no TensorRT is installed: pip install 'fbnetv5[rtx]'")
with_rtx = pytest.mark.skipif(
    FLAVOUR is None or FLAVOUR.name != "tensorrt_rtx", reason="of TensorRT-RTX: pip install 'fbnetv5[rtx]'"
)


def relu() -> bytes:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()
    )


class FakeConfig(SimpleNamespace):
    """What is set of a build, by name."""

    def set_flag(self, flag: Any) -> None:
        self.flag = flag

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.limit = (pool, size)


def fake_module(**parts: Any) -> Any:
    """TensorRT as far as loading goes; what deserialises is told by ``parts``."""

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
    """Of engines whose batch may vary, and whose inspector answers once it has a context of known shape."""

    engine_host_code_allowed = False

    def __init__(self, logger: Any, types: str | None = "Half") -> None:
        self._logger, self._types = logger, types
        self.shapes: dict[str, tuple[int, ...]] = {}

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        if plan == b"foreign":
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
    """All that were made, on a machine that has a driver."""
    made: list[FakeRuntime] = []
    monkeypatch.setattr(bindings, "load_driver", lambda: object())
    return made


def loader(made: list[FakeRuntime], **arguments: Any) -> EngineLoader:
    def new(logger: Any) -> FakeRuntime:
        made.append(FakeRuntime(logger))
        return made[-1]

    return EngineLoader(Flavour(name="tensorrt", module=fake_module(Runtime=new)), **arguments)


def test_an_engine_is_inspected_at_the_shapes_that_it_leaves_open(runtimes: list[FakeRuntime]) -> None:
    assert loader(runtimes).inspect(b"plan", {"x": [2, 3], "scale": [1]}) == {"HALF": 1}


def test_an_engine_of_elsewhere_is_refused_in_tensorrts_words(runtimes: list[FakeRuntime]) -> None:
    with pytest.raises(
        VerificationError,
        match=r"tensorrt 10\.13 does not load the engine: Platform specific tag mismatch\. .*build it here",
    ):
        loader(runtimes).load(b"foreign")


@pytest.mark.parametrize("allowed", [True, False])
def test_an_engines_own_code_runs_only_where_that_was_allowed(runtimes: list[FakeRuntime], allowed: bool) -> None:
    found = loader(runtimes, host_code=allowed)
    found.load(b"one")
    found.load(b"two")
    assert [runtime.engine_host_code_allowed for runtime in runtimes] == [allowed]


def test_without_a_driver_no_runtime_is_made(runtimes: list[FakeRuntime], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings, "load_driver", lambda: None)
    with pytest.raises(UnavailableError, match="only where there is an NVIDIA driver"):
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
    "level": ("tensorrt_rtx", EngineOptions(level=0), "does not do what the engine option 'level' asks for"),
    "hardware": ("tensorrt_rtx", EngineOptions(compatible="ampere_plus"), "the engine option 'compatible'"),
    "version": ("tensorrt_rtx", EngineOptions(version_compatible=True), "the engine option 'version_compatible'"),
    "too old": ("tensorrt", EngineOptions(compatible="same_compute_capability"), "knows no hardware compatibility"),
}


@pytest.mark.parametrize(("name", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_an_option_that_would_not_be_honoured_is_refused(name: str, options: EngineOptions, message: str) -> None:
    with pytest.raises(UserError, match=message):
        EngineBuilder(Flavour(name=name, module=fake_module()), options=options)


def built(flavour: Flavour, **options: Any) -> BuiltEngine:
    return EngineBuilder(flavour, options=EngineOptions(**options)).build(relu(), profile={"x": [(1, 2)] * 3})


def refused_by_rtx() -> list[str]:
    """In a process of its own: what TensorRT-RTX itself makes of the options that are kept from it."""
    flavour = find_flavour()
    # Under the other flavour's name nothing is kept from it.
    unguarded = Flavour(name="tensorrt", module=flavour.module)
    found = []
    for options in ({"level": 0}, {"level": 5}, {"compatible": "ampere_plus"}):
        engine = built(unguarded, **options)
        found.append("same" if engine.plan == built(flavour).plan else "other")
        found += [line for line in engine.warnings if "unsupported" in line]
    try:
        built(unguarded, version_compatible=True)
    except VerificationError as error:
        found.append(str(error))
    return found


@with_rtx
def test_what_is_kept_from_tensorrt_rtx_is_what_it_would_not_do() -> None:
    found = call(refused_by_rtx, timeout_s=120)
    assert found[:3] == ["same"] * 3
    assert "setHardwareCompatibilityLevel() is unsupported in TensorRT-RTX." in found[3]
    assert "libnvinfer_lean" in found[4]


def times_of(path: str) -> list[int]:
    """In a process of its own: how many bytes of kernels' times two builds keep, the second going on from the first."""
    flavour = Flavour(name="tensorrt", module=find_flavour().module)
    kept = []
    for _ in range(2):
        builder = EngineBuilder(flavour, options=EngineOptions(timing_cache=Path(path)))
        builder.build(relu(), profile={"x": [(1, 2)] * 3})
        times = builder.timing_cache()
        assert times is not None
        Path(path).write_bytes(times)
        kept.append(len(times))
    return kept


@with_tensorrt
def test_kernels_times_are_kept_and_read_again(tmp_path: Path) -> None:
    first, second = call(times_of, str(tmp_path / "times"), timeout_s=120)
    assert second >= first > 0


def phases_of() -> list[tuple[str, int, int]]:
    """In a process of its own: what a build reports."""
    found: list[tuple[str, int, int]] = []
    builder = EngineBuilder(find_flavour(), report=lambda *what: found.append(what))
    builder.build(relu(), profile={"x": [(1, 2)] * 3})
    return found


@with_tensorrt
def test_a_build_tells_how_it_gets_on() -> None:
    found = call(phases_of, timeout_s=120)
    whole = [(done, total) for what, done, total in found if what == found[0][0]]
    assert whole[0][0] == 0
    assert whole[-1][0] == whole[-1][1] > 1
    assert whole == sorted(whole)
    assert len({what for what, _, _ in found}) > 2
    assert all(0 <= done <= total for _, done, total in found)


@pytest.mark.parametrize(("name", "refused"), [("tensorrt", True), ("tensorrt_rtx", False)])
def test_an_engine_made_here_must_load_here_unless_made_for_others(name: str, refused: bool) -> None:
    def inspect(*_: Any) -> None:
        raise VerificationError("Platform specific tag mismatch")

    builder: Any = SimpleNamespace(inspect=inspect, flavour=SimpleNamespace(name=name))
    notes: list[str] = []
    if refused:
        with pytest.raises(VerificationError, match="tag mismatch"):
            module._inspected(builder, b"plan", {}, notes)
    else:
        assert module._inspected(builder, b"plan", {}, notes) == {}
        assert notes == ["the engine was not inspected: Platform specific tag mismatch"]


def test_a_driver_that_does_not_start_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> tuple[FoundGpu, ...]:
        raise UnavailableError("the NVIDIA driver on this machine does not start")

    monkeypatch.setattr(module, "found_gpus", refuse)
    assert module._gpus() == ()
