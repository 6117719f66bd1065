"""The cards of a run's page about deadlines: the rate kept, how late, and each one missed."""

from collections.abc import Sequence

from memorywam_robot.summary_report import (
    ArmTimes,
    EpisodeReport,
    MissReport,
    RunReport,
    TickTimes,
)
from memorywam_runtime.pages import remark, section, table

__all__ = ["misses_section", "ticks_section"]

_LATE_SHARE, _LATE_MOST_SHARE = 0.10, 0.50
"""Of a tick's period: the budget of 99 of 100, and of each."""
_MOST_MISSES = 60


def ticks_section(report: RunReport) -> str:
    """Return how late ticks came, in shares of their period, and the rate that they kept."""
    told = [("loop", report.timing.tick), ("arms", report.timing.supervisor)]
    rows = [_late(name, times) for name, times in told if times is not None]
    if not rows:
        return ""
    text = (
        f"Budget: {_LATE_SHARE:.0%} of a period for 99 of 100, "
        f"{_LATE_MOST_SHARE:.0%} for each; a period that is over is skipped whole."
    )
    headers = ("process", "p50", "p99", "most", "skipped", "within budget")
    paces = [(one.seed, f"{one.kept_hz:.2f}", _tick(one)) for one in report.episodes if one.kept_hz]
    kept = table(("seed", "rate kept, Hz", "worst tick, ms"), paces) if paces else ""
    return section("How late ticks came", remark(text) + table(headers, rows) + kept)


def _tick(episode: EpisodeReport) -> str:
    return "" if episode.worst_tick_ms is None else f"{episode.worst_tick_ms:.1f}"


def _late(name: str, times: TickTimes | ArmTimes) -> Sequence[object]:
    period = times.period_ms

    def cell(late_ms: float) -> str:
        return f"{late_ms:.2f} ms" + (f" ({late_ms / period:.1%})" if period else "")

    verdict = ""
    if period:
        is_good = times.late_p99_ms <= _LATE_SHARE * period
        is_good &= times.late_max_ms <= _LATE_MOST_SHARE * period
        verdict = "yes" if is_good else "NO"
    cells = (cell(times.late_p50_ms), cell(times.late_p99_ms), cell(times.late_max_ms))
    return (name, *cells, times.num_skipped, verdict)


def misses_section(report: RunReport) -> str:
    """Return each deadline that was missed; pauses at seams that were planned are left out."""
    num_planned = 0 if report.load is None else report.load.num_bridged
    every = [(one.seed, miss) for one in report.episodes for miss in one.misses]
    missed = [(seed, miss) for seed, miss in every if not _is_planned(miss, num_planned)]
    if not missed:
        return ""
    rows: list[Sequence[object]] = [
        (seed, miss.step, f"{miss.since_ms / 1e3:.2f}", miss.what, miss.num_steps)
        for seed, miss in missed[:_MOST_MISSES]
    ]
    more = len(missed) - len(rows)
    notes = [f"{more} more are in the JSON."] if more else []
    if num_not_kept := sum(one.misses_not_kept for one in report.episodes):
        notes.append(f"{num_not_kept} later ones were counted only.")
    if planned := len(every) - len(missed):
        notes.append(f"{planned} pauses of at most {num_planned} steps were planned.")
    note = remark(" ".join(notes)) if notes else ""
    headers = ("seed", "step", "after, s", "what", "steps")
    return section("Deadlines that were missed", table(headers, rows) + note, wide=True)


def _is_planned(miss: MissReport, num_planned: int) -> bool:
    return miss.what == "bridged" and miss.num_steps <= num_planned
