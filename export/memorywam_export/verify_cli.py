"""The verb verify: is this bundle what its checkpoint is? Its report goes into the bundle."""

import argparse
import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorywam_export.checkpoints.checkpoint_options import (
    CHECKPOINT_HELP,
    add_checkpoint_options,
    checkpoint_of,
)
from memorywam_runtime.errors import InputError
from memorywam_runtime.report import Outcome, Progress

if TYPE_CHECKING:
    from memorywam_export.checkpoints.checkpoint import Checkpoint
    from memorywam_export.parity.parity_report import Check
    from memorywam_runtime.manifest import Manifest

__all__ = ["Verify"]

_SMALL_MODEL = 20_000_000
"""Parameters; below, a second thread waits more than it computes: beside another process on the
same two cores, a frame of the demo's model took 1.0 s with two threads and 0.03 s with one."""
_BISECTED_FRAMES = 8
"""Of the episode that bisection takes its inputs from: past the first eviction."""


class Verify:
    """The verb: is this bundle what its checkpoint is?"""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("bundle", metavar="BUNDLE")
        parser.add_argument(
            "--checkpoint", metavar="CHECKPOINT",
            help=f"{CHECKPOINT_HELP}; none for a quantized bundle, whose engines are compared with "
            "its own graphs",
        )  # fmt: skip
        add_checkpoint_options(parser)
        parser.add_argument(
            "--frames", type=int, metavar="N",
            help="latent frames of the episode (default 40, which cross a gist bucket, or as many "
            "as memory holds)",
        )  # fmt: skip
        parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the episode")
        parser.add_argument(
            "--no-faults", action="store_true", help="do not plant faults to see them caught"
        )
        parser.add_argument(
            "--drift", type=int, metavar="N", help="measure how errors grow over N frames: 1000"
        )
        parser.add_argument(
            "--closed-loop", default="", metavar="TASK,TASK",
            help="drive the simulated robot by torch and by the bundle: recall,glimpse,count",
        )  # fmt: skip
        parser.add_argument(
            "--episodes", type=int, default=50, metavar="N", help="of each task (default 50)"
        )
        parser.add_argument(
            "--bisect", action="store_true",
            help="name the first operator of the graphs that is wrong, instead",
        )  # fmt: skip
        parser.add_argument(
            "--keep", metavar="DIR", help="with --bisect: write the smallest model that is wrong"
        )
        parser.add_argument(
            "--no-record", action="store_true", help="do not write the report into the bundle"
        )
        parser.add_argument(
            "--backend", metavar="B", help="climb one rung more, on a device: ort-cuda, tensorrt..."
        )
        parser.add_argument(
            "--engine", metavar="DIR",
            help="the backend's engines, if not beside the bundle; the report is written to them, "
            "and they load from then on",
        )  # fmt: skip

    def run(self, args: argparse.Namespace) -> Outcome:
        """Climb the ladder; every check must hold."""
        from memorywam_export.verify.verify_report import (
            VerifyOptions,
            check_is_float,
            verify_bundle,
        )
        from memorywam_runtime.bundle import check_bundle

        if args.engine and args.backend not in ("tensorrt", "tensorrt-rtx"):
            raise InputError(
                f"found --engine with --backend {args.backend}; expected tensorrt or tensorrt-rtx"
            )
        _check_numbers(args)
        root = Path(args.bundle)
        manifest = check_bundle(root)
        if manifest.quantization is not None and args.backend is not None:
            return _quantized(args, root)
        check_is_float(manifest)
        if args.checkpoint is None:
            raise InputError(
                "found no --checkpoint; expected what the bundle is said to be made from: "
                f"{CHECKPOINT_HELP}"
            )
        checkpoint = checkpoint_of(args, of_bundle=manifest.contract)
        _check_origin(args, manifest, checkpoint)
        _limit_threads(checkpoint)
        if args.bisect:
            return _bisected(args, root, checkpoint)
        with Progress("verify") as progress:
            counts = itertools.count()
            checks, data = verify_bundle(
                root,
                checkpoint,
                VerifyOptions(
                    num_frames=args.frames,
                    seed=args.seed,
                    backend=args.backend,
                    engines=Path(args.engine) if args.engine else None,
                    faults=not args.no_faults,
                    drift_frames=args.drift,
                    tasks=tuple(task for task in args.closed_loop.split(",") if task),
                    num_episodes=args.episodes,
                ),
                tell=lambda doing: progress.update(next(counts), doing),
            )
        return _outcome(args, checks, data)


def _check_numbers(args: argparse.Namespace) -> None:
    """Refuse what would be refused when the ladder has been climbed, an hour later."""
    from memorywam_export.episodes.closed_loop import TASKS
    from memorywam_export.episodes.drift_gate import LEAST_FRAMES

    if args.seed < 0 or (args.frames is not None and args.frames < 1) or args.episodes < 1:
        raise InputError(
            f"found --seed {args.seed}, --frames {args.frames} and --episodes {args.episodes}; "
            "expected at least 0, 1 and 1"
        )
    if args.drift is not None and args.drift < LEAST_FRAMES:
        raise InputError(f"found --drift {args.drift}; expected at least {LEAST_FRAMES}")
    tasks = [task for task in args.closed_loop.split(",") if task]
    if unknown := [task for task in tasks if task not in TASKS]:
        raise InputError(
            f"found '{unknown[0]}' in --closed-loop; expected some of {', '.join(TASKS)}"
        )


def _check_origin(args: argparse.Namespace, manifest: "Manifest", checkpoint: "Checkpoint") -> None:
    """Refuse a checkpoint of others where a report would be left: it would shut a good bundle."""
    from memorywam_export.verify.bundle_parity import other_origin
    from memorywam_runtime.engines import BUILT_BACKENDS

    is_of_engines = args.backend in BUILT_BACKENDS
    is_recorded = is_of_engines or not (args.no_record or args.bisect or args.backend)
    if is_recorded and (other := other_origin(manifest, checkpoint)):
        way = "" if is_of_engines else ", or compare all the same with --no-record"
        raise InputError(f"{other}: name that with --checkpoint{way}")


def _outcome(args: argparse.Namespace, checks: "list[Check]", data: dict[str, Any]) -> Outcome:
    """Record what was found, and tell."""
    bad = [check for check in checks if not check.ok]
    told = _record(args, data, passed=not bad)
    worst = f"; the first that fails: {bad[0].what} ({bad[0].worst})" if bad else ""
    gaps = "".join(f"not looked at: {gap}\n" for gap in data.get("gaps", ()))
    if bad and data.get("other_origin"):
        worst += f"\n{data['other_origin']}"
    return Outcome(
        ok=not bad,
        headers=("rung", "what", "error", "tolerance", "worst at", "verdict"),
        rows=[check.row for check in checks],
        data=data,
        note=f"{len(checks) - len(bad)} of {len(checks)} checks hold{worst}\n{gaps}{told}",
    )


def _quantized(args: argparse.Namespace, root: Path) -> Outcome:
    """Compare a backend with a quantized bundle's own graphs on ONNX Runtime."""
    from memorywam_export.verify.verify_quantized import verify_quantized

    unfit = {
        "--checkpoint": args.checkpoint,
        "--bisect": args.bisect,
        "--keep": args.keep,
        "--drift": args.drift,
        "--closed-loop": args.closed_loop,
    }
    if asked := [name for name, value in unfit.items() if value]:
        raise InputError(
            f"found {', '.join(asked)} for a quantized bundle; expected none: what quantization "
            "did to it `memorywam calibrate` has judged, and its engines are compared with its own "
            "graphs on ONNX Runtime"
        )
    with Progress("verify") as progress:
        counts = itertools.count()
        checks, data = verify_quantized(
            root,
            args.backend,
            Path(args.engine) if args.engine else None,
            num_frames=args.frames,
            seed=args.seed,
            tell=lambda doing: progress.update(next(counts), doing),
        )
    return _outcome(args, checks, data)


def _limit_threads(checkpoint: "Checkpoint") -> None:
    """Let torch compute small models on one thread."""
    import torch

    if sum(math.prod(weight.shape) for weight in checkpoint.weights) < _SMALL_MODEL:
        torch.set_num_threads(1)


def _bisected(args: argparse.Namespace, root: Path, checkpoint: "Checkpoint") -> Outcome:
    """Look for the first operator that is wrong."""
    from memorywam_export.bisect.bisect_report import bisect_bundle

    if args.backend is not None:
        raise InputError(
            f"found --bisect with --backend {args.backend}, whose engines give out nothing but "
            "their outputs; expected the graphs alone"
        )
    with Progress("bisect") as progress:
        counts = itertools.count()
        found = bisect_bundle(
            root,
            checkpoint,
            num_frames=min(args.frames or _BISECTED_FRAMES, _BISECTED_FRAMES),
            seed=args.seed,
            keep=Path(args.keep) if args.keep else None,
            tell=lambda doing: progress.update(next(counts), doing),
        )
    return Outcome(
        ok=found.ok, headers=found.headers, rows=found.rows, data=found.data, note=found.note
    )


def _record(args: argparse.Namespace, data: dict[str, Any], *, passed: bool) -> str:
    """Leave the report where what it judges is; say where.

    That is beside the engines where there were any, else in the bundle: an engine that is wrong
    says nothing against the graphs that it was built from.
    """
    from memorywam_export.bundles.bundle_report import record_bundle_parity
    from memorywam_export.engines.engine_parity import record_parity
    from memorywam_export.verify.verify_page import page_from_verify
    from memorywam_runtime.engines import BUILT_BACKENDS

    if args.backend in BUILT_BACKENDS:
        record_parity(Path(data["engines"]), data, passed=passed)
        return f"the report: {data['engines']}"
    if args.no_record or args.backend is not None:
        return "the report was not written into the bundle"
    root = Path(args.bundle)
    try:
        page = page_from_verify(data, _more_cards(data))
        manifest = record_bundle_parity(root, data, page, passed=passed)
    except OSError as error:
        return f"the report could not be written into the bundle: {error}"
    assert manifest.parity is not None
    page_at = f"the page: {root / manifest.parity.page}"
    return page_at if passed else f"{page_at}; until every check holds, the bundle does not open"


def _more_cards(data: dict[str, Any]) -> list[str]:
    """Return the page's cards of what was asked for besides the ladder."""
    from memorywam_export.episodes.closed_loop_page import closed_loop_figures
    from memorywam_export.episodes.drift_page import drift_figures

    cards = []
    if "drift" in data:
        cards += drift_figures(data["drift"])
    if "closed_loop" in data:
        cards += closed_loop_figures(data["closed_loop"])
    return cards
