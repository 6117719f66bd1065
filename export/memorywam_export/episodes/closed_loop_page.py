"""The closed loop as cards of a page: success by both, pair by pair, with and without memory."""

from collections.abc import Mapping, Sequence
from typing import Any

from memorywam_runtime.pages import remark, section, table
from memorywam_runtime.plots import Bar, bar_chart

__all__ = ["closed_loop_figures"]

Data = Mapping[str, Any]


def closed_loop_figures(loops: Sequence[Data], names: tuple[str, str] | None = None) -> list[str]:
    """Return cards, each a `<section>`, for the body of a page.

    Args:
        loops: As `loop_data` returns them, or as read back from JSON.
        names: Of the reference and of what is compared with it; torch and the backend by default.
    """
    names = names or ("reference (torch)", loops[0]["backend"])
    cards = [
        section("Success by task", _bars(loops, names)),
        section("Pair by pair", _pairs(loops), wide=True),
    ]
    if any(loop["hidden"] for loop in loops):
        cards.append(section("Without a part of memory", _ablations(loops), wide=True))
    return [*cards, section("Repairs and regressions", _verdicts(loops), wide=True)]


def _bars(loops: Sequence[Data], names: tuple[str, str]) -> str:
    """Return bars of success by both."""
    groups = [
        (
            loop["task"],
            [
                Bar(value=one["share"], text=f"{one['successes']}/{one['episodes']}")
                for one in (loop["reference"], loop["found"])
            ],
        )
        for loop in loops
    ]
    chart = bar_chart(
        "share of episodes that succeeded, by task: reference and backend",
        names,
        groups,
        y_label="share of episodes",
        top=1.0,
    )
    return remark("The same seeds: the same scenes, the same noise.") + chart


def _pairs(loops: Sequence[Data]) -> str:
    """Return the difference of each task with what the pairs can tell."""
    rows = []
    for loop in loops:
        pairs = loop["pairs"]
        rows.append(
            (
                loop["task"],
                f"{100 * pairs['difference']:+.0f} ({_points(pairs)})",
                f"{pairs['p_value']:.2g}",
                f"{100 * pairs['seeable']:.0f}",
                f"{loop['same_ending']} of {len(loop['seeds'])}",
                _figure(loop["largest_action_difference"]),
            )
        )
    text = (
        "Success of the backend less that of the reference, in points, with its 95 % interval "
        "(Newcombe 1998, method 10); McNemar's exact test; the smallest loss that so many pairs "
        "show with a power of 80 %."
    )
    headers = ("task", "difference", "p", "could see", "same ending", "actions apart")
    return remark(text) + table(headers, rows)


def _ablations(loops: Sequence[Data]) -> str:
    """Return success by what is hidden, a column a task, as in the paper's table 3."""
    rows: list[Sequence[object]] = [
        ("whole memory, reference", *(_share(loop["reference"]) for loop in loops)),
        (f"whole memory, {loops[0]['backend']}", *(_share(loop["found"]) for loop in loops)),
    ]
    for hidden in loops[0]["hidden"]:
        name = f"without {hidden.replace(',', ' and ')}"
        cells = [
            f"{_share(loop['hidden'][hidden])}, p {loop['hidden_pairs'][hidden]['p_value']:.1g}"
            for loop in loops
        ]
        rows.append((name, *cells))
    text = (
        "Episodes that succeed, with the score interval of 95 % (Wilson 1927); p is McNemar's, "
        "against the whole memory on the same seeds. The current frame is always seen."
    )
    headers = ("success", *(loop["task"] for loop in loops))
    return remark(text) + table(headers, rows)


def _verdicts(loops: Sequence[Data]) -> str:
    """Return what is said of each task, and the seeds at which the two differ."""
    rows = [
        (loop["task"], loop["verdict"], _seeds(loop["repairs"]), _seeds(loop["regressions"]))
        for loop in loops
    ]
    ok = all(loop["ok"] for loop in loops)
    kind, said = ("good", "holds") if ok else ("bad", "does not hold")
    text = "Seeds of episodes that only the backend wins (repairs), or only the reference."
    told = table(("task", "verdict", "repairs", "regressions"), rows)
    return f'<p class="{kind}"><strong>{said}</strong></p>{remark(text)}{told}'


def _share(share: Data) -> str:
    """Return a share with its interval, in percent."""
    low, high = (f"{100 * share[end]:.0f}" for end in ("low", "high"))
    return f"{100 * share['share']:.0f} % ({low} to {high})"


def _points(pairs: Data) -> str:
    """Return the interval of a difference, in points."""
    return f"{100 * pairs['low']:+.0f} to {100 * pairs['high']:+.0f}"


def _figure(value: float | None) -> str:
    """Return a small number in two digits."""
    return "not told" if value is None else f"{value:.1e}"


def _seeds(seeds: Sequence[int]) -> str:
    """Return a list of seeds."""
    return ", ".join(map(str, seeds)) or "none"
