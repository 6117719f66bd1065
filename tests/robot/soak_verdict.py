"""What a soak's samples say: a slope with its 95 % interval against a limit that has a reason."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from memorywam_runtime.pages import document, remark, section
from memorywam_runtime.pages import table as html_table
from memorywam_runtime.plots import Line, line_chart
from memorywam_runtime.report import format_table

WARM_SHARE, WARM_MINUTES = 0.2, 3.0
"""Left out at the start, the lesser of both: allocators and caches fill."""
SLOPES = {
    "policy_mib": (32.0, "MiB/h", "a shift of 8 h may take a quarter of a GiB"),
    "supervisor_mib": (4.0, "MiB/h", "its memory is locked and its tick allocates nothing"),
    "viewer_mib": (64.0, "MiB/h", "the page's server may buffer; it is niced and may be killed"),
    "late_p99_ms": (2.0, "ms/h", "a tick of 20 ms must not lose a tenth of itself an hour"),
}
"""By figure: the most that its slope may be, and why."""
LEAST_GROWTH = {"late_p99_ms": 0.5}
"""Less than this over a whole soak is no growth: the p99 of a sample of 2 s is its worst tick, and
what else the machine does moves that by a few tenths of a millisecond."""
HANDLES = ("fds", "threads", "shared_maps", "temp_entries", "supervisor_fds", "viewer_fds")
"""As many at the end as at the start: one more an episode is a leak."""
_LEAST = 8
"""Samples for a slope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One figure's."""

    what: str
    found: str
    limit: str
    answer: str
    """holds, undecided (too short a soak: the interval reaches over the limit, or less was seen
    than `LEAST_GROWTH`), or FAILS."""

    def report(self) -> dict[str, str]:
        """Return it for machines."""
        return {name: getattr(self, name) for name in self.__slots__}


def slope_per_hour(minutes: Any, values: Any) -> tuple[float, float, float]:
    """Return the median slope between samples, and its 95 % interval: Sen's, as Kendall's tau has.

    A few samples that are far off, as when the machine was busy elsewhere, do not move it.
    """
    x, y = np.asarray(minutes, float) / 60, np.asarray(values, float)
    first, second = np.triu_indices(len(x), 1)
    slopes = np.sort((y[second] - y[first]) / (x[second] - x[first]))
    count = len(x)
    spread = 1.96 * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, math.floor((len(slopes) - spread) / 2))
    high = min(len(slopes) - 1, math.ceil((len(slopes) + spread) / 2))
    return float(np.median(slopes)), float(slopes[low]), float(slopes[high])


def judged(samples: list[dict[str, float]], left: dict[str, list[Any]]) -> list[Verdict]:
    """Return a verdict for every figure that must not grow, and one for what was left behind."""
    warm = min(WARM_MINUTES, WARM_SHARE * samples[-1]["minutes"])
    kept = [sample for sample in samples if sample["minutes"] >= warm]
    found = [_slope(kept, name) for name in SLOPES if name in kept[0]]
    found += [_handles(kept, name) for name in HANDLES if name in kept[0]]
    found.append(_aborts(samples))
    names = [f"{kind} {name}" for kind, those in left.items() for name in those]
    found.append(
        Verdict(
            what="left behind",
            found="; ".join(names) or "nothing",
            limit="nothing",
            answer="FAILS" if names else "holds",
        )
    )
    return found


def _aborts(samples: list[dict[str, float]]) -> Verdict:
    """Compare the halves: a busy machine aborts episodes from the start, a leak later and later."""
    first, last = samples[len(samples) // 2], samples[-1]
    early, late = first["aborted"], last["aborted"] - first["aborted"]
    most = early + 2 * math.sqrt(early + 1)
    failed = late > most or not last["episodes"]
    return Verdict(
        what="aborted episodes",
        found=f"{early:.0f} in the first half, {late:.0f} in the second, of {last['episodes']:.0f}",
        limit=f"{most:.1f} in the second: two standard deviations of a count",
        answer="FAILS" if failed else "holds",
    )


def _slope(samples: list[dict[str, float]], name: str) -> Verdict:
    limit, unit, why = SLOPES[name]
    told = f"{limit:g} {unit}: {why}"
    points = [(one["minutes"], one[name]) for one in samples if math.isfinite(one[name])]
    if len(points) < _LEAST:
        found = f"{len(points)} samples"
        return Verdict(what=name, found=found, limit=told, answer="undecided")
    middle, low, high = slope_per_hour(*zip(*points, strict=True))
    growth = middle * (points[-1][0] - points[0][0]) / 60
    answer = "holds" if high <= limit else "undecided"
    if low > limit and growth >= LEAST_GROWTH.get(name, 0.0):
        answer = "FAILS"
    found = f"{middle:+.2f} ({low:+.2f} to {high:+.2f}) {unit}, {points[-1][1]:.1f} at the end"
    return Verdict(what=name, found=found, limit=told, answer=answer)


def _handles(samples: list[dict[str, float]], name: str) -> Verdict:
    """Compare the most in the first third with the least in the last: episodes open and close."""
    third = max(1, len(samples) // 3)
    first = max(one[name] for one in samples[:third])
    last = min(one[name] for one in samples[-third:])
    return Verdict(
        what=name,
        found=f"at most {first:.0f} in the first third, at least {last:.0f} in the last",
        limit="no more",
        answer="FAILS" if last > first else "holds",
    )


def table(verdicts: list[Verdict]) -> str:
    """Return the verdicts as text."""
    return format_table(
        ("figure", "found", "limit", "answer"),
        [(one.what, one.found, one.limit, one.answer) for one in verdicts],
    )


def page(samples: list[dict[str, float]], verdicts: list[Verdict], about: dict[str, Any]) -> str:
    """Return one HTML page."""
    bad = [one.what for one in verdicts if one.answer == "FAILS"]
    last = samples[-1]
    answer = f"grows: {', '.join(bad)}" if bad else "nothing grows"
    kind = "verdict bad" if bad else "verdict"
    rows = [(one.what, one.found, one.limit, one.answer) for one in verdicts]
    cards = [
        section("Verdicts", html_table(("figure", "found", "limit", "answer"), rows), wide=True),
        _card(samples, "Memory", "resident, MiB", "policy_mib", "supervisor_mib", "viewer_mib"),
        _card(samples, "Ticks", "late, p99 of a sample, ms", "late_p99_ms"),
        _card(samples, "Handles", "open", "fds", "threads", "supervisor_fds", "viewer_fds"),
        _card(samples, "Chunks", "so far", "chunks", "chunks_late", "chunks_replaced"),
        _card(samples, "Camera frames", "so far", "frames_dropped", "frames_doubtful"),
        _card(samples, "Episodes", "so far", "episodes", "successes"),
    ]
    told = (
        f"{last['episodes']:.0f} episodes in {last['minutes']:.0f} minutes, one process; "
        f"{about['load']}"
    )
    return document(
        "memorywam soak",
        f"<h1>Episode after episode</h1>{remark(told)}"
        f'<div class="{kind}">{answer}</div><div class="cards">{"".join(cards)}</div>',
    )


def _card(samples: list[dict[str, float]], title: str, y_label: str, *names: str) -> str:
    lines = [
        Line(
            name=name,
            points=[(one["minutes"], one[name]) for one in samples if math.isfinite(one[name])],
        )
        for name in names
        if name in samples[0]
    ]
    return section(title, line_chart(title, lines, x_label="minutes", y_label=y_label))
