"""The verb verify: is this bundle what its checkpoint is? Its report goes into the bundle."""

import argparse
import itertools
from pathlib import Path
from typing import Any

from memorywam_export.checkpoint_options import (
    CHECKPOINT_HELP,
    add_checkpoint_options,
    checkpoint_of,
)
from memorywam_runtime.errors import InputError
from memorywam_runtime.report import Outcome, Progress

__all__ = ["Verify"]


class Verify:
    """The verb: is this bundle what its checkpoint is?"""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("bundle", metavar="BUNDLE")
        parser.add_argument(
            "--checkpoint", required=True, metavar="CHECKPOINT", help=CHECKPOINT_HELP
        )
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
        from memorywam_export.verify_report import VerifyOptions, verify_bundle
        from memorywam_runtime.bundle import check_bundle

        if args.engine and args.backend not in ("tensorrt", "tensorrt-rtx"):
            raise InputError(
                f"found --engine with --backend {args.backend}; expected tensorrt or tensorrt-rtx"
            )
        root = Path(args.bundle)
        manifest = check_bundle(root)
        checkpoint = checkpoint_of(args, of_bundle=manifest.contract)
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
                ),
                tell=lambda doing: progress.update(next(counts), doing),
            )
        bad = [check for check in checks if not check.ok]
        told = _record(args, data, passed=not bad)
        worst = f"; the first that fails: {bad[0].what} ({bad[0].worst})" if bad else ""
        return Outcome(
            ok=not bad,
            headers=("rung", "what", "max abs", "tolerance", "worst at", "verdict"),
            rows=[check.row for check in checks],
            data=data,
            note=f"{len(checks) - len(bad)} of {len(checks)} checks hold{worst}\n{told}",
        )


def _record(args: argparse.Namespace, data: dict[str, Any], *, passed: bool) -> str:
    """Leave the report in the bundle, and beside the engines that were verified; say where."""
    from memorywam_export.bundle_report import record_bundle_parity
    from memorywam_export.engine_parity import record_parity
    from memorywam_export.verify_page import page_from_verify
    from memorywam_runtime.engines import BUILT_BACKENDS

    if args.backend in BUILT_BACKENDS:
        record_parity(Path(data["engines"]), data, passed=passed)
    if args.no_record:
        return "the report was not written into the bundle"
    root = Path(args.bundle)
    try:
        manifest = record_bundle_parity(root, data, page_from_verify(data), passed=passed)
    except OSError as error:
        return f"the report could not be written into the bundle: {error}"
    assert manifest.parity is not None
    return f"the page: {root / manifest.parity.page}"
