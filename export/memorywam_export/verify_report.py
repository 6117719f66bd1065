"""A bundle against its checkpoint: the files, then every rung of the ladder."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from safetensors import safe_open

from memorywam_export.bundle import PRECISIONS
from memorywam_export.checkpoint import Checkpoint
from memorywam_export.eager import eager_session, model_from_tensors, rewritten_model
from memorywam_export.folding import rewritten_weights
from memorywam_export.parity import Rung, climb, random_script, reference_trace
from memorywam_export.parity_report import (
    TOLERANCES,
    Check,
    coverage,
    judged,
    rung_checks,
    rung_data,
)
from memorywam_export.prompts import context_from_embedding
from memorywam_export.reference.model import MemoryWam
from memorywam_export.rewrites import Rewrites, rewrites_of_manifest
from memorywam_export.trace_report import Difference, difference
from memorywam_export.weights import Weight
from memorywam_runtime.bundle import check_bundle, open_bundle, read_prompt
from memorywam_runtime.engines import BUILT_BACKENDS
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest, MemoryPlan
from memorywam_runtime.session import Session
from memorywam_runtime.tensors import decoded

__all__ = ["bundle_checks", "ladder", "open_device", "verify_bundle"]

_WEIGHTS_FILE = "weights.safetensors"


def verify_bundle(
    root: Path,
    checkpoint: Checkpoint,
    *,
    num_frames: int = 24,
    seed: int = 0,
    backend: str | None = None,
    engines: Path | None = None,
    tell: Callable[[str], None] = lambda doing: None,
) -> tuple[list[Check], dict[str, Any]]:
    """Return every check of a bundle, and the figures for machines.

    The reference runs in float64 on the checkpoint's weights, without any rewrite, the whole
    episode under one mask; the graphs, with the bundle's rewrites, run in torch, in float64 and
    float32, and in the bundle's type if that is another; then the bundle runs on ONNX Runtime,
    but for bfloat16, which that cannot run on the CPU; last on the backend that is asked for.

    Args:
        root: The bundle.
        checkpoint: What it is said to be made from.
        num_frames: Latent frames of the random episode.
        seed: Of the episode.
        backend: One more rung, on a device.
        engines: That backend's engines, verified or not; beside the bundle by default.
        tell: Called with what is being done.

    Raises:
        InputError: an episode that memory cannot hold.
        MissingPartError: a backend that this machine has not.
    """
    manifest = check_bundle(root)
    _refuse_unverifiable(manifest, num_frames, seed)
    device = None if backend is None else open_device(root, backend, engines)
    tell("contract, statistics, weights")
    checks = bundle_checks(root, manifest, checkpoint)
    data: dict[str, Any] = {
        "contract_hash": manifest.contract_hash,
        "rewrites": manifest.rewrites,
        "frames": num_frames,
        "seed": seed,
        "covered": coverage(manifest, num_frames),
        "tolerances": {name: asdict(tolerance) for name, tolerance in TOLERANCES.items()},
    }
    if device is not None and backend in BUILT_BACKENDS:
        data["engines"] = str(Path(device.manifest.graphs["cache_update"].file).parent)
    if checks[0].ok:  # with another contract, no tensor has the same shape
        embedding = next(iter(checkpoint.prompts.values()), None)
        script = random_script(checkpoint.contract, num_frames, seed, embedding)
        model = _model(checkpoint, torch.float64)
        checks += prompt_checks(root, manifest, checkpoint, model)
        tell("reference")
        truth = reference_trace(model, script)
        del model
        results = []
        rungs = ladder(root, manifest, checkpoint, device)
        for result in climb(rungs, truth, script, manifest, tell):
            results.append(result)
            checks += rung_checks(result)
        told = [rung_data(result) for result in results]
        data |= {**told[-1], "rungs": told}
    data["checks"] = [asdict(check) for check in checks]
    data["verdict"] = "ok" if all(check.ok for check in checks) else "failed"
    return checks, data


def open_device(root: Path, backend: str, engines: Path | None) -> Session:
    """Return a session on a device, on engines that may not have been verified yet."""
    options: dict[str, Any] = {"allow_unverified": True} if backend in BUILT_BACKENDS else {}
    return open_bundle(root, backend=backend, engines=engines, **options)


def ladder(
    root: Path, manifest: Manifest, checkpoint: Checkpoint, device: Session | None = None
) -> list[Rung]:
    """Return the rungs above the reference, the closest first.

    Args:
        root: The bundle.
        manifest: Its manifest.
        checkpoint: What it was made from.
        device: One more; all others then have memory of the sizes that it takes.
    """
    plan = manifest.memory if device is None else device.manifest.memory

    def in_torch(dtype: torch.dtype) -> Session:
        rewrites = rewrites_of_manifest(manifest)
        return eager_session(
            rewritten_model(checkpoint.contract, checkpoint.weights, dtype, rewrites),
            checkpoint.normalization,
            cache_write=manifest.cache_write,
            plan=plan,
        )

    precision = manifest.precision
    rungs = [
        Rung(name="graph fp64", precision="fp64", open=lambda: in_torch(torch.float64)),
        Rung(name="graph fp32", precision="fp32", open=lambda: in_torch(torch.float32)),
    ]
    if precision != "fp32":
        dtype = PRECISIONS[precision]
        rungs.append(
            Rung(name=f"graph {precision}", precision=precision, open=lambda: in_torch(dtype))
        )
    if precision != "bf16":  # ONNX Runtime has no bfloat16 on the CPU
        rungs.append(Rung(name="onnx", precision=precision, open=lambda: _on_cpu(root, plan)))
    if device is not None:
        rungs.append(Rung(name=device.backend.name, precision=precision, open=lambda: device))
    return rungs


def _on_cpu(root: Path, plan: MemoryPlan) -> Session:
    """Return a session on ONNX Runtime, with memory of the sizes of a plan."""
    session = open_bundle(root)
    if session.manifest.memory == plan:
        return session
    manifest = msgspec.structs.replace(session.manifest, memory=plan)
    return Session(manifest, session.backend, session.engines, root=root)


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
    with safe_open(root / _WEIGHTS_FILE, "pt") as file:
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


def _refuse_unverifiable(manifest: Manifest, num_frames: int, seed: int) -> None:
    """Refuse what the ladder cannot run, before hours of it."""
    if num_frames < 1 or seed < 0:
        raise InputError(
            f"found {num_frames} frames and seed {seed}; expected at least 1, and 0 or more"
        )
    plan = manifest.memory
    if manifest.contract.memory.num_gists and num_frames > plan.max_frames:
        raise InputError(
            f"found {num_frames} frames; the bundle's memory holds {plan.max_frames}, and the "
            "reference forgets no gist: verify fewer, or export with a larger --max-frames"
        )


def _model(checkpoint: Checkpoint, dtype: torch.dtype) -> MemoryWam:
    """Return the reference model on the checkpoint's weights."""
    tensors = {weight.name: weight.load() for weight in checkpoint.weights}
    return model_from_tensors(checkpoint.contract, tensors, dtype)
