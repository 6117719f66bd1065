"""The demo's report as one page that needs nothing but itself."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from memorywam_runtime.pages import document, remark, section, table
from memorywam_runtime.plots import Bar, Line, bar_chart, line_chart

__all__ = ["page_from_report"]


def page_from_report(
    report: Mapping[str, Any], *, film: bytes, film_type: str, film_caption: str
) -> str:
    """Return the page as HTML.

    Args:
        report: As in `report.json`.
        film: An animated picture.
        film_type: Its media type.
        film_caption: What it shows.
    """
    picture = base64.b64encode(film).decode("ascii")
    episodes = sum(task["episodes"] for task in report["tasks"].values())
    cards = "\n".join(
        (
            section("One episode", _film(picture, film_type, film_caption), wide=True),
            section("Success by task", _success(report)),
            section("Memory by frame", _memory(report)),
            section("Latency by frame", _latency(report)),
            section("Latency by stage", _stages(report)),
            section("Parity with the reference", _parity(report), wide=True),
            section("Made with", _versions(report["versions"]), wide=True),
        )
    )
    lead = (
        "The checkpoint that ships, exported to ONNX, compared with the model it came from,\n"
        f"and run for {episodes} episodes on the simulated robot: once by ONNX Runtime, "
        "once by torch."
    )
    return document(
        "memorywam demo",
        f"""<h1>A policy that remembers, exported and run</h1>
{remark(lead)}
{_verdict(report["complaints"])}
<div class="cards">
{cards}
</div>""",
    )


def _verdict(complaints: Sequence[str]) -> str:
    """Return the answer to whether everything holds."""
    if not complaints:
        return '<div class="verdict">every check holds</div>'
    told = "; ".join(complaints)
    return f'<div class="verdict bad">a check failed</div><p class="bad">{escape(told)}</p>'


def _film(picture: str, film_type: str, text: str) -> str:
    """Return the film with its caption."""
    source = f"data:{escape(film_type)};base64,{picture}"
    return (
        f'<figure><img alt="{escape(text)}" src="{source}">'
        f"<figcaption>{escape(text)}</figcaption></figure>"
    )


def _success(report: Mapping[str, Any]) -> str:
    """Return bars of success on each task by both runners."""
    groups = []
    for name, task in report["tasks"].items():
        count = task["episodes"]
        shares = (task["success"], task["success_torch"])
        bars = [Bar(value=share, text=f"{round(share * count)}/{count}") for share in shares]
        groups.append((name, bars))
    chart = bar_chart(
        "share of episodes that succeeded, by task and rung",
        ("ONNX Runtime", "torch"),
        groups,
        y_label="share of episodes",
        top=1.0,
    )
    return remark("The same episodes and the same noise.") + chart


def _memory(report: Mapping[str, Any]) -> str:
    """Return lines of memory with and without forgetting."""
    mib = 1 << 20
    lines = [
        Line(name=name, points=[(frame, size / mib) for frame, size in report[key]])
        for name, key in (
            ("anchors, window, gists", "memory_bytes_by_frame"),
            ("every frame in full", "memory_bytes_by_frame_keeping_everything"),
        )
    ]
    chart = line_chart("memory in MiB by frame", lines, x_label="frames remembered", y_label="MiB")
    rows = report["rows_per_frame"]
    text = (
        f"A frame takes {rows['in_full']} rows in full and {rows['as_gist']} as gist; "
        "tensors as allotted: the table of gists grows in buckets."
    )
    return remark(text) + chart


def _latency(report: Mapping[str, Any]) -> str:
    """Return lines of the median time of each stage over the frames in memory."""
    lines = [
        Line(name=stage, points=[(frame, ms) for frame, ms in points])
        for stage, points in report["latency_ms_by_frame"].items()
    ]
    chart = line_chart(
        "median latency in ms by frame", lines, x_label="frames remembered", y_label="ms, median"
    )
    return remark("By ONNX Runtime, on the machine that made this page.") + chart


def _stages(report: Mapping[str, Any]) -> str:
    """Return the table of stages."""
    rows = [
        (stage, f"{times['p50']:.2f}", f"{times['p99']:.2f}")
        for stage, times in report["stages_ms"].items()
    ]
    times = table(("stage", "p50, ms", "p99, ms"), rows)
    return remark("Over all of those frames; a chunk is all its action steps.") + times


def _parity(report: Mapping[str, Any]) -> str:
    """Return the verdict of verify: by rung, and every check on demand."""
    parity = report["parity"]
    kind, text = ("good", "holds") if parity["ok"] else ("bad", "does not hold")
    rungs = dict.fromkeys(check["rung"] for check in parity["checks"])
    by_rung = [[check for check in parity["checks"] if check["rung"] == rung] for rung in rungs]
    summary = table(
        ("rung", "checks that hold", "largest error of an action"),
        [(checks[0]["rung"], _count(checks), _action_error(checks)) for checks in by_rung],
    )
    every = table(
        ("check", "largest error", "tolerance", "verdict"),
        [
            (
                f"{check['rung']}: {check['what']}",
                _figure(check["max_abs"]),
                _figure(check["tolerance"]),
                "holds" if check["ok"] else "FAILED",
            )
            for check in parity["checks"]
        ],
    )
    return (
        f'<p class="{kind}"><strong>{text}</strong></p>{summary}'
        f"<details><summary>every check</summary>{every}</details>"
    )


def _count(checks: Sequence[Mapping[str, Any]]) -> str:
    """Return how many of the checks hold."""
    return f"{sum(bool(check['ok']) for check in checks)} of {len(checks)}"


def _action_error(checks: Sequence[Mapping[str, Any]]) -> str:
    """Return the largest error of an action over a whole episode, if that is among the checks."""
    return next(
        (_figure(one["max_abs"]) for one in checks if one["what"].startswith("actions")), ""
    )


def _figure(value: float | str | None) -> str:
    """Return a small number in two digits; JSON tells what is not finite as text."""
    return f"{value:.2g}" if isinstance(value, float | int) else value or ""


def _versions(versions: Mapping[str, str]) -> str:
    """Return what it was made with, in one paragraph."""
    return remark(", ".join(f"{name} {version}" for name, version in versions.items()))
