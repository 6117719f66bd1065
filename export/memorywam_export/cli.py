"""The verbs of the workshop: export, prompt."""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from memorywam_export.checkpoints.checkpoint_options import (
    CACHE_HELP,
    CHECKPOINT_HELP,
    add_checkpoint_options,
    checkpoint_of,
    companions_of,
    contract_of,
)
from memorywam_runtime.errors import InputError
from memorywam_runtime.report import Outcome

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from memorywam_runtime.contract import InferenceContract
    from memorywam_runtime.manifest import Precision

__all__ = ["Export", "Prompt"]


class Export:
    """The verb: a checkpoint to a bundle."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help=CHECKPOINT_HELP)
        parser.add_argument("--out", metavar="BUNDLE", help="the directory to make")
        add_checkpoint_options(parser)
        parser.add_argument(
            "--precision", choices=("fp32", "bf16", "fp16"), default="fp32",
            help="of weights, memory and arithmetic: fp32 for a CPU, bf16 for engines (default "
            "fp32)",
        )  # fmt: skip
        parser.add_argument(
            "--opset", type=int, metavar="N",
            help="24 writes memory in place; 20 is for runtimes that cannot (default: 24, or 20 "
            "where onnxruntime is here and older than 1.24)",
        )  # fmt: skip
        parser.add_argument(
            "--max-frames", type=int, default=256, metavar="N",
            help="frames that memory can hold: the longest episode (default 256)",
        )  # fmt: skip
        parser.add_argument(
            "--on-full", choices=("refuse", "stop", "drop-oldest-gist"), default="refuse",
            help="what happens to the frame after those",
        )  # fmt: skip
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
        parser.add_argument(
            "--write-contract", metavar="FILE",
            help="write the contract that --preset or --contract names, to be changed, and stop",
        )  # fmt: skip
        parser.add_argument(
            "--describe", action="store_true",
            help="say what CHECKPOINT is, what is missing and what must be told, and stop",
        )  # fmt: skip

    def run(self, args: argparse.Namespace) -> Outcome:
        """Write the bundle and tell what is in it."""
        from memorywam_export.checkpoints.presets_report import contract_outcome, presets_outcome

        if args.list_presets:
            return presets_outcome()
        if args.write_contract:
            contract = contract_of(args)
            if contract is None:
                raise InputError("found --write-contract without --preset NAME; expected both")
            return contract_outcome(contract, Path(args.write_contract))
        if args.describe:
            return _described(args)
        if args.checkpoint is None or args.out is None:
            raise InputError("found no CHECKPOINT or no --out BUNDLE; expected both")
        if args.max_frames < 1:
            raise InputError(f"found --max-frames {args.max_frames}; expected at least 1")
        if args.opset is not None and args.opset < 1:
            raise InputError(f"found --opset {args.opset}; expected 24, or 20")
        from memorywam_export.bundles.bundle import PRECISIONS, ExportOptions, export_bundle
        from memorywam_export.export_report import exported_outcome
        from memorywam_export.graphs.opsets import default_opset
        from memorywam_export.graphs.rewrites import DEFAULT_TEXT_ROWS
        from memorywam_export.ladder.range_scan import ranges_for

        started_s = time.monotonic()
        precision = cast("Precision", args.precision)
        checkpoint = checkpoint_of(args, dtype=PRECISIONS[precision])
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
        outcome = exported_outcome(manifest, args.out, time.monotonic() - started_s, ranges)
        return replace(outcome, data={**outcome.data, "name_map": checkpoint.name_map})


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
        source.add_argument("--text-cache", metavar="DIR", help=CACHE_HELP)

    def run(self, args: argparse.Namespace) -> Outcome:
        """Change or list the instructions."""
        from memorywam_export.text.prompts import add_prompt, remove_prompt
        from memorywam_runtime.bundle import check_bundle

        root = Path(args.bundle)
        if args.add is None and (args.embedding or args.encoder or args.text_cache):
            raise InputError(
                "found --embedding, --encoder or --text-cache without --add TEXT; expected it"
            )
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
            note=f"{root} knows {len(entries)} instruction{'s' * (len(entries) != 1)}",
        )


def _described(args: argparse.Namespace) -> Outcome:
    """Say what the checkpoint that was named is."""
    from memorywam_export.checkpoints.describe import description_of
    from memorywam_export.checkpoints.describe_report import described_outcome

    if args.checkpoint is None:
        raise InputError("found --describe without CHECKPOINT; expected a file or folder")
    return described_outcome(
        description_of(args.checkpoint, companions_of(args), contract_of(args))
    )


def _embedding(
    args: argparse.Namespace, contract: "InferenceContract"
) -> "tuple[NDArray[np.floating], str]":
    """Return the embedding of the text to add, and what made it."""
    if args.embedding:
        from memorywam_export.text.prompts import embedding_from_file
        from memorywam_runtime.files import sha256_of

        path = Path(args.embedding)
        rows = embedding_from_file(path)
        return rows, f"{path.name} sha256:{sha256_of(path)[:16]}"
    if args.encoder:
        from memorywam_export.text.text_encoder import embedding_from_text

        return embedding_from_text(args.add, Path(args.encoder), contract)
    if args.text_cache:
        from memorywam_export.checkpoints.text_cache import embedding_from_cache

        return embedding_from_cache(Path(args.text_cache), args.add, contract)
    raise InputError(
        "found --add without the text's embedding; expected --embedding FILE, or --encoder DIR "
        "with a local folder of the text encoder, or --text-cache DIR"
    )
