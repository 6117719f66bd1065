"""The judgement as one page: the verdict, joints, drift, ranges by site, success, bytes, ticks."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from memorywam_calibration.judgement.mix_page import mix_figures
from memorywam_export.episodes.closed_loop_page import closed_loop_figures
from memorywam_export.episodes.drift_page import drift_figures
from memorywam_export.recipes.recipes import LARGEST
from memorywam_runtime.pages import document, remark, section, table
from memorywam_runtime.plots import Line, line_chart
from memorywam_runtime.scale_table import ScaleTable, scale_table_to_json
from memorywam_runtime.strips import Strip, strip_chart

__all__ = ["page_from_judgement"]

Data = Mapping[str, Any]
_SHOWN = 40
"""Products, worst first."""


def page_from_judgement(data: Data, table_: ScaleTable | None) -> str:
    """Return the page as HTML.

    Args:
        data: As `judged` returns it.
        table_: The scale table; None where the recipe has none.
    """
    bad = [check for check in data["checks"] if not check["ok"]]
    drift = data["drift"]
    loops = data.get("closed_loop", [])
    names = ("as exported", data["recipe"])
    cards = [
        section("Every check", _checks(data["checks"]), wide=True),
        section("Actions, joint by joint", _joints(data["chunks"]), wide=True),
        section("Whose error is it?", _split(drift)),
        *drift_figures(drift),
        *(closed_loop_figures(loops, names) if loops else ()),
        section("Bytes and ticks", _sizes(data)),
        *([section("Memory", _memory(data["memory"]))] if "memory" in data else ()),
        *([section("Products", _sites(data["sites"]), wide=True)] if data["sites"] else ()),
        *([section("Ranges by site", _ranges(table_), wide=True)] if table_ else ()),
        *(mix_figures(data["mix"]) if "mix" in data else ()),
    ]
    count = f"{len(bad)} of {len(data['checks'])} checks failed"
    verdict = "every check holds" if not bad else count
    lead = (
        f"Recipe {data['recipe']}, contract {data['contract_hash'][:12]}{_scales(table_)}; judged "
        f"on {len(data['held_out'])} held-out episodes: {', '.join(data['held_out'])}. Both "
        "bundles run on ONNX Runtime, fed the same."
    )
    inner = "\n".join(cards)
    return document(
        "memorywam calibrate",
        "<h1>What does quantization cost?</h1>\n"
        f'<p><span class="verdict{" bad" if bad else ""}">{verdict}</span></p>\n'
        f'{remark(lead)}\n<div class="cards">\n{inner}\n</div>',
    )


def _scales(scale_table: ScaleTable | None) -> str:
    """Say which table the scales are from, as `inspect` does."""
    if scale_table is None:
        return ""
    return f", scales sha256 {hashlib.sha256(scale_table_to_json(scale_table)).hexdigest()[:12]}"


def _checks(checks: Sequence[Data]) -> str:
    """Return the table of checks."""
    rows = [
        (
            check["what"],
            _short(check["max_abs"]),
            _short(check["tolerance"]),
            check["worst"],
            "ok" if check["ok"] else "FAILED",
        )
        for check in checks
    ]
    return table(("check", "found", "limit", "remark", "verdict"), rows)


def _joints(chunks: Data) -> str:
    """Return the error of each joint in its unit, beside how much noise alone moves it."""
    text = (
        f"{chunks['num_chunks']} chunks over whole episodes, each bundle with a memory of its own. "
        "The bar goes from the root mean square to the largest error; the mark is how much two "
        "chunks of the float bundle differ that start from other noise."
    )
    strips = [
        Strip(
            name=f"{joint['name']}, {joint['unit']}",
            low=joint["rms"],
            high=joint["max"],
            mark=joint["spread"] or None,
            text=f"{joint['max']:.2g}",
        )
        for joint in chunks["joints"]
        if joint["rms"] > 0
    ]
    chart = ""
    if strips:
        chart = strip_chart("error by joint", strips, x_label="error in the joint's unit")
    rows = [
        (
            joint["name"],
            joint["unit"],
            *(_short(joint[key]) for key in ("rms", "p95", "p99", "max", "spread")),
            "" if joint["flips"] is None else f"{100 * joint['flips']:.2f} %",
        )
        for joint in chunks["joints"]
    ]
    headers = ("joint", "unit", "RMS", "95 %", "99 %", "largest", "noise's spread", "flips")
    return remark(text) + chart + table(headers, rows)


def _split(drift: Data) -> str:
    """Return the actions' error in all, by the arithmetic and by the memory."""
    rung = drift["rungs"][0]
    sides = (
        ("in all", "free"),
        ("by the arithmetic", "forced"),
        ("by the memory", "swapped"),
    )
    lines = [
        Line(
            name=name,
            points=[
                (point["frames"], float(point["actions"]["rel_rms"]))
                for point in rung[side]
                if float(point["actions"]["rel_rms"]) > 0
            ],
        )
        for name, side in sides
    ]
    chart = line_chart(
        "relative error of actions by frames remembered",
        [line for line in lines if line.points],
        x_label="frames remembered (logarithmic)",
        y_label="relative RMS (logarithmic)",
        log=True,
    )
    text = (
        "In all: each bundle with a memory of its own. By the arithmetic: the float memory in the "
        "quantized bundle. By the memory: the quantized memory in the float bundle."
    )
    return remark(text) + chart


def _sizes(data: Data) -> str:
    """Return bytes by type, and ticks."""
    size, tick = data["bytes"], data["tick"]
    rows = [(name, f"{count / 1e6:.2f}") for name, count in size["by_type"].items()]
    rows += [
        ("in all", f"{size['narrow'] / 1e6:.2f}"),
        ("as exported", f"{size['wide'] / 1e6:.2f}"),
        ("ratio", f"{size['narrow'] / size['wide']:.3f}"),
    ]
    ticks = [
        ("as exported", f"{tick['wide_ms']:.2f}"),
        ("quantized", f"{tick['narrow_ms']:.2f}"),
        ("ratio, median of those in turns", f"{tick['ratio']:.3f}"),
        ("float over itself", f"{tick['noise']:.3f}"),
    ]
    headers = (f"tick at {tick['frames']} frames, {tick['num_threads']} threads", "ms")
    return table(("weights", "MB"), rows) + table(headers, ticks)


def _memory(rows: Sequence[Data]) -> str:
    """Return what memory takes by the length of an episode."""
    headers = ("frames", "as exported, MB", "quantized, MB", "share", "every token kept, MB")
    lines = [
        (
            row["frames"],
            *(f"{row[key] / 1e6:.2f}" for key in ("wide", "narrow")),
            f"{row['narrow'] / row['wide']:.2f}",
            f"{row['full_history'] / 1e6:.2f}",
        )
        for row in rows
    ]
    return table(headers, lines)


def _sites(sites: Sequence[Data]) -> str:
    """Return the products that lost most."""
    strips = [
        Strip(name=site["name"], low=1.0, high=max(10 ** (site["sqnr_db"] / 20), 1.001),
              text=f"{site['sqnr_db']:.1f} dB")
        for site in sites[:_SHOWN]
        if 0 < site["sqnr_db"] < 1e3
    ]  # fmt: skip
    if not strips:
        return remark("No product differs.")
    text = (
        "Signal over rounding error of what comes out, fed the float graph's inputs; the worst of "
        f"{len(sites)} tensors."
    )
    chart = strip_chart("products", strips, x_label="signal over error, as amplitudes")
    return remark(text) + chart


def _ranges(scale_table: ScaleTable) -> str:
    """Return what was seen of each quantized activation, and where it is clipped."""
    smoothed = {f"{key}:input" for one in scale_table.smooth.values() for key in one.sites}
    strips = []
    for key, entry in sorted(scale_table.entries.items()):
        seen = scale_table.ranges.get(key)
        if entry.kind != "activation" or seen is None or min(seen.p999, seen.absmax) <= 0:
            continue
        # Of what is divided by factors, only the largest value is known.
        low, high = (entry.absmax,) * 2 if key in smoothed else (seen.p999, seen.absmax)
        limit = entry.scales[0] * LARGEST[entry.dtype]
        clipped = "smoothed" if key in smoothed else f"{100 * entry.clipped:.2g} %"
        strips.append(
            Strip(name=key.removesuffix(":input"), low=low, high=high, mark=limit, text=clipped)
        )
    if not strips:
        return remark("No activation is quantized.")
    text = (
        "The bar goes from what 99.9 % of the absolute values are at most to the largest, after "
        "smoothing to the largest alone; the mark is where the type ends; behind it the share that "
        f"is clipped. The first {min(len(strips), _SHOWN)} of {len(strips)}."
    )
    chart = strip_chart("ranges", strips[:_SHOWN], x_label="absolute value")
    return remark(text) + chart


def _short(value: float | None) -> str:
    """Return a figure with three digits, or nothing."""
    return "" if value is None else f"{float(value):.3g}"
