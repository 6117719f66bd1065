"""The verbs of the workshop: export, prompt, verify."""

import argparse
import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from memorywam_runtime.errors import InputError
from memorywam_runtime.report import Outcome, Progress

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from memorywam_export.checkpoint import Checkpoint
    from memorywam_runtime.contract import InferenceContract
    from memorywam_runtime.manifest import Precision

__all__ = ["Export", "Prompt", "Verify"]

_CHECKPOINT_HELP = "a .pt, a .safetensors file or folder, or random:PRESET[:SEED]"


class Export:
    """The verb: a checkpoint to a bundle."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help=_CHECKPOINT_HELP)
        parser.add_argument("--out", metavar="BUNDLE", help="the directory to make")
        _add_checkpoint_options(parser)
        parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
        parser.add_argument(
            "--opset", type=int, metavar="N",
            help="24 writes memory in place; 20 is for runtimes that cannot (default: 24, or 20 "
            "where onnxruntime is here and older than 1.24)",
        )  # fmt: skip
        parser.add_argument(
            "--max-frames", type=int, default=256, metavar="N", help="what memory can hold"
        )
        parser.add_argument(
            "--on-full",
            choices=("refuse", "stop", "drop-oldest-gist"),
            default="refuse",
            help="what happens to the frame after those",
        )
        parser.add_argument(
            "--graph", action="append", default=[], metavar="NAME",
            help="add an optional graph: action_denoise",
        )  # fmt: skip
        parser.add_argument(
            "--rewrite", action="append", default=[], metavar="NAME",
            help="an exact rewrite that must be in effect, or the export is refused; all that fit "
            "the contract are: fold-modulation, modulation-table, collapse-padding, rope-halves, "
            "early-frames",
        )  # fmt: skip
        parser.add_argument(
            "--no-rewrite", action="append", default=[], metavar="NAME", help="leave one out"
        )
        parser.add_argument(
            "--text-rows", type=int, metavar="N",
            help="rows for an instruction's tokens and one zero row, under collapse-padding "
            "(default 64, or the contract's text length if that is less)",
        )  # fmt: skip
        parser.add_argument(
            "--no-range-scan",
            action="store_true",
            help="export a checkpoint to fp16 without looking whether its activations fit",
        )
        parser.add_argument("--overwrite", action="store_true", help="replace BUNDLE if it exists")
        parser.add_argument(
            "--list-presets", action="store_true", help="list the contracts that ship, and stop"
        )

    def run(self, args: argparse.Namespace) -> Outcome:
        """Write the bundle and tell what is in it."""
        from memorywam_export.export_report import exported_outcome, presets_outcome

        if args.list_presets:
            return presets_outcome()
        if args.checkpoint is None or args.out is None:
            raise InputError("found no CHECKPOINT or no --out BUNDLE; expected both")
        if args.max_frames < 1:
            raise InputError(f"found --max-frames {args.max_frames}; expected at least 1")
        from memorywam_export.bundle import PRECISIONS, ExportOptions, export_bundle
        from memorywam_export.opsets import default_opset
        from memorywam_export.range_scan import ranges_for
        from memorywam_export.rewrites import DEFAULT_TEXT_ROWS

        started_s = time.monotonic()
        precision = cast("Precision", args.precision)
        checkpoint = _checkpoint(args, dtype=PRECISIONS[precision])
        ranges = ranges_for(
            checkpoint,
            precision,
            is_wanted=not args.no_range_scan,
            no_rewrites=args.no_rewrite,
        )
        manifest = export_bundle(
            checkpoint,
            Path(args.out),
            ExportOptions(
                precision=precision,
                opset=args.opset or default_opset(),
                max_frames=args.max_frames,
                on_full=args.on_full,
                graphs=tuple(args.graph),
                rewrites=tuple(args.rewrite),
                no_rewrites=tuple(args.no_rewrite),
                text_rows=DEFAULT_TEXT_ROWS if args.text_rows is None else args.text_rows,
                overwrite=args.overwrite,
            ),
        )
        return exported_outcome(manifest, args.out, time.monotonic() - started_s, ranges)


class Prompt:
    """The verb: the instructions of a bundle."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("bundle", metavar="BUNDLE")
        job = parser.add_mutually_exclusive_group(required=True)
        job.add_argument("--add", metavar="TEXT", help="add, or replace, an instruction")
        job.add_argument("--list", action="store_true", help="list the instructions")
        job.add_argument("--remove", metavar="TEXT", help="remove an instruction")
        source = parser.add_mutually_exclusive_group()
        source.add_argument(
            "--embedding",
            metavar="FILE",
            help="its embedding: .npy or .safetensors, tokens x width",
        )
        source.add_argument("--encoder", metavar="DIR", help="a local folder with the text encoder")

    def run(self, args: argparse.Namespace) -> Outcome:
        """Change or list the instructions."""
        from memorywam_export.prompts import add_prompt, remove_prompt
        from memorywam_runtime.bundle import check_bundle

        root = Path(args.bundle)
        if args.add is None and (args.embedding or args.encoder):
            raise InputError("found --embedding or --encoder without --add TEXT; expected it")
        if args.add is not None:
            manifest = check_bundle(root)
            embedding, encoder = _embedding(args, manifest.contract)
            # ONNX Runtime has no bfloat16 on the CPU.
            backend = "eager" if manifest.precision == "bf16" else "ort"
            manifest = add_prompt(root, args.add, embedding, encoder, backend)
        elif args.remove is not None:
            manifest = remove_prompt(root, args.remove)
        else:
            manifest = check_bundle(root)
        entries = manifest.prompts
        return Outcome(
            ok=True,
            headers=("instruction", "tokens", "embedding from"),
            rows=[(entry.text, entry.num_tokens, entry.encoder) for entry in entries],
            data={
                "prompts": [
                    {
                        "text": e.text,
                        "num_tokens": e.num_tokens,
                        "encoder": e.encoder,
                        "file": e.file,
                    }
                    for e in entries
                ]
            },
            note=f"{len(entries)} instructions in {root}",
        )


class Verify:
    """The verb: is this bundle what its checkpoint is?"""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("bundle", metavar="BUNDLE")
        parser.add_argument(
            "--checkpoint", required=True, metavar="CHECKPOINT", help=_CHECKPOINT_HELP
        )
        _add_checkpoint_options(parser)
        parser.add_argument(
            "--frames", type=int, default=24, metavar="N",
            help="latent frames of the episode (default 24); 40 cross a gist bucket",
        )  # fmt: skip
        parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the episode")
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
        from memorywam_export.verify_report import verify_bundle
        from memorywam_runtime.bundle import check_bundle

        if args.engine and args.backend not in ("tensorrt", "tensorrt-rtx"):
            raise InputError(
                f"found --engine with --backend {args.backend}; expected tensorrt or tensorrt-rtx"
            )
        root = Path(args.bundle)
        manifest = check_bundle(root)
        checkpoint = _checkpoint(args, of_bundle=manifest.contract)
        with Progress("verify") as progress:
            counts = itertools.count()
            checks, data = verify_bundle(
                root,
                checkpoint,
                num_frames=args.frames,
                seed=args.seed,
                backend=args.backend,
                engines=Path(args.engine) if args.engine else None,
                tell=lambda doing: progress.update(next(counts), doing),
            )
        bad = [check for check in checks if not check.ok]
        _record(args, data, passed=not bad)
        worst = f"; the first that fails: {bad[0].what} ({bad[0].worst})" if bad else ""
        return Outcome(
            ok=not bad,
            headers=("rung", "what", "max abs", "tolerance", "worst at", "verdict"),
            rows=[check.row for check in checks],
            data=data,
            note=f"{len(checks) - len(bad)} of {len(checks)} checks hold{worst}",
        )


def _record(args: argparse.Namespace, data: "dict[str, Any]", *, passed: bool) -> None:
    """Leave the report beside the engines that were verified."""
    if args.backend not in ("tensorrt", "tensorrt-rtx"):
        return
    from memorywam_export.engine_parity import record_parity

    record_parity(Path(data["engines"]), data, passed=passed)


def _add_checkpoint_options(parser: argparse.ArgumentParser) -> None:
    """Declare what a checkpoint may lack."""
    contract = parser.add_mutually_exclusive_group()
    contract.add_argument("--contract", metavar="FILE", help="its contract, if it brings none")
    contract.add_argument("--preset", metavar="NAME", help="the same, of those that ship")
    parser.add_argument("--stats", metavar="FILE", help="dataset_stats.json, if not beside it")
    parser.add_argument("--vae", metavar="FILE", help="Wan2.2_VAE.pth, if not among the weights")


def _checkpoint(
    args: argparse.Namespace,
    *,
    dtype: "torch.dtype | None" = None,
    of_bundle: "InferenceContract | None" = None,
) -> "Checkpoint":
    """Read the checkpoint that was named.

    Args:
        args: The parsed options.
        dtype: Of random weights; float32 by default.
        of_bundle: Stands in where neither the checkpoint nor an option brings a contract.
    """
    import torch

    from memorywam_export.checkpoint import CONTRACT_FILE, checkpoint_from_argument
    from memorywam_export.presets import contract_from_preset
    from memorywam_runtime.contract import contract_from_json

    contract = None
    if args.preset:
        contract = contract_from_preset(args.preset)
    elif args.contract:
        contract = contract_from_json(Path(args.contract).read_bytes())
    path = Path(args.checkpoint)
    folder = path if path.is_dir() else path.parent
    brings_own = args.checkpoint.startswith("random:") or (folder / CONTRACT_FILE).exists()
    return checkpoint_from_argument(
        args.checkpoint,
        contract=contract if brings_own else contract or of_bundle,
        dtype=dtype or torch.float32,
        stats_path=Path(args.stats) if args.stats else None,
        vae_path=Path(args.vae) if args.vae else None,
    )


def _embedding(
    args: argparse.Namespace, contract: "InferenceContract"
) -> "tuple[NDArray[np.floating], str]":
    """Return the embedding of the text to add, and what made it."""
    if args.embedding:
        from memorywam_export.prompts import embedding_from_file
        from memorywam_runtime.files import sha256_of

        path = Path(args.embedding)
        rows = embedding_from_file(path)
        return rows, f"{path.name} sha256:{sha256_of(path)[:16]}"
    if args.encoder:
        from memorywam_export.text_encoder import embedding_from_text

        return embedding_from_text(args.add, Path(args.encoder), contract)
    raise InputError(
        "found --add without the text's embedding; expected --embedding FILE, or --encoder DIR "
        "with a local folder of the text encoder"
    )
