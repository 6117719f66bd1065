"""A bundle's files against its checkpoint: contract, statistics, weights, stored prompts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from memorywam_export.bundles.bundle import PRECISIONS
from memorywam_export.checkpoints.checkpoint import Checkpoint
from memorywam_export.checkpoints.weights import Weight
from memorywam_export.graphs.folding import rewritten_weights
from memorywam_export.graphs.rewrites import Rewrites, rewrites_of_manifest
from memorywam_export.parity.parity_report import Check, judged
from memorywam_export.parity.tolerances import TOLERANCES
from memorywam_export.parity.trace_report import Difference, difference
from memorywam_export.reference.model import MemoryWam
from memorywam_export.text.prompts import context_from_embedding
from memorywam_runtime.bundle import WEIGHTS_FILE, read_prompt
from memorywam_runtime.files import shown
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.tensors import decoded

__all__ = ["bundle_checks", "other_origin", "prompt_checks"]

_RANDOM = "random:"


def bundle_checks(root: Path, manifest: Manifest, checkpoint: Checkpoint) -> list[Check]:
    """Return whether a bundle is of this checkpoint: contract, statistics, every weight."""
    same_contract = manifest.contract_hash == checkpoint.contract.hash
    same_stats = manifest.normalization == checkpoint.normalization
    found = manifest.contract_hash[:12]
    contract = Check(
        rung="bundle",
        what="contract",
        max_abs=None,
        tolerance=None,
        worst=found if same_contract else f"{found}; expected {checkpoint.contract.hash[:12]}",
        ok=same_contract,
    )
    if not same_contract:
        return [contract]
    statistics = Check(
        rung="bundle",
        what="normalization",
        max_abs=None,
        tolerance=None,
        worst="" if same_stats else "other statistics than the checkpoint's",
        ok=same_stats,
    )
    return [contract, statistics, _weights_check(root, manifest, checkpoint)]


def other_origin(manifest: Manifest, checkpoint: Checkpoint) -> str:
    """Say that a bundle was made from something else; nothing if it was not, or nobody knows.

    What it was made from is known by the hash of its weights, random weights by their name, both
    by their contract too.
    """
    made = manifest.source
    if made.sha256 or checkpoint.sha256:
        is_same = made.sha256 == checkpoint.sha256
    else:
        is_same = _canonical(made.checkpoint) == _canonical(checkpoint.name)
    is_known = bool(made.sha256) or made.checkpoint.startswith(_RANDOM)
    if manifest.contract_hash == checkpoint.contract.hash and (is_same or not is_known):
        return ""
    expected, found = (
        f"{shown(_canonical(name))} ({f'weights {sha256[:12]}, ' if sha256 else ''}contract "
        f"{contract[:12]})"
        for name, sha256, contract in (
            (made.checkpoint, made.sha256, manifest.contract_hash),
            (checkpoint.name, checkpoint.sha256, checkpoint.contract.hash),
        )
    )
    return f"found {found}; expected what the bundle was made from, {expected}"


def _canonical(name: str) -> str:
    """Return a checkpoint's name, that of random weights with the seed that stands for none."""
    return f"{name}:0" if name.startswith(_RANDOM) and name.count(":") == 1 else name


def prompt_checks(
    root: Path, manifest: Manifest, checkpoint: Checkpoint, model: MemoryWam
) -> list[Check]:
    """Return whether the instructions that came with the checkpoint have the model's keys.

    Args:
        root: The bundle.
        manifest: Its manifest.
        checkpoint: What it was made from.
        model: The reference, in float64.
    """
    worst: dict[str, Difference] = {}
    for entry in manifest.prompts:
        embedding = checkpoint.prompts.get(entry.text)
        if embedding is None or not entry.encoder.startswith("with checkpoint"):
            continue
        context = torch.from_numpy(context_from_embedding(embedding, checkpoint.contract))
        with torch.no_grad():
            video, action = model.text_keys_values(context.to(model.gist_tokens.dtype))
        wanted = [tensor.numpy() for pair in (*video[:-1], *action) for tensor in pair]
        arrays = read_prompt(root, manifest, entry.text)
        for spec, tensor in zip(manifest.graphs["prompt_kv"].outputs, wanted, strict=True):
            rows = tensor[:, :, : spec.fixed_shape[2]]
            found = decoded(arrays[spec.name], spec.dtype)
            worst[f"'{entry.text}' {spec.name}"] = difference(found, rows)
    if not worst:
        return []
    return [judged("bundle", "stored prompts", worst, TOLERANCES[manifest.precision].max_abs)]


def _weights_check(root: Path, manifest: Manifest, checkpoint: Checkpoint) -> Check:
    """Compare each weight in the bundle with the checkpoint's, rewritten and rounded alike."""
    different: list[str] = []
    largest = 0.0
    rewrites = rewrites_of_manifest(manifest)
    weights = _rewritten(checkpoint, rewrites, PRECISIONS[manifest.precision])
    with safe_open(root / WEIGHTS_FILE, "pt") as file:
        names = set(file.keys())
        wanted = {weight.name for weight in weights}
        left = sorted(names ^ wanted)
        for weight in sorted(weights, key=lambda weight: weight.name):
            if weight.name not in names:
                continue
            found = file.get_tensor(weight.name)
            expected = weight.load().to(found.dtype)
            if not _is_same(found, expected, is_computed="fold-modulation" in rewrites):
                error = (found.double() - expected.double()).abs().max().item()
                largest = max(largest, error if np.isfinite(error) else np.inf)
                different.append(weight.name)
    bad = [*left, *different]
    return Check(
        rung="bundle",
        what=f"{len(wanted)} weights",
        max_abs=np.inf if left else largest,
        tolerance=0.0,
        worst=f"{len(bad)} differ: {', '.join(bad[:3])}" if bad else "equal, name by name",
        ok=not bad,
    )


def _rewritten(checkpoint: Checkpoint, rewrites: Rewrites, dtype: torch.dtype) -> Sequence[Weight]:
    """Return the checkpoint's weights as the bundle must have them."""
    if not rewrites.changes_weights:
        return checkpoint.weights
    return rewritten_weights(checkpoint.weights, checkpoint.contract, rewrites, dtype)


def _is_same(found: torch.Tensor, expected: torch.Tensor, *, is_computed: bool) -> bool:
    """Are two weights equal, or where they were computed, one unit in the last place apart?

    The order of sums, and with it the last bit of what is rounded, differs between machines.
    """
    if not is_computed or found.shape != expected.shape:
        return torch.equal(found, expected)
    apart = (found.double() - expected.double()).abs()
    return bool((apart <= torch.finfo(found.dtype).eps * expected.double().abs()).all())
