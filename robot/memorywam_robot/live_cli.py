"""`run --async`: arguments to a loop that keeps time."""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorywam_robot.live_report import rehearsal_outcome, run_outcome
from memorywam_runtime.errors import InputError, MemorywamError
from memorywam_runtime.report import Outcome, Progress

if TYPE_CHECKING:
    from memorywam_robot.live.chunks import SeamKind
    from memorywam_robot.live.instruction_changes import InstructionChange
    from memorywam_robot.live.live_result import LiveResult
    from memorywam_robot.live.live_robot import LiveRobot
    from memorywam_robot.live.live_rules import LiveRules
    from memorywam_robot.live.load import Load
    from memorywam_robot.live.tellers import Teller
    from memorywam_runtime.policy import Policy

__all__ = ["add_live_args", "is_live", "run_live"]

_SEAMS = ("inpaint", "blend", "drop")
_HARDWARE = ("driver", "lerobot")


def add_live_args(parser: argparse.ArgumentParser) -> None:
    """Declare what only a loop that keeps time has."""
    live = parser.add_argument_group("while it moves", "memory and chunks go on as the arms do")
    live.add_argument(
        "--async", action="store_true", dest="is_async", help="make chunks while the arms move"
    )
    live.add_argument(
        "--shadow",
        action="store_true",
        help="command nothing: somebody else moves the arms (in the simulator an expert), and how "
        "far that is from the policy's actions is told",
    )
    live.add_argument(
        "--simulated-time",
        action="store_true",
        help="of the simulator: as fast as it computes, the same every time",
    )
    live.add_argument(
        "--cameras",
        metavar="NAME=KIND",
        nargs="+",
        default=[],
        help="NAME=realsense:SERIAL, NAME=realsense-file:PATH, NAME=realsense-sim, NAME=source, "
        "NAME=lerobot:TYPE[,KEY=VALUE...]",
    )
    live.add_argument(
        "--camera-hz", metavar="HZ", type=float, default=10.0, help="of simulated ones; default 10"
    )
    live.add_argument(
        "--then",
        metavar="STEP:TEXT",
        action="append",
        default=[],
        help="another instruction after so many steps, from empty memory; again for more",
    )
    live.add_argument(
        "--keep-memory", action="store_true", help="with --then: memory stays as it is"
    )
    live.add_argument("--faults", metavar="FILE", type=Path, help="of cameras, as JSON")
    live.add_argument("--seam", choices=_SEAMS, help="default inpaint; drop in a shadow")
    live.add_argument("--tick-hz", metavar="HZ", type=float, default=50.0, help="default 50")
    live.add_argument(
        "--limits",
        metavar="FILE",
        type=Path,
        help="of the joints, for --robot driver:... or lerobot:...",
    )
    live.add_argument(
        "--max-steps", metavar="N", type=int, default=1000, help="of an episode; default 1000"
    )
    live.add_argument(
        "--latency",
        metavar="R,A",
        help="ms to remember and to act; measured on this device by default",
    )


def is_live(args: argparse.Namespace) -> bool:
    """Return whether the loop keeps time.

    Raises:
        InputError: it does not, and only it could do what is asked for; or both are impossible.
    """
    if not args.is_async and (args.then or args.keep_memory):
        raise InputError("found --then or --keep-memory without --async; expected it with them")
    if args.shadow and (not args.is_async or args.simulated_time or args.dry_run):
        raise InputError(
            "found --shadow without --async, or with --simulated-time or --dry-run; expected it "
            "with --async in real time: whoever moves the arms goes by the clock"
        )
    if args.shadow and args.seam not in (None, "drop"):
        raise InputError(
            f"found --shadow with --seam {args.seam}; expected drop: what is begun with is what "
            "nobody executes"
        )
    return bool(args.is_async)


def run_live(args: argparse.Namespace, policy: "Policy", tellers: "Sequence[Teller]") -> Outcome:
    """Run episodes; the caller tells what was recorded.

    Raises:
        InputError: the device cannot keep up, or the arguments do not fit each other.
    """
    from memorywam_robot.arms.supervisor_config import check_watched
    from memorywam_robot.live.camera_rates import asked_rates, check_rates
    from memorywam_robot.live.grid_rules import grid_shape_from_contract
    from memorywam_robot.live.live_rules import LiveRules
    from memorywam_robot.robot import ROBOTS

    # In a shadow nobody executes what a chunk would have to begin with.
    seam: SeamKind = args.seam or ("drop" if args.shadow else "inpaint")
    rules = LiveRules(tick_hz=args.tick_hz, seam=seam, is_shadow=args.shadow)
    kind, _, rest = str(args.robot).partition(":")
    if kind not in ("sim", *_HARDWARE) or (kind in _HARDWARE and args.simulated_time):
        raise InputError(
            f"found --async with --robot {args.robot}; expected sim:TASK, or in real time "
            "driver:python:MODULE:FUNCTION or lerobot:TYPE"
        )
    if kind in _HARDWARE and (args.limits is None or args.instruction is None):
        raise InputError(
            f"found --robot {kind}:... without --limits FILE or --instruction; expected both"
        )
    if kind == "sim" and args.robot not in ROBOTS:
        raise InputError(f"unknown robot '{args.robot}'; expected one of {', '.join(ROBOTS)}")
    if args.shadow:  # before the device is measured, which takes long
        check_watched(rest if kind == "driver" else args.robot)
    changes = _changes(args, policy)
    if not args.dry_run:  # which names them, with all else
        shape = grid_shape_from_contract(policy.contract)
        check_rates(shape, asked_rates(shape.cameras, _specs(args), args.camera_hz))
    load = _load(args, policy, rest if kind == "sim" else "")
    if args.dry_run:
        return _rehearsed(args, policy, load)
    seeds = range(args.seed, args.seed + args.episodes)
    timing: dict[str, Any] = {}
    stopped_by = 0
    with Progress("run", total=args.episodes) as progress:

        def told(done: int) -> None:
            progress.update(done, f"seed {seeds[done]}")

        if args.simulated_time:
            results = _simulated(args, policy, rest, load, rules, tellers, seeds, changes, told)
        else:
            results, timing, stopped_by = _real(
                args, policy, load, rules, tellers, seeds, changes, told
            )
    return replace(run_outcome(policy, load, results, timing), stopped_by=stopped_by)


def _load(args: argparse.Namespace, policy: "Policy", task: str) -> "Load":
    """Return the cycle that this device can keep; refuse if it cannot."""
    from memorywam_robot.live.load import load_from_measured
    from memorywam_robot.live.load_measuring import measured_costs
    from memorywam_robot.sim.tasks import INSTRUCTIONS

    if args.latency is None:
        remember_ms, act_ms = measured_costs(policy, args.instruction or INSTRUCTIONS[task])
    else:
        remember_ms, act_ms = _latency(args.latency)
    return load_from_measured(policy.contract, remember_ms=remember_ms, act_ms=act_ms)


def _latency(text: str) -> tuple[float, float]:
    try:
        remember_ms, act_ms = (float(part) for part in text.split(","))
    except ValueError:
        remember_ms = act_ms = math.nan
    if not (0 < remember_ms < math.inf and 0 < act_ms < math.inf):
        raise InputError(f"found --latency {text}; expected two numbers above 0, in ms: 30,60")
    return remember_ms, act_ms


def _simulated(
    args: argparse.Namespace,
    policy: "Policy",
    task: str,
    load: "Load",
    rules: "LiveRules",
    tellers: "Sequence[Teller]",
    seeds: Sequence[int],
    changes: "Sequence[InstructionChange]",
    told: Callable[[int], None],
) -> "list[LiveResult]":
    from memorywam_robot.live.virtual_run import VirtualRun, latency_from_load

    run = VirtualRun(
        policy,
        policy.contract,
        task,
        load=load,
        latency=latency_from_load(load, policy.num_denoising_steps),
        rules=rules,
        camera_hz=args.camera_hz,
        carriers=_specs(args),
        faults=_faults(args),
        tellers=tellers,
    )
    try:
        results = []
        for done, seed in enumerate(seeds):
            told(done)
            results.append(run.episode(seed, instruction=args.instruction, changes=changes))
        return results
    finally:
        run.close()


def _real(
    args: argparse.Namespace,
    policy: "Policy",
    load: "Load",
    rules: "LiveRules",
    tellers: "Sequence[Teller]",
    seeds: Sequence[int],
    changes: "Sequence[InstructionChange]",
    told: Callable[[int], None],
) -> "tuple[list[LiveResult], dict[str, Any], int]":
    from memorywam_robot.live.camera_rates import running_rates
    from memorywam_robot.live.grid_rules import GridRules
    from memorywam_robot.live.live_run import LiveRun

    robot = _live_robot(args, policy)
    try:
        rates = running_rates(robot.cameras, args.camera_hz)
        run = LiveRun(
            policy,
            robot,
            load=load,
            rules=rules,
            grid_rules=GridRules(camera_hz=min(rates.values())),
            tellers=tellers,
        )
        try:
            results = run.episodes(seeds, instruction=args.instruction, changes=changes, told=told)
        finally:
            run.close()
        status = robot.arm.status()
        timing: dict[str, Any] = {
            "tick": run.timekeeping.report(),
            "supervisor": {
                "period_ms": 10.0,
                "late_p50_ms": status.late_p50_ms,
                "late_p99_ms": status.late_p99_ms,
                "late_max_ms": status.late_max_ms,
                "num_skipped": status.num_skipped,
                "counts": status.counts,
                "num_torn": robot.arm.link.state.num_torn,
                "num_given_up": robot.arm.link.state.num_given_up,
            },
            "cameras": {camera.name: dict(camera.counts) for camera in robot.cameras},
            "synchrony": {} if robot.signal is None else robot.signal.report(),
        }
    except BaseException:
        robot.close()
        raise
    try:
        robot.close()
    except MemorywamError as error:  # the episodes are over: what they did is told all the same
        timing["not_closed"] = str(error)
    return results, timing, run.stopped_by


def _rehearsed(args: argparse.Namespace, policy: "Policy", load: "Load") -> Outcome:
    """Look, and move nothing."""
    from memorywam_robot.live.live_rehearsal import rehearse_live
    from memorywam_robot.sim.tasks import INSTRUCTIONS

    text = args.instruction or INSTRUCTIONS[str(args.robot).partition(":")[2]]
    robot = _live_robot(args, policy)
    try:
        found = rehearse_live(policy, robot, load, instruction=text, seed=args.seed)
    finally:
        robot.close()
    return rehearsal_outcome(found)


def _changes(args: argparse.Namespace, policy: "Policy") -> "Sequence[InstructionChange]":
    """Return the instructions to come; refuse what the bundle does not hold, now."""
    from memorywam_robot.live.instruction_changes import changes_from_arguments
    from memorywam_runtime.bundle import read_prompt

    changes = changes_from_arguments(args.then, keep_memory=args.keep_memory)
    for change in changes:
        assert policy.session.root is not None
        read_prompt(policy.session.root, policy.session.manifest, change.instruction)
    return changes


def _live_robot(args: argparse.Namespace, policy: "Policy") -> "LiveRobot":
    """Open arms and cameras."""
    kind, _, rest = str(args.robot).partition(":")
    if kind == "sim":
        from memorywam_robot.live.live_simulated import LiveSimulated

        return LiveSimulated(
            rest,
            _specs(args),
            camera_hz=args.camera_hz,
            faults=_faults(args),
            is_shadow=args.shadow,
        )
    from memorywam_robot.live.live_hardware import LiveHardware
    from memorywam_robot.robot import Job

    return LiveHardware(
        rest if kind == "driver" else args.robot,
        _specs(args),
        policy.contract,
        limits=args.limits,
        job=Job(instruction=args.instruction, num_steps=args.max_steps),
        is_shadow=args.shadow,
    )


def _specs(args: argparse.Namespace) -> Any:  # noqa: ANN401 - CameraSpec, imported when needed
    from memorywam_robot.cameras.camera_arguments import cameras_from_arguments

    return cameras_from_arguments(args.cameras)


def _faults(args: argparse.Namespace) -> Any:  # noqa: ANN401 - FaultSchedule, the same
    from memorywam_robot.cameras.frame_faults import read_faults

    return None if args.faults is None else read_faults(args.faults)
