"""The verb bench: time every stage against how full memory is, and one backend against others."""

import argparse
import itertools
from pathlib import Path
from typing import Any

from memorywam_runtime.bench.bench_sensors import sensors_text
from memorywam_runtime.errors import InputError
from memorywam_runtime.files import refuse_unwritable
from memorywam_runtime.opening_args import add_opening_args, add_steps_arg
from memorywam_runtime.report import Outcome, Progress

__all__ = ["Bench"]

Data = dict[str, Any]


class Bench:
    """The verb: p50, p95 and p99 of every stage, against how full the memory is."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        add = parser.add_argument
        add("bundle", metavar="BUNDLE")
        add(
            "--frames",
            type=_counts,
            default=(),
            metavar="N,N",
            help="fills of memory to measure at (default 1,10,100,... and the longest)",
        )
        add_steps_arg(parser)
        add_opening_args(parser)
        add(
            "--against",
            type=_names,
            default=(),
            metavar="B,B",
            help="backends to compare with, in turns: eager, compile; the first runs twice",
        )
        add(
            "--repeat",
            type=int,
            default=20,
            metavar="N",
            help="rounds at each fill (default 20)",
        )
        add(
            "--full-history",
            action="store_true",
            help="measure a memory that keeps every token beside it",
        )
        add(
            "--roofline",
            action="store_true",
            help="measure the machine; how close a stage comes",
        )
        add(
            "--operators",
            action="store_true",
            help="tell what each kind of operator takes (ort)",
        )
        add("--seed", type=int, default=0, metavar="N", help="of the order of turns")
        add(
            "--plot",
            metavar="FILE.html",
            help="write a page with plots; implies --full-history and --roofline",
        )

    def run(self, args: argparse.Namespace) -> Outcome:
        """Measure and tell."""
        _check(args)
        data = _measured(args)
        if args.plot is not None:
            from memorywam_runtime.bench.bench_page import page_from_bench
            from memorywam_runtime.files import atomic_write

            atomic_write(Path(args.plot), page_from_bench(data).encode())
        return Outcome(
            ok=True,
            headers=(
                "arm",
                "frames",
                "stage",
                "p50 ms",
                "p95 ms",
                "p99 ms",
                "memory MB",
            ),
            rows=_rows(data),
            data=data,
            note="\n".join(_notes(data)),
        )


def _check(args: argparse.Namespace) -> None:
    """Refuse what would be refused when all is measured."""
    if args.seed < 0:
        raise InputError(f"found --seed {args.seed}; expected at least 0")
    if args.plot is not None:
        refuse_unwritable("--plot", Path(args.plot))


def _measured(args: argparse.Namespace) -> Data:
    """Return what a new measurement finds."""
    from memorywam_runtime.bench.bench import bench_bundle
    from memorywam_runtime.engines import BUILT_BACKENDS
    from memorywam_runtime.opening import num_steps_from_args, opening_from_args

    opening = opening_from_args(args)
    counts = itertools.count()
    # Engines take one size of memory: what keeps every token cannot run on them.
    with_plot = args.plot is not None and opening.backend not in BUILT_BACKENDS
    with Progress("bench") as progress:
        return bench_bundle(
            Path(args.bundle),
            opening,
            frames=args.frames,
            num_steps=num_steps_from_args(args),
            repeat=args.repeat,
            against=args.against,
            full_history=args.full_history or with_plot,
            roofline=args.roofline or with_plot,
            operators=args.operators,
            seed=args.seed,
            tell=lambda doing: progress.update(next(counts), doing),
        )


def _rows(data: Data) -> list[tuple[object, ...]]:
    """Return one line for every arm, fill and stage."""
    return [
        (
            arm,
            fill["frames"],
            stage,
            ms["p50"],
            ms["p95"],
            ms["p99"],
            fill["memory_bytes"] / 1e6,
        )
        for arm, found in data["arms"].items()
        for fill in found["by_frames"]
        for stage, ms in fill["stages_ms"].items()
    ]


def _notes(data: Data) -> list[str]:
    """Return what follows from the table, one finding a line."""
    notes = [_setting(data), sensors_text(data["sensors"])]
    notes.append(f"an update writes {data['update_bytes'] / 1e6:.4g} MB into memory")
    if changed := data["stages_ms"].get("instruction"):
        notes.append(f"another instruction takes {changed['p50']:.3g} ms, memory kept")
    notes += [_cold_start(arm, found) for arm, found in data["arms"].items()]
    notes += [
        f"{one['frames']} frames, {one['stage']}: {one['arm']} takes {one['ratio']:.3f} of "
        f"{data['backend']}'s time (95 % interval {one['low']:.3f} to {one['high']:.3f})"
        for one in data["ratios"]
        if one["stage"] in ("tick", "total")
    ]
    notes += [
        f"{one['frames']} frames: {one['share']:.2%} of {one['arm']}'s tick is outside the engines"
        for one in data["outside"]
    ]
    if data["peaks"] is not None:
        notes.append(_peaks(data["peaks"]))
    notes += [
        f"{one['frames']} frames, {one['arm']}, {one['stage']}: {one['bytes'] / 1e6:.4g} MB, "
        f"{one['flops'] / 1e9:.4g} GFLOP: at least {one['bound_ms']:.3g} ms by {one['limit']}, "
        f"{one['share']:.0%} of that speed"
        for one in data["roofline"]
        if one["arm"] == data["backend"]
    ]
    if any(one["share"] > 1 for one in data["roofline"]):
        notes.append(
            "a share above 100 % means that the machine was busy while its best was measured, or "
            "that numpy does not reach it: measure again on an idle machine"
        )
    notes += [_growth(one) for one in data["growth"]]
    notes += [_operators(one) for one in data["operators"]]
    notes += [
        f"{one['arm']}: attention takes {one['attention_ms'][0]:.4g} ms of a tick at "
        f"{one['from_frames']} frames and {one['attention_ms'][1]:.4g} at {one['frames']}: apart "
        f"from that a tick takes {one['apart']:.3f} of what it took"
        for one in data["attention"]
    ]
    notes += [
        f"{fill['frames']} frames, {arm}: not measured: {fill['left_out']}"
        for arm, found in data["arms"].items()
        for fill in found["by_frames"]
        if "left_out" in fill
    ]
    notes += [
        f"{fill['frames']} frames, {arm}: {fill['num_fallbacks']} sequences are not one launch "
        f"each: {fill['fallback_reason']}"
        for arm, found in data["arms"].items()
        for fill in found["by_frames"]
        if fill.get("num_fallbacks")
    ]
    return notes


def _setting(data: Data) -> str:
    """Return the machine and its state, and what ran on it."""
    host = data["machine"]
    threads = data["threads"] or "as many as the backend chooses"
    load = "/".join(f"{one[0]:.2f}" for one in (host["load_average"], data["load_average_after"]))
    return (
        f"{host['cpu']}, {host['cores_usable']} cores, threads: {threads}; "
        f"{data['precision']}, {data['num_steps']} steps; load before/after {load}, "
        f"scheduling {host['scheduling']}, nice {host['nice']}"
    )


def _cold_start(arm: str, found: Data) -> str:
    """Return how an arm began."""
    start = f"process {found['start_s']:.2f} s, " if "start_s" in found else ""
    first = ", ".join(f"{stage} {ms:.3g}" for stage, ms in found["first_ms"].items())
    calls = f"; first calls, ms: {first}" if first else ""
    provider = f" ({found['provider']})" if found["provider"] else ""
    return f"{arm}{provider}: {start}opened in {found['open_s']:.2f} s{calls}"


def _peaks(peaks: Data) -> str:
    """Return what the machine can do."""
    return (
        f"this machine reads {peaks['read_bytes_per_s'] / 1e9:.1f} GB/s and computes "
        f"{peaks['flops_per_s'] / 1e9:.0f} GFLOP/s with {peaks['threads']} threads ({peaks['how']})"
    )


def _operators(one: Data) -> str:
    """Return the operators that take most at one fill."""
    parts = []
    for graph, times in one["graphs_ms"].items():
        kinds = [f"{kind} {ms:.3g}" for kind, ms in list(times.items())[:3]]
        parts.append(f"{graph} {sum(times.values()):.3g} ({', '.join(kinds)})")
    return f"{one['frames']} frames, ms of a tick in operators: {'; '.join(parts)}"


def _growth(one: Data) -> str:
    """Return how a tick grows with frames."""
    text = (
        f"{one['arm']}: a tick at {one['frames']} frames takes {one['ratio']:.3f} of one at "
        f"{one['from_frames']} ({one['difference_ms']:+.4g} ms)"
    )
    if "apart" not in one:
        return text
    return (
        f"{text}; the {one['rows']} rows more are {one['bytes'] / 1e6:.4g} MB and "
        f"{one['flops'] / 1e9:.4g} GFLOP, at least {one['rows_ms']:.4g} ms: {one['apart']:.3f} "
        "apart from those"
    )


def _counts(text: str) -> tuple[int, ...]:
    """Return the numbers of a list such as 1,10,100."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"found {text!r}; expected numbers with commas between, such as 1,10,100"
        ) from error


def _names(text: str) -> tuple[str, ...]:
    """Return the names of a list such as eager,compile."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
