"""Block costs fitted on whole networks, and how well they predict networks that were not in the fit.

The times of standalone blocks do not add up to the time of a network: a standalone block pays for a boundary that a
network fuses away, and its input is not fresh in the cache. So whole networks are measured too, and the block costs c
are fitted to them by ridge regression towards the standalone times a:

    sum_n ((y_n - sum_k count_nk c_k) / y_n)^2  +  strength * sum_k (c_k / a_k - scale)^2,    c >= 0

for networks n of measured time y_n. Errors are relative, since a network of 20 ms must not outweigh four of 5 ms. The
scale is the factor that fits the networks best if all blocks keep their proportions; a block that is in no network gets
this scale too. Fitted together with the costs the scale would not be determined well, because only the networks
constrain blocks that all networks share. The strength is chosen by cross-validation. A third of the networks takes no
part in any of this: the errors are reported on this third, and a correction that does not help on it is not used.

Shape legend: N networks, K blocks.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import Strict

from export.errors import UserError
from latency.records import CheckedMeasurement, Count, NotNegative, Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

AnyNetwork = TypeVar("AnyNetwork")
"""A measured network, or its name."""

MIN_NETWORKS = 9
"""With fewer networks the held-out third is too small to show anything."""
FOLDS = 5
STRENGTHS = tuple(10 ** (exponent / 2) for exponent in range(-12, 5))
"""From 1e-6, where only the networks count, to 100, where all blocks keep their standalone proportions."""


class MeasuredNetwork(Record):
    """A whole network: its task, its blocks and its measurement."""

    task: str
    """The name of its task; plots group the networks by it."""
    blocks: dict[str, Count]
    """How often the network has each block, by block key."""
    macs: Count
    """Multiply-adds, for the predictor that uses nothing else."""
    measurement: CheckedMeasurement


class Errors(Record):
    """Errors of predictions relative to measured times, as fractions."""

    mape: NotNegative
    """Mean absolute percentage error, as a fraction."""
    bias: float
    """Mean error; positive where predictions are too high."""
    within_5: NotNegative
    """Fraction of the networks predicted to within 5 %."""
    within_10: NotNegative
    """Fraction of the networks predicted to within 10 %."""
    kendall_tau: float
    """Rank correlation: 1 where every pair of networks is in the right order, -1 where every pair is reversed."""

    def texts(self) -> list[str]:
        """The formatted errors, in the order of the fields."""
        shares = (f"{self.within_5:.0%}", f"{self.within_10:.0%}")
        return [f"{self.mape:.2%}", f"{self.bias:+.2%}", *shares, f"{self.kendall_tau:.3f}"]

    @classmethod
    def of(cls, predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> "Errors":
        """Compare predicted and measured times of at least two networks."""
        errors = [p / m - 1 for p, m in zip(predicted_ms, measured_ms, strict=True)]
        return cls(
            mape=sum(map(abs, errors)) / len(errors),
            bias=sum(errors) / len(errors),
            within_5=sum(abs(error) <= 0.05 for error in errors) / len(errors),
            within_10=sum(abs(error) <= 0.10 for error in errors) / len(errors),
            kendall_tau=_kendall_tau(predicted_ms, measured_ms),
        )


CheckedErrors = Annotated[Errors, Strict(False)]
"""Errors, or the JSON object of them."""


class ErrorReport(Record):
    """How well a table predicts measured networks, beside simpler predictors and the measurement noise."""

    networks: Count
    predicted: CheckedErrors
    """Errors of the block costs under test."""
    standalone: CheckedErrors
    """Errors of the plain sum of standalone blocks."""
    flops: CheckedErrors | None
    """Errors of a time proportional to multiply-adds; None without networks to fit the proportion on."""
    noise: NotNegative
    """Mean difference between the earlier and the later repetitions of a network, relative to its time."""

    def to_json(self) -> dict[str, Any]:
        """The report as ``--json`` prints it: the errors of the block costs under test at the top level."""
        document = self.model_dump(mode="json")
        return {"networks": document.pop("networks"), **document.pop("predicted"), **document}


class Correction(Record):
    """Block costs fitted on whole networks, and their errors on other networks."""

    latency_ms: dict[str, NotNegative]
    """The fitted cost of each block, by key."""
    strength: NotNegative
    """Strength of the pull towards the standalone times."""
    fitted_on: Count
    """Number of networks in the fit."""
    held_out: Annotated[ErrorReport, Strict(False)]
    """Errors on the networks that took no part in the fit."""

    @property
    def helps(self) -> bool:
        """Whether the fitted costs predict the held-out networks better than the plain sum."""
        return self.held_out.predicted.mape < self.held_out.standalone.mape


def correct(standalone_ms: Mapping[str, float], networks: Sequence[MeasuredNetwork]) -> Correction:
    """Fit block costs on two thirds of the networks and judge them on the rest.

    Args:
        standalone_ms: the time of every standalone block, by key.
        networks: networks of these blocks; at least ``MIN_NETWORKS``.

    Raises:
        UserError: the networks are too few, or a network has a block without a standalone time.
    """
    check_count(len(networks))
    fitted, held_out = split(networks)
    strength = _best_strength(standalone_ms, fitted)
    costs = fit(standalone_ms, fitted, strength)
    return Correction(
        latency_ms=costs,
        strength=strength,
        fitted_on=len(fitted),
        held_out=error_report(costs, standalone_ms, held_out, ms_per_mac=proportion(fitted)),
    )


def split(networks: Sequence[AnyNetwork]) -> tuple[list[AnyNetwork], list[AnyNetwork]]:
    """Split into networks to fit on and held-out networks; deterministic in the number and order of the networks."""
    import numpy as np

    order = np.random.default_rng(0).permutation(len(networks))
    held_out = [networks[index] for index in sorted(order[: len(networks) // 3])]
    fitted = [networks[index] for index in sorted(order[len(networks) // 3 :])]
    return fitted, held_out


def check_count(networks: int) -> None:
    """Raise UserError if the networks are too few for a correction."""
    if networks < MIN_NETWORKS:
        raise UserError(f"a correction needs at least {MIN_NETWORKS} measured networks, not {networks}")


def fit(standalone_ms: Mapping[str, float], networks: Sequence[MeasuredNetwork], strength: float) -> dict[str, float]:
    """Compute the block costs in ms, by key, that minimise the sum in the module docstring.

    Raises:
        UserError: a network has a block without a standalone time.
    """
    import numpy as np
    from scipy.optimize import nnls

    keys = list(standalone_ms)
    standalone = np.array([standalone_ms[key] for key in keys])  # [K]
    shares = _counts(keys, networks) * standalone / _times(networks)[:, None]  # [N, K]
    sums = shares.sum(axis=1)
    scale = sums.sum() / (sums @ sums)
    pull = np.sqrt(strength)
    system = np.vstack([shares, pull * np.eye(len(keys))])
    target = np.concatenate([np.ones(len(networks)), np.full(len(keys), pull * scale)])
    relative, _ = nnls(system, target)  # [K]: c_k / a_k
    return dict(zip(keys, (relative * standalone).tolist(), strict=True))


def error_report(
    costs_ms: Mapping[str, float],
    standalone_ms: Mapping[str, float],
    networks: Sequence[MeasuredNetwork],
    *,
    ms_per_mac: float | None,
) -> ErrorReport:
    """Compute the errors of ``costs_ms`` on at least two measured networks."""
    measured = [network.measurement.latency_ms_median for network in networks]
    flops = None if ms_per_mac is None else Errors.of([network.macs * ms_per_mac for network in networks], measured)
    return ErrorReport(
        networks=len(networks),
        predicted=Errors.of([predict_ms(costs_ms, network) for network in networks], measured),
        standalone=Errors.of([predict_ms(standalone_ms, network) for network in networks], measured),
        flops=flops,
        noise=sum(network.measurement.drift for network in networks) / len(networks),
    )


def predict_ms(costs_ms: Mapping[str, float], network: MeasuredNetwork) -> float:
    """Sum the costs of the blocks of a network."""
    return sum(costs_ms[key] * count for key, count in network.blocks.items())


def proportion(networks: Sequence[MeasuredNetwork]) -> float:
    """Milliseconds per multiply-add with the least squared relative error over these networks."""
    ratios = [network.macs / network.measurement.latency_ms_median for network in networks]
    return sum(ratios) / sum(ratio**2 for ratio in ratios)


def _best_strength(standalone_ms: Mapping[str, float], networks: Sequence[MeasuredNetwork]) -> float:
    """The strength with the lowest mean relative error in cross-validation over ``FOLDS`` folds."""

    def error(strength: float) -> float:
        errors = []
        for fold in range(FOLDS):
            costs = fit(standalone_ms, [n for i, n in enumerate(networks) if i % FOLDS != fold], strength)
            errors += [abs(predict_ms(costs, n) / n.measurement.latency_ms_median - 1) for n in networks[fold::FOLDS]]
        return sum(errors) / len(errors)

    return min(STRENGTHS, key=error)


def _counts(keys: Sequence[str], networks: Sequence[MeasuredNetwork]) -> "Floats":
    """Count the blocks of the networks: [N, K]."""
    import numpy as np

    column = {key: index for index, key in enumerate(keys)}
    counts = np.zeros((len(networks), len(keys)))
    for row, network in enumerate(networks):
        for key, count in network.blocks.items():
            if key not in column:
                raise UserError(f"block {key} of a measured network has no standalone time")
            counts[row, column[key]] = count
    return counts


def _times(networks: Sequence[MeasuredNetwork]) -> "Floats":
    """The measured times in ms: [N]."""
    import numpy as np

    return np.array([network.measurement.latency_ms_median for network in networks])


def _kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-a: (concordant pairs - discordant pairs) / all pairs."""
    pairs = [(i, j) for i in range(len(first)) for j in range(i)]
    signs = [(first[i] - first[j]) * (second[i] - second[j]) for i, j in pairs]
    return (sum(sign > 0 for sign in signs) - sum(sign < 0 for sign in signs)) / len(pairs)
