import gc
from typing import Any

import numpy as np
import pytest

from export.cuda import CudaDriver
from export.errors import UserError, VerificationError
from export.runners import Array
from export.trt.loaded_engine import LoadedEngine
from tests.export.fake_cuda import FakeContext, FakeCuda, FakeTensorRT, fake_memory

X = np.arange(12, dtype=np.float32).reshape(4, 3) / 7


def loaded(cuda: FakeCuda | None = None, freed: list[int] | None = None, **tensorrt: Any) -> LoadedEngine:
    """An engine that doubles a batch of 1 to 4."""
    cuda = cuda or FakeCuda()
    loader: Any = FakeTensorRT(cuda, **{"shape": (-1, 3), **tensorrt})
    return LoadedEngine(b"plan", loader=loader, driver=CudaDriver(cuda), memory=fake_memory(freed))


def doubled(engine: LoadedEngine, x: Array) -> Array:
    engine.fill({"x": x})
    engine.enqueue()
    (y,) = engine.outputs().values()
    return y


@pytest.mark.parametrize("batches", [(1, 4, 2), (4, 1, 4)])
def test_batch_sizes_may_differ_between_runs(batches: tuple[int, ...]) -> None:
    engine = loaded()
    for batch in batches:
        y = doubled(engine, X[-batch:])
        assert y.shape == (batch, 3)
        assert (y == X[-batch:] * 2).all()


def test_buffers_grow_with_the_batch_and_old_buffers_are_freed() -> None:
    freed: list[int] = []
    engine = loaded(freed=freed)
    doubled(engine, X[:2])
    doubled(engine, X[:1])
    assert freed == []
    doubled(engine, X)
    assert len(freed) == 2
    gc.disable()
    try:
        del engine
    finally:
        gc.enable()
    assert len(set(freed)) == 4


def test_the_engines_tensors_are_described() -> None:
    (x,), (y,) = loaded().engine_inputs, loaded().engine_outputs
    assert (x.name, x.shape, x.dtype, x.smallest, x.largest) == ("x", (-1, 3), "float32", (1, 3), (4, 3))
    assert (y.name, y.shape, y.dtype) == ("y", (-1, 3), "float32")


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.bool_])
def test_other_types_are_cast_to_float(dtype: type) -> None:
    x: Array = (X * 7).astype(dtype)
    y = doubled(loaded(), x)
    assert y.dtype == np.float32
    assert (y == x.astype(np.float32) * 2).all()


def test_a_non_contiguous_array_is_copied_correctly() -> None:
    assert (doubled(loaded(), X[::2]) == X[::2] * 2).all()


WRONG = {
    "another name": ({"z": X}, r"has inputs \['x'\], and arrays were given for \['z'\]"),
    "too large a batch": (
        {"x": np.zeros((5, 3), np.float32)},
        r"accepts \[1, 3\] to \[4, 3\], and the array is \[5, 3\]",
    ),
    "an empty batch": ({"x": X[:0]}, r"and the array is \[0, 3\]"),
    "another side": ({"x": X[:, :2]}, r"and the array is \[4, 2\]"),
    "an axis less": ({"x": X[0]}, r"and the array is \[3\]"),
    "complex numbers": ({"x": X.astype(complex)}, "accepts float32, and the array is complex128"),
}


@pytest.mark.parametrize(("inputs", "message"), WRONG.values(), ids=WRONG)
def test_inputs_that_do_not_fit_are_refused_and_the_engine_still_runs(inputs: dict[str, Array], message: str) -> None:
    engine = loaded()
    with pytest.raises(UserError, match=message):
        engine.fill(inputs)
    assert (doubled(engine, X) == X * 2).all()


def test_floats_are_not_cut_to_integers() -> None:
    with pytest.raises(UserError, match="accepts int32, and the array is float32"):
        loaded(kind="INT32").fill({"x": X})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a type without arrays": ({"kind": "BF16"}, r"'x' is BF16 \[-1, 3\], LINEAR on DEVICE"),
    "a vectorised layout": ({"layout": "CHW32"}, "CHW32 on DEVICE: LINEAR on DEVICE"),
    "a shape tensor": ({"location": "HOST"}, "LINEAR on HOST"),
    "too little memory": ({"fits": False}, "does not fit on the GPU: capture of"),
}


@pytest.mark.parametrize(("tensorrt", "message"), REFUSED.values(), ids=REFUSED)
def test_an_engine_that_cannot_be_run_is_refused(tensorrt: dict[str, Any], message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        loaded(**tensorrt)


def test_outputs_whose_shape_depends_on_values_are_refused() -> None:
    with pytest.raises(VerificationError, match="the shape of output 'y' depends on values"):
        loaded(depends_on_values=True).fill({"x": X})


ERRORS: dict[str, tuple[Any, str]] = {
    "infer_shapes": (["x"], r"cannot infer the outputs' shapes, because of \['x'\]"),
    "set_tensor_address": (False, "TensorRT refuses the memory of 'x': capture of"),
    "set_input_shape": (False, r"TensorRT refuses \[4, 3\] for input 'x': capture of"),
}


@pytest.mark.parametrize(("name", "answer", "message"), [(name, *case) for name, case in ERRORS.items()])
def test_an_error_of_tensorrt_has_its_reason(
    name: str, answer: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeContext, name, lambda *_: answer)
    with pytest.raises(VerificationError, match=message):
        loaded().fill({"x": X})
