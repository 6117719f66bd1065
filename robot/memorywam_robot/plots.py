"""Bars and lines as SVG that takes its colours from the page's style sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Bar", "Line", "bar_chart", "line_chart", "ticks"]

_WIDTH, _HEIGHT = 520, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 48, 46
_PLOT_WIDTH, _PLOT_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM


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
    parts = _frame(ticks(top), top, y_label)
    slot = _PLOT_WIDTH / max(len(groups), 1)
    width = min(54.0, 0.7 * slot / max(len(series), 1))
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
            parts.append(_text(x + width / 2, y - 6, bar.text, "middle", "value"))
        parts.append(_text(middle, _HEIGHT - _BOTTOM + 20, label, "middle"))
    return _svg(title, [*parts, *_legend(series)])


def line_chart(title: str, lines: Sequence[Line], *, x_label: str, y_label: str) -> str:
    """Return lines over one pair of axes that both begin at 0.

    Args:
        title: Read out to those who cannot see it.
        lines: Drawn in this order.
        x_label: What lies to the right.
        y_label: What goes up, with its unit.
    """
    points = [point for line in lines for point in line.points]
    x_marks = ticks(max((x for x, _ in points), default=1.0), count=8)
    y_marks = ticks(max((y for _, y in points), default=1.0))
    x_end = max(max((x for x, _ in points), default=1.0), 1e-12)
    y_end = y_marks[-1]
    parts = _frame(y_marks, y_end, y_label)
    for mark in x_marks:
        if mark <= x_end:
            x = _LEFT + _PLOT_WIDTH * mark / x_end
            parts.append(_text(x, _HEIGHT - _BOTTOM + 18, _number(mark), "middle"))
    parts.append(_text(_LEFT + _PLOT_WIDTH / 2, _HEIGHT - 8, x_label, "middle", "axis"))
    for index, line in enumerate(lines):
        places = " ".join(
            f"{_LEFT + _PLOT_WIDTH * x / x_end:.1f},{_TOP + _PLOT_HEIGHT * (1 - y / y_end):.1f}"
            for x, y in line.points
        )
        parts.append(
            f'<polyline class="line{index}" points="{places}"><title>{escape(line.name)}</title>'
            "</polyline>"
        )
    return _svg(title, [*parts, *_legend([line.name for line in lines])])


def ticks(top: float, count: int = 5) -> list[float]:
    """Return round marks from 0 up to the first at or above `top`, at most about `count` steps."""
    if top <= 0:
        return [0.0, 1.0]
    rough = top / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * (1 - 1e-9))
    return [step * index for index in range(math.ceil(top / step - 1e-9) + 1)]


def _frame(marks: Sequence[float], top: float, y_label: str) -> list[str]:
    """Return horizontal grid lines with their values, and the label of the upward axis."""
    parts = []
    for mark in marks:
        y = _TOP + _PLOT_HEIGHT * (1 - mark / top)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(_text(_LEFT - 8, y + 4, _number(mark), "end"))
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
        parts.append(_text(x + 17, y + 10, name, "start"))
        x += width + 16
    return parts


def _text(x: float, y: float, text: str, anchor: str, kind: str = "label") -> str:
    """Return one line of text."""
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _number(value: float) -> str:
    """Return a mark without needless digits."""
    return f"{value:g}"


def _svg(title: str, parts: Sequence[str]) -> str:
    """Return the drawing."""
    body = "\n".join(parts)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">\n'
        f"{body}\n</svg>"
    )
