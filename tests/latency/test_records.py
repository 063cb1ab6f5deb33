from dataclasses import asdict
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from latency.protocol import Measurement, Timing
from latency.records import CheckedMeasurement, CheckedTiming

MEASUREMENT = Measurement(latency_ms_median=1.5, latency_ms_p90=1.6, latency_ms_p99=1.7, runs=50, cv=0.01, drift=0.02)


def test_a_measurement_and_a_timing_are_read_from_their_objects() -> None:
    measurements: TypeAdapter[Measurement] = TypeAdapter(CheckedMeasurement)
    timings: TypeAdapter[Timing] = TypeAdapter(CheckedTiming)
    assert measurements.validate_python(asdict(MEASUREMENT)) == MEASUREMENT
    assert measurements.validate_python(MEASUREMENT) is MEASUREMENT
    assert timings.validate_python(asdict(Timing())) == Timing()


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"runs": 0}, "runs"),
        ({"runs": 1.5}, "runs"),
        ({"cv": -0.1}, "cv"),
        ({"latency_ms_median": "1.5"}, "latency_ms_median"),
        ({"unit": "us"}, "unit"),
    ],
)
def test_a_wrong_field_is_refused_with_its_place(change: dict[str, Any], place: str) -> None:
    measurements: TypeAdapter[dict[str, Measurement]] = TypeAdapter(dict[str, CheckedMeasurement])
    with pytest.raises(ValidationError) as raised:
        measurements.validate_python({"conv": {**asdict(MEASUREMENT), **change}})
    assert [error["loc"] for error in raised.value.errors()] == [("conv", place)]
