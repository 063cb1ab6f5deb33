from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from export import precision_pipeline
from export.calibration import Batches
from export.errors import UserError, VerificationError
from export.parity import GATES, sqnr_db
from export.precision import rounded_to_half, to_half, to_int8
from export.precision_pipeline import REAL, SEEDED, SIMULATION, compare_graphs, convert_and_verify, precisions_to
from export.runners import OrtRunner
from tests.export.tiny import Tiny, TwoHeads, exported, images, sabotaged

IMAGES = {SEEDED: images(), REAL: images(seed=1)}


@pytest.mark.parametrize(("precision", "min_db"), [("fp16", 45.0), ("int8", 25.0)])
def test_a_stage_passes_its_gate_and_has_the_figures(precision: str, min_db: float) -> None:
    stage = convert_and_verify(exported(Tiny()), precision, IMAGES, calibration=[images(seed=2)])
    stages = [f"{precision} onnxruntime", *([SIMULATION] if precision == "fp16" else [])]
    assert [(comparison.stage, comparison.images) for comparison in stage.comparisons] == [
        (name, kind) for name in stages for kind in (SEEDED, REAL)
    ]
    for comparison in stage.comparisons:
        (entry,) = comparison.to_json()
        assert entry["sqnr_db"] > min_db
        assert 0 < entry["error"] <= entry["smallest_tolerance"] < 0.05
        assert entry["gated"] == (precision == "fp16" or comparison.images == REAL)


def test_the_inputs_of_a_selection_are_compared() -> None:
    content = exported(Tiny(best=True), ["values", "places"])
    for comparison in convert_and_verify(content, "fp16", IMAGES).comparisons:
        assert [parity.name for parity in comparison.outputs] == ["/Softmax_output_0"]


def test_a_value_that_half_precision_cannot_have_is_detected_inside_the_network() -> None:
    network = Tiny()
    with torch.no_grad():
        for name, scale in (("backbone.blocks.last.0", 3e5), ("head.mix", 1e-2)):
            for parameter in network.get_submodule(name).parameters():
                parameter.mul_(scale)
    content = exported(network)
    (on_cpu, *_) = compare_graphs(content, {"file": to_half(content)}, "fp16", IMAGES)
    assert on_cpu.failure_reason is None  # ONNX Runtime computes in float32 there
    with pytest.raises(VerificationError, match="fp16 rounded on seeded images: output 'logits' contains NaN"):
        convert_and_verify(content, "fp16", IMAGES)


def test_the_simulation_of_half_precision_is_as_far_from_float32_as_torchs() -> None:
    network, inputs = Tiny().eval(), images()
    content = exported(network)
    with torch.inference_mode():
        half = network.half()(torch.from_numpy(inputs["images"]).half()).float().numpy()
    reference = OrtRunner(content)(inputs)["logits"]
    simulated = sqnr_db(reference, OrtRunner(rounded_to_half(content))(inputs)["logits"])
    assert simulated == pytest.approx(sqnr_db(reference, half), abs=3.0)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_block_with_wrong_weights_is_detected_and_named(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    name = {"fp16": "to_half", "int8": "to_int8"}[precision]
    convert: Callable[..., bytes] = getattr(precision_pipeline, name)
    monkeypatch.setattr(
        precision_pipeline,
        name,
        lambda content, *rest, **more: convert(sabotaged(content, "head/mix", 3.0), *rest, **more),
    )
    with pytest.raises(VerificationError, match=f"{precision} onnxruntime on .* the faulty block is head/mix"):
        convert_and_verify(exported(Tiny()), precision, IMAGES, calibration=[images(seed=2)])


def test_int8_keeps_a_faulty_block_in_float(monkeypatch: pytest.MonkeyPatch) -> None:
    def convert_badly(content: bytes, batches: Batches, *, keep_float: Sequence[str], **more: Any) -> bytes:
        wrong = content if "/head/mix/*" in keep_float else sabotaged(content, "head/mix", 3.0)
        return to_int8(wrong, batches, keep_float=keep_float, **more)

    monkeypatch.setattr(precision_pipeline, "to_int8", convert_badly)
    stage = convert_and_verify(exported(Tiny()), "int8", IMAGES, calibration=[images(seed=2)])
    assert stage.kept_float == ("/head/mix/*",)
    assert all(comparison.failure_reason is None for comparison in stage.comparisons)


def test_int8_keeps_blocks_in_float_that_the_failed_output_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def convert_badly(content: bytes, batches: Batches, *, keep_float: Sequence[str], **more: Any) -> bytes:
        for block, factor in (("one/mix", 3.0), ("other/mix", 30.0)):
            if f"/{block}/*" not in keep_float:
                content = sabotaged(content, block, factor)
        return to_int8(content, batches, keep_float=keep_float, **more)

    monkeypatch.setattr(precision_pipeline, "to_int8", convert_badly)
    stage = convert_and_verify(exported(TwoHeads(), ["one", "other"]), "int8", IMAGES, calibration=[images(seed=2)])
    assert stage.kept_float == ("/one/mix/*", "/other/mix/*")


def test_int8_fails_with_the_reason_of_the_gate_if_no_block_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(content: bytes, batches: Batches, *, keep_float: Sequence[str], **more: Any) -> bytes:
        return to_int8(sabotaged(content, "backbone/middle", 30.0), batches, **more)

    monkeypatch.setattr(precision_pipeline, "to_int8", broken)
    with pytest.raises(VerificationError, match="less than 25 dB; the faulty block is backbone/middle"):
        convert_and_verify(exported(Tiny()), "int8", IMAGES, calibration=[images(seed=2)])


def test_int8_needs_images_and_matching_patterns() -> None:
    content = exported(Tiny())
    with pytest.raises(UserError, match="int8 needs images to calibrate with"):
        convert_and_verify(content, "int8", IMAGES)
    with pytest.raises(UserError, match=r"'\*' leave no node to quantise"):
        convert_and_verify(content, "int8", IMAGES, calibration=[images()], keep_float=["*"])
    with pytest.raises(UserError, match=r"matches '/neck/\*'; one of them is /backbone/stem/"):
        convert_and_verify(content, "int8", IMAGES, calibration=[images()], keep_float=["/neck/*"])


def test_precisions_lead_from_float32_to_the_requested_one() -> None:
    assert [precisions_to(precision) for precision in GATES] == [("fp32",), ("fp32", "fp16"), ("fp32", "fp16", "int8")]
    with pytest.raises(UserError, match="no precision 'fp8'"):
        precisions_to("fp8")
