"""The verb of the workshop that compiles a bundle for a device: build."""

import argparse
from pathlib import Path

from memorywam_runtime.errors import InputError
from memorywam_runtime.report import Outcome

__all__ = ["Build"]

_GIB = 1 << 30


class Build:
    """The verb: a bundle's graphs to engines for a device."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.description = (
            "Compile the graphs of a bundle for a GPU. Engines lie beside the bundle, in\n"
            "BUNDLE.engines/BACKEND-TARGET, and run on that architecture with that very version\n"
            "of the backend alone. What is there already and still fits is kept; an interrupted\n"
            "build goes on where it stopped. Types are those of the bundle: export again for\n"
            "another precision."
        )
        parser.epilog = (
            "tensorrt-rtx builds on any machine, without a GPU, for sm_80, sm_86, sm_89, sm_120,\n"
            "sm_121, and sm_75 (exported with fp16 and --no-rewrite collapse-padding). tensorrt\n"
            "builds on the device itself, and serves Jetson (sm_87, sm_110) and data-centre GPUs\n"
            "(sm_90, sm_100, sm_103) too.\n\n"
            "  memorywam build BUNDLE --backend tensorrt-rtx --target sm_89 --dry-run\n"
            "  memorywam build BUNDLE --backend tensorrt-rtx --target sm_86 --target sm_89\n"
            "  memorywam build BUNDLE --backend tensorrt"
        )
        parser.add_argument("bundle", metavar="BUNDLE")
        parser.add_argument(
            "--backend", required=True, choices=("tensorrt-rtx", "tensorrt"),
            help="what will run the engines; ONNX Runtime needs none",
        )  # fmt: skip
        parser.add_argument(
            "--target", action="append", default=[], metavar="sm_NN",
            help="architecture of the GPU; may be given several times (default: the one here)",
        )  # fmt: skip
        parser.add_argument(
            "--out", metavar="DIR", help="make BACKEND-TARGET there instead of beside the bundle"
        )
        parser.add_argument(
            "--workspace", type=float, metavar="GIB",
            help="device memory that one kernel may use aside (default: no limit)",
        )  # fmt: skip
        parser.add_argument(
            "--dry-run", action="store_true", help="say what is missing and whether it would fit"
        )
        parser.add_argument(
            "--force", action="store_true", help="build even if it does not seem to fit"
        )

    def run(self, args: argparse.Namespace) -> Outcome:
        """Build for each target in turn."""
        from memorywam_export.build_report import built_outcome
        from memorywam_export.engines.engine_build import BuildOptions, build_engines
        from memorywam_export.recipes.engine_targets import check_target

        if args.workspace is not None and not args.workspace > 0:
            raise InputError(f"found --workspace {args.workspace}; expected more than 0 GiB")
        targets: list[str | None] = list(dict.fromkeys(args.target)) or [None]
        for target in targets:  # the last one's mistake is told before the first one's hour
            if target is not None:
                check_target(args.backend, target)
        results = [
            build_engines(
                Path(args.bundle),
                BuildOptions(
                    backend=args.backend,
                    target=target,
                    out=Path(args.out) if args.out else None,
                    workspace_bytes=int(args.workspace * _GIB) if args.workspace else None,
                    force=args.force,
                    dry_run=args.dry_run,
                ),
            )
            for target in targets
        ]
        return built_outcome(results, dry_run=args.dry_run)
