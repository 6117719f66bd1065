"""What `run --async` tells: how each episode went, or what a rehearsal saw."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from memorywam_runtime.report import Outcome

if TYPE_CHECKING:
    from memorywam_robot.live.live_rehearsal import LiveRehearsal
    from memorywam_robot.live.live_result import LiveResult
    from memorywam_robot.live.load import Load
    from memorywam_robot.live.shadow import ShadowDistance
    from memorywam_runtime.policy import Policy

__all__ = ["rehearsal_outcome", "run_outcome"]


def rehearsal_outcome(found: "LiveRehearsal") -> Outcome:
    """Tell what was seen while no command was sent."""
    apart = "" if found.first_step_rad is None else f"{found.first_step_rad:.3f} rad at most"
    return Outcome(
        ok=found.is_well,
        headers=("part", "found"),
        rows=[
            *((f"camera {name}", state) for name, state in found.cameras.items()),
            ("arms", f"{found.arms}, {'powered' if found.is_powered else 'NOT powered'}"),
            ("first action", apart),
            ("load", found.load),
        ],
        data={"dry_run": asdict(found)},
        note="no command was sent",
    )


def run_outcome(
    policy: "Policy", load: "Load", results: "list[LiveResult]", timing: dict[str, Any]
) -> Outcome:
    """Tell how episodes went."""
    judged = [one.success for one in results if one.success is not None]
    share = sum(judged) / len(judged) if judged else None
    quality = min((one.counts.grid.memory_quality for one in results), default=1.0)
    late = timing.get("tick")
    note = "" if share is None else f"{share:.0%} of {len(judged)} succeeded; "
    note += f"{load.sentence()}, headroom {load.headroom:.0%}"
    note += f"; memory quality {quality:.3f} at worst"
    if shadows := [one.counts.shadow for one in results if one.counts.shadow is not None]:
        note += f"; {_shadow_note(shadows)}"
    loose = [
        pair for pair, one in timing.get("synchrony", {}).items() if not one["is_synchronised"]
    ]
    if loose:
        note += f"; shutters NOT seen to open together: {', '.join(loose)}"
    if not_closed := timing.get("not_closed"):
        note += f"; afterwards: {not_closed}"
    if late:
        note += _kept(results, late["period_ms"])
        note += f"; ticks late {late['late_p99_ms']:.2f} ms (p99) of {late['period_ms']:.0f}"
    return Outcome(
        ok=not (not_closed or any(one.aborted for one in results)),
        headers=("seed", "success", "remark", "frames", "chunks", "replaced", "holds", "seconds"),
        rows=[
            (
                one.seed,
                "" if one.success is None else "yes" if one.success else "no",
                one.remark,
                one.counts.frames,
                one.counts.chunks,
                one.counts.chunks_replaced,
                one.counts.holds,
                round(one.seconds, 2),
            )
            for one in results
        ],
        data={
            "loop": "async",
            "success": share,
            "load": {name: getattr(load, name) for name in (*load.__slots__, "headroom")},
            "timing": timing,
            "stages_ms": policy.session.timings.percentiles(),
            "episodes": [one.report() for one in results],
        },
        note=note,
    )


def _shadow_note(shadows: "list[ShadowDistance]") -> str:
    """Tell how far the policy's actions were from what the arms did, at worst by unit."""
    if all(one.is_still for one in shadows):
        return "in the shadow of arms that stood STILL: nobody moved them"
    worst: dict[str, dict[str, Any]] = {}
    for shadow in shadows:
        for joint in shadow.report()["joints"]:
            if joint["rms"] >= worst.get(joint["unit"], {"rms": 0.0})["rms"]:
                worst[joint["unit"]] = joint
    told = (
        f"{one['rms']:.3f} {unit} RMS, {one['worst']:.3f} at worst, of {one['name']}"
        for unit, one in worst.items()
    )
    return "in the shadow, nothing was sent; the joints farthest off: " + "; ".join(told)


def _kept(results: "list[LiveResult]", period_ms: float) -> str:
    """Tell the least rate of an episode, and the longest tick of all."""
    rates = [one.kept_hz for one in results if one.kept_hz is not None]
    ticks = [one.worst_tick_ms for one in results if one.worst_tick_ms is not None]
    if not rates or not ticks:
        return ""
    return (
        f"; kept {min(rates):.2f} of {1e3 / period_ms:g} Hz, worst tick {max(ticks):.1f} ms of "
        f"{period_ms:g}"
    )
