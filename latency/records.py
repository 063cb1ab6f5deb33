"""The parts of a latency table as strictly checked pydantic records.

``Measurement`` and ``Timing`` are plain dataclasses, because the script that measures a bundle has no pydantic. Here
they get the checks that a file needs: finite positive times, whole numbers, no unknown field.
"""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

from export.document import Document
from latency.protocol import Measurement, Timing

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Record(BaseModel):
    """A part of a document; an error names its place in the document."""

    model_config = Document.model_config


class _MeasurementRecord(Record):
    latency_ms_median: Positive
    latency_ms_p90: Positive
    latency_ms_p99: Positive
    runs: Count
    cv: NotNegative
    drift: NotNegative


class _TimingRecord(Record):
    repetitions: Count
    warmup_ms: NotNegative
    min_ms: NotNegative
    min_runs: Count
    max_cv: NotNegative
    reference_ms: NotNegative


def _measurement(value: Any) -> Any:
    return value if isinstance(value, Measurement) else Measurement(**dict(_MeasurementRecord.model_validate(value)))


def _timing(value: Any) -> Any:
    return value if isinstance(value, Timing) else Timing(**dict(_TimingRecord.model_validate(value)))


CheckedMeasurement = Annotated[Measurement, BeforeValidator(_measurement)]
"""A measurement, or the JSON object of one."""
CheckedTiming = Annotated[Timing, BeforeValidator(_timing)]
"""A timing protocol, or the JSON object of one."""
