"""What a calibration found, for people and for machines."""

import hashlib
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from memorywam_calibration.calibrate import Calibration
from memorywam_calibration.delivery import Delivery
from memorywam_calibration.episodes.coverage import CoverageRow
from memorywam_calibration.episodes.episodes import SHARES, count_by_split
from memorywam_calibration.judgement.judgement_checks import is_waived_by_option
from memorywam_export.parity.parity_report import Check
from memorywam_runtime.report import Outcome, format_table
from memorywam_runtime.scale_table import ScaleTable, scale_table_to_json

__all__ = ["outcome_of_calibration", "outcome_of_delivery"]

_SHOWN_SITES = 8
"""Activations with the least signal over rounding error."""
_SPARE = 1.5
"""Of recordings: of 30, 18 calibrate in the mean, and less than 12 once in a hundred seeds."""
_COVERAGE = ("cell", "decision points", "at least", "verdict", "remark")


def outcome_of_calibration(bundle: Path, out: Path, found: Calibration) -> Outcome:
    """Tell what was covered and what was found.

    Args:
        bundle: That was calibrated.
        out: Where the table went.
        found: By `calibrated`, or planned alone.
    """
    missing = [row for row in found.coverage if not row.is_ok]
    notes = [_episodes_note(found), *_resumed_notes(found)]
    if missing:
        notes.append(_missing_note(missing))
    elif found.table is None:
        notes.append("every cell is covered or may be missing; nothing was replayed or written")
    else:
        notes += _table_notes(found.table, found.plan.needs.release_samples)
        notes.append(f"the table: {out}, {_hash_note(found.table)}")
    return Outcome(
        ok=not missing,
        headers=_COVERAGE,
        rows=[row.row for row in found.coverage],
        data=_data(bundle, out, found),
        note="\n\n".join(notes),
    )


def outcome_of_delivery(bundle: Path, out: Path, found: Delivery) -> Outcome:
    """Tell what a quantized bundle costs and whether it may run.

    Args:
        bundle: As exported.
        out: The quantized bundle.
        found: By `delivered`.
    """
    calibration = found.calibration
    if calibration is not None and not found.checks:
        return outcome_of_calibration(bundle, out, calibration)
    notes = []
    data: dict[str, Any] = {"bundle": bundle, "out": out, **found.data}
    if calibration is not None:
        notes += [_episodes_note(calibration), *_resumed_notes(calibration)]
        if calibration.table is not None:
            notes += _table_notes(calibration.table, calibration.plan.needs.release_samples)
        data["calibration"] = _data(bundle, out, calibration)
    if calibration is not None and any(row.count < row.least for row in calibration.coverage):
        lacking = [row.row for row in calibration.coverage if row.count < row.least]
        notes.append(f"not covered, as allowed:\n{format_table(_COVERAGE, lacking)}")
    notes.append(_verdict(out, found.checks))
    return Outcome(
        ok=found.passed,
        headers=("rung", "check", "found", "limit", "remark", "verdict"),
        rows=[check.row for check in found.checks],
        data=data,
        note="\n\n".join(notes),
    )


def _missing_note(missing: Sequence[CoverageRow]) -> str:
    """Say what is missing, and what to do: the option as it is to be typed."""
    cells = [row.cell for row in missing]
    few = next((row for row in missing if row.cell == "episodes"), None)
    more = ""
    if few is not None:
        recordings = math.ceil(_SPARE * few.least / SHARES[0])
        more = (
            f" Calibration takes {SHARES[0]:.0%} of the episodes, by lot: {recordings} recordings "
            f"give {few.least} almost surely."
        )
    return (
        f"missing: {', '.join(cells)}. Nothing was written. Record episodes that hold them, or, "
        f"where your robot never gets there: --allow-missing {shlex.quote(','.join(cells))}.{more}"
    )


def _hash_note(table: ScaleTable) -> str:
    """Say which table it is: the same scales have the same bytes, wherever they were found."""
    return f"sha256 {hashlib.sha256(scale_table_to_json(table)).hexdigest()[:12]}"


def _verdict(out: Path, checks: Sequence[Check]) -> str:
    """Say what became of the bundle."""
    page = out / "reports" / "parity.html"
    if all(check.ok for check in checks):
        return f"the bundle: {out}, its page: {page}"
    failed = [check for check in checks if not check.ok]
    if all(is_waived_by_option(check) for check in failed):
        advice = (
            "Actions hold: where this machine's speed and the bytes are no matter, calibrate again "
            "with --allow-slower --overwrite"
        )
    else:
        advice = "Do not ship it: record what is missing, or choose a wider --recipe"
    return (
        f"{len(failed)} of {len(checks)} checks failed: {'; '.join(one.what for one in failed)}. "
        f"{advice}. {out} is written and opens with --allow-unverified alone; its page: {page}"
    )


def _episodes_note(found: Calibration) -> str:
    """Say which episodes there were, and which end early."""
    counts = ", ".join(f"{n} {one}" for one, n in count_by_split(found.plan.episodes).items())
    damaged = [one.name for one in found.plan.episodes if one.recording.damage]
    early = f"; {len(damaged)} end early: {', '.join(damaged)}" if damaged else ""
    return f"{len(found.plan.episodes)} episodes: {counts}{early}"


def _resumed_notes(found: Calibration) -> list[str]:
    """Say what an interrupted run had left, and what of it was of no use."""
    notes = []
    if found.resumed:
        notes.append(
            f"{len(found.resumed)} episodes were replayed before: {', '.join(found.resumed)}"
        )
    if found.redone:
        reasons = "\n".join(found.redone.values())
        notes.append(f"{len(found.redone)} episodes were kept and had to be redone:\n{reasons}")
    return notes


def _table_notes(table: ScaleTable, release_samples: int) -> list[str]:
    """Say what the table holds: the sites that int8 hurts most, and whether scales settled."""
    inputs = [(site, one) for site, one in table.entries.items() if one.kind == "activation"]
    inputs.sort(key=lambda pair: pair[1].sqnr_db if pair[1].sqnr_db is not None else 1e9)
    sites = format_table(
        ("activation", "absmax", "scale", "share clipped", "SQNR, dB"),
        [
            (site, one.absmax, one.scales[0], one.clipped, one.sqnr_db)
            for site, one in inputs[:_SHOWN_SITES]
        ],
    )
    notes = []
    if inputs:
        kind = inputs[0][1].dtype
        notes.append(f"{len(inputs)} activations become {kind}; the worst:\n{sites}")
    notes += _equalized_notes(table)
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
    if table.provenance.second_pass is not None:
        again = table.provenance.second_pass
        notes.append(
            f"through quantized memory, {again.num_grown} of {again.num_sites} ranges grew, by "
            f"{again.worst_growth:.3f} times at most, at {again.worst_site}: scales hold both"
        )
    if table.provenance.num_samples < release_samples:
        notes.append(f"for trying out: a release takes {release_samples} decision points")
    return notes


def _equalized_notes(table: ScaleTable) -> list[str]:
    """Say what was equalized before rounding, and what that is to gain."""
    kinds = (
        ("smoothed by channel", [*table.smooth.values()]),
        ("brought to one range by step", [*table.steps.values()]),
    )
    notes = []
    for what, entries in kinds:
        if entries:
            gains = [10 * math.log10(one.plain_error / one.error) for one in entries]
            notes.append(
                f"{len(entries)} inputs are {what}: {min(gains):.1f} to {max(gains):.1f} dB less "
                "rounding error are expected"
            )
    return notes


def _step_ratio(table: ScaleTable) -> tuple[float, str]:
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


def _data(bundle: Path, out: Path, found: Calibration) -> dict[str, Any]:
    """Return the same and more for machines."""
    table = found.table
    return {
        "bundle": bundle,
        "recipe": found.plan.needs.recipe,
        "contract_hash": found.plan.manifest.contract_hash,
        "episodes": {
            one.name: {"sha256": one.sha256, "split": one.split, "damage": one.recording.damage}
            for one in found.plan.episodes
        },
        "resumed": list(found.resumed),
        "redone": dict(found.redone),
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
        "table": None if table is None else out,
        "plateau": [] if table is None else msgspec.to_builtins(table.provenance.plateau),
        "num_entries": 0 if table is None else len(table.entries),
    }
