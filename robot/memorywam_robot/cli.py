"""The verbs run and demo: from arguments to episodes."""

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from memorywam_robot.live_cli import add_live_args, is_live, run_live
from memorywam_runtime.errors import InputError
from memorywam_runtime.files import refuse_unwritable
from memorywam_runtime.opening_args import add_opening_args, add_steps_arg
from memorywam_runtime.report import Outcome, Progress

if TYPE_CHECKING:
    from memorywam_robot.loop import EpisodeResult
    from memorywam_robot.recorder import Recorder
    from memorywam_robot.recording_thread import Written
    from memorywam_robot.robot import Robot
    from memorywam_robot.viewer.view import View
    from memorywam_runtime.policy import Policy

__all__ = ["Demo", "Run"]


class Run:
    """The verb: open a robot and a bundle, run episodes, tell how they went."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare what to run on what."""
        parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="directory of a bundle")
        parser.add_argument(
            "--robot",
            metavar="R",
            required=True,
            help="sim:TASK, lerobot:TYPE[,KEY=VALUE...], gym:ID[,KEY=VALUE...]; with --async "
            "sim:TASK, driver:python:MODULE:FUNCTION or lerobot:TYPE[,KEY=VALUE...]",
        )
        parser.add_argument("--episodes", metavar="N", type=int, default=1, help="default 1")
        parser.add_argument(
            "--seed", metavar="S", type=int, default=0, help="of the first episode; default 0"
        )
        parser.add_argument(
            "--instruction", metavar="TEXT", help="one that the bundle holds; default: the robot's"
        )
        parser.add_argument(
            "--hide", metavar="PARTS", default="", help="of memory: anchors,window,gists"
        )
        add_opening_args(parser)
        add_steps_arg(parser)
        parser.add_argument("--film", metavar="FILE", type=Path, help="film the first episode")
        parser.add_argument(
            "--record", metavar="DIR", type=Path, help="write one MCAP file an episode"
        )
        parser.add_argument(
            "--record-memory",
            action="store_true",
            help="and memory's digest after every frame, not only at the end",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="open, check and act once; move nothing"
        )
        parser.add_argument(
            "--page", metavar="FILE", type=Path, help="how it went; with --record it is beside DIR"
        )
        parser.add_argument(
            "--view", metavar="V", help="show it meanwhile: foxglove[:FILE.mcap][:PORT]"
        )
        add_live_args(parser)

    def run(self, args: argparse.Namespace) -> Outcome:
        """Run the episodes, or rehearse one; write the page about them."""
        page = args.page
        if page is not None and not args.dry_run:
            refuse_unwritable("--page", page)
        outcome = self._run(args)
        if page is None and args.record is not None:
            run = f"{args.record.name}-{args.robot.replace(':', '-')}-seed-{args.seed}.html"
            page = args.record.absolute().parent / run
        if page is None or args.dry_run:
            return outcome
        from dataclasses import replace

        from memorywam_robot.summary import report_from_data, summary_page

        try:
            summary_page(report_from_data(outcome.data), page)
        except OSError as error:  # the episodes were run; that stays true
            return replace(outcome, ok=False, note=f"{outcome.note}; NO page at {page}: {error}")
        return replace(outcome, note=f"{outcome.note}; the page: {page}")

    def _run(self, args: argparse.Namespace) -> Outcome:
        from dataclasses import replace

        from memorywam_robot.robot import robot_from_argument
        from memorywam_robot.run_report import rehearsed_outcome, run_outcome
        from memorywam_robot.runs import policy_from_bundle, rehearse, visible_from_names
        from memorywam_runtime.opening import num_steps_from_args, opening_from_args

        if args.episodes < 1:
            raise InputError(f"found --episodes {args.episodes}; expected at least 1")
        visible = visible_from_names(args.hide)
        # The backend before the simulator: triton, which torch for CUDA loads, ends the process
        # with a segmentation fault if Mesa has drawn in it before. The other order is sound.
        policy = policy_from_bundle(
            args.bundle, opening_from_args(args), visible, num_steps=num_steps_from_args(args)
        )
        if is_live(args):
            return _ran_live(args, policy)
        robot = robot_from_argument(args.robot, policy.contract)
        try:
            _refuse_film(args.film, robot)
            if args.dry_run:
                found = rehearse(policy, robot, seed=args.seed, instruction=args.instruction)
                return rehearsed_outcome(args, policy, found)
            results, written, num_dropped_gists, shown = _results(args, policy, robot)
            told = run_outcome(args, policy, results, written, num_dropped_gists)
            return replace(told, data={**told.data, "view": shown}) if shown else told
        finally:
            robot.close()


class Demo:
    """The verb: the whole job on what the package ships."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare how much of it, and where to."""
        parser.add_argument(
            "--episodes", metavar="N", type=int, default=10, help="of each task; default 10"
        )
        parser.add_argument(
            "--out", metavar="DIR", type=Path, default=Path("build/demo"), help="for all it writes"
        )
        parser.add_argument(
            "--checkpoint", metavar="DIR", type=Path, help="default: the one that ships"
        )

    def run(self, args: argparse.Namespace) -> Outcome:
        """Export, verify, run, measure; write a page about it."""
        from memorywam_robot.demo import demo

        def tell(line: str) -> None:
            print(line, file=sys.stderr, flush=True)

        found = demo(args.out, num_episodes=args.episodes, checkpoint=args.checkpoint, tell=tell)
        return Outcome(
            ok=not found.complaints,
            headers=("check", "found", "verdict"),
            rows=found.rows,
            data=found.report,
            note="; ".join(found.complaints) or f"the page: {found.page}",
        )


def _refuse_film(path: Path | None, robot: "Robot") -> None:
    """Refuse a film that could not be made or written, before an hour of episodes."""
    if path is None:
        return
    from memorywam_robot.film import film_format
    from memorywam_robot.simulated import SimulatedRobot

    film_format(path)
    refuse_unwritable("--film", path)
    if not isinstance(robot, SimulatedRobot):
        raise InputError("--film needs a simulated robot: --robot sim:TASK")


def _results(
    args: argparse.Namespace, policy: "Policy", robot: "Robot"
) -> "tuple[list[EpisodeResult], list[Written], list[int], dict[str, float]]":
    """Run the episodes that the arguments ask for; film and record if they ask for it.

    Returns:
        How they went, what was recorded, the gists that each dropped, and how the view did.
    """
    from memorywam_robot.film import Film
    from memorywam_robot.gist_watch import GistWatch
    from memorywam_robot.runs import run_episodes
    from memorywam_robot.simulated import SimulatedRobot

    film, path = None, args.film
    if path is not None and isinstance(robot, SimulatedRobot):
        film = Film(robot.world, policy.contract, seed=args.seed)
    seeds = range(args.seed, args.seed + args.episodes)
    recorder, watch = _recorder(args, policy, seeds), GistWatch(policy)
    with contextlib.ExitStack() as stack:
        view = None if args.view is None else stack.enter_context(_view(args, policy))
        if recorder is not None:
            stack.enter_context(recorder)
        progress = stack.enter_context(Progress("run", total=args.episodes))
        results = run_episodes(
            policy,
            robot,
            seeds=seeds,
            instruction=args.instruction,
            subscribers=[one for one in (film, recorder, view, watch) if one is not None],
            told=lambda done: progress.update(done, f"seed {seeds[done]}"),
        )
    if film is not None and path is not None:
        film.write(path)
    shown = {} if view is None else _shown(view)
    return results, [] if recorder is None else recorder.written, watch.num_dropped, shown


def _ran_live(args: argparse.Namespace, policy: "Policy") -> Outcome:
    """Run episodes that keep time."""
    from dataclasses import asdict, replace

    from memorywam_robot.live.live_recorder import LiveRecorder
    from memorywam_robot.live.tellers import LiveViewer, Teller
    from memorywam_robot.run_report import recorded_note, run_data

    if args.film is not None:
        raise InputError("found --film with --async; expected one of them")
    recorder = _recorder(args, policy, range(args.seed, args.seed + args.episodes))
    view = None
    with contextlib.ExitStack() as stack:
        tellers: list[Teller] = []
        if recorder is not None:
            tellers.append(LiveRecorder(stack.enter_context(recorder)))
        if args.view is not None:
            view = stack.enter_context(_view(args, policy))
            tellers.append(LiveViewer(view))
        outcome = run_live(args, policy, tellers)
    written = [] if recorder is None else recorder.written
    return replace(
        outcome,
        ok=outcome.ok and not any(one.complaint for one in written),
        data=run_data(args, policy)
        | {"recordings": [asdict(one) for one in written]}
        | dict(outcome.data)
        | ({} if view is None else {"view": _shown(view)}),
        note=outcome.note + recorded_note(written),
    )


def _view(args: argparse.Namespace, policy: "Policy") -> "View":
    """Start the viewer."""
    from memorywam_robot.viewer.view import View
    from memorywam_robot.viewer.view_options import view_from_argument

    view = View(
        view_from_argument(args.view),
        policy.contract,
        max_frames=policy.session.manifest.memory.max_frames,
    )
    print(f"the view: {view.address}", file=sys.stderr, flush=True)
    return view


def _shown(view: "View") -> dict[str, float]:
    """Return what became of what was given to the viewer."""
    return {
        "num_dropped": view.num_dropped,
        "num_refused": view.num_refused,
        "longest_ms": view.longest_ns / 1e6,
    }


def _recorder(args: argparse.Namespace, policy: "Policy", seeds: range) -> "Recorder | None":
    """Return what records the episodes, if it is asked for; refuse to write over others'."""
    if args.record is None:
        if args.record_memory:
            raise InputError("found --record-memory without --record; expected both, or neither")
        return None
    from memorywam_robot.recorder import Recorder
    from memorywam_runtime.recording import SHADOW

    recorder = Recorder(
        args.record,
        policy,
        # Its actions are where somebody else moved the arms: its name says so, for good.
        robot=f"{SHADOW}{args.robot}" if args.shadow else args.robot,
        num_threads=args.threads or 0,
        records_memory=args.record_memory,
        loop="async" if args.is_async else "sync",
    )
    recorder.check_seeds(seeds)
    return recorder
