"""What the verb run tells of its episodes: tables, and the same for machines."""

import argparse
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

from memorywam_robot.runs import success_share
from memorywam_runtime.report import Outcome

if TYPE_CHECKING:
    from memorywam_robot.loop import EpisodeResult
    from memorywam_robot.recording_thread import Written
    from memorywam_robot.runs import Rehearsal
    from memorywam_runtime.policy import Policy

__all__ = ["recorded_note", "rehearsed_outcome", "run_data", "run_outcome"]


def run_outcome(
    args: argparse.Namespace,
    policy: "Policy",
    results: "list[EpisodeResult]",
    written: "list[Written]",
    num_dropped_gists: list[int],
) -> Outcome:
    """Tell how episodes went; a recording that is not whole is a check that failed.

    Args:
        args: Of the verb.
        policy: That ran them.
        results: One an episode.
        written: Recordings, if any.
        num_dropped_gists: By episode, because memory was full.
    """
    share = success_share(results)
    remember_ms = median(ms for one in results for ms in one.remember_ms)
    act_ms = median(ms for one in results for ms in one.act_ms)
    judged = f"{share:.0%} of {len(results)} succeeded; " if share is not None else ""
    lost = sum(num_dropped_gists)
    told = f"; {lost} gists dropped: memory was full" if lost else ""
    return Outcome(
        ok=not any(one.complaint for one in written),
        headers=("seed", "success", "remark", "frames", "steps", "seconds"),
        rows=[
            (
                one.seed,
                "" if one.success is None else "yes" if one.success else "no",
                one.remark,
                one.num_frames,
                one.num_steps,
                round(one.seconds, 2),
            )
            for one in results
        ],
        data=run_data(args, policy)
        | {
            "success": share,
            "stages_ms": policy.session.timings.percentiles(),
            "recordings": [asdict(one) for one in written],
            "episodes": [
                _episode_data(one, dropped)
                for one, dropped in zip(results, num_dropped_gists, strict=True)
            ],
        },
        note=f"{judged}remember {remember_ms:.1f} ms, act {act_ms:.1f} ms a frame (median)"
        + told
        + recorded_note(written),
    )


def _episode_data(result: "EpisodeResult", num_dropped_gists: int) -> dict[str, Any]:
    """Return how one episode went."""
    return {
        "seed": result.seed,
        "instruction": result.instruction,
        "success": result.success,
        "remark": result.remark,
        "num_frames": result.num_frames,
        "num_dropped_gists": num_dropped_gists,
        "num_steps": result.num_steps,
        "seconds": result.seconds,
        "remember_ms": result.remember_ms,
        "act_ms": result.act_ms,
        "executed": result.executed,
    }


def recorded_note(written: "list[Written]") -> str:
    """Say what was recorded, and first of all what was not."""
    broken = [one for one in written if one.complaint]
    if broken:
        worst = f"{broken[0].path}: {broken[0].complaint}"
        return f"; {len(broken)} of {len(written)} recordings are NOT whole, the first {worst}"
    if len(written) > 1:
        return f"; {len(written)} recordings in {written[0].path.parent}"
    return f"; recorded {written[0].path}" if written else ""


def rehearsed_outcome(args: argparse.Namespace, policy: "Policy", found: "Rehearsal") -> Outcome:
    """Tell what a dry run found."""
    rows = [
        ("instruction", found.instruction),
        ("episode", f"{found.num_steps} steps, {found.num_frames} frames: fits"),
        ("remember", f"{found.remember_ms:.1f} ms"),
        ("act", f"{found.act_ms:.1f} ms"),
        ("first action", f"{found.first_step_rad:.3f} rad from the joints at most"),
    ]
    return Outcome(
        ok=True,
        headers=("part", "found"),
        rows=rows,
        data=run_data(args, policy) | {"dry_run": asdict(found)},
        note="no command was sent",
    )


def run_data(args: argparse.Namespace, policy: "Policy") -> dict[str, Any]:
    """Return what identifies a run."""
    manifest = policy.session.manifest
    return {
        "bundle": args.bundle,
        "contract_hash": manifest.contract_hash,
        "checkpoint_sha256": manifest.source.sha256,
        "robot": args.robot,
        "backend": policy.session.backend.name,
        "threads": args.threads,
        "num_denoising_steps": policy.num_denoising_steps,
        "hidden": [name for name in args.hide.split(",") if name],
    }
