import json
from dataclasses import asdict
from typing import Any

import pytest

from tests.gpu.search import GPU_PLAN, Plan, comparisons, errors_in, summarise, text_of


def entry(device: str, precision: str, rate: float, loss: float) -> dict[str, Any]:
    """The result of a process at one size and batch."""
    step = {"steps_per_s": rate, "peak_memory_mb": 2048.0, "trace": {"shares": {"kernels": 0.25, "rest": 0.75}}}
    return {
        "device": device,
        "precision": precision,
        "steps": [{"size": 64, "batch": 128, "weights": step, "policies": step}],
        "losses": {"steps": 60, "before": {"cls": 4.0}, "after": {"cls": loss}},
    }


PROCESSES = [entry("cuda", "fp32", 6.0, 2.0), entry("cuda", "bf16", 9.0, 2.5), entry("cpu", "fp32", 0.5, 1.0)]


def test_speeds_are_relative_to_the_cpu_and_losses_to_fp32() -> None:
    figures = comparisons(PROCESSES)
    assert [(ratio["precision"], ratio["weights"]) for ratio in figures["speed_over_cpu"]] == [
        ("fp32", 12),
        ("bf16", 18),
    ]
    assert figures["losses_bf16_over_fp32"] == {"cls": 1.25}


def test_without_the_cpu_there_is_no_ratio() -> None:
    assert comparisons(PROCESSES[:2])["speed_over_cpu"] == []


def test_the_summary_has_speed_memory_shares_and_losses() -> None:
    lines = summarise({"processes": PROCESSES, "comparisons": comparisons(PROCESSES)})
    assert lines[0] == "cuda fp32 64x64 batch 128: weights 6.00 steps/s, 2048 MiB; kernels 25%, rest 75%"
    assert "cuda bf16: losses after 60 steps: cls 4.000 -> 2.500" in lines
    assert lines[-1] == "speed relative to the CPU in fp32, bf16 64x64 batch 128: weights 18.0, policies 18.0"


@pytest.mark.parametrize(
    ("figures", "text"),
    [
        ({"out_of_memory": True, "message": "CUDA out of memory"}, "out of memory"),
        ({"skipped": "the time is used up"}, "skipped: the time is used up"),
        ({"error": "TypeError: no array"}, "error: TypeError: no array"),
    ],
)
def test_a_step_without_figures_has_its_reason(figures: dict[str, Any], text: str) -> None:
    assert text_of(figures) == text
    step = {"size": 64, "batch": 512, "weights": figures}
    process = {**PROCESSES[0], "steps": [step]}
    figures_of_both = comparisons([process, *PROCESSES[1:]])
    assert f"cuda fp32 64x64 batch 512: weights {text}" in summarise(
        {"processes": [process], "comparisons": figures_of_both}
    )


def test_errors_are_collected_from_everywhere() -> None:
    steps = [{"weights": {"trace": {"error": "no CUPTI"}}}, {"error": "no memory"}]
    assert list(errors_in({"steps": steps, "losses": {"error": "a nan"}})) == ["no CUPTI", "no memory", "a nan"]


def test_a_plan_survives_json() -> None:
    plan = Plan(**json.loads(json.dumps(asdict(GPU_PLAN))))
    assert [tuple(pair) for pair in plan.sizes_and_batches] == list(GPU_PLAN.sizes_and_batches)
