"""Bars and lines as SVG that takes its colours from the page's style sheet."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Bar", "Line", "bar_chart", "line_chart", "svg_text", "ticks"]

_WIDTH, _HEIGHT = 520, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 48, 46
_PLOT_WIDTH, _PLOT_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
_MOST_MARKS = 8
"""On a logarithmic axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar: its height and what stands on it."""

    value: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line through points (x, y)."""

    name: str
    points: Sequence[tuple[float, float]]


def bar_chart(
    title: str,
    series: Sequence[str],
    groups: Sequence[tuple[str, Sequence[Bar]]],
    *,
    y_label: str,
    top: float,
) -> str:
    """Return groups of bars side by side.

    Args:
        title: Read out to those who cannot see it.
        series: Names of the bars of each group, in order.
        groups: Label and bars; as many as `series`.
        y_label: What the height means.
        top: Highest value of the axis.
    """
    parts = _frame([(mark / top, _number(mark)) for mark in ticks(top) if mark <= top], y_label)
    slot = _PLOT_WIDTH / max(len(groups), 1)
    width = min(54.0, 0.85 * slot / max(len(series), 1))
    for index, (label, bars) in enumerate(groups):
        middle = _LEFT + slot * (index + 0.5)
        for place, bar in enumerate(bars):
            x = middle + (place - len(bars) / 2) * width
            height = max(_PLOT_HEIGHT * bar.value / top, 1.5)
            y = _TOP + _PLOT_HEIGHT - height
            parts.append(
                f'<rect class="fill{place}" x="{x + 3:.1f}" y="{y:.1f}" width="{width - 6:.1f}" '
                f'height="{height:.1f}" rx="3"><title>{escape(series[place])}, {escape(label)}: '
                f"{escape(bar.text)}</title></rect>"
            )
            parts.append(svg_text(x + width / 2, y - 6, bar.text, "middle", "value"))
        parts.append(svg_text(middle, _HEIGHT - _BOTTOM + 20, label, "middle"))
    return _svg(title, [*parts, *_legend(series)])


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    log: bool = False,
) -> str:
    """Return lines over one pair of axes: both begin at 0, or both are logarithmic.

    Args:
        title: Read out to those who cannot see it.
        lines: Drawn in this order.
        x_label: What lies to the right.
        y_label: What goes up, with its unit.
        log: Draw logarithms; points at 0 or below are left out. Each point gets a dot.
    """
    if log:
        lines = [
            Line(name=line.name, points=[p for p in line.points if min(p) > 0]) for line in lines
        ]
    points = [point for line in lines for point in line.points]
    across = _log_axis([x for x, _ in points]) if log else _axis([x for x, _ in points], count=8)
    up = (
        _log_axis([y for _, y in points], round_up=True)
        if log
        else _axis([y for _, y in points], round_up=True)
    )
    marks = [(up.place(mark), _number(mark)) for mark in up.marks]
    parts = _frame(marks, y_label)
    for mark in across.marks:
        x = _LEFT + _PLOT_WIDTH * across.place(mark)
        parts.append(svg_text(x, _HEIGHT - _BOTTOM + 18, _number(mark), "middle"))
    parts.append(svg_text(_LEFT + _PLOT_WIDTH / 2, _HEIGHT - 8, x_label, "middle", "axis"))
    for index, line in enumerate(lines):
        places = [
            (_LEFT + _PLOT_WIDTH * across.place(x), _TOP + _PLOT_HEIGHT * (1 - up.place(y)))
            for x, y in line.points
        ]
        told = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(
            f'<polyline class="line{index}" points="{told}"><title>{escape(line.name)}</title>'
            "</polyline>"
        )
        for (x, y), (at, value) in zip(places if log else (), line.points, strict=False):
            parts.append(
                f'<circle class="fill{index}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>'
                f"{escape(line.name)}, {at:g}: {value:.4g}</title></circle>"
            )
    return _svg(title, [*parts, *_legend([line.name for line in lines])])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """Marks, and where a value lies between the ends."""

    marks: Sequence[float]
    place: Callable[[float], float]
    """Value to 0 at the start and 1 at the end."""


def _axis(values: Sequence[float], count: int = 5, *, round_up: bool = False) -> _Axis:
    """Return an axis from 0 to the largest value, or to the mark above it."""
    top = max(values, default=1.0)
    marks = ticks(top, count)
    end = marks[-1] if round_up else max(top, 1e-12)
    return _Axis(marks=[mark for mark in marks if mark <= end], place=lambda value: value / end)


def _log_axis(values: Sequence[float], *, round_up: bool = False) -> _Axis:
    """Return a logarithmic axis from the mark at or below the least value to the largest value.

    Or to the mark above that.

    Marks are powers of ten, and between them 2 and 5 where the axis has less than two of those.
    """
    low, high = min(values, default=1.0), max(values, default=10.0)
    scales = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    wide = high / low > 100 * (1 + 1e-9)
    fine = [factor * 10.0**scale for scale in scales for factor in ((1,) if wide else (1, 2, 5))]
    first = max((mark for mark in fine if mark <= low * (1 + 1e-9)), default=fine[0])
    last = high
    if round_up:
        last = min((mark for mark in fine if mark >= high * (1 - 1e-9)), default=fine[-1])
    if last <= first:
        last = 10 * first
    span = math.log(last / first)
    marks = [mark for mark in fine if first <= mark <= last]
    marks = marks[:: math.ceil(len(marks) / _MOST_MARKS)]  # as many as there is room for
    return _Axis(marks=marks, place=lambda value: math.log(value / first) / span)


def ticks(top: float, count: int = 5) -> list[float]:
    """Return round marks from 0 up to the first at or above `top`, at most about `count` steps."""
    if top <= 0:
        return [0.0, 1.0]
    rough = top / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * (1 - 1e-9))
    return [step * index for index in range(math.ceil(top / step - 1e-9) + 1)]


def _frame(marks: Sequence[tuple[float, str]], y_label: str) -> list[str]:
    """Return horizontal grid lines with their values, and the label of the upward axis."""
    parts = []
    for place, text in marks:
        y = _TOP + _PLOT_HEIGHT * (1 - place)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(svg_text(_LEFT - 8, y + 4, text, "end"))
    x, y = 14, _TOP + _PLOT_HEIGHT / 2
    parts.append(
        f'<text class="axis" transform="translate({x} {y:.1f}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )
    return parts


def _legend(names: Sequence[str]) -> list[str]:
    """Return coloured squares with names, in rows above the plot."""
    parts, x, y = [], float(_LEFT), 6
    for index, name in enumerate(names):
        width = 17 + 7.6 * len(name)
        if x > _LEFT and x + width > _WIDTH - _RIGHT:
            x, y = float(_LEFT), y + 18
        parts.append(
            f'<rect class="fill{index}" x="{x:.1f}" y="{y}" width="11" height="11" rx="2"/>'
        )
        parts.append(svg_text(x + 17, y + 10, name, "start"))
        x += width + 16
    return parts


def svg_text(x: float, y: float, text: str, anchor: str, kind: str = "label") -> str:
    """Return one line of text, in a class of the style sheet unless `kind` is empty."""
    chosen = f' class="{kind}"' if kind else ""
    return f'<text{chosen} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _number(value: float) -> str:
    """Return a mark without needless digits."""
    if value >= 1000:
        return f"{value / 1000:g}k"
    digits, _, power = f"{value:e}".partition("e")
    return min(f"{value:g}", f"{float(digits):g}e{int(power)}", key=len)


def _svg(title: str, parts: Sequence[str]) -> str:
    """Return the drawing."""
    body = "\n".join(parts)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">\n'
        f"{body}\n</svg>"
    )
