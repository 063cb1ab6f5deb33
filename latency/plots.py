"""The plots of a latency table: how well whole networks are predicted, and what the blocks cost.

Each plot is an HTML figure: a title, how to read it, a legend and the drawing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from latency.correction import MeasuredNetwork, predict_ms, proportion, split
from latency.svg import Axis, Bar, Corners, Point, bars, marker, scatter
from latency.table import LatencyTable

BAND = 0.05
"""Half width of the band around exact predictions, as a fraction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFacts:
    """The properties of a block in its space, besides its time."""

    key: str
    strides: tuple[int, ...]
    """Stride of the output relative to the image, which is its path; for a head the paths it reads."""
    stages: tuple[int, ...]
    """The stages of the space with this block; empty for a head."""
    macs: int
    """Multiply-adds."""


class Blocks:
    """The blocks of a table in groups, from the largest feature to the heads."""

    def __init__(self, table: LatencyTable, facts: Sequence[BlockFacts]) -> None:
        by_key = {block.key: block for block in facts}
        of_table = {key: by_key.get(key) for key in table.standalone_ms}
        self.facts = dict(sorted(of_table.items(), key=lambda item: (_rank(item[1]), item[0])))
        """By key, in the order of the groups and within them by stage; None for blocks of another space."""
        self.groups: dict[str, list[str]] = {}
        """The keys of each group, by its heading."""
        for key, block in self.facts.items():
            self.groups.setdefault(_heading(block), []).append(key)
        self.look = {key: look for look, keys in enumerate(self.groups.values()) for key in keys}
        """The look of each block's group, by key."""

    def legend(self) -> str:
        return _legend([(marker(look), heading) for look, heading in enumerate(self.groups)])

    def describe(self, key: str) -> str:
        """The stages with the block, as text."""
        block = self.facts[key]
        if block is None:
            return "of another space"
        return f"stages {stages_text(block)}" if block.stages else "head"


def stages_text(facts: BlockFacts) -> str:
    """The stages as ranges, e.g. "0-2, 4"."""
    runs: list[list[int]] = []
    for stage in facts.stages:
        if runs and runs[-1][-1] == stage - 1:
            runs[-1].append(stage)
        else:
            runs.append([stage])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def shares(table: LatencyTable, networks: Sequence[MeasuredNetwork]) -> dict[str, float]:
    """The share of each block in the total predicted time of these networks, by block key."""
    values = table.values_ms(table.standalone_ms)
    sums = {key: sum(value * network.blocks.get(key, 0) for network in networks) for key, value in values.items()}
    total = sum(sums.values())
    return {key: value / total for key, value in sums.items()}


def predicted_against_measured(table: LatencyTable) -> str:
    """Plot the prediction of every network over its measured time."""
    points = _network_points(table, lambda predicted_ms, measured_ms: predicted_ms)
    times = [side for point in points for side in (point.x, point.y)]
    x, y = Axis.linear("measured, ms", times), Axis.linear("predicted, ms", times)
    low, high = x.ends
    below, above = 1 - BAND, 1 + BAND
    area = [(low, low * below), (high, high * below), (high, high * above), (low, low * above)]
    return _figure(
        "Predicted against measured",
        f"Each mark is a network. On the line the prediction is exact, in the band its error is within {BAND:.0%}.",
        _network_legend(table),
        scatter(x, y, points, lines=[[(low, low), (high, high)]], area=area),
    )


def errors_by_size(table: LatencyTable) -> str:
    """Plot the error of every network over its measured time."""
    points = _network_points(table, lambda predicted_ms, measured_ms: 100 * (predicted_ms / measured_ms - 1))
    band = 100 * BAND
    x = Axis.linear("measured, ms", [point.x for point in points])
    y = Axis.linear("error of the prediction, %", [-band, band, *(point.y for point in points)])
    low, high = x.ends
    area = [(low, -band), (high, -band), (high, band), (low, band)]
    return _figure(
        "Error by size",
        f"The same marks. Above the line predictions are too high, below too low; the band is +-{BAND:.0%}.",
        _network_legend(table),
        scatter(x, y, points, lines=[[(low, 0), (high, 0)]], area=area),
    )


def block_times(table: LatencyTable, blocks: Blocks) -> str:
    """Plot the time that each block adds to a network, by path."""
    values, standalone = table.values_ms(table.standalone_ms), table.standalone_ms
    corrected = table.values_kind == "corrected"

    def bar(key: str) -> Bar:
        title = f"{key}: {values[key]:.4f} ms, standalone {standalone[key]:.4f} ms; {blocks.describe(key)}"
        varies = " (varies)" if key in table.unstable else ""
        return Bar(
            name=key,
            value=values[key],
            note=f"{values[key]:.3f} ms{varies}",
            title=title,
            look=blocks.look[key],
            reference=standalone[key] if corrected else None,
        )

    axis = Axis.linear("time a call, ms", [0.0, *values.values(), *standalone.values()])
    key_text = (
        "Thick bar: time added to a network; thin bar: standalone time." if corrected else "Bar: standalone time."
    )
    return _figure(
        "Time of every block",
        f"By stride of the output, from the large features to the heads; within a stride by stage. {key_text}",
        "",
        bars(axis, [(heading, [bar(key) for key in keys]) for heading, keys in blocks.groups.items()]),
    )


def shares_by_task(table: LatencyTable, blocks: Blocks) -> dict[str, dict[str, float]]:
    """The share of each group of blocks in the total predicted time of a task's networks, by task and heading."""
    by_task = {}
    for task in _task_looks(table):
        part = shares(table, [network for network in table.networks.values() if network.task == task])
        by_task[task] = {heading: sum(part[key] for key in keys) for heading, keys in blocks.groups.items()}
    return by_task


def correction_by_time(table: LatencyTable, blocks: Blocks) -> str:
    """Plot the change of each block by the correction over its standalone time."""
    assert table.correction is not None
    corrected = table.correction.latency_ms

    def point(key: str, standalone: float) -> Point:
        change = 100 * (corrected[key] / standalone - 1)
        title = f"{key}: {standalone:.4f} ms standalone, {corrected[key]:.4f} ms corrected ({change:+.0f}%)"
        return Point(x=standalone, y=change, title=title, look=blocks.look[key])

    points = [point(key, standalone) for key, standalone in table.standalone_ms.items()]
    x = Axis.logarithmic("standalone, ms (logarithmic)", [point.x for point in points])
    y = Axis.linear("corrected minus standalone, %", [0.0, *(point.y for point in points)])
    low, high = x.ends
    used = "" if table.values_kind == "corrected" else " It is not used, since it does not predict better."
    return _figure(
        "What the correction changes",
        "Above the line a block costs more inside networks than standalone. The fit cannot separate blocks that occur "
        f"together, so read single marks with care.{used}",
        blocks.legend(),
        scatter(x, y, points, lines=[[(low, 0), (high, 0)]]),
    )


def time_by_macs(table: LatencyTable, blocks: Blocks) -> str:
    """Plot the standalone time of each block over its multiply-adds."""
    millions = {key: block.macs / 1e6 for key, block in blocks.facts.items() if block is not None and block.macs}
    points = [
        Point(
            x=millions[key],
            y=standalone,
            title=f"{key}: {millions[key]:.3g} M multiply-adds, {standalone:.4f} ms, "
            f"{millions[key] / standalone:.3g} G a second",
            look=blocks.look[key],
        )
        for key, standalone in table.standalone_ms.items()
        if key in millions
    ]
    x = Axis.logarithmic("multiply-adds, millions (logarithmic)", [point.x for point in points])
    y = Axis.logarithmic("standalone, ms (logarithmic)", [point.y for point in points])
    lines: list[Corners] = []
    rate = ""
    if table.networks:
        ms_per_million = 1e6 * proportion(list(table.networks.values()))
        lines = [[(end, end * ms_per_million) for end in x.ends]]
        rate = f" The line is the measured networks' mean rate: {1 / ms_per_million:.3g} G multiply-adds a second."
    return _figure(
        "Time against multiply-adds",
        f"A block far above others with as many multiply-adds uses the device poorly.{rate}",
        blocks.legend(),
        scatter(x, y, points, lines=lines),
    )


def _rank(facts: BlockFacts | None) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """The sort key: large features first, then the heads, then blocks of another space."""
    if facts is None:
        return 2, (), ()
    return 0 if facts.stages else 1, facts.strides, facts.stages


def _heading(facts: BlockFacts | None) -> str:
    if facts is None:
        return "of another space"
    return f"stride {', '.join(map(str, facts.strides))}" if facts.stages else "heads"


def _task_looks(table: LatencyTable) -> dict[str, int]:
    return {task: look for look, task in enumerate(sorted({network.task for network in table.networks.values()}))}


def _network_points(table: LatencyTable, y: Callable[[float, float], float]) -> list[Point]:
    """Points at (measured, ``y`` of predicted and measured): of the plain sum, and of corrected values if in use."""
    looks = _task_looks(table)

    def point(key: str, costs_ms: dict[str, float], predictor: str, style: str) -> Point:
        network = table.networks[key]
        measured_ms, predicted_ms = network.measurement.latency_ms_median, predict_ms(costs_ms, network)
        title = (
            f"{key}: measured {measured_ms:.3f} ms, {predictor} {predicted_ms:.3f} ms "
            f"({predicted_ms / measured_ms - 1:+.1%})"
        )
        return Point(x=measured_ms, y=y(predicted_ms, measured_ms), title=title, look=looks[network.task], style=style)

    standalone = table.standalone_ms
    if table.values_kind == "standalone":
        return [point(key, standalone, "plain sum", "") for key in table.networks]
    fitted, held_out = split(list(table.networks))
    values = table.values_ms(standalone)
    return [
        *(point(key, standalone, "plain sum", "faint") for key in table.networks),
        *(point(key, values, "fitted", "hollow") for key in fitted),
        *(point(key, values, "predicted", "") for key in held_out),
    ]


def _network_legend(table: LatencyTable) -> str:
    entries = [(marker(look), task) for task, look in _task_looks(table).items()]
    if table.values_kind == "corrected":
        fitted, held_out = split(list(table.networks))
        entries += [
            (marker(0, "neutral"), f"held out ({len(held_out)})"),
            (marker(0, "neutral hollow"), f"fitted on ({len(fitted)})"),
            (marker(0, "neutral faint"), "plain sum of blocks"),
        ]
    return _legend(entries)


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    return f'<ul class="legend">{"".join(f"<li>{mark} {escape(text)}</li>" for mark, text in entries)}</ul>'


def _figure(title: str, caption: str, legend: str, drawing: str) -> str:
    text = f"<figcaption><h3>{escape(title)}</h3><p>{escape(caption)}</p></figcaption>"
    return f"<figure>{text}{legend}{drawing}</figure>"
