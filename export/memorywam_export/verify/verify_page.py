"""The parity report as one page: the verdict, curves by frame, worst tensors, every check."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from memorywam_runtime.pages import document, remark, section, table
from memorywam_runtime.plots import Line, line_chart

__all__ = ["page_from_verify"]

Data = Mapping[str, Any]
_WORST = 12
"""Tensors listed."""


def page_from_verify(data: Data, extra: Sequence[str] = ()) -> str:
    """Return the page as HTML.

    Args:
        data: As `verify_bundle` returns it.
        extra: Further cards, as HTML.
    """
    checks = data["checks"]
    bad = [check for check in checks if not check["ok"]]
    planted = [check for check in checks if check["what"].startswith("planted: ")]
    cards = [
        section("What does not hold", _checks(bad), wide=True) if bad else "",
        *(_of_ladder(data) if "rungs" in data else ()),
        *extra,
        section("Planted faults", _planted(planted), wide=True) if planted else "",
        section("Every check", _checks(checks), wide=True),
    ]
    inner = "\n".join(card for card in cards if card)
    verdict = "every check holds" if not bad else f"{len(bad)} of {len(checks)} checks failed"
    return document(
        "memorywam verify",
        "<h1>Is the bundle what was trained?</h1>\n"
        f'<p><span class="verdict{" bad" if bad else ""}">{verdict}</span></p>\n'
        f"{remark(_lead(data))}\n{_gaps(data)}"
        f'<div class="cards">\n{inner}\n</div>',
    )


_CURVES = (
    ("max_abs", "Actions, error by frame"),
    ("memory", "Keys and values as written, error by frame"),
    ("latents", "Latents, error by frame"),
)
"""Figures by frame of each rung."""


def _lead(data: Data) -> str:
    """Return what was compared, in a few sentences."""
    return (
        f"Bundle {data['bundle']}, checkpoint {data['checkpoint']} "
        f"{data['checkpoint_sha256'][:12]}: "
        f"{data['frames']} frames of a random episode (seed {data['seed']}), every rung with a "
        "memory of its own, against the reference in float64, which sees the whole episode under "
        f"one mask. Precision {data['precision']}; rewrites: "
        f"{', '.join(data['rewrites']) or 'none'}; contract {data['contract_hash'][:12]}."
    )


def _gaps(data: Data) -> str:
    """Return what was not looked at, as a list; nothing where that is nothing."""
    items = "".join(f"<li>{escape(gap)}</li>" for gap in data.get("gaps", ()))
    return f'{remark("Not looked at:")}\n<ul class="soft">{items}</ul>\n' if items else ""


def _of_ladder(data: Data) -> list[str]:
    """Return the cards of what the rungs made."""
    return [
        *(_curves(data, key, title) for key, title in _CURVES),
        section("Noise of the types", _noise(data)),
        section("Joints", _joints(data)),
        section("Boundaries of memory", _boundaries(data), wide=True),
        section("Worst tensors", _worst(data), wide=True),
    ]


def _curves(data: Data, key: str, title: str) -> str:
    """Return lines of the largest error of each frame."""
    lines = [
        Line(
            name=rung["rung"],
            points=[(point["frame"] + 1, point[key]) for point in rung["by_frame"]],
        )
        for rung in (*data["references"], *data["rungs"])
    ]
    shown = [line for line in lines if any(y > 0 for _, y in line.points)]
    if not shown:
        return section(title, remark("No rung differs at all."))
    chart = line_chart(
        f"{title}: largest absolute error against frames remembered",
        shown,
        x_label="frames remembered (logarithmic)",
        y_label="largest error (logarithmic)",
        log=True,
    )
    return section(title, chart)


def _noise(data: Data) -> str:
    """Return errors beside the noise of each type, by root mean square."""
    rows = []
    for rung in data["rungs"]:
        noise = data["noise"].get(rung["precision"])
        for part in noise or ():
            worst = rung[part] if part != "memory" else _largest(rung["memory"])
            rows.append((rung["rung"], part, _short(worst["rel_rms"]), _short(noise[part])))
    text = (
        "Relative root mean square. The noise is what the reference itself is off by when it runs "
        "in that type."
    )
    return remark(text) + table(("rung", "what", "error", "noise"), rows)


def _joints(data: Data) -> str:
    """Return the largest error of each joint on the highest rung, in its unit."""
    rows = [
        (joint["name"], _short(joint["error"]), joint["unit"], _short(joint["normalized"]))
        for joint in data["actions"]["joints"]
    ]
    text = f"{data['rung']}: the largest error of each over the episode, its memory its own."
    return remark(text) + table(("joint", "error", "unit", "normalized"), rows)


def _boundaries(data: Data) -> str:
    """Return which boundaries the episode passed, and how far the rungs were off there."""
    rows = [
        (
            name,
            boundary["frame"],
            *(_short(_at(rung, boundary["frame"])) for rung in data["rungs"]),
        )
        for name, boundary in data["boundaries"].items()
    ]
    headers = ("boundary", "frame", *(rung["rung"] for rung in data["rungs"]))
    text = "Largest error of latents, memory and actions at that frame; empty: not reached."
    return remark(text) + table(headers, rows)


def _at(rung: Data, frame: int) -> float | None:
    """Return a rung's largest error at a frame, if it got there."""
    if frame >= len(rung["by_frame"]):
        return None
    point = rung["by_frame"][frame]
    return float(max(point["max_abs"], point["memory"], point["latents"]))


def _worst(data: Data) -> str:
    """Return the tensors that are off most, of all that cross a graph, on the highest rung."""
    rung = data["rungs"][-1]
    found = [
        (graph, name, tensor)
        for graph, entry in rung["graphs"].items()
        for name, tensor in entry["tensors"].items()
    ]
    found.sort(key=lambda item: -item[2]["max_abs"])
    rows = [
        (
            graph,
            name,
            _short(tensor["max_abs"]),
            _short(tensor["rel_rms"]),
            f"{tensor['cosine']:.9f}",
            f"{tensor['sqnr_db']:.0f}",
            tensor["worst"],
        )
        for graph, name, tensor in found[:_WORST]
    ]
    headers = ("graph", "tensor", "max abs", "rel. RMS", "cosine", "SQNR, dB", "worst at")
    text = f"{rung['rung']} against the rung below, each graph fed the same numbers."
    return remark(text) + table(headers, rows)


def _planted(checks: Sequence[Data]) -> str:
    """Return the planted faults and where they were found."""
    rows = [
        (
            check["what"].removeprefix("planted: "),
            check["worst"],
            _short(check["max_abs"]),
            "caught" if check["ok"] else "NOT WHERE IT IS",
        )
        for check in checks
    ]
    text = "Each was put into a session on purpose: a ladder that misses one proves nothing."
    return remark(text) + table(("fault", "found in", "error", ""), rows)


def _checks(checks: Sequence[Data]) -> str:
    """Return the table of checks."""
    rows = [
        (
            check["rung"],
            check["what"],
            _short(check["max_abs"]),
            _short(check["tolerance"]),
            check["worst"],
            "ok" if check["ok"] else "FAILED",
        )
        for check in checks
    ]
    return table(("rung", "what", "max abs", "tolerance", "worst at", "verdict"), rows)


def _largest(tensors: Mapping[str, Data]) -> Data:
    """Return the tensor with the largest relative error."""
    return max(tensors.values(), key=lambda tensor: float(tensor["rel_rms"]))


def _short(value: float | None) -> str:
    """Return a figure with two digits, or nothing."""
    return "" if value is None else f"{value:.2g}"
