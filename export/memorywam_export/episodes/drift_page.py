"""Drift as cards of a page: curves of the error against frames remembered, with their figures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from memorywam_runtime.pages import remark, section, table
from memorywam_runtime.plots import Line, line_chart

__all__ = ["drift_figures"]

Data = Mapping[str, Any]
_SHOWN = (1, 10, 100, 1000)
"""Frames in the table, and the last."""
_SUMMARY = (("actions", "free"), ("actions", "forced"), ("frame", "free"), ("frame", "forced"))
_WORDS = {"actions": "actions", "frame": "newest frame", "latent": "newest latent"}
_SIDES = {
    "free": ("free running", "Each rung carries its own memory, as on a robot."),
    "forced": (
        "teacher forced",
        "Each rung is given the truth's memory before the frame: what it adds in one.",
    ),
}


def drift_figures(data: Data) -> list[str]:
    """Return cards, each a `<section>`, for the body of a page.

    Args:
        data: As `bundle_drift` returns it, or as read back from JSON.
    """
    cards = [
        section(f"{_WORDS[what].capitalize()}, {_SIDES[side][0]}", _chart(data, side, what))
        for what in ("actions", "frame")
        for side in _SIDES
    ]
    parts = dict.fromkeys(part for rung in data["rungs"] for part in rung["free"][-1]["parts"])
    cards += [section(f"All that is kept: {part}", _chart(data, "free", part)) for part in parts]
    text = (
        f"{data['frames']:,} frames of {data['images']} images. The truth is {data['truth']}, fed "
        "the same. Errors are root mean squares over that of what is compared; of keys and values, "
        f"the worst layer's. Growth is fitted from {data['fitted_from']} frames on; at most "
        f"x{data['most_growth_per_decade']:g} a decade holds."
    )
    every = f"<details><summary>every error</summary>{_table(data, _all(data))}</details>"
    body = remark(text) + _table(data, _SUMMARY) + every
    return [*cards, section("Drift", body, wide=True)]


def _chart(data: Data, side: str, what: str) -> str:
    """Return one error of every rung."""
    lines = []
    for rung in data["rungs"]:
        found = [(point["frames"], _error(point, what)) for point in rung[side]]
        shown = [(frames, error) for frames, error in found if error and math.isfinite(error)]
        lines.append(Line(name=rung["rung"], points=shown))
    chart = line_chart(
        f"relative error of {_WORDS.get(what, what)}, {_SIDES[side][0]}, by frames remembered",
        lines,
        x_label="frames remembered (logarithmic)",
        y_label="relative RMS (logarithmic)",
        log=True,
    )
    return remark(_SIDES[side][1]) + chart


def _all(data: Data) -> list[tuple[str, str]]:
    """Return every error that there is, and on which side."""
    parts = dict.fromkeys(part for rung in data["rungs"] for part in rung["free"][-1]["parts"])
    sides = [(what, side) for what in _WORDS for side in _SIDES]
    return [*sides, *((part, "free") for part in parts)]


def _table(data: Data, errors: Sequence[tuple[str, str]]) -> str:
    """Return the errors at some frames, with what they grow by."""
    frames = [*(n for n in _SHOWN if n < data["frames"]), data["frames"]]
    rows: list[Sequence[object]] = []
    for what, side in errors:
        for rung in data["rungs"]:
            by_frame = {point["frames"]: _error(point, what) for point in rung[side]}
            times = rung["growth_per_decade"].get(what) if side == "free" else None
            rows.append(
                (
                    f"{_WORDS.get(what, what)}, {_SIDES[side][0]}: {rung['rung']}",
                    *(_figure(by_frame.get(n)) for n in frames),
                    "" if times is None else f"x{float(times):.2f}",
                )
            )
    return table(("error: rung", *(f"{n:,}" for n in frames), "a decade"), rows)


def _error(point: Data, what: str) -> float | None:
    """Return a relative RMS, which JSON may hold as text; None where there is none."""
    found = point[what] if what in _WORDS else point["parts"].get(what)
    return None if found is None else float(found["rel_rms"])


def _figure(value: float | None) -> str:
    """Return a small number in two digits."""
    return "" if value is None else f"{value:.1e}"
