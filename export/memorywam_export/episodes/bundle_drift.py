"""The drift of a bundle: its rungs side by side with the truth, over more frames than it ships."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from memorywam_export.bundles.bundle import PRECISIONS
from memorywam_export.checkpoints.checkpoint import Checkpoint
from memorywam_export.episodes.drift import checkpoints, measured_drift, random_frames
from memorywam_export.episodes.drift_gate import (
    FITTED_FROM,
    GROWTH_PER_DECADE,
    LEAST_FRAMES,
    curve_data,
    drift_checks,
)
from memorywam_export.ladder.climb import Rung
from memorywam_export.ladder.ladder import in_torch, ladder, with_plan
from memorywam_export.parity.parity import random_script, text_of
from memorywam_export.parity.parity_report import Check
from memorywam_runtime.bundle import check_bundle
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.engines import BUILT_BACKENDS
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest, MemoryPlan, Precision
from memorywam_runtime.session import Session

__all__ = ["DriftOptions", "bundle_drift", "drift_plan", "drift_rungs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftOptions:
    """How long, and what else is measured."""

    num_frames: int = 1000
    """Of one episode of random images."""
    seed: int = 0
    """Of the episode."""
    precisions: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
    """The graphs in torch, in these types; in others than the bundle's and float32 the drift is
    told and not judged."""


def bundle_drift(
    root: Path,
    checkpoint: Checkpoint,
    options: DriftOptions | None = None,
    *,
    device: Session | None = None,
    tell: Callable[[str], None] = lambda doing: None,
) -> tuple[list[Check], dict[str, Any]]:
    """Return whether a bundle's error grows with what it remembers, and its curves.

    The truth is the graphs in float64, frame by frame, which the ladder of parity proves equal to
    the whole episode under one mask. All rungs are open at the same time and see the same frames.

    Args:
        root: The bundle.
        checkpoint: What it was made from.
        options: How long; see there.
        device: One more rung. Where its engines have fixed rows, it says how long at most.
        tell: Called with what is being done.

    Raises:
        InputError: too few frames to judge, more than a device holds, or another checkpoint.
    """
    options = options or DriftOptions()
    manifest = check_bundle(root)
    if manifest.contract_hash != checkpoint.contract.hash:
        raise InputError(
            f"found a checkpoint of contract {checkpoint.contract.hash[:12]}; expected the "
            f"bundle's, {manifest.contract_hash[:12]}: name the checkpoint that it was made from"
        )
    plan = drift_plan(manifest, options.num_frames, device)
    truth_rung, *rungs = drift_rungs(root, manifest, checkpoint, plan, options.precisions, device)
    tell("drift: open")
    truth = _instructed(truth_rung.open(), checkpoint, options.seed)
    sessions = {
        rung.name: (rung.precision, _instructed(rung.open(), checkpoint, options.seed))
        for rung in rungs
    }
    curves = measured_drift(
        truth,
        sessions,
        random_frames(checkpoint.contract, options.num_frames, options.seed),
        checkpoints(options.num_frames),
        lambda doing: tell(f"drift: {doing}"),
    )
    judged = [curve for curve in curves if curve.precision in ("fp32", manifest.precision)]
    data = {
        "frames": options.num_frames,
        "seed": options.seed,
        "images": "random",
        "truth": truth_rung.name,
        "fitted_from": FITTED_FROM,
        "most_growth_per_decade": GROWTH_PER_DECADE,
        "rungs": [{**curve_data(curve), "judged": curve in judged} for curve in curves],
    }
    return drift_checks(judged), data


def drift_plan(manifest: Manifest, num_frames: int, device: Session | None = None) -> MemoryPlan:
    """Return a memory plan that holds so many frames: the bundle's, with gist buckets behind.

    Args:
        manifest: The bundle's.
        num_frames: To be held.
        device: A session whose engines may have fixed rows; then the plan is its own.

    Raises:
        InputError: fewer frames than can be judged, or more than the device holds.
    """
    if num_frames < LEAST_FRAMES:
        raise InputError(
            f"found {num_frames} frames of drift; expected at least {LEAST_FRAMES}: the slope is "
            f"fitted over those from {FITTED_FROM} on"
        )
    if device is not None and device.backend.name in BUILT_BACKENDS:
        plan = device.manifest.memory
        if manifest.contract.memory.num_gists and num_frames > plan.max_frames:
            raise InputError(
                f"found {num_frames} frames of drift; the engines of {device.backend.name} hold "
                f"{plan.max_frames}: ask for fewer, or export and build with a larger --max-frames"
            )
        return plan
    plan = manifest.memory
    if num_frames <= plan.max_frames:
        return plan
    more = [plan.max_frames << k for k in range(1, 40) if plan.max_frames << k < num_frames]
    buckets = (*plan.gist_buckets, *more, num_frames)
    return msgspec.structs.replace(plan, max_frames=num_frames, gist_buckets=buckets)


def drift_rungs(
    root: Path,
    manifest: Manifest,
    checkpoint: Checkpoint,
    plan: MemoryPlan,
    precisions: Sequence[Precision] = (),
    device: Session | None = None,
) -> list[Rung]:
    """Return the truth and the rungs of a bundle, all with one memory plan.

    Args:
        root: The bundle.
        manifest: Its manifest.
        checkpoint: What it was made from.
        plan: Of memory.
        precisions: More rungs in torch, where the ladder has none of the type.
        device: One more, last.
    """
    planned = msgspec.structs.replace(manifest, memory=plan)
    rungs = ladder(root, planned, checkpoint)
    names = {rung.name for rung in rungs}

    for precision in precisions:
        name, dtype = f"graph {precision}", PRECISIONS[precision]
        if name not in names:
            opened = partial(in_torch, manifest, checkpoint, dtype, plan)
            rungs.append(Rung(name=name, precision=precision, open=opened))
    if device is not None:
        name, session = device.backend.name, with_plan(device, plan)
        rungs.append(Rung(name=name, precision=manifest.precision, open=lambda: session))
    return rungs


def _instructed(session: Session, checkpoint: Checkpoint, seed: int) -> Session:
    """Return the session, reset, with the checkpoint's first instruction or a random one."""
    contract: InferenceContract = checkpoint.contract
    embedding = next(iter(checkpoint.prompts.values()), None)
    script = random_script(contract, 1, seed, embedding)
    session.reset(text_of(session, script.context, script.num_tokens))
    return session
