"""How long every stage takes and how much memory holds, against how full it is."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.backends import backend_from_name
from memorywam_runtime.bundle import open_bundle, read_manifest, read_prompt
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.memory import Rows
from memorywam_runtime.session import STAGES, Session
from memorywam_runtime.timing import Timings

__all__ = [
    "bench_bundle",
    "default_frames",
    "full_history_bytes",
    "memory_bytes",
    "memory_rows",
    "most_frames",
]

Spans = dict[str, list[NDArray[np.float64]]]


@dataclass(frozen=True, slots=True)
class _Inputs:
    """One episode's worth of random inputs, in the model's units."""

    image: NDArray[Any]
    group: NDArray[Any]
    state: NDArray[np.float32]
    noise: NDArray[np.float32]
    executed: NDArray[np.float32] | None


def bench_bundle(
    root: Path,
    *,
    frames: Sequence[int] = (),
    num_steps: int | None = None,
    backend: str = "ort",
    num_threads: int = 0,
    repeat: int = 20,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Return times and sizes of a bundle on this machine.

    Memory is filled by remembering every frame. At each fill the newest frame is remembered and
    acted on `repeat` times, each time from a snapshot of the memory before it; one more round
    before those is not counted.

    Args:
        root: The bundle.
        frames: Fills to measure at, in latent frames; 1, 10, 100, ... by default.
        num_steps: Denoising steps; the contract's by default.
        backend: What runs the graphs.
        num_threads: Threads of the backend; 0 lets it choose.
        repeat: Rounds at each fill.
        tell: Called with what is being done.

    Raises:
        InputError: a fill that the bundle cannot hold.
    """
    tell = tell or _silent
    fills = _checked_fills(read_manifest(root), frames)
    if repeat < 1 or num_threads < 0:
        raise InputError(
            f"found {repeat} repetitions and {num_threads} threads; expected at least 1, and 0 "
            "(the backend chooses) or more"
        )
    tell("open")
    options = {"num_threads": num_threads} if num_threads else {}
    started_s = time.monotonic()
    session = open_bundle(root, backend=backend_from_name(backend, **options))
    open_s = time.monotonic() - started_s
    manifest = session.manifest
    inputs = _random_inputs(session)
    _reset(session)
    first_ms = _first_calls(session, inputs, num_steps)
    _reset(session)
    by_frames, stages_ms = _at_fills(session, inputs, fills, num_steps, repeat, tell)
    return {
        "contract_hash": manifest.contract_hash,
        "backend": backend,
        "threads": num_threads,
        "precision": manifest.precision,
        "num_steps": num_steps or manifest.contract.conventions.num_steps,
        "repeat": repeat,
        "open_s": open_s,
        "first_ms": first_ms,
        "stages_ms": stages_ms,
        "by_frames": by_frames,
        "memory_allocated_bytes": memory_bytes(manifest, manifest.memory.max_frames),
        "memory_bytes_by_frame": [[n, memory_bytes(manifest, n)] for n in _sampled(manifest)],
    }


def most_frames(manifest: Manifest) -> int | None:
    """Return how many frames an episode may remember before any is lost; None without end."""
    if manifest.contract.conventions.vae_history == "single_frame":
        return 1
    return manifest.memory.max_frames if manifest.contract.memory.num_gists else None


def default_frames(manifest: Manifest) -> tuple[int, ...]:
    """Return the episode lengths that are told of: 1, 10, 100, ... and the longest."""
    most = most_frames(manifest)
    limit = 1000 if most is None else most
    return tuple(sorted({*(n for n in (1, 10, 100, 1000) if n <= limit), limit}))


def memory_rows(manifest: Manifest, frames: int) -> int:
    """Return the rows of each memory tensor after that many frames: those of the gist bucket."""
    buckets = manifest.memory.gist_buckets
    capacity = next((size for size in buckets if size >= frames), buckets[-1])
    if not manifest.contract.memory.num_gists:
        capacity = buckets[0]
    return Rows(manifest.contract).total(capacity)


def memory_bytes(manifest: Manifest, frames: int) -> int:
    """Return the size of all memory tensors after that many frames."""
    return memory_rows(manifest, frames) * manifest.memory.bytes_per_token


def full_history_bytes(manifest: Manifest, frames: int) -> int:
    """Return what keys and values of every visual token of that many frames would take."""
    return frames * manifest.contract.num_visual * manifest.memory.bytes_per_token


def _at_fills(
    session: Session,
    inputs: _Inputs,
    fills: Sequence[int],
    num_steps: int | None,
    repeat: int,
    tell: Callable[[str], None],
) -> tuple[list[dict[str, Any]], dict[str, dict[str, float]]]:
    """Return what was measured at each fill, and every stage's percentiles over all of them."""
    by_frames: list[dict[str, Any]] = []
    spans: Spans = {stage: [] for stage in STAGES}
    for fill in fills:
        _fill(session, inputs, fill - 1, tell)
        tell(f"measure at {fill} frames")
        timings = _measured(session, inputs, num_steps, repeat)
        for stage in STAGES:
            spans[stage].append(timings.milliseconds(stage))
        by_frames.append(
            {
                "frames": fill,
                "stages_ms": timings.percentiles(),
                "memory_bytes": session.buffers.num_bytes,
                "full_history_bytes": full_history_bytes(session.manifest, fill),
            }
        )
    return by_frames, _percentiles(spans)


def _checked_fills(manifest: Manifest, frames: Sequence[int]) -> tuple[int, ...]:
    """Return the fills in rising order; refuse what memory cannot hold."""
    fills = tuple(sorted(set(frames))) or default_frames(manifest)
    most = most_frames(manifest)
    if fills[0] < 1:
        raise InputError(f"found {fills[0]} frames; expected at least 1")
    if most is not None and fills[-1] > most:
        raise InputError(
            f"found {fills[-1]} frames; the bundle's memory holds {most}: measure at fewer, or "
            f"export with --max-frames {fills[-1]}"
        )
    return fills


def _random_inputs(session: Session) -> _Inputs:
    """Return inputs that fit."""
    contract, graphs = session.contract, session.manifest.graphs
    rng = np.random.default_rng(0)
    shape = (contract.actions.horizon, contract.actions.action_dim)

    def pixels(graph: str) -> NDArray[Any]:
        spec = graphs[graph].inputs[0]
        return rng.uniform(-1, 1, spec.fixed_shape).astype(spec.zeros().dtype)

    image = pixels("vae_first")
    actions = rng.standard_normal((2, *shape), np.float32)
    return _Inputs(
        image=image,
        group=pixels("vae_step") if "vae_step" in graphs else image,
        state=rng.standard_normal(contract.actions.state_dim, np.float32),
        noise=actions[0],
        executed=actions[1] if contract.conventions.action_history else None,
    )


def _reset(session: Session) -> None:
    """Start an episode, with the bundle's first instruction if it has any."""
    manifest, root = session.manifest, session.root
    if manifest.prompts and root is not None:
        session.reset(read_prompt(root, manifest, manifest.prompts[0].text))
    else:
        session.reset()


def _first_calls(session: Session, inputs: _Inputs, num_steps: int | None) -> dict[str, float]:
    """Return what the first call of each stage takes, ms: the cold start, which is told apart."""
    found: dict[str, float] = {}
    session.timings.restart()
    for _ in range(min(2, most_frames(session.manifest) or 2)):
        _remember(session, inputs)
        session.set_state(inputs.state)
        session.denoise(inputs.noise, num_steps)
    for stage in STAGES:
        spans = session.timings.milliseconds(stage)
        if len(spans):
            found[stage] = float(spans[0])
    return found


def _fill(session: Session, inputs: _Inputs, frames: int, tell: Callable[[str], None]) -> None:
    """Remember frames until memory holds that many."""
    while session.memory.num_frames < frames:
        tell(f"fill: {session.memory.num_frames} of {frames} frames")
        _remember(session, inputs)


def _remember(session: Session, inputs: _Inputs) -> None:
    """Remember the next frame, with the joint state known before it."""
    is_first = session.memory.num_frames == 0
    session.set_state(inputs.state)
    pixels = inputs.image if is_first else inputs.group
    session.remember(pixels, None if is_first else inputs.executed)


def _measured(session: Session, inputs: _Inputs, num_steps: int | None, repeat: int) -> Timings:
    """Return the spans of remembering the next frame and acting on it, again and again."""
    capacity = repeat * (num_steps or session.contract.conventions.num_steps)
    before = session.snapshot()
    for warm in range(repeat + 1):
        if warm < 2:
            session.timings.restart(capacity)
        session.restore(before)
        _remember(session, inputs)
        session.denoise(inputs.noise, num_steps)
    return session.timings


def _percentiles(spans: Spans) -> dict[str, dict[str, float]]:
    """Return percentiles of every stage over all fills."""
    total = Timings(STAGES, capacity=max(1, *(sum(map(len, s)) for s in spans.values())))
    for stage, parts in spans.items():
        for duration_ms in np.concatenate(parts):
            total.add(stage, round(duration_ms * 1e6))
    return total.percentiles()


def _sampled(manifest: Manifest) -> list[int]:
    """Return frames at which the memory's size is told: each bucket's last and first frame."""
    most = most_frames(manifest)
    limit = 1000 if most is None else most
    edges = (n for size in manifest.memory.gist_buckets for n in (size, size + 1))
    return sorted({n for n in (*_decades(limit), *edges, limit) if 1 <= n <= limit})


def _decades(limit: int) -> Iterable[int]:
    """Yield 1, 2, 5, 10, 20, 50, ... up to a limit."""
    scale = 1
    while scale <= limit:
        yield from (scale, 2 * scale, 5 * scale)
        scale *= 10


def _silent(doing: str) -> None:
    """Tell nobody."""
