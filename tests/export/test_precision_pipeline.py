from collections.abc import Callable, Sequence
from typing import Any

import pytest

from export import precision_pipeline
from export.calibration import Batches
from export.errors import UserError, VerificationError
from export.parity import GATES
from export.precision import to_int8
from export.precision_pipeline import REAL, SEEDED, climb, rungs_to
from tests.export.tiny import Tiny, exported, images, sabotaged

IMAGES = {SEEDED: images(), REAL: images(seed=1)}


@pytest.mark.parametrize(("precision", "least_db"), [("fp16", 45.0), ("int8", 25.0)])
def test_a_rung_passes_its_gate_and_says_by_how_much(precision: str, least_db: float) -> None:
    rung = climb(exported(Tiny()), precision, IMAGES, calibration=[images(seed=2)])
    assert [one.images for one in rung.compared] == [SEEDED, REAL]
    for one in rung.compared:
        (entry,) = one.to_json()
        assert entry["rung"] == f"{precision} onnxruntime"
        assert entry["sqnr_db"] > least_db
        assert 0 < entry["error"] <= entry["smallest_tolerance"] < 0.05
        assert entry["gated"] == (precision == "fp16" or one.images == REAL)


def test_what_a_selection_chooses_from_is_compared() -> None:
    content = exported(Tiny(best=True), ["values", "places"])
    (seeded, _) = climb(content, "fp16", IMAGES).compared
    assert [parity.name for parity in seeded.outputs] == ["/Softmax_output_0"]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_sabotaged_block_is_caught_and_named(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    name = {"fp16": "to_half", "int8": "to_int8"}[precision]
    honest: Callable[..., bytes] = getattr(precision_pipeline, name)
    monkeypatch.setattr(
        precision_pipeline,
        name,
        lambda content, *rest, **more: honest(sabotaged(content, "head/mix", 3.0), *rest, **more),
    )
    with pytest.raises(VerificationError, match=f"{precision} onnxruntime on .* the block at fault is head/mix"):
        climb(exported(Tiny()), precision, IMAGES, calibration=[images(seed=2)])


def test_int8_leaves_a_block_in_float_that_it_would_spoil(monkeypatch: pytest.MonkeyPatch) -> None:
    def clumsy(content: bytes, batches: Batches, *, keep_float: Sequence[str], **more: Any) -> bytes:
        spoilt = content if "/head/mix/*" in keep_float else sabotaged(content, "head/mix", 3.0)
        return to_int8(spoilt, batches, keep_float=keep_float, **more)

    monkeypatch.setattr(precision_pipeline, "to_int8", clumsy)
    rung = climb(exported(Tiny()), "int8", IMAGES, calibration=[images(seed=2)])
    assert rung.kept_float == ("/head/mix/*",)
    assert all(one.complaint is None for one in rung.compared)


def test_int8_gives_up_with_the_gates_words_when_no_block_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(content: bytes, batches: Batches, *, keep_float: Sequence[str], **more: Any) -> bytes:
        return to_int8(sabotaged(content, "backbone/middle", 30.0), batches, **more)

    monkeypatch.setattr(precision_pipeline, "to_int8", broken)
    with pytest.raises(VerificationError, match="less than 25 dB; the block at fault is backbone/middle"):
        climb(exported(Tiny()), "int8", IMAGES, calibration=[images(seed=2)])


def test_int8_needs_images_and_patterns_that_match() -> None:
    content = exported(Tiny())
    with pytest.raises(UserError, match="int8 needs images to calibrate with"):
        climb(content, "int8", IMAGES)
    with pytest.raises(UserError, match=r"'\*' leave nothing to be int8"):
        climb(content, "int8", IMAGES, calibration=[images()], keep_float=["*"])
    with pytest.raises(UserError, match=r"matches '/neck/\*'; one of them is /backbone/stem/"):
        climb(content, "int8", IMAGES, calibration=[images()], keep_float=["/neck/*"])


def test_rungs_lead_from_float32_to_what_is_asked_for() -> None:
    assert [rungs_to(precision) for precision in GATES] == [("fp32",), ("fp32", "fp16"), ("fp32", "fp16", "int8")]
    with pytest.raises(UserError, match="no precision 'fp8'"):
        rungs_to("fp8")
