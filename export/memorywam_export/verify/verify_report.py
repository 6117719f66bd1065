"""A bundle against its checkpoint: the files, then every rung of the ladder."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from memorywam_export.bundles.bundle import PRECISIONS
from memorywam_export.checkpoints.checkpoint import Checkpoint
from memorywam_export.eager.eager import model_from_tensors
from memorywam_export.episodes.bundle_drift import DriftOptions, bundle_drift
from memorywam_export.episodes.closed_loop import (
    LARGEST_DIFFERENCE,
    LoopOptions,
    closed_loop,
    loop_data,
    loop_verdict,
)
from memorywam_export.ladder.boundaries import boundary_checks, boundary_frames
from memorywam_export.ladder.climb import climb
from memorywam_export.ladder.events import EVENT_FRAMES, FORGOTTEN, event_checks
from memorywam_export.ladder.fault_checks import fault_checks
from memorywam_export.ladder.ladder import ladder, open_device
from memorywam_export.parity.parity import random_script, reference_trace
from memorywam_export.parity.parity_graphs import Script
from memorywam_export.parity.parity_report import Check, coverage, noise_of, rung_checks, rung_data
from memorywam_export.parity.tolerances import TOLERANCES
from memorywam_export.parity.trace_report import Array, RungResult, Trace, compared
from memorywam_export.reference.model import MemoryWam
from memorywam_export.verify.bundle_parity import bundle_checks, other_origin, prompt_checks
from memorywam_export.verify.verify_frames import frames_to_play
from memorywam_export.verify.verify_gaps import gaps_of
from memorywam_runtime.bundle import check_bundle
from memorywam_runtime.engines import BUILT_BACKENDS
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.session import Session
from memorywam_runtime.verb_calls import VerbCalls

__all__ = ["VerifyOptions", "check_is_float", "verify_bundle"]

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """How a bundle is verified."""

    num_frames: int | None = None
    """Latent frames of the random episode; as many as memory holds, 40 at most, by default."""
    seed: int = 0
    """Of the episode."""
    backend: str | None = None
    """One more rung, on a device."""
    engines: Path | None = None
    """That backend's engines, verified or not; beside the bundle by default."""
    faults: bool = True
    """Plant faults, to see them caught."""
    drift_frames: int | None = None
    """Measure the recurrent error over so many frames; not by default."""
    tasks: tuple[str, ...] = ()
    """Of the simulated robot, driven by the reference and by the bundle in pairs."""
    num_episodes: int = 50
    """Of each task."""


def verify_bundle(
    root: Path,
    checkpoint: Checkpoint,
    options: VerifyOptions | None = None,
    *,
    tell: Tell = lambda doing: None,
) -> tuple[list[Check], dict[str, Any]]:
    """Return every check of a bundle, and the figures for machines.

    The reference runs in float64 on the checkpoint's weights, without any rewrite, the whole
    episode under one mask; again in float32 and in the bundle's type, which tells the noise of
    these types. The graphs, with the bundle's rewrites, run in torch in the same types; then the
    bundle runs on ONNX Runtime, but for bfloat16, which that cannot run on the CPU; last on the
    backend that is asked for.

    Args:
        root: The bundle.
        checkpoint: What it is said to be made from.
        options: How; see there.
        tell: Called with what is being done.

    Raises:
        InputError: an episode that memory cannot hold.
        MissingPartError: a backend that this machine has not.
    """
    options = options or VerifyOptions()
    manifest = check_bundle(root)
    check_is_float(manifest)
    num_frames = frames_to_play(manifest, options.num_frames, options.seed)
    device = None
    if options.backend is not None:
        device = open_device(root, options.backend, options.engines)
    tell("contract, statistics, weights")
    checks = bundle_checks(root, manifest, checkpoint)
    data = _subject(root, manifest, checkpoint) | {
        "frames": num_frames,
        "seed": options.seed,
        "covered": coverage(manifest, num_frames),
        "tolerances": {name: asdict(tolerance) for name, tolerance in TOLERANCES.items()},
    }
    if device is not None and options.backend in BUILT_BACKENDS:
        data["engines"] = str(Path(device.manifest.graphs["cache_update"].file).parent)
    if checks[0].ok:  # with another contract, no tensor has the same shape
        climbed, told = _climbed(root, manifest, checkpoint, device, num_frames, options, tell)
        checks += climbed
        data |= told
    if checks[0].ok and options.drift_frames is not None:
        of_drift = DriftOptions(num_frames=options.drift_frames, seed=options.seed)
        drifted, data["drift"] = bundle_drift(root, checkpoint, of_drift, device=device, tell=tell)
        checks += drifted
    if checks[0].ok and options.tasks:
        looped, data["closed_loop"] = _closed_loop(root, options, tell)
        checks += looped
    data["checks"] = [asdict(check) for check in checks]
    data["gaps"] = gaps_of(manifest, checkpoint, data)
    data["verdict"] = "ok" if all(check.ok for check in checks) else "failed"
    return checks, data


def _subject(root: Path, manifest: Manifest, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what is compared with what."""
    return {
        "bundle": root.resolve().name,
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": checkpoint.sha256,
        "other_origin": other_origin(manifest, checkpoint),
        "contract_hash": manifest.contract_hash,
        "rewrites": manifest.rewrites,
        "precision": manifest.precision,
    }


def _closed_loop(
    root: Path, options: VerifyOptions, tell: Tell
) -> tuple[list[Check], list[dict[str, Any]]]:
    """Drive the simulated robot by the reference and by the bundle; return checks and figures."""
    wanted = LoopOptions(
        tasks=options.tasks,
        num_episodes=options.num_episodes,
        seed=options.seed,
        backend=options.backend or "ort",
    )
    with TemporaryDirectory() as folder:
        loops = closed_loop(root, VerbCalls(Path(folder), tell).call, wanted, tell)
    checks = [
        Check(
            rung=loop.backend,
            what=f"closed loop: {loop.task}",
            max_abs=abs(loop.pairs.difference),
            tolerance=LARGEST_DIFFERENCE,
            worst=why,
            ok=ok,
        )
        for loop in loops
        for ok, why in [loop_verdict(loop)]
    ]
    return checks, loop_data(loops)


def _climbed(
    root: Path,
    manifest: Manifest,
    checkpoint: Checkpoint,
    device: Session | None,
    num_frames: int,
    options: VerifyOptions,
    tell: Tell,
) -> tuple[list[Check], dict[str, Any]]:
    """Return the checks and figures of the whole ladder."""
    contract = checkpoint.contract
    embedding = next(iter(checkpoint.prompts.values()), None)
    script = random_script(contract, num_frames, options.seed, embedding)
    model = _model(checkpoint, torch.float64)
    checks = prompt_checks(root, manifest, checkpoint, model)
    tell("reference")
    truth = reference_trace(model, script)
    truths = _event_truths(model, script)
    del model
    references = _references(checkpoint, manifest, script, truth, tell)
    noises = {one.precision: noise_of(one) for one in references}
    for one in references:
        checks += rung_checks(one)
    rungs = ladder(root, manifest, checkpoint, device)
    climbed = list(climb(rungs, truth, script, manifest, tell))
    results = [one.result for one in climbed]
    for result in results:
        checks += rung_checks(result, noises.get(result.precision))
    boundaries = boundary_frames(contract, manifest.memory)
    checks += boundary_checks(results, boundaries, num_frames)
    checks += event_checks([one.events for one in climbed], truths)
    if options.faults:
        on_cpu = rungs if device is None else rungs[:-1]
        planted = next(rung for rung in reversed(on_cpu) if rung.precision == "fp32")
        checks += fault_checks(planted, script, truth, contract, tell)
    told = [rung_data(result, contract, manifest.normalization) for result in results]
    return checks, {
        **told[-1],
        "rungs": told,
        "references": [rung_data(one, contract, manifest.normalization) for one in references],
        "noise": noises,
        "boundaries": {
            name: {"frame": frame, "reached": frame < num_frames}
            for name, frame in boundaries.items()
        },
    }


def _references(
    checkpoint: Checkpoint, manifest: Manifest, script: Script, truth: Trace, tell: Tell
) -> list[RungResult]:
    """Return what the reference itself is off by in float32, and in the bundle's type."""
    results = []
    for precision in dict.fromkeys(("fp32", manifest.precision)):
        tell(f"reference {precision}")
        trace = reference_trace(_model(checkpoint, PRECISIONS[precision]), script)
        results.append(
            compared(
                f"reference {precision}",
                precision,
                trace=trace,
                truth=truth,
                history={},
                graphs={},
            )
        )
    return results


def _event_truths(model: MemoryWam, script: Script) -> dict[str, Array]:
    """Return what the reference makes of events: those after which it can start from nothing."""
    beginning = replace(script.first(EVENT_FRAMES), context=script.other_context)
    return {FORGOTTEN: reference_trace(model, beginning).actions}


def check_is_float(manifest: Manifest) -> None:
    """Refuse a quantized bundle, whose errors no tolerance of the ladder is for.

    Raises:
        InputError: says what judges it.
    """
    if manifest.quantization is not None:
        raise InputError(
            f"found a bundle quantized by recipe '{manifest.quantization.recipe}', which no "
            "tolerance here is for; expected one in floats: verify the bundle that it was made "
            "from; `memorywam calibrate` judges what it quantizes, and `memorywam verify BUNDLE "
            "--backend BACKEND` what a device makes of that"
        )


def _model(checkpoint: Checkpoint, dtype: torch.dtype) -> MemoryWam:
    """Return the reference model on the checkpoint's weights."""
    tensors = {weight.name: weight.load() for weight in checkpoint.weights}
    return model_from_tensors(checkpoint.contract, tensors, dtype)
