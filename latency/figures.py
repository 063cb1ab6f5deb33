"""The plots of a latency table: how well whole networks are predicted, and what the blocks cost where.

Each is a figure in HTML: its title, how to read it, its legend and the plot.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from latency.correction import MeasuredNetwork, predict_ms, proportion, split
from latency.svg import Axis, Bar, Corners, Point, bars, marker, scatter
from latency.table import LatencyTable

BAND = 0.05
"""Drawn around right predictions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFacts:
    """What a space knows of a block besides its time."""

    key: str
    strides: tuple[int, ...]
    """Of its output, relative to the image: the path it stands on. Of a head: the paths it reads."""
    stages: tuple[int, ...]
    """Of the space, where it occurs; a head is in none."""
    macs: int
    """Multiply-adds."""


class Blocks:
    """The blocks of a table in groups, from the largest feature to the heads."""

    def __init__(self, table: LatencyTable, facts: Sequence[BlockFacts]) -> None:
        known = {one.key: one for one in facts}
        found = {key: known.get(key) for key in table.isolated_ms}
        self.facts = dict(sorted(found.items(), key=lambda item: (_rank(item[1]), item[0])))
        """By key, in the order of the groups and within them by stage; None for blocks of another space."""
        self.groups: dict[str, list[str]] = {}
        """Heading -> keys."""
        for key, one in self.facts.items():
            self.groups.setdefault(_heading(one), []).append(key)
        self.look = {key: look for look, keys in enumerate(self.groups.values()) for key in keys}
        """That of its group."""

    def legend(self) -> str:
        return _legend([(marker(look), heading) for look, heading in enumerate(self.groups)])

    def describe(self, key: str) -> str:
        """In which stages the block occurs."""
        one = self.facts[key]
        if one is None:
            return "of another space"
        return f"stages {stages_text(one)}" if one.stages else "head"


def stages_text(facts: BlockFacts) -> str:
    """E.g. "0-2, 4"."""
    runs: list[list[int]] = []
    for stage in facts.stages:
        if runs and runs[-1][-1] == stage - 1:
            runs[-1].append(stage)
        else:
            runs.append([stage])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def shares(table: LatencyTable, networks: Sequence[MeasuredNetwork]) -> dict[str, float]:
    """By block key: its part of what the table predicts for these networks together."""
    values = table.values_ms(table.isolated_ms)
    spent = {key: sum(value * one.blocks.get(key, 0) for one in networks) for key, value in values.items()}
    total = sum(spent.values())
    return {key: value / total for key, value in spent.items()}


def predicted_against_measured(table: LatencyTable) -> str:
    """Every network's prediction beside its time."""
    points = _network_points(table, lambda predicted_ms, measured_ms: predicted_ms)
    times = [side for point in points for side in (point.x, point.y)]
    x, y = Axis.linear("measured, ms", times), Axis.linear("predicted, ms", times)
    low, high = x.ends
    below, above = 1 - BAND, 1 + BAND
    area = [(low, low * below), (high, high * below), (high, high * above), (low, low * above)]
    return _figure(
        "Predicted against measured",
        f"Each mark is a network. On the line the prediction is right, in the band it is within {BAND:.0%}.",
        _network_legend(table),
        scatter(x, y, points, lines=[[(low, low), (high, high)]], area=area),
    )


def errors_by_size(table: LatencyTable) -> str:
    """Every network's error beside its time."""
    points = _network_points(table, lambda predicted_ms, measured_ms: 100 * (predicted_ms / measured_ms - 1))
    band = 100 * BAND
    x = Axis.linear("measured, ms", [point.x for point in points])
    y = Axis.linear("error of the prediction, %", [-band, band, *(point.y for point in points)])
    low, high = x.ends
    area = [(low, -band), (high, -band), (high, band), (low, band)]
    return _figure(
        "Error by size",
        f"The same marks. Above the line too much is predicted, below too little; the band is {BAND:.0%} either way.",
        _network_legend(table),
        scatter(x, y, points, lines=[[(low, 0), (high, 0)]], area=area),
    )


def block_times(table: LatencyTable, blocks: Blocks) -> str:
    """What each block adds to a network, by path."""
    values, alone = table.values_ms(table.isolated_ms), table.isolated_ms
    corrected = table.kind == "corrected"

    def bar(key: str) -> Bar:
        title = f"{key}: {values[key]:.4f} ms, alone {alone[key]:.4f} ms; {blocks.describe(key)}"
        varies = " (varies)" if key in table.unstable else ""
        return Bar(
            name=key,
            value=values[key],
            note=f"{values[key]:.3f} ms{varies}",
            title=title,
            look=blocks.look[key],
            reference=alone[key] if corrected else None,
        )

    axis = Axis.linear("time a call, ms", [0.0, *values.values(), *alone.values()])
    means = "Thick: what it adds to a network; thin: its time alone." if corrected else "Bar: its time alone."
    return _figure(
        "Time of every block",
        f"By stride of the output, from the large features to the heads; within a stride by stage. {means}",
        "",
        bars(axis, [(heading, [bar(key) for key in keys]) for heading, keys in blocks.groups.items()]),
    )


def shares_by_task(table: LatencyTable, blocks: Blocks) -> dict[str, dict[str, float]]:
    """By task and group of blocks: which part of the time predicted for the task's networks together goes there."""
    found = {}
    for task in _task_looks(table):
        part = shares(table, [one for name, one in table.networks.items() if _task(name) == task])
        found[task] = {heading: sum(part[key] for key in keys) for heading, keys in blocks.groups.items()}
    return found


def correction_by_time(table: LatencyTable, blocks: Blocks) -> str:
    """How much the correction changes each block."""
    assert table.correction is not None
    corrected = table.correction.latency_ms

    def point(key: str, alone: float) -> Point:
        change = 100 * (corrected[key] / alone - 1)
        title = f"{key}: {alone:.4f} ms alone, {corrected[key]:.4f} ms corrected ({change:+.0f}%)"
        return Point(x=alone, y=change, title=title, look=blocks.look[key])

    points = [point(key, alone) for key, alone in table.isolated_ms.items()]
    x = Axis.logarithmic("alone, ms (logarithmic)", [point.x for point in points])
    y = Axis.linear("corrected less alone, %", [0.0, *(point.y for point in points)])
    low, high = x.ends
    used = "" if table.kind == "corrected" else " It is not used, since it does not predict better."
    return _figure(
        "What the correction changes",
        "Above the line a block costs more inside networks than alone. Blocks that occur together cannot be told "
        f"apart, so read single marks with care.{used}",
        blocks.legend(),
        scatter(x, y, points, lines=[[(low, 0), (high, 0)]]),
    )


def time_by_macs(table: LatencyTable, blocks: Blocks) -> str:
    """Which blocks take longer than their multiply-adds suggest."""
    millions = {key: one.macs / 1e6 for key, one in blocks.facts.items() if one is not None and one.macs}
    points = [
        Point(
            x=millions[key],
            y=alone,
            title=f"{key}: {millions[key]:.3g} M multiply-adds, {alone:.4f} ms, {millions[key] / alone:.3g} G a second",
            look=blocks.look[key],
        )
        for key, alone in table.isolated_ms.items()
        if key in millions
    ]
    x = Axis.logarithmic("multiply-adds, millions (logarithmic)", [point.x for point in points])
    y = Axis.logarithmic("alone, ms (logarithmic)", [point.y for point in points])
    lines: list[Corners] = []
    means = ""
    if table.networks:
        ms_per_million = 1e6 * proportion(list(table.networks.values()))
        lines = [[(end, end * ms_per_million) for end in x.ends]]
        means = f" The line is the measured networks' mean rate: {1 / ms_per_million:.3g} G multiply-adds a second."
    return _figure(
        "Time against multiply-adds",
        f"High above others of as many multiply-adds, a block makes little of the device.{means}",
        blocks.legend(),
        scatter(x, y, points, lines=lines),
    )


def _rank(facts: BlockFacts | None) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Large features first, then the heads, then what is of another space."""
    if facts is None:
        return 2, (), ()
    return 0 if facts.stages else 1, facts.strides, facts.stages


def _heading(facts: BlockFacts | None) -> str:
    if facts is None:
        return "of another space"
    return f"stride {', '.join(map(str, facts.strides))}" if facts.stages else "heads"


def _task(name: str) -> str:
    return name.partition("@")[0]


def _task_looks(table: LatencyTable) -> dict[str, int]:
    return {task: look for look, task in enumerate(sorted({_task(name) for name in table.networks}))}


def _network_points(table: LatencyTable, y: Callable[[float, float], float]) -> list[Point]:
    """At (measured, ``y`` of predicted and measured): by the plain sum if the table's is another, then by the table."""
    looks = _task_looks(table)

    def point(name: str, costs_ms: dict[str, float], what: str, style: str) -> Point:
        measured_ms = table.networks[name].measured.latency_ms_median
        predicted_ms = predict_ms(costs_ms, table.networks[name])
        title = (
            f"{name}: measured {measured_ms:.3f} ms, {what} {predicted_ms:.3f} ms "
            f"({predicted_ms / measured_ms - 1:+.1%})"
        )
        return Point(x=measured_ms, y=y(predicted_ms, measured_ms), title=title, look=looks[_task(name)], style=style)

    alone = table.isolated_ms
    if table.kind == "isolated":
        return [point(name, alone, "plain sum", "") for name in table.networks]
    fitted, held_out = split(list(table.networks))
    values = table.values_ms(alone)
    return [
        *(point(name, alone, "plain sum", "faint") for name in table.networks),
        *(point(name, values, "fitted", "hollow") for name in fitted),
        *(point(name, values, "predicted", "") for name in held_out),
    ]


def _network_legend(table: LatencyTable) -> str:
    entries = [(marker(look), task) for task, look in _task_looks(table).items()]
    if table.kind == "corrected":
        fitted, held_out = split(list(table.networks))
        entries += [
            (marker(0, "neutral"), f"held out ({len(held_out)})"),
            (marker(0, "neutral hollow"), f"fitted on ({len(fitted)})"),
            (marker(0, "neutral faint"), "plain sum of blocks"),
        ]
    return _legend(entries)


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    return f'<ul class="legend">{"".join(f"<li>{mark} {escape(text)}</li>" for mark, text in entries)}</ul>'


def _figure(title: str, caption: str, legend: str, drawn: str) -> str:
    text = f"<figcaption><h3>{escape(title)}</h3><p>{escape(caption)}</p></figcaption>"
    return f"<figure>{text}{legend}{drawn}</figure>"
