"""The verb calibrate: a bundle and recordings in, a scale table out."""

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorywam_runtime.errors import InputError
from memorywam_runtime.report import Outcome, Progress, format_table

if TYPE_CHECKING:
    from memorywam_calibration.calibrate import Calibration, Options
    from memorywam_runtime.scale_table import ScaleTable

__all__ = ["Calibrate"]

_SHOWN_SITES = 8
"""Activations with the least signal over rounding error."""


class Calibrate:
    """The verb: find scales for int8 from recorded episodes."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("bundle", metavar="BUNDLE", type=Path)
        parser.add_argument(
            "--recordings", metavar="DIR", type=Path, required=True,
            help="MCAP files, plain folders, or a LeRobot dataset (v3)",
        )  # fmt: skip
        parser.add_argument("--out", metavar="TABLE.json", type=Path, required=True)
        parser.add_argument("--recipe", metavar="NAME", default="int8", help="default int8")
        parser.add_argument(
            "--samples", metavar="N", type=int, help="decision points; the recipe's 64 by default"
        )
        parser.add_argument(
            "--seed", metavar="S", type=int, default=0, help="of the split, the choice, the noise"
        )
        parser.add_argument(
            "--allow-missing", metavar="CELL,...", default="",
            help="cells of the coverage table that may be missing, such as episodes,prompt/*",
        )  # fmt: skip
        parser.add_argument(
            "--max-fill", metavar="N", type=int, help="look at no frame beyond the Nth in memory"
        )
        parser.add_argument("--instruction", metavar="TEXT", help="default: the recorded ones")
        parser.add_argument(
            "--cameras", metavar="NAME=RECORDED,...", default="",
            help="the contract's cameras by their names in the recordings",
        )  # fmt: skip
        parser.add_argument("--threads", metavar="N", type=int, default=0, help="of torch")
        parser.add_argument(
            "--dry-run", action="store_true", help="tell the coverage; replay and write nothing"
        )

    def run(self, args: argparse.Namespace) -> Outcome:
        """Replay, fit, write; every cell that must be covered has to be."""
        from memorywam_calibration.calibrate import Calibration, calibrated, planned
        from memorywam_runtime.files import atomic_write
        from memorywam_runtime.scale_table import scale_table_to_json

        options = _options(args)
        if args.out.is_dir() or not args.out.absolute().parent.is_dir():
            raise InputError(
                f"--out {args.out} cannot be written: expected a file in a directory that exists"
            )
        with Progress("calibrate") as progress:
            counts = itertools.count()

            def tell(doing: str) -> None:
                progress.update(next(counts), doing)

            if args.dry_run:
                plan = planned(args.bundle, args.recordings, options, tell)
                rows = plan.rows(plan.counts, options.allowed)
                found = Calibration(plan=plan, coverage=rows, table=None)
            else:
                found = calibrated(args.bundle, args.recordings, options, tell)
        if found.table is not None:
            atomic_write(args.out, scale_table_to_json(found.table))
        return _outcome(args, found)


def _options(args: argparse.Namespace) -> "Options":
    """Return what the command line asks for."""
    from memorywam_calibration.calibrate import Options

    pairs = [pair.partition("=") for pair in args.cameras.split(",") if pair]
    if wrong := [name + sign + other for name, sign, other in pairs if not (name and other)]:
        raise InputError(f"found '{wrong[0]}' in --cameras; expected NAME=RECORDED,...")
    for name in ("seed", "threads"):
        if getattr(args, name) < 0:
            raise InputError(f"found --{name} {getattr(args, name)}; expected 0 or more")
    return Options(
        recipe=args.recipe,
        num_samples=args.samples,
        seed=args.seed,
        allowed=tuple(cell for cell in args.allow_missing.split(",") if cell),
        max_fill=args.max_fill,
        instruction=args.instruction,
        cameras={name: other for name, _, other in pairs},
        num_threads=args.threads,
    )


def _outcome(args: argparse.Namespace, found: "Calibration") -> Outcome:
    """Tell what was covered and what was found."""
    missing = [row for row in found.coverage if not row.is_ok]
    notes = [_episodes_note(found)]
    if missing:
        names = ", ".join(row.cell for row in missing)
        notes.append(
            f"missing: {names}. Nothing was written. Record episodes that hold them, or, where "
            "your robot never gets there, name them with --allow-missing"
        )
    elif found.table is None:
        notes.append("every cell is covered or may be missing; nothing was replayed or written")
    else:
        notes += _table_notes(found.table, found.plan.needs.release_samples)
        notes.append(f"the table: {args.out}")
    return Outcome(
        ok=not missing,
        headers=("cell", "decision points", "at least", "verdict", "remark"),
        rows=[row.row for row in found.coverage],
        data=_data(args, found),
        note="\n\n".join(notes),
    )


def _episodes_note(found: "Calibration") -> str:
    """Say which episodes there were, and which end early."""
    from memorywam_calibration.episodes import count_by_split

    counts = ", ".join(f"{n} {one}" for one, n in count_by_split(found.plan.episodes).items())
    damaged = [one.name for one in found.plan.episodes if one.recording.damage]
    early = f"; {len(damaged)} end early: {', '.join(damaged)}" if damaged else ""
    return f"{len(found.plan.episodes)} episodes: {counts}{early}"


def _table_notes(table: "ScaleTable", release_samples: int) -> list[str]:
    """Say what the table holds: the sites that int8 hurts most, and whether scales settled."""
    inputs = [(site, one) for site, one in table.entries.items() if one.kind == "activation"]
    inputs.sort(key=lambda pair: pair[1].sqnr_db if pair[1].sqnr_db is not None else 1e9)
    sites = format_table(
        ("activation", "absmax", "scale", "clipped", "SQNR, dB"),
        [
            (site, one.absmax, one.scales[0], one.clipped, one.sqnr_db)
            for site, one in inputs[:_SHOWN_SITES]
        ],
    )
    notes = [f"{len(inputs)} activations and as many weights become int8; the worst:\n{sites}"]
    ratio, where = _step_ratio(table)
    if where:
        notes.append(
            f"between denoising steps the largest value changes up to {ratio:.2f} times, at {where}"
        )
    if table.provenance.plateau:
        plateau = format_table(
            ("decision points", "largest change", "settled", "at"),
            [
                (one.num_samples, f"{one.worst_change:.1%}", f"{one.share_settled:.0%}",
                 one.worst_site)
                for one in table.provenance.plateau
            ],
        )  # fmt: skip
        settled = table.provenance.plateau[-1].share_settled
        rest = "" if settled == 1 else f"; {1 - settled:.0%} have not settled: more would help"
        notes.append(f"scales, against half as many decision points{rest}:\n{plateau}")
    if table.provenance.num_samples < release_samples:
        notes.append(f"for trying out: a release takes {release_samples} decision points")
    return notes


def _step_ratio(table: "ScaleTable") -> tuple[float, str]:
    """Return how much the range of one activation differs between steps, and where most.

    One scale for all steps costs as many bits as the ratio's binary logarithm.
    """
    worst = (1.0, "")
    for site in sorted(table.entries):
        groups = table.ranges[site].groups if site in table.ranges else {}
        steps = [peak for group, peak in groups.items() if group.startswith("step/")]
        if steps and min(steps) > 0:
            worst = max(worst, (max(steps) / min(steps), site))
    return worst


def _data(args: argparse.Namespace, found: "Calibration") -> dict[str, Any]:
    """Return the same and more for machines."""
    import msgspec

    table = found.table
    return {
        "bundle": args.bundle,
        "recipe": found.plan.needs.recipe,
        "contract_hash": found.plan.manifest.contract_hash,
        "episodes": {
            one.name: {"sha256": one.sha256, "split": one.split, "damage": one.recording.damage}
            for one in found.plan.episodes
        },
        "samples": [
            {"episode": one.episode, "frame": one.frame, "seed": one.seed}
            for one in found.plan.samples
        ],
        "coverage": [
            {
                "cell": row.cell,
                "count": row.count,
                "least": row.least,
                "verdict": row.verdict,
                "remark": row.remark,
            }
            for row in found.coverage
        ],
        "table": None if table is None else args.out,
        "plateau": [] if table is None else msgspec.to_builtins(table.provenance.plateau),
        "num_entries": 0 if table is None else len(table.entries),
    }
