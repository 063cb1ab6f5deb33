"""What blocks cost inside whole networks, and how well that predicts networks it was not fitted on.

Blocks timed alone do not add up: each pays for a border that a network fuses away, and its input is not fresh in the
cache. So whole networks are measured too, and block costs c are fitted to them by ridge regression towards the isolated
times a:

    sum_n ((y_n - sum_k count_nk c_k) / y_n)^2  +  strength * sum_k (c_k / a_k - scale)^2,    c >= 0

for networks n of measured time y_n. Errors are relative, since a network of 20 ms must not outweigh four of 5 ms. The
scale is the one that fits the networks best if all blocks keep their proportions; a block that no network holds gets it
too. Fitted together with the costs it would go astray: blocks that all networks share have nothing else to hold it. The
strength is chosen by cross-validation. A third of the networks take no part in any of this: the report is on those, and
a correction that does not help on them is not used.

Shape legend: N networks, K blocks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from export.errors import UserError
from latency.protocol import Measurement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

AnyNetwork = TypeVar("AnyNetwork")
"""A measured network, or the name of one."""

LEAST_NETWORKS = 9
"""Below it a third held out says nothing."""
FOLDS = 5
STRENGTHS = tuple(10 ** (exponent / 2) for exponent in range(-12, 5))
"""From 1e-6, where only the networks count, to 100, where all blocks keep their isolated proportions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredNetwork:
    """A whole network's blocks and its time."""

    blocks: Mapping[str, int]
    """How often each block key occurs in it."""
    macs: int
    """Its multiply-adds, for the predictor that knows nothing else."""
    measured: Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """How predictions differ from measured times; fractions."""

    mape: float
    """Mean absolute error relative to the measured time."""
    bias: float
    """Mean error relative to the measured time; positive where too much is predicted."""
    within_5: float
    """Part of the networks predicted to within 5 %."""
    within_10: float
    kendall_tau: float
    """Rank correlation: 1 where every pair of networks is in the right order, -1 where none is."""

    def texts(self) -> list[str]:
        """For people, in the order of the fields."""
        shares = (f"{self.within_5:.0%}", f"{self.within_10:.0%}")
        return [f"{self.mape:.2%}", f"{self.bias:+.2%}", *shares, f"{self.kendall_tau:.3f}"]

    @classmethod
    def of(cls, predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> "Errors":
        """Compare two networks at least."""
        errors = [p / m - 1 for p, m in zip(predicted_ms, measured_ms, strict=True)]
        return cls(
            mape=sum(map(abs, errors)) / len(errors),
            bias=sum(errors) / len(errors),
            within_5=sum(abs(error) <= 0.05 for error in errors) / len(errors),
            within_10=sum(abs(error) <= 0.10 for error in errors) / len(errors),
            kendall_tau=_kendall_tau(predicted_ms, measured_ms),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How well a table predicts measured networks, beside simpler predictors and their own noise."""

    networks: int
    predicted: Errors
    """Of the values that are judged."""
    isolated: Errors
    """Of the plain sum of blocks timed alone."""
    flops: Errors | None
    """Of a time proportional to multiply-adds; None where no network was there to fit the proportion."""
    noise: float
    """Mean difference between a network's earlier and later rounds, relative to its time: its own repeat's error."""

    def to_json(self) -> dict[str, Any]:
        """The form for users: the judged values' errors stand at the top."""
        document = asdict(self)
        return {"networks": document.pop("networks"), **document.pop("predicted"), **document}


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Block costs fitted on whole networks, and their report on others."""

    latency_ms: Mapping[str, float]
    """By block key."""
    strength: float
    """Of the pull towards the isolated times."""
    fitted_on: int
    """Networks."""
    held_out: Report
    """On networks that took no part in the fit."""

    @property
    def helps(self) -> bool:
        """Whether it predicts the held-out networks better than the plain sum."""
        return self.held_out.predicted.mape < self.held_out.isolated.mape


def correct(isolated_ms: Mapping[str, float], networks: Sequence[MeasuredNetwork]) -> Correction:
    """Fit block costs on two thirds of the networks and judge them on the rest.

    Args:
        isolated_ms: every block's time alone, by key.
        networks: of these blocks; ``LEAST_NETWORKS`` at least.

    Raises:
        UserError: too few networks, or one has a block that was not timed alone.
    """
    check_count(len(networks))
    fitted, held_out = split(networks)
    strength = _best_strength(isolated_ms, fitted)
    costs = fit(isolated_ms, fitted, strength)
    return Correction(
        latency_ms=costs,
        strength=strength,
        fitted_on=len(fitted),
        held_out=report(costs, isolated_ms, held_out, ms_per_mac=proportion(fitted)),
    )


def split(networks: Sequence[AnyNetwork]) -> tuple[list[AnyNetwork], list[AnyNetwork]]:
    """Those a correction is fitted on and those held out: always the same for as many networks in the same order."""
    import numpy as np

    order = np.random.default_rng(0).permutation(len(networks))
    held_out = [networks[index] for index in sorted(order[: len(networks) // 3])]
    fitted = [networks[index] for index in sorted(order[len(networks) // 3 :])]
    return fitted, held_out


def check_count(networks: int) -> None:
    """Raise UserError if these are too few networks for a correction."""
    if networks < LEAST_NETWORKS:
        raise UserError(f"a correction needs at least {LEAST_NETWORKS} measured networks, not {networks}")


def fit(isolated_ms: Mapping[str, float], networks: Sequence[MeasuredNetwork], strength: float) -> dict[str, float]:
    """The costs in ms that minimise the sum at the top of this module, by block key.

    Raises:
        UserError: a network has a block that was not timed alone.
    """
    import numpy as np
    from scipy.optimize import nnls

    keys = list(isolated_ms)
    alone = np.array([isolated_ms[key] for key in keys])  # [K]
    shares = _counts(keys, networks) * alone / _times(networks)[:, None]  # [N, K]
    sums = shares.sum(axis=1)
    scale = sums.sum() / (sums @ sums)
    pull = np.sqrt(strength)
    system = np.vstack([shares, pull * np.eye(len(keys))])
    wanted = np.concatenate([np.ones(len(networks)), np.full(len(keys), pull * scale)])
    relative, _ = nnls(system, wanted)  # [K]: c_k / a_k
    return dict(zip(keys, (relative * alone).tolist(), strict=True))


def report(
    costs_ms: Mapping[str, float],
    isolated_ms: Mapping[str, float],
    networks: Sequence[MeasuredNetwork],
    *,
    ms_per_mac: float | None,
) -> Report:
    """Judge ``costs_ms`` on measured networks, two at least."""
    measured = [network.measured.latency_ms_median for network in networks]
    flops = None if ms_per_mac is None else Errors.of([network.macs * ms_per_mac for network in networks], measured)
    return Report(
        networks=len(networks),
        predicted=Errors.of([predict_ms(costs_ms, network) for network in networks], measured),
        isolated=Errors.of([predict_ms(isolated_ms, network) for network in networks], measured),
        flops=flops,
        noise=sum(network.measured.drift for network in networks) / len(networks),
    )


def predict_ms(costs_ms: Mapping[str, float], network: MeasuredNetwork) -> float:
    """The sum of a network's blocks."""
    return sum(costs_ms[key] * count for key, count in network.blocks.items())


def proportion(networks: Sequence[MeasuredNetwork]) -> float:
    """Milliseconds a multiply-add, of least squared relative error over these networks."""
    ratios = [network.macs / network.measured.latency_ms_median for network in networks]
    return sum(ratios) / sum(ratio**2 for ratio in ratios)


def _best_strength(isolated_ms: Mapping[str, float], networks: Sequence[MeasuredNetwork]) -> float:
    """The strength of least mean relative error over networks left out of the fit in turns."""

    def error(strength: float) -> float:
        errors = []
        for fold in range(FOLDS):
            costs = fit(isolated_ms, [n for i, n in enumerate(networks) if i % FOLDS != fold], strength)
            errors += [abs(predict_ms(costs, n) / n.measured.latency_ms_median - 1) for n in networks[fold::FOLDS]]
        return sum(errors) / len(errors)

    return min(STRENGTHS, key=error)


def _counts(keys: Sequence[str], networks: Sequence[MeasuredNetwork]) -> "Floats":
    """[N, K]: how often each network has each block."""
    import numpy as np

    column = {key: index for index, key in enumerate(keys)}
    counts = np.zeros((len(networks), len(keys)))
    for row, network in enumerate(networks):
        for key, count in network.blocks.items():
            if key not in column:
                raise UserError(f"block {key} of a measured network was not timed alone")
            counts[row, column[key]] = count
    return counts


def _times(networks: Sequence[MeasuredNetwork]) -> "Floats":
    """[N], in ms."""
    import numpy as np

    return np.array([network.measured.latency_ms_median for network in networks])


def _kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-a: the pairs in the same order less those in the opposite order, over all pairs."""
    pairs = [(i, j) for i in range(len(first)) for j in range(i)]
    signs = [(first[i] - first[j]) * (second[i] - second[j]) for i, j in pairs]
    return (sum(sign > 0 for sign in signs) - sum(sign < 0 for sign in signs)) / len(pairs)
