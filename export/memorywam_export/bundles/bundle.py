"""A checkpoint to a bundle: weights, graphs, prompts and manifest in one directory, or nothing."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from memorywam_export.bundles.text_kv import text_arrays
from memorywam_export.checkpoints.checkpoint import Checkpoint
from memorywam_export.checkpoints.weights import Weight, weight_spans, write_weights
from memorywam_export.eager.costs import graph_costs
from memorywam_export.eager.eager import graph_modules, memory_plan, specs_of
from memorywam_export.graphs.folding import rewritten_weights
from memorywam_export.graphs.onnx_writer import write_onnx
from memorywam_export.graphs.opsets import IN_PLACE_OPSET, default_opset
from memorywam_export.graphs.rewrites import (
    DEFAULT_TEXT_ROWS,
    NO_REWRITES,
    Rewrites,
    RewrittenModel,
    rewrites_for,
    rewrites_of,
)
from memorywam_export.reference.model import MemoryWam
from memorywam_export.text.prompts import context_from_embedding, write_prompt
from memorywam_runtime.bundle import MANIFEST_FILE, WEIGHTS_FILE
from memorywam_runtime.errors import CheckpointError, InputError
from memorywam_runtime.files import atomic_directory, sha256_of
from memorywam_runtime.manifest import (
    SCHEMA_VERSION,
    CacheWrite,
    GraphEntry,
    Manifest,
    Precision,
    PromptEntry,
    SourceEntry,
    entries_from_folder,
    manifest_to_json,
)
from memorywam_runtime.report import Progress
from memorywam_runtime.versions import versions

__all__ = ["PRECISIONS", "ExportOptions", "export_bundle", "model_from_weights"]

PRECISIONS: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What an export may choose; everything else is the contract's."""

    precision: Precision = "fp32"
    opset: int = field(default_factory=default_opset)
    """24 or more writes memory in place; 20 gives new rows out, for runtimes that are older."""
    max_frames: int = 256
    on_full: str = "refuse"
    graphs: tuple[str, ...] = ()
    """Optional graphs to add: action_denoise."""
    rewrites: tuple[str, ...] = ()
    """Exact rewrites that must be in effect; all that fit the contract are anyway."""
    no_rewrites: tuple[str, ...] = ()
    """Exact rewrites to leave out."""
    text_rows: int = DEFAULT_TEXT_ROWS
    """Rows for a prompt and one zero row, where all its zero rows are collapsed into one."""
    overwrite: bool = False

    @property
    def cache_write(self) -> CacheWrite:
        """How graphs of this opset write memory."""
        return "in_place" if self.opset >= IN_PLACE_OPSET else "copy"


def export_bundle(
    checkpoint: Checkpoint, out: Path, options: ExportOptions | None = None
) -> Manifest:
    """Write a bundle; after a failure the old directory, or none, is there.

    Weights are streamed or copied, never all in memory; the graphs point into them.

    Raises:
        InputError: an option that no graph can have, an instruction that is too long, or a
            directory that is in use.
        CheckpointError: weights that do not fit.
    """
    options = options or ExportOptions()
    rewrites, contexts = _checked_options(checkpoint, options)
    plan = memory_plan(
        checkpoint.contract,
        options.max_frames,
        options.on_full,
        PRECISIONS[options.precision].itemsize,
    )
    with (
        atomic_directory(out, overwrite=options.overwrite) as draft,
        Progress("export") as progress,
    ):
        progress.update(0, "weights")
        weights_hash = _write_weights(
            checkpoint, draft / WEIGHTS_FILE, PRECISIONS[options.precision], rewrites
        )
        model = model_from_weights(checkpoint, draft / WEIGHTS_FILE, rewrites)
        graphs = _write_graphs(model, draft, options, progress)
        prompts = _write_prompts(checkpoint, draft, contexts)
        progress.update(len(graphs) + 1, "hashes")
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            contract=checkpoint.contract,
            contract_hash=checkpoint.contract.hash,
            precision=options.precision,
            opset=options.opset,
            cache_write=options.cache_write,
            graphs=graphs,
            memory=plan,
            normalization=checkpoint.normalization,
            prompts=prompts,
            files=entries_from_folder(draft, {WEIGHTS_FILE: weights_hash}),
            source=SourceEntry(checkpoint=checkpoint.name, sha256=checkpoint.sha256),
            versions=versions(),
            rewrites=rewrites.names,
        )
        (draft / MANIFEST_FILE).write_bytes(manifest_to_json(manifest))
    return manifest


def _checked_options(
    checkpoint: Checkpoint, options: ExportOptions
) -> tuple[Rewrites, dict[str, NDArray[np.float32]]]:
    """Return the rewrites, and the context of each instruction that came with the checkpoint.

    Raises:
        InputError: an option that no graph can have, or an instruction that is too long.
    """
    contract = checkpoint.contract
    rewrites = rewrites_for(
        contract,
        wanted=options.rewrites,
        unwanted=options.no_rewrites,
        text_rows=options.text_rows,
    )
    contexts = {
        text: context_from_embedding(embedding, contract, rewrites.text_rows)
        for text, embedding in checkpoint.prompts.items()
    }
    if not 20 <= options.opset <= 25:
        raise InputError(f"found opset {options.opset}; expected 20 to 25")
    if unknown := set(options.graphs) - {"action_denoise"}:
        raise InputError(f"unknown optional graph {sorted(unknown)}; expected action_denoise")
    return rewrites, contexts


def model_from_weights(
    checkpoint: Checkpoint, path: Path, rewrites: Rewrites = NO_REWRITES
) -> MemoryWam:
    """Return the model on a weights file of its form; tensors are mapped, not read.

    Raises:
        CheckpointError: the file does not hold exactly the model's weights.
    """
    contract = checkpoint.contract
    with torch.device("meta"):
        model = RewrittenModel(contract, rewrites) if rewrites.names else MemoryWam(contract)
    with safe_open(path, "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    wanted = model.state_dict()
    wrong = sorted(
        name
        for name in set(wanted) | set(state)
        if name not in wanted or name not in state or wanted[name].shape != state[name].shape
    )
    if wrong:
        raise CheckpointError(
            f"{path} does not hold the model's weights: {len(wrong)} are missing, left over or of "
            f"another shape, among them {wrong[:4]}"
        )
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(requires_grad=False)


def _write_weights(
    checkpoint: Checkpoint, path: Path, dtype: torch.dtype, rewrites: Rewrites = NO_REWRITES
) -> str:
    """Copy the checkpoint's file where its bytes are right, else stream it; return its hash."""
    if rewrites.changes_weights:
        made = rewritten_weights(checkpoint.weights, checkpoint.contract, rewrites, dtype)
        return write_weights(path, made)
    source = checkpoint.weights_path
    if source is not None and all(weight.dtype == dtype for weight in checkpoint.weights):
        # A copy, not a link: onnx refuses external data with more than one link, as a safeguard.
        shutil.copyfile(source, path)
        return sha256_of(path)
    return write_weights(path, [_in_dtype(weight, dtype) for weight in checkpoint.weights])


def _in_dtype(weight: Weight, dtype: torch.dtype) -> Weight:
    """Return the weight in another type."""
    if weight.dtype == dtype:
        return weight

    def load() -> torch.Tensor:
        return weight.load().to(dtype)

    return Weight(weight.name, weight.shape, dtype, load)


def _write_graphs(
    model: MemoryWam, draft: Path, options: ExportOptions, progress: Progress
) -> dict[str, GraphEntry]:
    """Write every graph; return their manifest entries."""
    spans = weight_spans(draft / WEIGHTS_FILE)
    specs = specs_of(model, options.cache_write)
    modules = graph_modules(model, options.cache_write)
    dtype = PRECISIONS[options.precision]
    specs = {
        name: spec
        for name, spec in specs.items()
        if name != "action_denoise" or name in options.graphs
    }
    costs = graph_costs(model.contract, dtype, options.cache_write, rewrites_of(model), specs)
    entries: dict[str, GraphEntry] = {}
    for name, spec in specs.items():
        progress.update(len(entries) + 1, name)
        file = f"{name}.onnx"
        write_onnx(
            modules[name],
            spec,
            draft / file,
            opset=options.opset,
            weights=spans,
            weights_file=WEIGHTS_FILE,
        )
        entries[name] = GraphEntry(
            file=file, inputs=spec.inputs, outputs=spec.outputs, cost=costs[name]
        )
    return entries


def _write_prompts(
    checkpoint: Checkpoint, draft: Path, contexts: Mapping[str, NDArray[np.float32]]
) -> tuple[PromptEntry, ...]:
    """Write the keys and values of every instruction that came with the checkpoint."""
    entries = []
    for text, context in contexts.items():
        arrays = text_arrays(draft / WEIGHTS_FILE, checkpoint.contract, context)
        encoder = f"with checkpoint {checkpoint.name}"
        num_tokens = len(checkpoint.prompts[text])
        entries.append(write_prompt(draft, text, arrays, num_tokens, encoder))
    return tuple(entries)
