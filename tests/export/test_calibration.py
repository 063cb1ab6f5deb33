import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

from export.calibration import _histogram, best_limit, clip_limits, quantised_nodes, smooth
from export.graph import to_onnx_bytes
from export.parity import sqnr_db
from export.precision import to_int8
from export.runners import Array, OrtRunner
from tests.export.tiny import Tiny, exported, images


def rounded(values: Array, limit: float) -> Array:
    step = limit / 127
    return np.clip(np.round(values / step), -127, 127) * step


def test_smoothing_keeps_the_outputs() -> None:
    content = exported(Tiny())
    smoothed = smooth(content, [images()])
    assert len(quantised_nodes(onnx.load_from_string(smoothed).graph)) == 6
    divisions = [node for node in onnx.load_from_string(smoothed).graph.node if node.name.endswith("/Conv/Mul")]
    assert len(divisions) == 4  # the first convolution reads the images
    inputs = images(seed=1)
    before, after = OrtRunner(content)(inputs)["logits"], OrtRunner(smoothed)(inputs)["logits"]
    np.testing.assert_allclose(before, after, rtol=1e-4, atol=1e-6)


@given(st.sampled_from(["normal", "laplace", "standard_t"]), st.floats(1e-3, 1e3), st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_the_limit_is_close_to_the_best_of_a_search(kind: str, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    draw = rng.standard_t(4, 5000) if kind == "standard_t" else getattr(rng, kind)(size=5000)
    values = draw * scale
    chosen = np.square(rounded(values, best_limit(_histogram(values))) - values).sum()
    limits = np.abs(values).max() * np.linspace(0.05, 1, 200)
    assert chosen <= 1.1 * min(np.square(rounded(values, limit) - values).sum() for limit in limits)


def test_zeros_have_a_limit() -> None:
    assert best_limit(_histogram(np.zeros(9))) == 1.0


def uneven() -> tuple[bytes, dict[str, Array]]:
    """A convolution whose input channels differ by a factor of 1000 in size, and whose weights compensate for it."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 4, 1, bias=False)
    with torch.no_grad():
        sizes = torch.logspace(-1.5, 1.5, 8)
        first.weight.mul_(sizes[:, None, None, None])
        second.weight.div_(sizes[None, :, None, None])
    net = nn.Sequential(first, nn.Hardtanh(-1e6, 1e6), second).eval()
    inputs = images()
    example = (torch.from_numpy(inputs["images"]),)
    return to_onnx_bytes(net, example, input_names=["images"], output_names=["y"]), inputs


def test_smoothing_makes_int8_accurate_for_uneven_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    content, inputs = uneven()
    reference = OrtRunner(content)(inputs)["y"]
    assert sqnr_db(reference, OrtRunner(to_int8(content, [inputs]))(inputs)["y"]) > 35
    monkeypatch.setattr("export.precision.smooth", lambda content, *_, **__: content)
    assert sqnr_db(reference, OrtRunner(to_int8(content, [inputs]))(inputs)["y"]) < 25


def test_limits_are_computed_over_all_batches() -> None:
    content = exported(Tiny())
    small, large = images(), {"images": images(seed=1)["images"] * 10}
    reports: list[tuple[str, int, int]] = []
    limits = clip_limits(content, [small, large], progress=lambda *step: reports.append(step))
    assert limits["images"] > 2 * clip_limits(content, [small])["images"]
    assert reports == [("calibrating", 1, 2), ("calibrating", 2, 2)]


def test_nodes_that_stay_in_float_are_not_smoothed() -> None:
    content = exported(Tiny())
    smoothed = onnx.load_from_string(smooth(content, [images()], keep_float=["/head/*"])).graph
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(content).graph.initializer}
    unchanged = {node.name: node.input[1] in kept for node in smoothed.node if node.op_type in ("Conv", "Gemm")}
    assert {name.startswith(("/head/", "/backbone/stem/")) == same for name, same in unchanged.items()} == {True}
