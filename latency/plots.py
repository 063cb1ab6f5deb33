"""The plots of a latency table: how well whole networks are predicted, and what the blocks cost."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from latency.correction import MeasuredNetwork, predict_ms, proportion, split
from latency.page.content import Figure, Table
from latency.page.plots import BAND, SOFT, axis, bars, colour, make_plot, plain, scatter, symbol
from latency.table import LatencyTable

EXACT = 0.05
"""Half width of the band around exact predictions, as a fraction."""
STYLES = {"plain sum": ("", 0.35), "fitted": ("-open", 1.0), "predicted": ("", 1.0)}
"""By predictor: the end of its marks' shape, and their opacity."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A mark of the plots of whole networks."""

    key: str
    task: str
    predictor: str
    """One of ``STYLES``."""
    measured_ms: float
    predicted_ms: float

    @property
    def error(self) -> float:
        """Relative error of the prediction."""
        return self.predicted_ms / self.measured_ms - 1


def predictions(table: LatencyTable) -> list[Prediction]:
    """Every network by the plain sum of its blocks and, if the corrected values are in use, by them."""
    standalone = table.standalone_ms

    def of(key: str, predictor: str, costs_ms: dict[str, float]) -> Prediction:
        network = table.networks[key]
        return Prediction(
            key=key,
            task=network.task,
            predictor=predictor,
            measured_ms=network.measurement.latency_ms_median,
            predicted_ms=predict_ms(costs_ms, network),
        )

    sums = [of(key, "plain sum", standalone) for key in table.networks]
    if table.values_kind == "standalone":
        return sums
    fitted, held_out = split(list(table.networks))
    values = table.values_ms(standalone)
    return [*sums, *(of(key, "fitted", values) for key in fitted), *(of(key, "predicted", values) for key in held_out)]


def predicted_against_measured(table: LatencyTable) -> Figure:
    """Plot the prediction of every network over its measured time."""
    points = predictions(table)
    times = [side for point in points for side in (point.measured_ms, point.predicted_ms)]
    low, high = _rounded_range(times)
    below, above = 1 - EXACT, 1 + EXACT
    traces = [
        _area([(low, low * below), (high, high * below), (high, high * above), (low, low * above)]),
        _line([(low, low), (high, high)]),
        *_network_traces(table, points, lambda point: point.predicted_ms),
    ]
    ends = [low, high]
    return Figure(
        title="Predicted against measured",
        caption="Each mark is a network. On the line the prediction is exact, in the band its error is within "
        f"{EXACT:.0%}.{_styles_text(table)}",
        plot=make_plot(traces, x=axis("measured, ms", range=ends), y=axis("predicted, ms", range=ends), height=400),
        table=_networks_table(points),
    )


def errors_by_size(table: LatencyTable) -> Figure:
    """Plot the error of every network over its measured time."""
    points = predictions(table)
    low, high = _rounded_range([point.measured_ms for point in points])
    band = 100 * EXACT
    traces = [
        _area([(low, -band), (high, -band), (high, band), (low, band)]),
        _line([(low, 0), (high, 0)]),
        *_network_traces(table, points, lambda point: 100 * point.error),
    ]
    return Figure(
        title="Error by size",
        caption=f"The same marks. Above the line predictions are too high, below too low; the band is +-{EXACT:.0%}.",
        plot=make_plot(
            traces, x=axis("measured, ms", range=[low, high]), y=axis("error of the prediction, %"), height=400
        ),
    )


def _network_traces(table: LatencyTable, points: Sequence[Prediction], y: Callable[[Prediction], float]) -> list[Any]:
    """A trace for every task and predictor; the legend has a task once."""
    traces = []
    for task, look in _task_looks(table).items():
        shown = [name for name in STYLES if any((point.task, point.predictor) == (task, name) for point in points)]
        legend = "predicted" if "predicted" in shown else shown[0]
        for predictor in shown:
            own = [point for point in points if (point.task, point.predictor) == (task, predictor)]
            ending, opacity = STYLES[predictor]
            traces.append(
                scatter(
                    [point.measured_ms for point in own],
                    [y(point) for point in own],
                    name=task,
                    mode="markers",
                    legendgroup=task,
                    showlegend=predictor == legend,
                    opacity=opacity,
                    marker={"color": colour(look), "symbol": symbol(look) + ending, "size": 8},
                    text=[_network_text(point) for point in own],
                    hoverinfo="text",
                )
            )
    return traces


def _network_text(point: Prediction) -> str:
    return (
        f"{plain(point.key)}<br>measured {point.measured_ms:.3f} ms, {point.predictor} {point.predicted_ms:.3f} ms "
        f"({point.error:+.1%})"
    )


def _styles_text(table: LatencyTable) -> str:
    if table.values_kind == "standalone":
        return ""
    fitted, held_out = split(list(table.networks))
    return (
        f" Filled: {len(held_out)} networks that took no part in the fit; open: {len(fitted)} that the correction was "
        "fitted to; faint: the plain sum of blocks."
    )


def _networks_table(points: Sequence[Prediction]) -> Table:
    rows = [
        [point.key, point.predictor, f"{point.measured_ms:.3f}", f"{point.predicted_ms:.3f}", f"{point.error:+.1%}"]
        for point in points
    ]
    return Table(head=["network", "by", "measured, ms", "predicted, ms", "error"], rows=rows)


def block_times(table: LatencyTable, blocks: Blocks) -> Figure:
    """Plot the time that each block adds to a network, by path."""
    values, standalone = table.values_ms(table.standalone_ms), table.standalone_ms
    corrected = table.values_kind == "corrected"
    traces = [
        bars(
            [values[key] for key in keys],
            [plain(key) for key in keys],
            name=heading,
            orientation="h",
            marker={"color": colour(blocks.look[keys[0]])},
            text=[_block_text(key, values, standalone, blocks) for key in keys],
            textposition="none",
            hoverinfo="text",
        )
        for heading, keys in blocks.groups.items()
    ]
    if corrected:
        traces.append(_standalone_marks(blocks, standalone))
    count = len(blocks.facts)
    reading = "Bar: time added to a network; mark: standalone time." if corrected else "Bar: standalone time."
    return Figure(
        title="Time of every block",
        caption="By stride of the output, from the large features to the heads; within a stride by stage. "
        f"{reading} The table of all blocks has the numbers.",
        plot=make_plot(
            traces,
            x=axis("time a call, ms", rangemode="tozero"),
            y=axis("", type="category", autorange="reversed", tickfont={"size": 10}, dtick=1),
            height=110 + 18 * count,
            barmode="overlay",
        ),
        wide=True,
    )


def _standalone_marks(blocks: Blocks, standalone: dict[str, float]) -> Any:
    return scatter(
        [standalone[key] for key in blocks.facts],
        [plain(key) for key in blocks.facts],
        name="standalone",
        mode="markers",
        marker={"symbol": "line-ns", "size": 11, "line": {"color": SOFT, "width": 2.5}},
        hoverinfo="skip",
    )


def _block_text(key: str, values: dict[str, float], standalone: dict[str, float], blocks: Blocks) -> str:
    return f"{plain(key)}<br>{values[key]:.4f} ms, standalone {standalone[key]:.4f} ms<br>{blocks.describe(key)}"


def shares_by_task(table: LatencyTable, blocks: Blocks) -> dict[str, dict[str, float]]:
    """The share of each group of blocks in the total predicted time of a task's networks, by task and heading."""
    by_task = {}
    for task in _task_looks(table):
        part = shares(table, [network for network in table.networks.values() if network.task == task])
        by_task[task] = {heading: sum(part[key] for key in keys) for heading, keys in blocks.groups.items()}
    return by_task


def correction_by_time(table: LatencyTable, blocks: Blocks) -> Figure:
    """Plot the change of each block by the correction over its standalone time."""
    assert table.correction is not None
    corrected, standalone = table.correction.latency_ms, table.standalone_ms
    change = {key: 100 * (corrected[key] / value - 1) for key, value in standalone.items()}
    text = {
        key: f"{plain(key)}<br>{value:.4f} ms standalone, {corrected[key]:.4f} ms corrected ({change[key]:+.0f}%)"
        for key, value in standalone.items()
    }
    ends = (min(standalone.values()), max(standalone.values()))
    traces = [_line([(ends[0], 0), (ends[1], 0)]), *_block_traces(blocks, standalone, change, text)]
    used = "" if table.values_kind == "corrected" else " It is not used, since it does not predict better."
    return Figure(
        title="What the correction changes",
        caption="Above the line a block costs more inside networks than standalone. The fit cannot separate blocks "
        f"that occur together, so read single marks with care.{used}",
        plot=make_plot(
            traces,
            x=axis("standalone, ms (logarithmic)", type="log", dtick="D2"),
            y=axis("corrected minus standalone, %"),
            height=400,
        ),
    )


def time_by_macs(table: LatencyTable, blocks: Blocks) -> Figure:
    """Plot the standalone time of each block over its multiply-adds."""
    millions = {key: block.macs / 1e6 for key, block in blocks.facts.items() if block is not None and block.macs}
    standalone = {key: value for key, value in table.standalone_ms.items() if key in millions}
    text = {
        key: f"{plain(key)}<br>{millions[key]:.3g} M multiply-adds, {value:.4f} ms<br>"
        f"{millions[key] / value:.3g} G a second"
        for key, value in standalone.items()
    }
    traces, rate = [], ""
    if table.networks:
        ms_per_million = 1e6 * proportion(list(table.networks.values()))
        ends = (min(millions.values()), max(millions.values()))
        traces = [_line([(end, end * ms_per_million) for end in ends])]
        rate = f" The line is the measured networks' mean rate: {1 / ms_per_million:.3g} G multiply-adds a second."
    return Figure(
        title="Time against multiply-adds",
        caption=f"A block far above others with as many multiply-adds uses the device poorly.{rate}",
        plot=make_plot(
            [*traces, *_block_traces(blocks, millions, standalone, text)],
            x=axis("multiply-adds, millions (logarithmic)", type="log", dtick="D2"),
            y=axis("standalone, ms (logarithmic)", type="log", dtick="D2"),
            height=400,
        ),
    )


def _block_traces(blocks: Blocks, x: dict[str, float], y: dict[str, float], text: dict[str, str]) -> list[Any]:
    """A trace for every group of blocks, of those that have a value."""
    traces = []
    for look, (heading, keys) in enumerate(blocks.groups.items()):
        shown = [key for key in keys if key in text]
        mark = {"color": colour(look), "symbol": symbol(look), "size": 8}
        traces.append(
            scatter(
                [x[key] for key in shown],
                [y[key] for key in shown],
                name=heading,
                mode="markers",
                marker=mark,
                text=[text[key] for key in shown],
                hoverinfo="text",
            )
        )
    return [trace for trace in traces if trace.x]


def _line(corners: Sequence[tuple[float, float]]) -> Any:
    """A reference line."""
    x, y = zip(*corners, strict=True)
    return scatter(x, y, mode="lines", line={"color": SOFT, "width": 1.2}, hoverinfo="skip", showlegend=False)


def _area(corners: Sequence[tuple[float, float]]) -> Any:
    """A shaded area."""
    x, y = zip(*corners, strict=True)
    return scatter(
        x, y, mode="lines", line={"width": 0}, fill="toself", fillcolor=BAND, hoverinfo="skip", showlegend=False
    )


def _rounded_range(values: Sequence[float]) -> tuple[float, float]:
    """A range that contains the values with some room, its ends rounded to two digits."""
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(room))
    return math.floor((low - room) / step) * step, math.ceil((high + room) / step) * step


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
