"""Judgement: a quantized bundle beside the float one it was made from, and whether it may run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from memorywam_calibration.episodes.episodes import Episode
from memorywam_calibration.episodes.held_out import instruct, one_after_another, session_frames
from memorywam_calibration.judgement.chunk_error import chunk_errors
from memorywam_calibration.judgement.judgement_checks import (
    LIMITS,
    bytes_check,
    chunk_checks,
    loop_checks,
    memory_check,
    site_checks,
    tick_check,
)
from memorywam_calibration.judgement.narrow_bytes import narrow_bytes
from memorywam_calibration.judgement.tick_ratio import tick_ratio
from memorywam_export.episodes.bundle_drift import drift_plan
from memorywam_export.episodes.closed_loop import LoopOptions, closed_loop, loop_data
from memorywam_export.episodes.drift import checkpoints, measured_drift, remember
from memorywam_export.episodes.drift_gate import (
    FITTED_FROM,
    GROWTH_PER_DECADE,
    curve_data,
    drift_checks,
)
from memorywam_export.ladder.ladder import with_plan
from memorywam_export.ladder.memory_form import form_of
from memorywam_export.parity.parity_report import Check
from memorywam_export.quantize.quantize_memory_bytes import memory_bytes_rows
from memorywam_export.quantize.quantize_report import compared_with_float
from memorywam_runtime.bundle import check_bundle, open_bundle
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.scale_table import ScaleTable, scale_table_from_json
from memorywam_runtime.session import Session
from memorywam_runtime.verb_calls import VerbCalls

__all__ = ["JudgeOptions", "judged"]

Tell = Callable[[str], None]
_TICK_FRAMES = 60
"""In memory when ticks are timed, or as many as it holds."""
_LOOP_SEED = 10_000
"""Of the first episode in the simulator: recordings made there begin at 0, and scenes that were
calibrated on must not judge."""
_SITE_FRAMES = 12
"""Of a held-out episode, after which every product is looked at: past the first eviction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOptions:
    """How a quantized bundle is judged."""

    drift_frames: int = 1000
    """Of held-out episodes, one after another in one memory."""
    tasks: tuple[str, ...] = ()
    """Of the simulated robot, driven by both bundles in pairs."""
    num_episodes: int = 50
    """Of each task."""
    seed: int = 0
    instruction: str | None = None
    """Another one than was recorded."""
    cameras: Mapping[str, str] = field(default_factory=dict[str, str])
    """The contract's camera to the recordings' name for it, where they differ."""
    num_threads: int = 1
    """Of ONNX Runtime."""
    allow_slower: bool = False
    """Pass a bundle whose tick is slower on this machine, or that is not as small as it should."""


def judged(
    root: Path,
    quantized: Path,
    episodes: Sequence[Episode],
    options: JudgeOptions | None = None,
    tell: Tell = lambda doing: None,
) -> tuple[list[Check], dict[str, Any]]:
    """Compare a quantized bundle with what it was made from, both on ONNX Runtime.

    Products one by one; chunks over held-out episodes; drift over many frames, split into what the
    arithmetic does and what the memory does; bytes; ticks; and, where tasks are named, success in
    the simulator, in pairs.

    Args:
        root: The bundle as exported.
        quantized: What was made of it.
        episodes: Held out: nothing was fitted to them.
        options: How; see there.
        tell: Called with what is at work.

    Returns:
        Every check, and the figures for machines.

    Raises:
        InputError: bundles of two contracts, or recordings that do not fit.
    """
    options = options or JudgeOptions()
    manifest = check_bundle(quantized)
    assert manifest.quantization is not None
    recipe = manifest.quantization.recipe
    checks: list[Check] = []
    data: dict[str, Any] = {
        "recipe": recipe,
        "contract_hash": manifest.contract_hash,
        "held_out": [one.name for one in episodes],
        "versions": dict(manifest.versions),
        "forced": options.allow_slower,
    }
    data["sites"] = []
    if manifest.quantization.sites:
        tell("compares every product")
        found, data["sites"] = _sites(root, quantized, episodes, options)
        checks += found
    found, data["chunks"] = _chunks(root, quantized, episodes, options, tell)
    checks += found
    found, data["drift"] = _drift(root, quantized, manifest, episodes, options, tell)
    checks += found
    found, costs = _costs(root, quantized, manifest, options, tell)
    checks += found
    data |= costs
    if options.tasks:
        found, data["closed_loop"] = _loop(root, quantized, options, tell)
        checks += found
    data["checks"] = [asdict(check) for check in checks]
    data["verdict"] = "ok" if all(check.ok for check in checks) else "failed"
    return checks, data


def _costs(
    root: Path, quantized: Path, manifest: Manifest, options: JudgeOptions, tell: Tell
) -> tuple[list[Check], dict[str, Any]]:
    """Compare bytes and ticks."""
    assert manifest.quantization is not None
    recipe, is_forced = manifest.quantization.recipe, options.allow_slower
    size = narrow_bytes(root, quantized)
    data: dict[str, Any] = {"bytes": asdict(size)}
    if manifest.quantization.memory is not None:
        memory = memory_bytes_rows(manifest)
        data["memory"] = [asdict(one) for one in memory]
        checks = [memory_check(memory, recipe)]
    else:
        checks = [bytes_check(size, recipe, forced=is_forced)]
    frames = min(manifest.memory.max_frames, _TICK_FRAMES)
    ticks = tick_ratio(root, quantized, frames=frames, num_threads=options.num_threads, tell=tell)
    data["tick"] = asdict(ticks)
    return [*checks, tick_check(ticks, recipe, forced=is_forced)], data


def _opened(bundle: Path, options: JudgeOptions) -> Session:
    """Return a session on ONNX Runtime."""
    return open_bundle(bundle, num_threads=options.num_threads, spin=False, allow_unverified=True)


def _instruction(episode: Episode, options: JudgeOptions) -> str:
    """Return what an episode is played with."""
    return options.instruction or episode.recording.header.instruction


def _sites(
    root: Path, quantized: Path, episodes: Sequence[Episode], options: JudgeOptions
) -> tuple[list[Check], list[dict[str, Any]]]:
    """Compare every quantized product, fed the same, on a held-out episode."""
    episode = max(episodes, key=lambda one: one.recording.header.max_steps)

    def play(session: Session) -> None:
        instruct(session, _instruction(episode, options))
        before = None
        frames = session_frames(episode, session.manifest, options.seed, options.cameras)
        for _, frame in zip(range(_SITE_FRAMES), frames, strict=False):
            remember(session, frame, before)
            session.denoise(frame.noise[0])
            before = frame

    found = compared_with_float(root, quantized, played=play, num_threads=options.num_threads)
    manifest = check_bundle(quantized)
    assert manifest.quantization is not None
    checks = site_checks(found, manifest.quantization.recipe)
    return checks, [asdict(tensor) for tensor in found]


def _chunks(
    root: Path, quantized: Path, episodes: Sequence[Episode], options: JudgeOptions, tell: Tell
) -> tuple[list[Check], dict[str, Any]]:
    """Compare chunks over whole held-out episodes, each memory its own."""
    wide, narrow = _opened(root, options), _opened(quantized, options)
    errors = chunk_errors(
        wide,
        narrow,
        episodes,
        instruction=options.instruction,
        cameras=options.cameras,
        seed=options.seed,
        tell=tell,
    )
    assert narrow.manifest.quantization is not None
    return chunk_checks(errors, narrow.manifest.quantization.recipe), asdict(errors)


def _drift(
    root: Path,
    quantized: Path,
    manifest: Manifest,
    episodes: Sequence[Episode],
    options: JudgeOptions,
    tell: Tell,
) -> tuple[list[Check], dict[str, Any]]:
    """Measure how errors go on in one long memory: in all, by the arithmetic, by the memory."""
    plan = drift_plan(manifest, options.drift_frames)
    sessions = []
    for bundle in (root, quantized):
        session = with_plan(_opened(bundle, options), plan)
        instruct(session, _instruction(episodes[0], options))
        sessions.append(session)
    wide, narrow = sessions
    assert manifest.quantization is not None
    recipe = manifest.quantization.recipe
    frames = one_after_another(
        episodes, manifest, options.drift_frames, options.seed, options.cameras
    )
    floor = LIMITS[recipe].drift_floor
    curves = measured_drift(
        wide,
        {recipe: (manifest.precision, narrow)},
        frames,
        checkpoints(options.drift_frames),
        lambda doing: tell(f"drift: {doing}"),
        swap=True,
        forms={recipe: form_of(manifest, _table(quantized, manifest))},
    )
    data = {
        "frames": options.drift_frames,
        "seed": options.seed,
        "images": "held-out",
        "truth": f"the float bundle, {manifest.precision}",
        "fitted_from": FITTED_FROM,
        "most_growth_per_decade": GROWTH_PER_DECADE,
        "rungs": [{**curve_data(curve, floor), "judged": True} for curve in curves],
    }
    return drift_checks(curves, floor), data


def _table(quantized: Path, manifest: Manifest) -> ScaleTable | None:
    """Return the scale table that a bundle carries."""
    assert manifest.quantization is not None
    name = manifest.quantization.table
    return None if name is None else scale_table_from_json((quantized / name).read_bytes())


def _loop(
    root: Path, quantized: Path, options: JudgeOptions, tell: Tell
) -> tuple[list[Check], list[dict[str, Any]]]:
    """Drive the simulated robot by both bundles, in pairs."""
    wanted = LoopOptions(
        tasks=options.tasks,
        num_episodes=options.num_episodes,
        seed=_LOOP_SEED + options.seed,
        ablations=(),
    )
    with TemporaryDirectory() as folder:
        call = VerbCalls(Path(folder), tell).call
        loops = closed_loop(quantized, call, wanted, tell, reference=root)
    return loop_checks(loops), loop_data(loops)
