"""The verbs that look at a bundle: inspect, bench."""

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorywam_runtime.errors import InputError
from memorywam_runtime.report import Outcome, Progress

if TYPE_CHECKING:
    from memorywam_runtime.manifest import Manifest

__all__ = ["Bench", "Inspect"]


class Inspect:
    """The verb: what a bundle holds; no engine is loaded."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("bundle", metavar="BUNDLE")
        parser.add_argument("--graph", metavar="NAME", help="list every tensor of one graph")

    def run(self, args: argparse.Namespace) -> Outcome:
        """Check every hash and tell."""
        from memorywam_runtime.bundle import check_bundle

        manifest = check_bundle(Path(args.bundle))
        return _bundle(manifest) if args.graph is None else _graph(manifest, args.graph)


class Bench:
    """The verb: p50, p95 and p99 of every stage, against how full the memory is."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("bundle", metavar="BUNDLE")
        parser.add_argument(
            "--frames",
            type=_counts,
            default=(),
            metavar="N,N",
            help="fills of memory to measure at (default 1,10,100,... and the longest)",
        )
        parser.add_argument("--steps", type=int, metavar="S", help="denoising steps of a chunk")
        parser.add_argument("--backend", default="ort", metavar="B", help="ort (default) or eager")
        parser.add_argument(
            "--threads", type=int, default=0, metavar="N", help="0 (default): the backend chooses"
        )
        parser.add_argument(
            "--repeat", type=int, default=20, metavar="N", help="rounds at each fill (default 20)"
        )

    def run(self, args: argparse.Namespace) -> Outcome:
        """Measure and tell."""
        from memorywam_runtime.bench import bench_bundle

        counts = itertools.count()
        with Progress("bench") as progress:
            data = bench_bundle(
                Path(args.bundle),
                frames=args.frames,
                num_steps=args.steps,
                backend=args.backend,
                num_threads=args.threads,
                repeat=args.repeat,
                tell=lambda doing: progress.update(next(counts), doing),
            )
        rows = [
            (fill["frames"], stage, ms["p50"], ms["p95"], ms["p99"], fill["memory_bytes"] / 1e6)
            for fill in data["by_frames"]
            for stage, ms in fill["stages_ms"].items()
        ]
        first = ", ".join(f"{stage} {ms:.3g}" for stage, ms in data["first_ms"].items())
        return Outcome(
            ok=True,
            headers=("frames", "stage", "p50 ms", "p95 ms", "p99 ms", "memory MB"),
            rows=rows,
            data=data,
            note=f"opened in {data['open_s']:.2f} s; first calls, ms: {first}",
        )


def _counts(text: str) -> tuple[int, ...]:
    """Return the numbers of a list such as 1,10,100."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"found {text!r}; expected numbers with commas between, such as 1,10,100"
        ) from error


def _bundle(manifest: "Manifest") -> Outcome:
    """Tell of the whole bundle."""
    import msgspec

    graphs = _graphs(manifest)
    memory, plan = _memory(manifest), manifest.memory
    form = f"opset {manifest.opset}, memory written {manifest.cache_write.replace('_', ' ')}"
    rows: list[tuple[str, str, str]] = [
        ("contract", manifest.contract.name, manifest.contract_hash),
        ("source", manifest.source.checkpoint, manifest.source.sha256[:12]),
        ("form", manifest.precision, form),
    ]
    rows += [
        ("graph", name, f"{row['inputs']} in, {row['outputs']} out, {row['bytes']:,} bytes")
        for name, row in graphs.items()
    ]
    rows += [
        (
            "memory",
            f"{row['frames']} frames",
            (
                f"{row['rows']} rows, {row['bytes'] / 1e6:,.2f} MB; all frames whole would take"
                f" {row['full_history_bytes'] / 1e6:,.2f} MB"
            ),
        )
        for row in memory
    ]
    rows.append(("memory", "when full", f"{plan.on_full}, after {plan.max_frames} frames"))
    rows += [
        ("prompt", repr(prompt.text), f"{prompt.num_tokens} tokens, {prompt.encoder}")
        for prompt in manifest.prompts
    ]
    rows += [("made with", name, version) for name, version in sorted(manifest.versions.items())]
    total = sum(entry.num_bytes for entry in manifest.files.values())
    return Outcome(
        ok=True,
        headers=("part", "name", "what"),
        rows=rows,
        data={
            "contract_hash": manifest.contract_hash,
            "contract": manifest.contract.name,
            "source": msgspec.to_builtins(manifest.source),
            "precision": manifest.precision,
            "opset": manifest.opset,
            "cache_write": manifest.cache_write,
            "graphs": graphs,
            "memory": {
                "max_frames": plan.max_frames,
                "on_full": plan.on_full,
                "gist_buckets": plan.gist_buckets,
                "bytes_per_token": plan.bytes_per_token,
                "by_frames": memory,
            },
            "prompts": msgspec.to_builtins(manifest.prompts),
            "bytes": total,
            "versions": manifest.versions,
        },
        note=f"{len(manifest.files)} files, {total / 1e6:,.1f} MB; every hash is right",
    )


def _graphs(manifest: "Manifest") -> dict[str, dict[str, Any]]:
    """Return each graph's file and number of tensors."""
    return {
        name: {
            "file": entry.file,
            "inputs": len(entry.inputs),
            "outputs": len(entry.outputs),
            "bytes": manifest.files[entry.file].num_bytes,
            "sha256": manifest.files[entry.file].sha256,
        }
        for name, entry in manifest.graphs.items()
    }


def _memory(manifest: "Manifest") -> list[dict[str, int]]:
    """Return the memory's size by episode length: 1, 10, 100, ..., and where a bucket ends."""
    from memorywam_runtime.bench import (
        default_frames,
        full_history_bytes,
        memory_bytes,
        memory_rows,
        most_frames,
    )

    most = most_frames(manifest)
    buckets = manifest.memory.gist_buckets if most is not None and most > 1 else ()
    return [
        {
            "frames": frames,
            "rows": memory_rows(manifest, frames),
            "bytes": memory_bytes(manifest, frames),
            "full_history_bytes": full_history_bytes(manifest, frames),
        }
        for frames in sorted({*default_frames(manifest), *buckets})
    ]


def _graph(manifest: "Manifest", name: str) -> Outcome:
    """Tell of one graph's tensors."""
    if name not in manifest.graphs:
        raise InputError(f"no graph '{name}'; this bundle has {', '.join(manifest.graphs)}")
    entry = manifest.graphs[name]
    tensors: list[dict[str, Any]] = [
        {
            "way": way,
            "name": spec.name,
            "shape": spec.shape,
            "dtype": spec.dtype,
            "meaning": spec.meaning,
        }
        for way, specs in (("in", entry.inputs), ("out", entry.outputs))
        for spec in specs
    ]
    return Outcome(
        ok=True,
        headers=("way", "tensor", "shape", "type", "meaning"),
        rows=[
            (t["way"], t["name"], " x ".join(map(str, t["shape"])), t["dtype"], t["meaning"])
            for t in tensors
        ],
        data={"graph": name, "file": entry.file, "tensors": tensors},
        note=f"{entry.file}: {len(entry.inputs)} in, {len(entry.outputs)} out",
    )
