"""Strips: one row a name, each a bar on one shared logarithmic axis, as SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from memorywam_runtime.plots import svg_text

__all__ = ["Strip", "strip_chart"]

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 1040, 430, 90, 30, 19
_PLOT = _WIDTH - _LEFT - _RIGHT


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """One row: a bar between two values, a mark, and what stands behind it."""

    name: str
    low: float
    """All values above 0."""
    high: float
    mark: float | None = None
    text: str = ""


def strip_chart(title: str, strips: Sequence[Strip], *, x_label: str) -> str:
    """Return the rows in their order.

    Args:
        title: Read out to those who cannot see it.
        strips: At least one.
        x_label: What the axis means.
    """
    values = [value for strip in strips for value in (strip.low, strip.high, strip.mark) if value]
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    last = max(last, first + 1)

    def place(value: float) -> float:
        return _LEFT + _PLOT * (math.log10(value) - first) / (last - first)

    height = _TOP + _ROW * len(strips) + 34
    bottom = _TOP + _ROW * len(strips)
    parts = []
    for power in range(first, last + 1):
        x = place(10.0**power)
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP - 6}V{bottom}"/>')
        parts.append(svg_text(x, _TOP - 12, f"{10.0**power:g}", "middle", ""))
    for row, strip in enumerate(strips):
        y = _TOP + _ROW * row
        parts.append(svg_text(_LEFT - 8, y + 13, strip.name, "end", ""))
        left, right = place(strip.low), place(strip.high)
        parts.append(
            f'<rect class="fill0" x="{left:.1f}" y="{y + 3}" width="{max(right - left, 2):.1f}" '
            f'height="{_ROW - 8}" rx="2"><title>{escape(strip.name)}: {strip.low:.3g} to '
            f"{strip.high:.3g}</title></rect>"
        )
        if strip.mark:
            parts.append(
                f'<rect class="fill1" x="{place(strip.mark) - 1.5:.1f}" y="{y + 1}" width="3" '
                f'height="{_ROW - 4}"/>'
            )
        parts.append(svg_text(_WIDTH - _RIGHT + 8, y + 13, strip.text, "start", "value"))
    parts.append(svg_text(_LEFT + _PLOT / 2, height - 8, x_label, "middle", ""))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        + "".join(parts)
        + "</svg>"
    )
