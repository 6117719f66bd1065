"""The cards of a run's page: each an HTML section, or nothing where there is nothing to say."""

import math
from collections.abc import Sequence
from html import escape
from statistics import median

import numpy as np

from memorywam_robot.summary_report import EpisodeReport, RunReport
from memorywam_runtime.pages import remark, section, table
from memorywam_runtime.plots import Line, line_chart

__all__ = [
    "cameras_section",
    "chunks_section",
    "episodes_section",
    "instructions_section",
    "memory_section",
    "reasons_section",
    "seams_section",
    "stages_section",
    "success_interval",
    "success_text",
    "times_section",
]

_Z = 1.959964
"""Of 95 in 100."""
_MOST_POINTS = 400
_MOST_REASONS = 60


def success_interval(num_good: int, count: int) -> tuple[float, float]:
    """Return Wilson's interval of 95 in 100 for a share: it holds for few episodes, or none."""
    if not count:
        return 0.0, 1.0
    share, weight = num_good / count, _Z**2 / count
    middle = (share + weight / 2) / (1 + weight)
    half = _Z * math.sqrt(share * (1 - share) / count + weight / (4 * count)) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)


def success_text(report: RunReport) -> str:
    """Return the title, the verdict and what ran."""
    judged = [one.success for one in report.episodes if one.success is not None]
    aborted = [one for one in report.episodes if one.aborted]
    good = sum(judged)
    if judged:
        low, high = success_interval(good, len(judged))
        told = f"{good} of {len(judged)} succeeded: {low:.0%} to {high:.0%} (95 in 100)"
    else:
        told = f"{len(report.episodes)} episodes, judged by nobody"
    kind = " bad" if aborted or (judged and not good) else ""
    stopped = f"; {len(aborted)} aborted" if aborted else ""
    what = (
        f"{report.bundle} on {report.robot} by {report.backend}, "
        f"{'making chunks while the arms moved' if report.is_async else 'one thing at a time'}."
    )
    return (
        f'<h1>Run</h1>\n{remark(what)}\n<div class="verdict{kind}">{escape(told + stopped)}</div>'
    )


def episodes_section(report: RunReport) -> str:
    """Return a row for each episode."""
    rows: list[Sequence[object]] = [
        (
            one.seed,
            {None: "", True: "yes", False: "no"}[one.success],
            one.num_frames,
            one.num_steps,
            f"{one.seconds:.1f}",
            *([one.limited] if report.is_async else []),
            one.aborted or one.remark,
        )
        for one in report.episodes
    ]
    limited = ("limited",) if report.is_async else ()
    headers = ("seed", "success", "frames", "steps", "seconds", *limited, "remark")
    return section("Episodes", table(headers, rows), wide=True)


def memory_section(report: RunReport) -> str:
    """Return what memory got, by episode."""
    if not report.is_async:
        return ""
    rows = [
        (
            one.seed,
            one.num_frames,
            "" if one.memory_quality is None else f"{one.memory_quality:.3f}",
            one.slots_filled,
            one.slots_missing,
            one.doubtful,
            one.holds,
            f"{one.held_ms:.0f}",
            f"{one.worst_skew_ms:.1f}",
        )
        for one in report.episodes
    ]
    headers = (
        "seed", "frames", "quality", "filled", "missing", "doubtful", "holds", "held, ms",
        "skew, ms",
    )  # fmt: skip
    text = (
        "Quality: the share of images in memory that are their own; the others repeat a "
        "neighbour. Doubtful images were kept out."
    )
    return section("Memory", remark(text) + table(headers, rows), wide=True)


def chunks_section(report: RunReport) -> str:
    """Return what became of chunks, by episode."""
    if not report.is_async:
        return ""
    rows = [
        (
            one.seed,
            one.chunks,
            one.chunks_warned,
            one.chunks_dropped,
            one.chunks_lost,
            one.chunks_replaced,
            one.chunks_not_asked,
            one.bridged,
            one.skipped,
            one.delayed_most,
        )
        for one in report.episodes
    ]
    headers = (
        "seed", "in force", "warned", "dropped", "not finite", "replaced", "not asked",
        "steps bridged", "steps skipped", "delay expected, most",
    )  # fmt: skip
    load = report.load
    text = ""
    if load is not None:
        headroom = "" if load.headroom is None else f", headroom {load.headroom:.0%}"
        text = remark(
            f"Remember {load.remember_ms:.0f} ms and act {load.act_ms:.0f} ms: "
            f"{load.num_delayed} of {load.num_executed} steps of {load.step_ms:.0f} ms; "
            f"load {load.share:.0%}{headroom}."
        )
    return section("Chunks", text + table(headers, rows), wide=True)


def seams_section(report: RunReport) -> str:
    """Return a plot of jumps where chunks meet."""
    seams = [seam for one in report.episodes for seam in one.seams]
    if not seams:
        return ""
    lines = [
        Line(
            name="position",
            points=_thinned([(n + 1, seam.position) for n, seam in enumerate(seams)]),
        ),
        Line(
            name="velocity, per step",
            points=_thinned([(n + 1, seam.velocity) for n, seam in enumerate(seams)]),
        ),
    ]
    chart = line_chart(
        "largest jump of a joint where one chunk follows another",
        lines,
        x_label="seams of all episodes, in order",
        y_label="rad or units of the joint",
    )
    worst = max(seams, key=lambda seam: seam.position)
    text = (
        f"{len(seams)} seams; position: median "
        f"{median(seam.position for seam in seams):.3f}, most {worst.position:.3f} at step "
        f"{worst.step}."
    )
    return section("Where chunks meet", remark(text) + chart)


def times_section(report: RunReport) -> str:
    """Return a plot of stage times over the frames of all episodes."""
    lines = []
    rows = []
    for name, field in (("remember", "remember_ms"), ("act", "act_ms"), ("waited", "waited_ms")):
        spans = [ms for one in report.episodes for ms in _spans(one, field)]
        if not spans:
            continue
        lines.append(Line(name=name, points=_thinned([(n + 1, ms) for n, ms in enumerate(spans)])))
        ranks = np.percentile(spans, [50, 95, 99, 100])
        rows.append((name, *(f"{value:.1f}" for value in ranks)))
    if not lines:
        return ""
    chart = line_chart(
        "milliseconds of each stage", lines, x_label="frames of all episodes", y_label="ms"
    )
    headers = ("stage, ms", "p50", "p95", "p99", "most")
    return section("Time by frame", chart + table(headers, rows))


def _spans(episode: EpisodeReport, field: str) -> tuple[float, ...]:
    spans: tuple[float, ...] = getattr(episode, field)
    return spans


def stages_section(report: RunReport) -> str:
    """Return percentiles of what the device did."""
    if not report.stages_ms:
        return ""
    names = list(next(iter(report.stages_ms.values())))
    rows = [
        (stage, *(_figure(name, times.get(name, math.nan)) for name in names))
        for stage, times in report.stages_ms.items()
    ]
    return section("Stages of the device, ms", table(("stage", *names), rows))


def _figure(name: str, value: float) -> str:
    return f"{value:.0f}" if name == "count" else f"{value:.2f}"


def cameras_section(report: RunReport) -> str:
    """Return what happened to each camera; counts that are zero everywhere are left out."""
    cameras = report.timing.cameras
    if not cameras:
        return ""
    every = dict.fromkeys(name for counts in cameras.values() for name in counts)
    names = [
        name
        for name in every
        if name in _ALWAYS or any(counts.get(name) for counts in cameras.values())
    ]
    rows = [
        (camera, *(counts.get(name, 0) for name in names)) for camera, counts in cameras.items()
    ]
    headers = ("camera", *(name.replace("_", " ") for name in names))
    return section("Cameras", table(headers, rows), wide=True)


_ALWAYS = ("frames", "dropped", "restarts")


def instructions_section(report: RunReport) -> str:
    """Return the instructions that others gave way to, in order."""
    rows: list[Sequence[object]] = [
        (one.seed, change.step, change.instruction, "kept" if change.keep_memory else "emptied")
        for one in report.episodes
        for change in one.instructions
    ]
    if not rows:
        return ""
    headers = ("seed", "after step", "instruction", "memory")
    return section("Other instructions on the way", table(headers, rows), wide=True)


def reasons_section(report: RunReport) -> str:
    """Return why it held, warned or stopped, in order."""
    told = [(one.seed, reason) for one in report.episodes for reason in one.reasons]
    if not told:
        return ""
    rows = [(reason, seed) for seed, reason in told[:_MOST_REASONS]]
    more = len(told) - len(rows)
    note = remark(f"{more} more are in the JSON.") if more else ""
    return section(
        "Why it held, warned or stopped", table(("reason", "seed"), rows) + note, wide=True
    )


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the highest point of each stretch: as many as a plot can show, no peak lost."""
    every = math.ceil(len(points) / _MOST_POINTS)
    return [
        max(points[n : n + every], key=lambda point: point[1])
        for n in range(0, len(points), max(every, 1))
    ]
