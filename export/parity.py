"""Parity: compares the outputs of two runners on the same input and checks them against the gate of a precision.

Errors are relative to an output's range, because a fixed absolute tolerance of 1e-5 passes small outputs and fails
large ones. On a CPU, float32 graphs were measured at 1e-7 of the range and float16 graphs at 2e-4. The error describes
the worst value; the signal to quantisation noise ratio (SQNR) describes all values together. ``GATES`` has the limits
of both for each precision. Cosine similarity and agreement are computed for the reader only.

This package knows no tasks. The one exception is ``rank_by``: in a top-k list, rows with tied scores may come in any
order, and rounding makes ties. The rows of such a list are therefore matched before they are compared. Of objects that
tie with the last row, rounding decides which are in the list at all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from export.document import Document, JsonTuple
from export.errors import VerificationError
from export.runners import Array

MAX_SQNR_DB = 200.0
"""SQNR of equal arrays, which have no noise."""
_SAME_ROW = 0.05
"""Share of an output's range: rows of a list that differ by no more describe the same object."""
_REPLACED = 0.02
"""Maximum share of a list's rows in whose place another object may be that ties with the last."""
_NOT_FINITE = 1e9
"""Difference of two rows of a list one of which has NaN or infinity; more than that of all other rows together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Difference between one output of the candidate and the reference. None: does not apply, or not finite."""

    name: str
    finite: bool
    """Neither side contains NaN or infinity."""
    error_of_range: float | None
    """Float outputs: the largest absolute difference over the reference's range."""
    cosine: float | None
    """Float outputs: cosine similarity of all values; 1 when both are all zero."""
    sqnr_db: float | None = None
    """Float outputs: power of the reference over that of the difference, all values; at most ``MAX_SQNR_DB``."""
    agreement: float | None
    """Integer outputs: share of equal entries. Float outputs [N, C, ...] with C > 1: share of equal argmax over C.
    Float outputs in a ranked list: share of rows that are nearly equal."""
    ranked: bool = False
    """The output is part of a ranked list: its rows are sorted by another output."""

    @property
    def error(self) -> float:
        """The figure that is compared with a tolerance: ``error_of_range``, or the share of unequal integers."""
        if not self.finite:
            return float("inf")
        if self.error_of_range is not None:
            return self.error_of_range
        return 1.0 - (1.0 if self.agreement is None else self.agreement)

    @property
    def smallest_tolerance(self) -> float | None:
        """The smallest tolerance that the output passes, to three digits; None if it passes none."""
        return _round_up(self.error) if self.finite else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The limits of an output. None: no limit."""

    max_error: float | None = None
    """Maximum ``Parity.error``."""
    min_sqnr_db: float | None = None
    """Minimum ``Parity.sqnr_db`` of float outputs."""
    min_agreement: float | None = None
    """Minimum ``Parity.agreement`` of ranked outputs; the other two limits then do not apply to them."""

    @property
    def tie(self) -> float:
        """Share of the scores' range: rows whose scores differ by no more may have been swapped by rounding."""
        return self.max_error or 0.05

    def failure_reason(self, parity: Parity) -> str | None:
        """Why the output does not pass; None if it passes."""
        name = repr(parity.name)
        if not parity.finite:
            return f"output {name} contains NaN or infinity: no tolerance would pass"
        if parity.ranked and self.min_agreement is not None:
            agreement = 1.0 if parity.agreement is None else parity.agreement
            if agreement >= self.min_agreement:
                return None
            return f"output {name} has {agreement:.1%} of its rows, less than {self.min_agreement:.1%}"
        if self.max_error is not None and not parity.error <= self.max_error:
            unit = "of its range" if parity.error_of_range is not None else "of its entries"
            return (
                f"output {name} differs by {parity.error:.3g} {unit}, more than the tolerance {self.max_error:g}; "
                f"the smallest that would pass is {parity.smallest_tolerance:g}"
            )
        if self.min_sqnr_db is not None and parity.sqnr_db is not None and parity.sqnr_db < self.min_sqnr_db:
            return f"output {name} has an SQNR of {parity.sqnr_db:.1f} dB, less than {self.min_sqnr_db:g} dB"
        return None


GATES = MappingProxyType(
    {
        "fp32": Gate(max_error=1e-4),
        "fp16": Gate(max_error=5e-3, min_sqnr_db=45.0, min_agreement=0.9),
        "int8": Gate(min_sqnr_db=25.0, min_agreement=0.0),
    }
)
"""Gate of each precision. The task's metric also judges int8, but this package knows no metrics."""
SAME_FILE_GATES = MappingProxyType({**GATES, "int8": Gate(min_sqnr_db=25.0, min_agreement=0.5)})
"""Gates between two runtimes of one file. int8 kernels round ties differently, so some rows of a list may differ."""


class OutputGroup(Document):
    """The outputs of a network that belong together, such as the boxes, scores and labels of a detector."""

    title: ClassVar[str] = "outputs"
    outputs: Annotated[JsonTuple[str], Field(min_length=1)]
    """Names of the outputs."""
    ranked_by: str | None = None
    """For a ranked list: the output, one of ``outputs``, by which the rows of the others are sorted."""


def compare_groups(
    reference: Mapping[str, Array], candidate: Mapping[str, Array], groups: Iterable[OutputGroup], *, gate: Gate
) -> tuple[Parity, ...]:
    """Compare the outputs of each group separately; raises as ``compare`` does."""
    parities: list[Parity] = []
    for group in groups:
        if unknown := [name for name in group.outputs if name not in reference and name not in candidate]:
            raise VerificationError(f"there is no output {unknown[0]!r} to compare, only {sorted(reference)}")
        in_reference, in_candidate = (
            {name: outputs[name] for name in group.outputs if name in outputs} for outputs in (reference, candidate)
        )
        parities.extend(compare(in_reference, in_candidate, rank_by=group.ranked_by, tie=gate.tie))
    return tuple(parities)


def compare(
    reference: Mapping[str, Array], candidate: Mapping[str, Array], *, rank_by: str | None = None, tie: float = 1e-4
) -> tuple[Parity, ...]:
    """Compare every output, in the reference's order.

    Args:
        reference: outputs by name.
        candidate: outputs with the same names and shapes, float or integer as in the reference.
        rank_by: the scores [N, K] by which the outputs [N, K, ...] are sorted. Rows of these outputs are matched before
            they are compared, but only to rows whose score differs by at most ``tie``. The scores themselves are
            compared without matching. Up to 2 % of the rows are not compared if they are of other objects whose scores
            tie with the last.
        tie: share of the scores' range.

    Raises:
        VerificationError: an output is missing or surplus, or has another shape or kind.
    """
    _check_alike(reference, candidate)
    ranked: list[str] = []
    if rank_by is not None:
        ranked = _ranked_names(reference, rank_by)
        candidate = _matched(reference, candidate, ranked, rank_by=rank_by, tie=tie)
    return tuple(_parity(name, reference[name], candidate[name], ranked=name in ranked) for name in reference)


def check(parities: Iterable[Parity], gate: Gate = GATES["fp32"]) -> None:
    """Raise VerificationError for the worst output that does not pass the gate."""
    failed = [parity for parity in parities if gate.failure_reason(parity) is not None]
    if failed:
        raise VerificationError(str(gate.failure_reason(max(failed, key=lambda parity: parity.error))))


def _round_up(value: float) -> float:
    """``value`` rounded up to three digits, so that a user can type it."""
    if value == 0.0:
        return 0.0
    unit = 10.0 ** (np.floor(np.log10(value)) - 2)
    return float(f"{np.ceil(value / unit) * unit:.3g}")


def _is_float(array: Array) -> bool:
    return np.issubdtype(array.dtype, np.floating)


def _check_alike(reference: Mapping[str, Array], candidate: Mapping[str, Array]) -> None:
    if set(reference) != set(candidate):
        raise VerificationError(f"outputs are {sorted(candidate)}, where the reference has {sorted(reference)}")
    for name, expected in reference.items():
        actual = candidate[name]
        if expected.shape != actual.shape or _is_float(expected) != _is_float(actual):
            raise VerificationError(
                f"output {name!r} is {actual.dtype} {list(actual.shape)}, "
                f"where the reference is {expected.dtype} {list(expected.shape)}"
            )


def _range(values: Array) -> float:
    """Range of float64 ``values``: maximum minus minimum, at least a tenth of the largest magnitude; 1 if all are zero.

    Without this minimum, the rounding of nearly constant outputs, like the scores of an untrained detector, would count
    as a difference.
    """
    if values.size == 0:
        return 1.0
    return max(float(np.ptp(values)), float(np.abs(values).max()) / 10) or 1.0


def _parity(name: str, reference: Array, candidate: Array, *, ranked: bool) -> Parity:
    if not _is_float(reference):
        equal = float(np.mean(reference == candidate)) if reference.size else None
        return Parity(name=name, finite=True, error_of_range=None, cosine=None, agreement=equal, ranked=ranked)
    a, b = reference.astype(np.float64), candidate.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Parity(name=name, finite=False, error_of_range=None, cosine=None, agreement=None, ranked=ranked)
    return Parity(
        name=name,
        finite=True,
        error_of_range=float(np.abs(a - b).max(initial=0.0)) / _range(a),
        cosine=_cosine(a, b),
        sqnr_db=sqnr_db(a, b),
        agreement=_same_rows(a, b) if ranked else _same_argmax(a, b),
        ranked=ranked,
    )


def sqnr_db(reference: Array, candidate: Array) -> float:
    """Power of the reference over the power of the difference, in decibels: 20 dB is a tenth of the amplitude.

    ``MAX_SQNR_DB`` for equal arrays; ``-MAX_SQNR_DB`` for arrays that contain NaN or infinity.
    """
    a, b = reference.astype(np.float64), candidate.astype(np.float64)
    signal, noise = float(np.square(a).sum()), float(np.square(a - b).sum())
    if noise == 0.0:
        return MAX_SQNR_DB
    if not np.isfinite(noise) or signal == 0.0:
        return -MAX_SQNR_DB
    return float(np.clip(10 * np.log10(signal / noise), -MAX_SQNR_DB, MAX_SQNR_DB))


def _same_argmax(a: Array, b: Array) -> float | None:
    """Share of equal argmax over C of arrays [N, C, ...] with C > 1; None for other shapes."""
    if a.ndim < 2 or a.shape[1] < 2 or not a.size:
        return None
    return float(np.mean(a.argmax(1) == b.argmax(1)))


def _same_rows(a: Array, b: Array) -> float | None:
    """Share of rows of arrays [N, K, ...] whose values all differ by at most ``_SAME_ROW``; None without rows."""
    if not a.size:
        return None
    differences = np.abs(a - b).reshape(*a.shape[:2], -1).max(-1)
    return float(np.mean(differences <= _SAME_ROW * _range(a)))


def _cosine(a: Array, b: Array) -> float:
    """Cosine similarity of all float64 values as one vector; 0 if just one side is all zero."""
    norms = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    if norms == 0.0:
        return 1.0 if np.array_equal(a, b) else 0.0
    return float(np.dot(a.ravel(), b.ravel())) / norms


def _ranked_names(reference: Mapping[str, Array], rank_by: str) -> list[str]:
    """The outputs whose rows are sorted by ``rank_by``."""
    if rank_by not in reference or reference[rank_by].ndim != 2:
        raise VerificationError(f"there is no output {rank_by!r} of shape [N, K] to rank by among {sorted(reference)}")
    shape = reference[rank_by].shape
    return [name for name, array in reference.items() if name != rank_by and array.shape[:2] == shape]


def _matched(
    reference: Mapping[str, Array], candidate: Mapping[str, Array], ranked: list[str], *, rank_by: str, tie: float
) -> dict[str, Array]:
    """The candidate with the rows of its ``ranked`` outputs in the reference's order where scores tie.

    A few rows of the candidate are the reference's where both have another object that ties with the last.
    """
    scores = reference[rank_by].astype(np.float64)
    candidate_scores = candidate[rank_by].astype(np.float64)
    result = {name: array.copy() if name in ranked else array for name, array in candidate.items()}
    if not (ranked and np.isfinite(scores).all()):
        return result
    near = tie * _range(scores)
    for n in range(scores.shape[0]):
        tied = np.abs(scores[n, :, None] - candidate_scores[n, None, :]) <= near
        cost = np.sum([_row_cost(reference[name][n], candidate[name][n]) for name in ranked], axis=0)
        order = _match(cost, tied)
        for name in ranked:
            result[name][n] = candidate[name][n][order]
        rows = np.arange(len(order))
        ties_with_last = np.maximum(scores[n], candidate_scores[n, order]) - scores[n, -1:] <= near
        differ = (cost[rows, order] > _SAME_ROW) & (cost[rows, order] < _NOT_FINITE) & tied[rows, order]
        replaced = np.flatnonzero(differ & ties_with_last)[: int(_REPLACED * len(rows))]
        for name in ranked:
            result[name][n][replaced] = reference[name][n][replaced]
    return result


def _row_cost(reference: Array, candidate: Array) -> Array:
    """[K, ...] and [K, ...] -> [K, K]: the difference between all pairs of rows, 0 for equal rows."""
    count = reference.shape[0]
    a, b = reference.reshape(count, 1, -1), candidate.reshape(1, count, -1)
    if not _is_float(reference):
        return np.asarray((a != b).any(-1), dtype=np.float64)
    differences = np.abs(a.astype(np.float64) - b.astype(np.float64)).max(-1) / _range(reference.astype(np.float64))
    return np.where(np.isfinite(differences), differences, _NOT_FINITE)


def _match(cost: Array, tied: Array) -> Array:
    """For each row of [K, K] a column of its own: the pairs of least cost first, tied pairs before all others.

    So objects that both lists have are matched with themselves, and rows that are tied with none keep their places.
    """
    rows = np.arange(len(cost))
    distance = np.abs(rows[:, None] - rows)
    columns, free = np.full(len(cost), -1), np.ones(len(cost), dtype=bool)
    for pair in np.where(tied, cost, _NOT_FINITE + distance).argsort(axis=None, kind="stable"):
        row, column = divmod(int(pair), len(cost))
        if columns[row] < 0 and free[column]:
            columns[row], free[column] = column, False
    return columns
