"""Is it still the same network? Compares the outputs of two runners on the same input and says by how much they differ.

Errors are taken relative to an output's range, since a fixed absolute tolerance of 1e-5 passes small outputs and
fails large ones. On the processor, float32 graphs were seen at 1e-7 of the range and float16 ones at 2e-4. The signal
to quantisation noise ratio (SQNR) says of all values together what the error says of the worst. How much of either a
precision may cost stands in ``GATES``; cosine similarity and agreement are beside it for the reader.

This package knows no tasks. The one concession is ``rank_by``: in a top-k list, rows whose scores tie may come in any
order, and rounding makes ties. So the rows of such a list are matched before they are compared.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from export.errors import VerificationError
from export.runners import Array

MOST_DB = 200.0
"""What an SQNR is said to be where there is no noise."""
_SAME_ROW = 0.05
"""Of an output's range: rows of a list that differ by no more tell of the same thing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far one output of the candidate is from the reference. None: does not apply, or not finite."""

    name: str
    finite: bool
    """Neither side holds NaN or infinity."""
    error_of_range: float | None
    """Float outputs: the largest absolute difference over the reference's range."""
    cosine: float | None
    """Float outputs: cosine similarity of all values; 1 when both are all zero."""
    sqnr_db: float | None = None
    """Float outputs: power of the reference over that of the difference, all values together; at most ``MOST_DB``."""
    agreement: float | None
    """Integer outputs: share of equal entries. Float outputs [N, C, ...] with C > 1: share of equal argmax over C.
    Float outputs in a ranked list: share of rows that are nearly the same."""
    ranked: bool = False
    """It is in a ranked list, in the order of another output."""

    @property
    def error(self) -> float:
        """The figure a tolerance is held against: ``error_of_range``, or the share of unequal integers."""
        if not self.finite:
            return float("inf")
        if self.error_of_range is not None:
            return self.error_of_range
        return 1.0 - (1.0 if self.agreement is None else self.agreement)

    @property
    def smallest_tolerance(self) -> float | None:
        """The smallest error to allow, to three digits, with which it would pass; None where none would."""
        return _round_up(self.error) if self.finite else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """How far an output may be off. None: does not matter."""

    error: float | None = None
    """Most ``Parity.error``."""
    sqnr_db: float | None = None
    """Least, of float outputs."""
    rows: float | None = None
    """Least agreement of ranked outputs, for which the other two then do not count."""

    @property
    def tie(self) -> float:
        """Of the scores' range: those that differ by no more may have changed places under rounding."""
        return self.error or 0.05

    def complaint(self, parity: Parity) -> str | None:
        """Why the output does not pass; None if it does."""
        name = repr(parity.name)
        if not parity.finite:
            return f"output {name} holds NaN or infinity: no tolerance would pass"
        if parity.ranked and self.rows is not None:
            same = 1.0 if parity.agreement is None else parity.agreement
            return None if same >= self.rows else f"output {name} has {same:.1%} of its rows, less than {self.rows:.1%}"
        if self.error is not None and not parity.error <= self.error:
            what = "of its range" if parity.error_of_range is not None else "of its entries"
            return (
                f"output {name} differs by {parity.error:.3g} {what}, more than the tolerance {self.error:g}; "
                f"the smallest that would pass is {parity.smallest_tolerance:g}"
            )
        if self.sqnr_db is not None and parity.sqnr_db is not None and parity.sqnr_db < self.sqnr_db:
            return f"output {name} is {parity.sqnr_db:.1f} dB above its noise, less than {self.sqnr_db:g} dB"
        return None


GATES = MappingProxyType(
    {
        "fp32": Gate(error=1e-4),
        "fp16": Gate(error=5e-3, sqnr_db=45.0, rows=0.9),
        "int8": Gate(sqnr_db=25.0, rows=0.0),
    }
)
"""By precision. int8 is judged by the task's metric besides, which this package does not know."""
SAME_FILE = MappingProxyType({**GATES, "int8": Gate(sqnr_db=25.0, rows=0.5)})
"""Between two runtimes on one file. int8 kernels round ties their own way, so some rows of a list may be others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a network answers to one question."""

    outputs: tuple[str, ...]
    """Their names."""
    ranked_by: str | None = None
    """Which of them the others' rows are in the order of, if they are a ranked list."""


def compare_answers(
    reference: Mapping[str, Array], candidate: Mapping[str, Array], answers: Iterable[Answer], *, gate: Gate
) -> tuple[Parity, ...]:
    """Compare the outputs of each answer by itself; errors as of ``compare``."""
    found: list[Parity] = []
    for answer in answers:
        mine, theirs = (
            {name: side[name] for name in answer.outputs if name in side} for side in (reference, candidate)
        )
        found.extend(compare(mine, theirs, rank_by=answer.ranked_by, tie=gate.tie))
    return tuple(found)


def compare(
    reference: Mapping[str, Array], candidate: Mapping[str, Array], *, rank_by: str | None = None, tie: float = 1e-4
) -> tuple[Parity, ...]:
    """Compare every output, in the reference's order.

    Args:
        reference: outputs by name.
        candidate: outputs by the same names, of the same shapes, float or integer where the reference is.
        rank_by: the scores [N, K] by which the outputs [N, K, ...] are sorted. Rows of those are matched before they
            are compared, but only to rows whose score is within ``tie``; the scores themselves are compared in place,
            and a tie across the end of the list is not forgiven.
        tie: as a share of the scores' range.

    Raises:
        VerificationError: an output is missing, surplus, or of another shape or kind.
    """
    _check_alike(reference, candidate)
    ranked: list[str] = []
    if rank_by is not None:
        ranked = _ranked_names(reference, rank_by)
        candidate = _matched(reference, candidate, ranked, rank_by=rank_by, tie=tie)
    return tuple(_parity(name, reference[name], candidate[name], ranked=name in ranked) for name in reference)


def check(parities: Iterable[Parity], gate: Gate = GATES["fp32"]) -> None:
    """Raise VerificationError for the worst output that does not pass the gate."""
    failed = [parity for parity in parities if gate.complaint(parity) is not None]
    if failed:
        raise VerificationError(str(gate.complaint(max(failed, key=lambda parity: parity.error))))


def _round_up(value: float) -> float:
    """To three digits, never below ``value``: a figure to type."""
    if value == 0.0:
        return 0.0
    unit = 10.0 ** (np.floor(np.log10(value)) - 2)
    return float(f"{np.ceil(value / unit) * unit:.3g}")


def _is_float(array: Array) -> bool:
    return np.issubdtype(array.dtype, np.floating)


def _check_alike(reference: Mapping[str, Array], candidate: Mapping[str, Array]) -> None:
    if set(reference) != set(candidate):
        raise VerificationError(f"outputs are {sorted(candidate)}, where the reference has {sorted(reference)}")
    for name, wanted in reference.items():
        got = candidate[name]
        if wanted.shape != got.shape or _is_float(wanted) != _is_float(got):
            raise VerificationError(
                f"output {name!r} is {got.dtype} {list(got.shape)}, "
                f"where the reference is {wanted.dtype} {list(wanted.shape)}"
            )


def _range(values: Array) -> float:
    """Of float64 ``values``: largest minus smallest, but a tenth of the largest magnitude at least; 1 if all are zero.

    Without that floor the rounding of nearly constant outputs, like the scores of an untrained detector, would count as
    a difference.
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
    """Power of the reference over that of the difference, in decibels: 20 is a tenth of the amplitude.

    At most ``MOST_DB``, as of equal arrays; at least its negative, as of what holds NaN or infinity.
    """
    a, b = reference.astype(np.float64), candidate.astype(np.float64)
    signal, noise = float(np.square(a).sum()), float(np.square(a - b).sum())
    if noise == 0.0:
        return MOST_DB
    if not np.isfinite(noise) or signal == 0.0:
        return -MOST_DB
    return float(np.clip(10 * np.log10(signal / noise), -MOST_DB, MOST_DB))


def _same_argmax(a: Array, b: Array) -> float | None:
    """Of [N, C, ...] with C > 1: the share of equal argmax over C."""
    if a.ndim < 2 or a.shape[1] < 2 or not a.size:
        return None
    return float(np.mean(a.argmax(1) == b.argmax(1)))


def _same_rows(a: Array, b: Array) -> float | None:
    """Of [N, K, ...]: the share of rows that differ by no more than ``_SAME_ROW`` anywhere."""
    if not a.size:
        return None
    differences = np.abs(a - b).reshape(*a.shape[:2], -1).max(-1)
    return float(np.mean(differences <= _SAME_ROW * _range(a)))


def _cosine(a: Array, b: Array) -> float:
    """Of all float64 values as one vector; 0 when just one side is all zero."""
    norms = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    if norms == 0.0:
        return 1.0 if np.array_equal(a, b) else 0.0
    return float(np.dot(a.ravel(), b.ravel())) / norms


def _ranked_names(reference: Mapping[str, Array], rank_by: str) -> list[str]:
    """The outputs whose rows are in the order of ``rank_by``."""
    if rank_by not in reference or reference[rank_by].ndim != 2:
        raise VerificationError(f"there is no output {rank_by!r} of shape [N, K] to rank by among {sorted(reference)}")
    shape = reference[rank_by].shape
    return [name for name, array in reference.items() if name != rank_by and array.shape[:2] == shape]


def _matched(
    reference: Mapping[str, Array], candidate: Mapping[str, Array], ranked: list[str], *, rank_by: str, tie: float
) -> dict[str, Array]:
    """The candidate with the rows of its ``ranked`` outputs put in the reference's order where scores tie."""
    scores = reference[rank_by].astype(np.float64)
    others = candidate[rank_by].astype(np.float64)
    result = {name: array.copy() if name in ranked else array for name, array in candidate.items()}
    if not np.isfinite(scores).all():
        return result
    near = tie * _range(scores)
    for n in range(scores.shape[0]):
        tied = np.abs(scores[n, :, None] - others[n, None, :]) <= near
        cost = sum(_row_cost(reference[name][n], candidate[name][n]) for name in ranked)
        order = _match(np.where(tied, cost, np.inf))
        for name in ranked:
            result[name][n] = candidate[name][n][order]
    return result


def _row_cost(reference: Array, candidate: Array) -> Array:
    """[K, ...] and [K, ...] -> [K, K]: how unlike each row of one is to each of the other, 0 for equal rows."""
    count = reference.shape[0]
    a, b = reference.reshape(count, 1, -1), candidate.reshape(1, count, -1)
    if not _is_float(reference):
        return np.asarray((a != b).any(-1), dtype=np.float64)
    differences = np.abs(a.astype(np.float64) - b.astype(np.float64)).max(-1) / _range(reference.astype(np.float64))
    return np.where(np.isfinite(differences), differences, np.finfo(np.float32).max)


def _match(cost: Array) -> list[int]:
    """For each row of [K, K] in turn, the cheapest column still free; the first free one where none is finite."""
    order: list[int] = []
    free = np.ones(cost.shape[1], dtype=bool)
    for row in cost:
        choice = int(np.where(free, row, np.inf).argmin())
        if not (free[choice] and np.isfinite(row[choice])):
            choice = int(free.argmax())
        order.append(choice)
        free[choice] = False
    return order
