"""What bench found as one page: latency against frames, stages by arm, roofline."""

from collections.abc import Mapping, Sequence
from typing import Any

from memorywam_runtime.bench.bench_sensors import sensors_text
from memorywam_runtime.pages import document, remark, section, table
from memorywam_runtime.plots import Bar, Line, bar_chart, line_chart

__all__ = ["page_from_bench"]

Data = Mapping[str, Any]
_MOST_KINDS = 6
"""Of operators shown for a graph, those that take most first."""
_PARTS = ("see", "remember", "chunk")
"""Stages that bars are drawn of: together they are all that a frame takes."""


def page_from_bench(data: Data) -> str:
    """Return the page as HTML.

    Args:
        data: As `bench_bundle` returns it.
    """
    cards = [
        section("One tick, against frames remembered", _ticks(data)),
        section("Memory, against frames remembered", _memory(data)),
        *(
            section(f"Parts of a frame at {frames} frames", _parts(data, frames))
            for frames in _compared(data)
        ),
        section("Ratios", _ratios(data), wide=True) if data["ratios"] else "",
        section("Roofline", _roofline(data), wide=True) if data["roofline"] else "",
        section("From ten frames on", _growth(data), wide=True) if data["growth"] else "",
        section("Operators", _operators(data), wide=True) if data["operators"] else "",
        section("Cold start", _cold_start(data), wide=True),
        section("Measured on", _machine(data), wide=True),
    ]
    inner = "\n".join(card for card in cards if card)
    return document(
        "memorywam bench",
        f"<h1>How long a tick takes</h1>\n{remark(_lead(data))}\n"
        f'<div class="cards">\n{inner}\n</div>',
    )


def _lead(data: Data) -> str:
    """Return what was measured, in a sentence."""
    turns = "" if len(data["arms"]) == 1 else " by each of the arms in turn, in random order"
    return (
        f"A tick remembers one frame and makes one chunk in {data['num_steps']} steps. "
        f"{data['repeat']} rounds at each fill of memory{turns}; precision {data['precision']}, "
        f"{data['threads'] or 'default'} threads."
    )


def _p50(fill: Data, stage: str) -> float | None:
    """Return the median of a stage at one fill, ms, if it was measured there."""
    found = fill["stages_ms"].get(stage)
    return None if found is None else float(found["p50"])


def _ticks(data: Data) -> str:
    """Return a line for each arm of its ticks' medians."""
    lines = []
    for arm, found in data["arms"].items():
        at = [(fill["frames"], _p50(fill, "tick")) for fill in found["by_frames"]]
        lines.append(Line(name=arm, points=[(x, y) for x, y in at if y is not None]))
    chart = line_chart(
        "median tick in ms by frames remembered",
        lines,
        x_label="frames remembered (logarithmic)",
        y_label="ms, median (logarithmic)",
        log=True,
    )
    text = "From a frame's last image to its chunk of actions. "
    if any(found["full_history"] for found in data["arms"].values()):
        text += (
            "Full history: the same engines over every visual token of every frame, measured, on "
            "a memory of random values."
        )
    return remark(text) + chart


def _memory(data: Data) -> str:
    """Return lines of the size of memory."""
    kept = [(frames, size / 1e6) for frames, size in data["memory_bytes_by_frame"]]
    whole = [(fill["frames"], fill["full_history_bytes"] / 1e6) for fill in data["by_frames"]]
    chart = line_chart(
        "size of memory in MB by frames remembered",
        [Line(name="anchors, window, gists", points=kept), Line(name="full history", points=whole)],
        x_label="frames remembered (logarithmic)",
        y_label="MB (logarithmic)",
        log=True,
    )
    return remark("Keys and values, as allotted: gists grow in buckets.") + chart


def _compared(data: Data) -> list[int]:
    """Return the fills at which bars are drawn: the first with a whole memory, and the last."""
    fills = [fill["frames"] for fill in data["by_frames"]]
    middle = next((frames for frames in fills if frames >= 10), fills[-1])
    return list(dict.fromkeys((middle, fills[-1])))


def _parts(data: Data, frames: int) -> str:
    """Return bars of the parts of a frame for each arm at one fill."""
    arms = {}
    for arm, found in data["arms"].items():
        for fill in found["by_frames"]:
            if fill["frames"] == frames and fill["stages_ms"] and not found["full_history"]:
                arms[arm] = fill
    shown = [part for part in _PARTS if any(_p50(fill, part) for fill in arms.values())]
    groups = [(part, [_bar(_p50(fill, part) or 0.0) for fill in arms.values()]) for part in shown]
    top = max((bar.value for _, bars in groups for bar in bars), default=1.0)
    chart = bar_chart(
        f"median ms of each part at {frames} frames, by arm",
        tuple(arms),
        groups,
        y_label="ms, median",
        top=1.08 * top,
    )
    text = "See: what is encoded as images arrive, before the last one; not part of the tick."
    return remark(text if "see" in shown else "") + chart


def _bar(ms: float) -> Bar:
    """Return a bar with its value."""
    return Bar(value=ms, text=f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}")


def _ratios(data: Data) -> str:
    """Return the table of ratios with their intervals."""
    first = data["backend"]
    rows = {
        stages: [
            (
                f"{one['arm']}, {one['stage']}",
                one["frames"],
                f"{one['ratio']:.3f}",
                f"{one['low']:.3f} to {one['high']:.3f}",
            )
            for one in data["ratios"]
            if (one["stage"] == "tick") == (stages == "ticks")
        ]
        for stages in ("ticks", "parts")
    }
    text = (
        f"Time of an arm over the time of {first}: above 1, {first} is faster. Medians over "
        f"paired rounds, 95 % intervals by bootstrap. '{first} again' is {first} against itself: "
        "what differs as much as that means nothing."
    )
    headers = ("arm and part", "frames", "ratio", "95 % interval")
    parts = f"<details><summary>every part</summary>{table(headers, rows['parts'])}</details>"
    return remark(text) + table(headers, rows["ticks"]) + parts


def _roofline(data: Data) -> str:
    """Return bars of how close stages come to their bound, and all of it in a table."""
    peaks = data["peaks"]
    frames = _compared(data)[-1]
    own = [one for one in data["roofline"] if one["frames"] == frames]
    stages = list(dict.fromkeys(one["stage"] for one in own if one["arm"] == data["backend"]))
    arms = [
        arm
        for arm, found in data["arms"].items()
        if arm == found["backend"] and not found["full_history"]
    ]
    share = {(one["arm"], one["stage"]): one["share"] for one in own}
    groups = [(stage, [_share(share.get((arm, stage), 0.0)) for arm in arms]) for stage in stages]
    chart = bar_chart(
        f"share of the roofline's speed at {frames} frames, by stage and arm",
        arms,
        groups,
        y_label="% of the bound's speed",
        top=max(100.0, 1.05 * max((bar.value for _, bars in groups for bar in bars), default=0.0)),
    )
    rows = [
        (
            f"{one['arm']}, {one['stage']}",
            one["frames"],
            f"{one['bytes'] / 1e6:.4g}",
            f"{one['flops'] / 1e9:.4g}",
            f"{one['bound_ms']:.3g}",
            one["limit"],
            f"{one['p50_ms']:.3g}",
            f"{one['share']:.0%}",
        )
        for one in data["roofline"]
    ]
    headers = ("arm and stage", "frames", "MB", "GFLOP", "bound, ms", "by", "p50, ms", "share")
    text = (
        f"What each call must read and compute, over the {peaks['read_bytes_per_s'] / 1e9:.1f} "
        f"GB/s and {peaks['flops_per_s'] / 1e9:.0f} GFLOP/s that this machine was measured to do "
        f"({peaks['how']}). Bars: at {frames} frames."
    )
    every = f"<details><summary>every stage</summary>{table(headers, rows)}</details>"
    return remark(text) + chart + every


def _share(share: float) -> Bar:
    """Return a bar with its share, per cent."""
    return Bar(value=100 * share, text=f"{100 * share:.0f}")


def _growth(data: Data) -> str:
    """Return the table of how ticks grow."""
    rows = [
        (
            one["arm"],
            f"{one['from_frames']} to {one['frames']}",
            f"{one['ratio']:.3f}",
            f"{one['difference_ms']:+.1f}",
            _figure(one, "rows", "{:,}"),
            _figure(one, "bytes", "{:,.0f}", 1e6),
            _figure(one, "flops", "{:.1f}", 1e9),
            _figure(one, "rows_ms", "{:.1f}"),
            _figure(one, "apart", "{:.3f}"),
        )
        for one in data["growth"]
    ]
    headers = (
        "arm", "frames", "ratio of ticks", "difference, ms", "rows more", "MB more", "GFLOP more",
        "at least, ms", "ratio apart from those",
    )  # fmt: skip
    text = (
        "By ten frames every slot is taken: what grows from there on are the rows of gist, which "
        "every update and every step reads. What they take at the machine's best stands under "
        "'at least'; all that they take beyond it still counts in the last column."
    )
    return remark(text) + table(headers, rows)


def _operators(data: Data) -> str:
    """Return the table of what operators take, and what a tick takes apart from attention."""
    kinds = {
        (graph, kind): ms
        for one in data["operators"]
        for graph, times in one["graphs_ms"].items()
        for kind, ms in list(times.items())[:_MOST_KINDS]
    }
    rows = [
        (
            graph,
            kind,
            *(f"{one['graphs_ms'].get(graph, {}).get(kind, 0):.1f}" for one in data["operators"]),
        )
        for graph, kind in kinds
    ]
    headers = ("graph", "operator", *(f"ms at {one['frames']}" for one in data["operators"]))
    text = "What a tick spends in each kind of operator, profiled in runs of their own. "
    for one in data["attention"]:
        text += (
            f"From {one['from_frames']} to {one['frames']} frames attention, which reads memory, "
            f"takes {one['read_ms']:.1f} ms more; apart from that a tick takes {one['apart']:.3f} "
            "of what it took. "
        )
    return remark(text) + table(headers, rows)


def _figure(one: Data, key: str, form: str, unit: float = 1) -> str:
    """Return a figure, or nothing where it is not known."""
    return form.format(one[key] / unit if unit != 1 else one[key]) if key in one else ""


def _cold_start(data: Data) -> str:
    """Return how long it takes until the first tick."""
    rows = []
    for arm, found in data["arms"].items():
        first = found["first_ms"]
        rows.append(
            (
                arm,
                f"{found['start_s']:.2f}" if "start_s" in found else "",
                f"{found['open_s']:.2f}",
                f"{first['remember']:.0f}" if "remember" in first else "",
                f"{first['chunk']:.0f}" if "chunk" in first else "",
                *(_first_tick(fill) for fill in found["by_frames"]),
            )
        )
    fills = [f"first tick at {fill['frames']}" for fill in data["by_frames"]]
    headers = ("arm", "process, s", "open, s", "first remember, ms", "first chunk, ms", *fills)
    text = "First calls are never among the others. A first tick, in ms, may compile."
    return remark(text) + table(headers, rows)


def _first_tick(fill: Data) -> str:
    """Return the first tick at a fill, or that there was none."""
    return f"{fill['first_tick_ms']:.0f}" if "first_tick_ms" in fill else "not measured"


def _machine(data: Data) -> str:
    """Return the machine and its state in one paragraph."""
    host = data["machine"]
    clocks = host["clocks_mhz"]
    load: Sequence[float] = (host["load_average"][0], data["load_average_after"][0])
    told = (
        f"{host['cpu']}; {host['cores_usable']} of {host['cores']} cores; clocks now "
        f"{', '.join(f'{mhz:.0f}' for mhz in clocks['now']) or 'not told'} MHz, min "
        f"{clocks['min'] or 'not told'}, max {clocks['max'] or 'not told'}; governor "
        f"{host['governor'] or 'not told'}; load before and after {load[0]:.2f}, {load[1]:.2f}; "
        f"scheduling {host['scheduling']}; nice {host['nice']}; {sensors_text(data['sensors'])}. "
        + ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    )
    return remark(told)
