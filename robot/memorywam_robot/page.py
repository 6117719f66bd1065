"""The demo's report as one page that needs nothing but itself."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from memorywam_robot.plots import Bar, Line, bar_chart, line_chart

__all__ = ["page_from_report"]

_STYLE = """
:root { color-scheme: light dark; --back: #f6f7f9; --card: #ffffff; --ink: #1c2128;
  --soft: #5b6472; --rule: #dfe3e8; --good: #1a7f37; --bad: #c62828;
  --c0: #2f6fdf; --c1: #e08a1e; --c2: #2a9d6f; --c3: #a259c4; --c4: #d0496b; --c5: #5f7a8c; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --card: #1d2127; --ink: #e7eaee;
  --soft: #9aa4b1; --rule: #333a43; --good: #4cc36b; --bad: #ff7b72;
  --c0: #6ea8fe; --c1: #f0a64a; --c2: #4fc796; --c3: #c58be0; --c4: #f0809b; --c5: #9db4c3; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 48px; }
h1 { font-size: 1.7rem; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 1.05rem; margin: 0 0 2px; }
p { margin: 0 0 12px; } .soft, figcaption { color: var(--soft); font-size: 0.9rem; }
.verdict { display: inline-block; padding: 3px 12px; border-radius: 999px; font-weight: 600;
  font-size: 0.9rem; color: var(--card); background: var(--good); margin: 10px 0 6px; }
.verdict.bad { background: var(--bad); color: var(--card); }
.cards { display: grid; gap: 18px; margin-top: 18px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 12px;
  padding: 18px 20px; overflow-x: auto; }
section.wide { grid-column: 1 / -1; }
figure { margin: 0; } img { width: 100%; max-width: 628px; height: auto; border-radius: 8px;
  display: block; margin: 0 auto 8px; } figcaption { text-align: center; }
svg { width: 100%; height: auto; display: block; margin-top: 8px; }
svg text { font-size: 13px; fill: var(--soft); }
svg text.value { fill: var(--ink); font-weight: 600; }
.grid { stroke: var(--rule); stroke-width: 1; fill: none; }
polyline { fill: none; stroke-width: 2.5; stroke-linejoin: round; stroke-linecap: round; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; margin-top: 8px;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--rule); }
th { color: var(--soft); font-weight: 500; } td.number, th.number { text-align: right; }
summary { cursor: pointer; color: var(--soft); font-size: 0.9rem; margin-top: 10px; }
tr:last-child td { border-bottom: 0; } .good { color: var(--good); } .bad { color: var(--bad); }
"""
_COLOURS = "".join(
    f".fill{i} {{ fill: var(--c{i}); }} .line{i} {{ stroke: var(--c{i}); }}\n" for i in range(6)
)


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
            _section("One episode", _film(picture, film_type, film_caption), wide=True),
            _section("Success by task", _success(report)),
            _section("Memory by frame", _memory(report)),
            _section("Latency by frame", _latency(report)),
            _section("Latency by stage", _stages(report)),
            _section("Parity with the reference", _parity(report), wide=True),
            _section("Made with", _versions(report["versions"]), wide=True),
        )
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>memorywam demo</title>
<style>{_STYLE}{_COLOURS}</style>
</head>
<body><main>
<h1>A policy that remembers, exported and run</h1>
<p class="soft">The checkpoint that ships, exported to ONNX, compared with the model it came from,
and run for {episodes} episodes on the simulated robot: once by ONNX Runtime, once by torch.</p>
{_verdict(report["complaints"])}
<div class="cards">
{cards}
</div>
</main></body>
</html>
"""


def _section(title: str, body: str, *, wide: bool = False) -> str:
    """Return one card."""
    kind = ' class="wide"' if wide else ""
    return f"<section{kind}><h2>{escape(title)}</h2>\n{body}</section>"


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
        "share of episodes that succeeded, by task and runner",
        ("ONNX Runtime", "torch"),
        groups,
        y_label="share of episodes",
        top=1.0,
    )
    return f'<p class="soft">The same episodes and the same noise.</p>{chart}'


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
    return f'<p class="soft">{text}</p>{chart}'


def _latency(report: Mapping[str, Any]) -> str:
    """Return lines of the median time of each stage over the frames in memory."""
    lines = [
        Line(name=stage, points=[(frame, ms) for frame, ms in points])
        for stage, points in report["latency_ms_by_frame"].items()
    ]
    chart = line_chart(
        "median latency in ms by frame", lines, x_label="frames remembered", y_label="ms, median"
    )
    return f'<p class="soft">By ONNX Runtime, on the machine that made this page.</p>{chart}'


def _stages(report: Mapping[str, Any]) -> str:
    """Return the table of stages."""
    rows = [
        (stage, f"{times['p50']:.2f}", f"{times['p99']:.2f}")
        for stage, times in report["stages_ms"].items()
    ]
    table = _table(("stage", "p50, ms", "p99, ms"), rows)
    return f'<p class="soft">Over all of those frames; a chunk is all its action steps.</p>{table}'


def _parity(report: Mapping[str, Any]) -> str:
    """Return the verdict of verify: by rung, and every check on demand."""
    parity = report["parity"]
    kind, text = ("good", "holds") if parity["ok"] else ("bad", "does not hold")
    rungs = dict.fromkeys(check["rung"] for check in parity["checks"])
    by_rung = [[check for check in parity["checks"] if check["rung"] == rung] for rung in rungs]
    summary = _table(
        ("rung", "checks that hold", "largest error of an action"),
        [(checks[0]["rung"], _count(checks), _action_error(checks)) for checks in by_rung],
    )
    every = _table(
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
    told = ", ".join(f"{escape(name)} {escape(version)}" for name, version in versions.items())
    return f'<p class="soft">{told}</p>'


def _table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table; all columns but the first are figures."""

    def line(tag: str, cells: Sequence[object]) -> str:
        kinds = ["", *[' class="number"'] * (len(cells) - 1)]
        inner = "".join(
            f"<{tag}{kind}>{escape(str(cell))}</{tag}>"
            for kind, cell in zip(kinds, cells, strict=True)
        )
        return f"<tr>{inner}</tr>"

    body = "\n".join(line("td", row) for row in rows)
    return f"<table><thead>{line('th', headers)}</thead><tbody>{body}</tbody></table>"
