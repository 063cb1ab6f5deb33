"""A latency table of five blocks and twelve networks, with the facts of its blocks."""

from latency.correction import MeasuredNetwork, correct
from latency.plots import BlockFacts
from latency.protocol import Measurement, Timing
from latency.table import NULL_KEY, LatencyTable

STANDALONE = {"stem@8": 0.5, "conv_a@4": 1.0, "conv_b@4": 2.0, "conv_b@2": 0.25, "head_x@8": 0.75}
FACTS = [
    BlockFacts(key="head_x@8", strides=(4, 8), stages=(), macs=9_000_000),
    BlockFacts(key="stem@8", strides=(2,), stages=(0,), macs=1_000_000),
    BlockFacts(key="conv_b@2", strides=(8,), stages=(1, 2, 4), macs=2_000_000),
    BlockFacts(key="conv_b@4", strides=(4,), stages=(1,), macs=8_000_000),
    BlockFacts(key="conv_a@4", strides=(4,), stages=(0, 1), macs=3_000_000),
]


def measured(median: float, cv: float = 0.01) -> Measurement:
    return Measurement(
        latency_ms_median=median, latency_ms_p90=median * 1.25, latency_ms_p99=median * 2, runs=50, cv=cv, drift=0.02
    )


def networks(count: int) -> dict[str, MeasuredNetwork]:
    """Networks of two tasks, each about 20 % slower than the sum of its standalone blocks."""
    networks_by_key = {}
    for number in range(count):
        blocks = {"stem@8": 1, "conv_a@4": 1 + number % 3, "conv_b@2": 1 + number % 4, "head_x@8": 1}
        standalone = sum(STANDALONE[key] * times for key, times in blocks.items())
        whole = measured(1.2 * standalone * (1 + 0.01 * (number % 2)))
        networks_by_key[f"{'cls' if number % 2 else 'det'}@8x8_{number}"] = MeasuredNetwork(
            task="cls" if number % 2 else "det", blocks=blocks, macs=10**6 * (3 + number), measurement=whole
        )
    return networks_by_key


BARE = LatencyTable(
    device="cpu",
    fingerprint={"device_name": "Some 9000", "cores": 2, "threads": 1, "runtime": "onnxruntime"},
    timing=Timing(),
    entries={NULL_KEY: measured(0.002), **{key: measured(median) for key, median in STANDALONE.items()}},
)
WHOLE = networks(12)
TABLE = BARE.changed(networks=WHOLE, correction=correct(STANDALONE, list(WHOLE.values())))
