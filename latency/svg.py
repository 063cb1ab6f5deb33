"""Plots as inline SVG text: points or bars on axes with round ticks, and a tooltip on every mark.

For HTML files that must open anywhere and stay small: no script, no plotting package. Marks have one of six colours
that colour-blind readers can distinguish, each with a shape of its own. The colours come from ``STYLE``, so that one
plot works on light and dark pages. Not included, because some hundred marks do not need it: zoom, and automatic
placement of labels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import count

LOOKS = 6
"""Number of colours, each with a shape of its own."""

STYLE = """
:root { --c0: #0072b2; --c1: #c85200; --c2: #00825f; --c3: #aa4499; --c4: #806600; --c5: #4a4f57;
  --ink: #1c2024; --soft: #5b626b; --grid: #e2e5e9; --band: #0072b21f; --paper: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --c0: #5db7ee; --c1: #f59a52; --c2: #35c99c; --c3: #e58fce; --c4: #dcc14a; --c5: #c3c9d1;
    --ink: #e8eaed; --soft: #a6adb6; --grid: #343a42; --band: #5db7ee2b; --paper: #171a1e; } }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif; fill: var(--ink); }
svg.marker { display: inline-block; width: 14px; height: 14px; vertical-align: -2px; }
svg text { font-variant-numeric: tabular-nums; }
svg .soft { fill: var(--soft); }
svg .name { font-size: 11px; paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round; }
svg .grid { stroke: var(--grid); } svg .axis { stroke: var(--soft); }  svg .reference { fill: var(--soft); }
svg .line { stroke: var(--soft); stroke-width: 1.3; fill: none; } svg .area { fill: var(--band); }
.look0 { --look: var(--c0); } .look1 { --look: var(--c1); } .look2 { --look: var(--c2); }
.look3 { --look: var(--c3); } .look4 { --look: var(--c4); } .look5 { --look: var(--c5); }
.neutral { --look: var(--soft); }
svg .mark { fill: var(--look); stroke: var(--paper); stroke-width: 0.8; }
svg .hollow { fill: var(--paper); stroke: var(--look); stroke-width: 1.6; }
svg .faint { opacity: 0.38; }
svg .mark:hover { stroke: var(--ink); stroke-width: 1.6; opacity: 1; }
"""

_WIDTH, _HEIGHT = 440, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 428, 10, 284
"""The plot's area in pixels; the labels of the axes are around it."""
_EDGE, _ROW, _HEADING = 8, 31, 26
"""Bar charts: the left edge of bars, the height of a bar with its text, and the height of a group's heading."""
_SHAPES = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-3.6-3.6h7.2v7.2h-7.2z",
    "M0-4.8 4.6 3.6h-9.2z",
    "M0-5.2 5.2 0 0 5.2-5.2 0z",
    "M0 4.8 4.6-3.6h-9.2z",
    "M-1.8-5.2h3.6v3.4h3.4v3.6h-3.4v3.4h-3.6v-3.4h-3.4v-3.6h3.4z",
)
_MANTISSAS = (1, 2, 5)
"""Ticks are one of these factors times a power of ten."""


def linear_ticks(low: float, high: float, max_ticks: int = 6) -> tuple[float, ...]:
    """Evenly spaced round numbers from at most ``low`` to at least ``high``: at least two, at most ``max_ticks``.

    Args:
        low: the minimum value to cover.
        high: the maximum value to cover.
        max_ticks: at least three, since a range across a round number needs three.
    """
    span = max(high - low, 1e-6 * abs(high)) if low != high else abs(high) or 1.0

    def reach(exponent: int, factor: int) -> range:
        step = _decimal(factor, exponent)
        first, last = math.floor(low / step), math.ceil(high / step)
        return range(first, max(last, first + 1) + 1)

    steps = (
        (exponent, factor) for exponent in count(math.floor(math.log10(span / max_ticks))) for factor in _MANTISSAS
    )
    exponent, factor = next(step for step in steps if len(reach(*step)) <= max_ticks)
    return tuple(_decimal(factor * index, exponent) for index in reach(exponent, factor))


def log_ticks(low: float, high: float, max_ticks: int = 7) -> tuple[float, ...]:
    """1, 2 or 5 times powers of ten from at most ``low`` to at least ``high``, both positive; only powers if many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    fine = [_decimal(factor, exponent) for exponent in range(first - 1, last + 1) for factor in _MANTISSAS]
    begin = max(index for index, tick in enumerate(fine) if tick <= low)
    end = max(begin + 1, min(index for index, tick in enumerate(fine) if tick >= high))
    if end - begin < max_ticks:
        return tuple(fine[begin : end + 1])
    step = math.ceil((last - first) / (max_ticks - 1))
    return tuple(_decimal(1, exponent) for exponent in range(first, last + step, step))


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A scale from its first tick to its last."""

    label: str
    """The label, with the unit."""
    ticks: tuple[float, ...]
    log: bool = False

    @classmethod
    def linear(cls, label: str, values: Sequence[float]) -> "Axis":
        """An axis that covers ``values``."""
        return cls(label=label, ticks=linear_ticks(min(values), max(values)))

    @classmethod
    def logarithmic(cls, label: str, values: Sequence[float]) -> "Axis":
        """An axis that covers ``values``, which are positive."""
        return cls(label=label, ticks=log_ticks(min(values), max(values)), log=True)

    @property
    def ends(self) -> tuple[float, float]:
        return self.ticks[0], self.ticks[-1]

    def part(self, value: float) -> float:
        """The position of ``value``: 0 at the first tick, 1 at the last."""
        low, high = self.ends
        if self.log:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A mark of a scatter plot."""

    x: float
    y: float
    title: str
    """The tooltip."""
    look: int
    """Number of the colour and shape; repeats after ``LOOKS``."""
    style: str = ""
    """"hollow", "faint", or empty for a plain mark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A row of a bar chart; its length is ``value``."""

    name: str
    value: float
    note: str
    """Text at the end of the row: the value with its unit, and remarks."""
    title: str
    """The tooltip."""
    look: int
    reference: float | None = None
    """A value to compare with, drawn as a thin bar below."""


Corners = Sequence[tuple[float, float]]
"""The corners of a line or an area, in the units of the axes."""


def scatter(x: Axis, y: Axis, points: Sequence[Point], *, lines: Sequence[Corners] = (), area: Corners = ()) -> str:
    """Draw a scatter plot; ``lines`` and ``area`` are under the points and clipped at the plot's edge."""
    width, height = _RIGHT - _LEFT, _BOTTOM - _TOP

    def corners(of: Corners) -> str:
        return " ".join(f"{x.part(a) * width:.1f},{(1 - y.part(b)) * height:.1f}" for a, b in of)

    parts = [_horizontal_axis(x, top=_TOP, bottom=_BOTTOM), _vertical_axis(y)]
    parts.append(f'<svg x="{_LEFT}" y="{_TOP}" width="{width}" height="{height}" style="width:{width}px">')
    parts += [f'<polygon class="area" points="{corners(area)}"/>'] if area else []
    parts += [f'<polyline class="line" points="{corners(line)}"/>' for line in lines]
    parts.append("</svg>")
    for point in points:
        left, top = _LEFT + x.part(point.x) * width, _BOTTOM - y.part(point.y) * height
        parts.append(
            f'<path class="{_classes(point.look, point.style)}" transform="translate({left:.1f} {top:.1f})" '
            f'd="{_SHAPES[point.look % LOOKS]}"><title>{escape(point.title)}</title></path>'
        )
    return _image(_HEIGHT, parts, f"{y.label} against {x.label}")


def bars(x: Axis, groups: Sequence[tuple[str, Sequence[Bar]]]) -> str:
    """Draw horizontal bars under the headings of their groups, from the first tick of ``x``, which should be 0."""
    rows, top = [], _TOP
    for heading, group in groups:
        rows.append(f'<text x="{_EDGE}" y="{top + 16}" font-weight="600">{escape(heading)}</text>')
        top += _HEADING
        for bar in group:
            rows.append(_bar(x, bar, top))
            top += _ROW
    parts = [_horizontal_axis(x, top=_TOP, bottom=top, left=_EDGE), *rows]
    return _image(top + _HEIGHT - _BOTTOM, parts, x.label)


def marker(look: int, style: str = "") -> str:
    """Draw the mark of a point, for a legend."""
    shape = f'<path class="{_classes(look, style)}" d="{_SHAPES[look % LOOKS]}"/>'
    return f'<svg class="marker" viewBox="-7 -7 14 14" aria-hidden="true">{shape}</svg>'


def _bar(x: Axis, bar: Bar, top: int) -> str:
    def bar_of(classes: str, value: float, y: int, height: int) -> str:
        width = f"{x.part(value) * (_RIGHT - _EDGE):.1f}"
        return f'<rect class="{classes}" x="{_EDGE}" y="{y}" width="{width}" height="{height}"/>'

    parts = [
        f'<text class="name" x="{_EDGE}" y="{top + 9}">{escape(bar.name)}</text>',
        f'<text class="name" x="{_RIGHT}" y="{top + 9}" text-anchor="end">{escape(bar.note)}</text>',
        bar_of(_classes(bar.look), bar.value, top + 13, 8),
    ]
    if bar.reference is not None:
        parts.append(bar_of("reference", bar.reference, top + 22, 3))
    return f"<g>{''.join(parts)}<title>{escape(bar.title)}</title></g>"


def _horizontal_axis(axis: Axis, *, top: int, bottom: int, left: int = _LEFT) -> str:
    parts = []
    for tick in axis.ticks:
        at = f"{left + axis.part(tick) * (_RIGHT - left):.1f}"
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{top}" y2="{bottom}"/>')
        parts.append(f'<text class="soft" x="{at}" y="{bottom + 18}" text-anchor="middle">{tick:.12g}</text>')
    parts.append(f'<line class="axis" x1="{left}" x2="{_RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    middle = (left + _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{bottom + 39}" text-anchor="middle">{escape(axis.label)}</text>')
    return "".join(parts)


def _vertical_axis(axis: Axis) -> str:
    parts = []
    for tick in axis.ticks:
        at = _BOTTOM - axis.part(tick) * (_BOTTOM - _TOP)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="soft" x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{tick:.12g}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_LEFT}" y1="{_TOP}" y2="{_BOTTOM}"/>')
    middle = (_TOP + _BOTTOM) / 2
    parts.append(
        f'<text transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">{escape(axis.label)}</text>'
    )
    return "".join(parts)


def _image(height: int, parts: Sequence[str], label: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def _classes(look: int, style: str = "") -> str:
    return f"mark look{look % LOOKS} {style}".strip()


def _decimal(mantissa: int, exponent: int) -> float:
    """``mantissa * 10**exponent``, rounded once, so that 0.3 is not 0.30000000000000004."""
    return float(f"{mantissa}e{exponent}")
