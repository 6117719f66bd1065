"""The verb calibrate: a bundle and recordings in, a quantized bundle with its judgement out."""

import argparse
import itertools
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from memorywam_runtime.errors import InputError
from memorywam_runtime.report import Outcome, Progress

if TYPE_CHECKING:
    from memorywam_calibration.calibrate import Options
    from memorywam_calibration.judgement.judgement import JudgeOptions
    from memorywam_calibration.mixing.mixing import MixOptions

__all__ = ["Calibrate"]

_LOG = logging.getLogger(__name__)


class Calibrate:
    """The verb: quantize a bundle from recorded episodes, and judge what that costs."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("bundle", metavar="BUNDLE", type=Path)
        parser.add_argument(
            "--recordings", metavar="DIR", type=Path, required=True,
            help="MCAP or HDF5 files (RoboTwin, RMBench), plain folders, or a LeRobot dataset (v3)",
        )  # fmt: skip
        parser.add_argument(
            "--out", metavar="BUNDLE2", type=Path, required=True,
            help="directory to write; a name that ends in .json gets the scale table alone",
        )  # fmt: skip
        parser.add_argument(
            "--recipe", metavar="NAME", default="int8",
            help="int8 (default), fp8, int8-weight, int4-weight, mixed, kv-int8 or kv-fp8",
        )  # fmt: skip
        parser.add_argument(
            "--samples", metavar="N", type=int, help="decision points; the recipe's 64 by default"
        )
        parser.add_argument(
            "--seed", metavar="S", type=int, default=0, help="of the split, the choice, the noise"
        )
        parser.add_argument(
            "--allow-missing", metavar="CELL,...", default="",
            help="cells of the coverage table that may be missing, such as 'episodes,prompt/*'",
        )  # fmt: skip
        parser.add_argument(
            "--max-fill", metavar="N", type=int, help="look at no frame beyond the Nth in memory"
        )
        parser.add_argument("--instruction", metavar="TEXT", help="default: the recorded ones")
        parser.add_argument(
            "--cameras", metavar="NAME=RECORDED,...", default="",
            help="the contract's cameras by their names in the recordings",
        )  # fmt: skip
        parser.add_argument(
            "--threads", metavar="N", type=int, default=0,
            help="of torch, in each process; the same number gives the same table everywhere",
        )  # fmt: skip
        parser.add_argument(
            "--cluster", metavar="local|HOST:PORT",
            help="replay episodes with Ray: on all cores here, or on the cluster at an address",
        )  # fmt: skip
        parser.add_argument(
            "--resume", action="store_true",
            help="use the episodes that an interrupted run has kept in BUNDLE2.shards",
        )  # fmt: skip
        _add_fitting(parser)
        _add_judging(parser)

    def run(self, args: argparse.Namespace) -> Outcome:
        """Replay, fit, write; every cell that must be covered has to be."""
        from memorywam_calibration.calibration_places import checked_out
        from memorywam_calibration.tasks.cluster import check_cluster
        from memorywam_calibration.tasks.shards import ShardFolder

        args.out = checked_out(args.out, args.bundle, args.recordings)
        options = _options(args)
        shards = ShardFolder.beside(args.out)
        if args.cluster is not None:
            check_cluster(args.cluster)
        _check_replaying(args)
        if not (args.resume or args.dry_run):
            shards.refuse_left_over()
        with Progress("calibrate") as progress:
            counts = itertools.count()

            def tell(doing: str) -> None:
                progress.update(next(counts), doing)

            if args.dry_run:
                return _dry_run(args, options, tell)
            work = _table_alone if args.out.suffix == ".json" else _bundle
            try:
                outcome, is_written = work(args, options, tell)
            except KeyboardInterrupt:
                if kept := shards.num_kept:
                    _LOG.warning(
                        "interrupted: %s keeps %d episodes; go on with --resume", shards.path, kept
                    )
                raise
        if is_written:
            shards.remove()
        return outcome


def _add_fitting(parser: argparse.ArgumentParser) -> None:
    """Declare how scales are fitted."""
    parser.add_argument(
        "--no-smooth", action="store_true",
        help="move nothing from activations into weights before rounding",
    )  # fmt: skip
    parser.add_argument(
        "--gram-channels", metavar="N", type=int, default=0,
        help="smooth by X^T X for inputs of at most N channels; by mean squares by default",
    )  # fmt: skip
    parser.add_argument(
        "--per-step", action="store_true",
        help="gains by denoising step where that helps; after smoothing it rarely does",
    )  # fmt: skip
    parser.add_argument(
        "--no-second-pass", action="store_true",
        help="do not replay again through the quantized memory",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="tell the coverage; replay and write nothing"
    )


def _add_judging(parser: argparse.ArgumentParser) -> None:
    """Declare what is judged, and how strictly."""
    parser.add_argument(
        "--drift", metavar="N", type=int, default=1000,
        help="frames in one memory over which errors must not grow (default 1000)",
    )  # fmt: skip
    parser.add_argument(
        "--closed-loop", metavar="TASK,TASK", default="",
        help="drive the simulated robot by both bundles: recall,glimpse,count",
    )  # fmt: skip
    parser.add_argument(
        "--episodes", metavar="N", type=int, default=50, help="of each task (default 50)"
    )
    parser.add_argument(
        "--allow-slower", action="store_true",
        help="pass a bundle that is slower on this machine, or larger than its recipe promises",
    )  # fmt: skip
    parser.add_argument(
        "--budget", metavar="SHARE", type=float,
        help="with --recipe mixed: what products may cost, of what they cost wide (default: as "
        "much as 8 bits of each weight, so 0.25 of float32, 0.5 of 16 bits)",
    )  # fmt: skip
    parser.add_argument(
        "--cost", choices=("bytes", "time"), default="bytes",
        help="with --recipe mixed: of weights, or of products' time on this machine",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace BUNDLE2 if it exists")


def _dry_run(args: argparse.Namespace, options: "Options", tell: Callable[[str], None]) -> Outcome:
    """Tell the coverage."""
    from memorywam_calibration.calibrate import Calibration, planned
    from memorywam_calibration.calibration_outcome import outcome_of_calibration
    from memorywam_export.recipes.recipes import recipe_from_name

    recipe = recipe_from_name(args.recipe)
    options = replace(options, recipe=(*recipe.parts, recipe.name)[0])
    plan = planned(args.bundle, args.recordings, options, tell)
    rows = plan.rows(plan.counts, options.allowed)
    found = Calibration(plan=plan, coverage=rows, table=None)
    return outcome_of_calibration(args.bundle, args.out, found)


def _table_alone(
    args: argparse.Namespace, options: "Options", tell: Callable[[str], None]
) -> tuple[Outcome, bool]:
    """Write the scale table; tell what was found, and whether it was written."""
    from memorywam_calibration.calibrate import calibrated
    from memorywam_calibration.calibration_outcome import outcome_of_calibration
    from memorywam_runtime.files import atomic_write
    from memorywam_runtime.scale_table import scale_table_to_json

    found = calibrated(args.bundle, args.recordings, options, tell)
    if found.table is not None:
        atomic_write(args.out, scale_table_to_json(found.table))
    return outcome_of_calibration(args.bundle, args.out, found), found.table is not None


def _bundle(
    args: argparse.Namespace, options: "Options", tell: Callable[[str], None]
) -> tuple[Outcome, bool]:
    """Write the quantized bundle; tell what was found, and whether it was written."""
    from memorywam_calibration.calibration_outcome import outcome_of_delivery
    from memorywam_calibration.delivery import delivered

    found = delivered(
        args.bundle,
        args.recordings,
        args.out,
        options,
        _judging(args, options),
        mixing=_mixing(args, options),
        overwrite=args.overwrite,
        tell=tell,
    )
    return outcome_of_delivery(args.bundle, args.out, found), bool(found.checks)


def _check_replaying(args: argparse.Namespace) -> None:
    """Refuse what is asked of a replay where none takes place."""
    from memorywam_export.recipes.recipes import RECIPES

    recipe = RECIPES.get(args.recipe)
    if recipe is None or recipe.needs_table:
        return
    for name in ("cluster", "resume", "dry_run"):
        if getattr(args, name):
            raise InputError(
                f"found --{name.replace('_', '-')} with --recipe {recipe.name}; expected it with "
                "a recipe that replays episodes: weights alone need none; leave it out"
            )


def _mixing(args: argparse.Namespace, options: "Options") -> "MixOptions":
    """Return what the command line asks of the search for recipes."""
    from memorywam_calibration.mixing.mixing import MixOptions

    if args.budget is not None and not 0 < args.budget <= 1:
        raise InputError(f"found --budget {args.budget}; expected a share above 0, at most 1")
    return MixOptions(
        cost=args.cost,
        budget=args.budget,
        instruction=args.instruction,
        cameras=options.cameras,
        seed=args.seed,
        num_threads=args.threads or 1,
    )


def _judging(args: argparse.Namespace, options: "Options") -> "JudgeOptions":
    """Return what the command line asks of the judgement."""
    from memorywam_calibration.judgement.judgement import JudgeOptions
    from memorywam_export.episodes.closed_loop import TASKS
    from memorywam_export.episodes.drift_gate import LEAST_FRAMES

    if args.drift < LEAST_FRAMES or args.episodes < 1:
        raise InputError(
            f"found --drift {args.drift} and --episodes {args.episodes}; expected at least "
            f"{LEAST_FRAMES}, and 1"
        )
    tasks = tuple(task for task in args.closed_loop.split(",") if task)
    if unknown := [task for task in tasks if task not in TASKS]:
        raise InputError(
            f"found '{unknown[0]}' in --closed-loop; expected some of {', '.join(TASKS)}"
        )
    return JudgeOptions(
        drift_frames=args.drift,
        tasks=tasks,
        num_episodes=args.episodes,
        seed=args.seed,
        instruction=args.instruction,
        cameras=options.cameras,
        num_threads=args.threads or 1,
        allow_slower=args.allow_slower,
    )


def _options(args: argparse.Namespace) -> "Options":
    """Return what the command line asks for."""
    from memorywam_calibration.calibrate import Options
    from memorywam_calibration.tasks.shards import ShardFolder

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
        second_pass=not args.no_second_pass,
        max_fill=args.max_fill,
        instruction=args.instruction,
        cameras={name: other for name, _, other in pairs},
        smooth=not args.no_smooth,
        gram_channels=args.gram_channels,
        per_step=args.per_step,
        num_threads=args.threads,
        cluster=args.cluster,
        shards=ShardFolder.beside(args.out).path,
        is_resuming=args.resume,
    )
