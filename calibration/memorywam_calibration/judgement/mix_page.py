"""The mix as cards of a page: the front of cost against error, and the products that matter."""

from collections.abc import Mapping
from typing import Any

from memorywam_runtime.pages import remark, section, table
from memorywam_runtime.plots import Line, line_chart
from memorywam_runtime.strips import Strip, strip_chart

__all__ = ["mix_figures"]

Data = Mapping[str, Any]
_SHOWN = 30
"""Products, largest error first."""
_UNITS = {"bytes": ("MB", 1e6), "time": ("ms a tick", 1.0)}


def mix_figures(data: Data) -> list[str]:
    """Return cards, each a `<section>`.

    Args:
        data: As `Mix.data` returns it, or as read back from JSON.
    """
    return [
        section("Cost against error", _front(data)),
        section("One product at a time", _sensitivities(data), wide=True),
    ]


def _front(data: Data) -> str:
    """Return the best assignments for some budgets."""
    unit, size = _UNITS[data["cost"]]
    points = [(one["cost"] / size, one["error"]) for one in data["front"]]
    own = (data["chosen_cost"] / size, data["expected_error"])
    chart = line_chart(
        f"expected error of actions against {data['cost']} of products",
        [
            Line(name="best for a budget", points=points),
            Line(name="this bundle", points=[(own[0], 0.0), own]),
        ],
        x_label=f"{unit} of the products that may be quantized",
        y_label="expected RMS of normalized actions",
    )
    rows = [
        (
            f"{one['cost'] / size:.4g}",
            f"{one['cost'] / data['wide_cost']:.2f}",
            f"{one['error']:.2g}",
            ", ".join(f"{count} {name}" for name, count in sorted(one["recipes"].items()))
            or "all wide",
        )
        for one in data["front"]
    ]
    text = "Errors of products are taken as independent; every check above is of the whole bundle."
    headers = (unit, "of wide", "expected error", "recipes")
    return remark(text) + chart + table(headers, rows)


def _sensitivities(data: Data) -> str:
    """Return what each product does alone: measured, and by the gradient."""
    shown = [one for one in data["sensitivities"] if one["error"] > 0][:_SHOWN]
    if not shown:
        return remark("No product moves the actions.")
    strips = [
        Strip(
            name=f"{one['name'].removeprefix('mixtures.')}, {one['recipe']}",
            low=min(one["error"], one["score"] or one["error"]),
            high=max(one["error"], one["score"] or one["error"]),
            mark=one["error"],
            text=data["chosen"].get(one["name"], "wide"),
        )
        for one in shown
    ]
    text = (
        "RMS of normalized actions when one product alone is rounded: the mark; the bar goes from "
        "there to what the gradient says. Behind it, what the product got."
    )
    chart = strip_chart("sensitivity", strips, x_label="RMS of normalized actions")
    return remark(text) + chart
