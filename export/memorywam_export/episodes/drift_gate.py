"""Whether an error grows with the frames remembered: slope and end of each curve, judged."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Any

from memorywam_export.episodes.drift import DriftCurve, DriftPoint
from memorywam_export.parity.parity_report import Check
from memorywam_export.parity.trace_report import Difference

__all__ = [
    "FITTED_FROM",
    "GROWTH_PER_DECADE",
    "LEAST_FRAMES",
    "Trend",
    "curve_data",
    "drift_checks",
    "growth_per_decade",
    "trends",
]

FITTED_FROM = 10
"""Frames. Before, the window and the encoder's past are still filling."""
LEAST_FRAMES = 200
"""Of a curve that is judged. Over 100 frames the error of the demo's actions seemed to grow 1.7
times a decade by luck, over 200 by 1.2 at most, over 1,000 not at all."""
GROWTH_PER_DECADE = 1.5
"""Times that an error may grow from n to 10 n frames. Errors that add up by chance grow as the root
of their number, 3.2 times, and those of a leak 10 times. Measured over 1,000 frames of the tiny
model and of the demo's, in float32, bfloat16 and float16, by torch and ONNX Runtime: 0.87 to 1.05;
over 200 frames of the demo's 0.85 to 1.18."""
_EARLY_UNTIL = 30
"""Frames: the worst error from 10 to here says how large it is at the start. That of one frame
alone is a matter of luck: after 100 frames of the demo the actions of every rung were further off
than after 50 and after 200, by up to 2.3 times."""
_END_FACTOR = 2.0
"""Times that error that the last may be."""
_FLOOR = {"fp64": 2.0**-24, "fp32": 2.0**-24, "bf16": 2.0**-8, "fp16": 2.0**-11}
"""By precision, relative: half a unit in the last place. No value is closer to the truth than
that but by chance, so what lies below is not told apart. Of float64 too, float32's, in which a
session gives its actions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """How one error of a rung goes on; all relative RMS."""

    what: str
    """anchors, window, gists or actions."""
    growth: float
    """Times a decade of frames, by the line through the logarithms."""
    early: float
    """The worst after 10 to 30 frames."""
    last: float
    """After all of them."""
    limit: float
    """Of the last."""
    forced: float
    """Teacher forced, at the end: of the newest frame's keys and values, or of the actions."""

    @property
    def ok(self) -> bool:
        """Does the error stay where it was?"""
        return self.growth <= GROWTH_PER_DECADE and self.last <= self.limit


def growth_per_decade(points: Sequence[tuple[int, float]], floor: float = 0.0) -> float:
    """Return how many times an error grows in a decade of frames.

    The slope of the line through (log10 frames, log10 error), as a factor. Formula: the median of
    the slopes between all pairs of points (Sen, JASA 63 (1968) 1379), which a frame that happens to
    be twice as far off as its neighbours does not turn.

    Args:
        points: Frames, ascending, and error; at least two.
        floor: Errors below count as this.
    """
    if not all(math.isfinite(error) for _, error in points):
        return math.inf
    least = max(floor, 1e-300)
    logs = [(math.log10(frames), math.log10(max(error, least))) for frames, error in points]
    slopes = [(up[1] - low[1]) / (up[0] - low[0]) for low, up in combinations(logs, 2)]
    return float(10 ** median(slopes))


def trends(curve: DriftCurve, floor: float | None = None) -> list[Trend]:
    """Return how each error of a rung goes on, each side with its own memory.

    Args:
        curve: Of at least `LEAST_FRAMES` frames.
        floor: Errors below are not told apart; half a unit in the precision's last place by
            default.
    """
    floor = _FLOOR[curve.precision] if floor is None else floor
    found = []
    for what in (*curve.free[-1].parts, "actions"):
        points = [
            (point.frames, _error(point, what).rel_rms)
            for point in curve.free
            if point.frames >= FITTED_FROM
        ]
        early = max(error for frames, error in points if frames <= _EARLY_UNTIL)
        last = points[-1][1]
        end = curve.forced[-1]
        found.append(
            Trend(
                what=what,
                growth=growth_per_decade(points, floor),
                early=early,
                last=last,
                limit=_END_FACTOR * early + floor,
                forced=(end.actions if what == "actions" else end.frame).rel_rms,
            )
        )
    return found


def drift_checks(curves: Sequence[DriftCurve], floor: float | None = None) -> list[Check]:
    """Judge every error of the rungs.

    Args:
        curves: Of at least `LEAST_FRAMES` frames.
        floor: As `trends` takes it.
    """
    return [
        Check(
            rung=curve.name,
            what=f"drift of {trend.what} over {curve.free[-1].frames} frames, relative RMS",
            max_abs=trend.last,
            tolerance=trend.limit,
            worst=f"x{trend.growth:.2f} a decade, at most x{GROWTH_PER_DECADE:g}; from "
            f"{FITTED_FROM} to {_EARLY_UNTIL} {trend.early:.2g}, teacher forced {trend.forced:.2g}",
            ok=trend.ok,
        )
        for curve in curves
        for trend in trends(curve, floor)
    ]


def curve_data(curve: DriftCurve, floor: float | None = None) -> dict[str, Any]:
    """Return a curve for machines.

    Args:
        curve: Of at least `LEAST_FRAMES` frames.
        floor: As `trends` takes it.
    """
    return {
        "rung": curve.name,
        "precision": curve.precision,
        "free": [_point_data(point) for point in curve.free],
        "forced": [_point_data(point) for point in curve.forced],
        "swapped": [
            {"frames": point.frames, **_figures({"actions": point.actions})}
            for point in curve.swapped
        ],
        "growth_per_decade": {trend.what: trend.growth for trend in trends(curve, floor)},
    }


def _error(point: DriftPoint, what: str) -> Difference:
    """Return one of a point's errors."""
    return point.actions if what == "actions" else point.parts[what]


def _point_data(point: DriftPoint) -> dict[str, Any]:
    """Return a checkpoint for machines."""
    single = {"latent": point.latent, "frame": point.frame, "actions": point.actions}
    return {
        "frames": point.frames,
        **_figures(single),
        "parts": _figures(point.parts),
        "layers": _figures(point.layers),
    }


def _figures(tensors: Mapping[str, Difference]) -> dict[str, Any]:
    """Return errors by tensor for machines."""
    return {
        name: {"rel_rms": one.rel_rms, "max_abs": one.max_abs, "worst": one.worst}
        for name, one in tensors.items()
    }
