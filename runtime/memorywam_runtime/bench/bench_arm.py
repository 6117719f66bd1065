"""One arm of a measurement: a bundle on one backend, filled to a number of frames, ticking."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.bench.bench_sizes import bucket_of, most_frames
from memorywam_runtime.bundle import read_prompt
from memorywam_runtime.memory import Memory, MemoryState
from memorywam_runtime.opening import Opening, opened
from memorywam_runtime.session import STAGES, Session
from memorywam_runtime.snapshot import SessionSnapshot
from memorywam_runtime.tensors import storage_dtype

__all__ = ["INSTRUCTION", "WHOLES", "Arm", "ArmOptions", "SessionArm", "Spans"]

WHOLES = ("see", "remember", "chunk", "write")
"""Stages that are more than the call of one engine, or less."""

INSTRUCTION = "instruction"
"""Stage of another instruction while memory is kept: read from the bundle and written."""

_MOST_CALLS = 16
"""Of any engine in a tick, beside the steps of a chunk."""

Spans = dict[str, list[float]]
"""Stage to the spans of one round, ms, in their order.

`tick` is one frame remembered and one chunk made, from the frame's last image on; `engines` is
the part of it that calls of engines take, where they can be timed; `total` is the tick and what
was done as the images before it arrived. `instruction` comes after them, and is in none of them.
"""


class ArmOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What an arm runs, in a form that crosses to another process."""

    root: str
    opening: Opening
    num_steps: int | None = None
    """Of a chunk; the contract's by default."""
    full_history: bool = False
    """Keep every visual token of every frame, instead of anchors, window and gist."""
    profile: str | None = None
    """A directory for profiles of the operators; measured times are longer then."""


class Arm(Protocol):
    """What is measured against others."""

    def open(self) -> dict[str, Any]:
        """Load everything and make the first calls; return what is known of it and how long."""
        ...

    def fill(self, frames: int) -> dict[str, Any]:
        """Fill memory so that the next tick remembers that frame; return sizes."""
        ...

    def tick(self, *, discard: int = 0) -> Spans:
        """Remember one frame and make one chunk, each time the same.

        Args:
            discard: Ticks to make before the one that counts.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Inputs:
    """One episode's worth of random inputs, in the model's units."""

    image: NDArray[Any]
    group: NDArray[Any]
    state: NDArray[np.float32]
    noise: NDArray[np.float32]
    executed: NDArray[np.float32] | None


class SessionArm:
    """A session, as the robot runs it."""

    def __init__(self, options: ArmOptions) -> None:
        self._options = options

    def open(self) -> dict[str, Any]:
        """Open the bundle and make the first calls, whose spans are the cold start's."""
        started_s = time.monotonic()
        profile = self._options.profile
        self._session = opened(
            self._options.root, self._options.opening, profile=Path(profile) if profile else None
        )
        backend = self._session.backend
        open_s = time.monotonic() - started_s
        self._inputs = _random_inputs(self._session)
        self._num_steps = self._options.num_steps or self._session.contract.conventions.num_steps
        self._reset()
        first_ms = self._first_calls()
        self._reset()
        return {
            "provider": getattr(backend, "provider", None),
            "is_async": backend.is_async,
            "open_s": open_s,
            "first_ms": first_ms,
        }

    def fill(self, frames: int) -> dict[str, Any]:
        """Fill memory up to the frame before; then make one tick that nobody counts.

        Every frame is remembered until all slots are taken. Frames beyond are not computed: their
        gist rows are copies of those of the first frames, and the counters go on. What a row
        holds does not change what it costs.
        """
        session, before = self._session, frames - 1
        session.timings.restart()
        full = session.memory.rows.num_slots + 1
        while session.memory.num_frames < min(before, full):
            self._remember(self._see())
        if session.memory.num_frames < before:
            session.restore(_jumped(session, before))
        self._counters, self._turn = session.memory.snapshot(), session.encoder.turn
        first = self.tick()
        return {
            "rows": session.buffers.num_rows,
            "keys": {
                "cache_update": session.calls.num_frame_keys,
                "action_step": session.calls.num_action_keys,
            },
            "memory_bytes": session.buffers.num_bytes,
            "first_tick_ms": first["tick"][0],
            "num_fallbacks": session.backend.num_fallbacks,
            "fallback_reason": session.backend.fallback_reason,
        }

    def tick(self, *, discard: int = 0) -> Spans:
        """Remember the next frame and act on it, with the counters set back to where they were.

        From the same counters, a frame writes the rows that it wrote before: the same work. What
        the encoder keeps of earlier images goes on, which changes values, and no more.
        """
        for _ in range(discard):
            self._tick()
        return self._tick()

    def end_profile(self) -> dict[str, str]:
        """Return the file of each graph's profile, which ends now."""
        backend: Any = self._session.backend
        files: dict[str, str] = backend.end_profile()
        return files

    def _tick(self) -> Spans:
        """Make one tick from the counters that memory was filled to."""
        session = self._session
        session.memory.restore(self._counters)
        session.encoder.turn = self._turn
        session.timings.restart(_MOST_CALLS + self._num_steps)
        session.forget_seen()
        started_ns = time.monotonic_ns()
        last = self._see()
        seen_ns = time.monotonic_ns()
        seen = self._spans()
        session.timings.restart(_MOST_CALLS + self._num_steps)
        last_ns = time.monotonic_ns()
        self._remember(last)
        session.denoise(self._inputs.noise, self._num_steps)
        tick_ms = (time.monotonic_ns() - last_ns) / 1e6
        spans = self._spans()
        engines = [sum(ms) for stage, ms in spans.items() if stage not in WHOLES]
        for stage, times in seen.items():
            spans[stage] = times + spans.get(stage, [])
        if engines:
            spans["engines"] = [sum(engines)]
        total_ms = tick_ms + (seen_ns - started_ns) / 1e6
        return spans | {"tick": [tick_ms], "total": [total_ms]} | self._change_instruction()

    def _spans(self) -> Spans:
        """Return the spans of every stage that ran."""
        timings = self._session.timings
        spans = {stage: timings.milliseconds(stage).tolist() for stage in STAGES}
        return {stage: found for stage, found in spans.items() if found}

    def _change_instruction(self) -> Spans:
        """Return what a change of instruction takes; nothing if the bundle holds none.

        It is the one in force: all take as long, and later ticks do what earlier ones did.
        """
        session = self._session
        manifest, root = session.manifest, session.root
        if not manifest.prompts or root is None:
            return {}
        started_ns = time.monotonic_ns()
        session.set_text(read_prompt(root, manifest, manifest.prompts[0].text))
        session.backend.finish()
        return {INSTRUCTION: [(time.monotonic_ns() - started_ns) / 1e6]}

    def _reset(self) -> None:
        """Start an episode, with the bundle's first instruction if it has any."""
        session = self._session
        manifest, root = session.manifest, session.root
        if manifest.prompts and root is not None:
            session.reset(read_prompt(root, manifest, manifest.prompts[0].text))
        else:
            session.reset()

    def _first_calls(self) -> dict[str, float]:
        """Return what the first call of each stage takes, ms."""
        session = self._session
        session.timings.restart()
        for _ in range(min(2, most_frames(session.manifest) or 2)):
            self._remember(self._see())
            session.denoise(self._inputs.noise, self._num_steps)
        spans = {stage: session.timings.milliseconds(stage) for stage in STAGES}
        return {stage: float(found[0]) for stage, found in spans.items() if len(found)}

    def _see(self) -> NDArray[Any]:
        """Feed all images of the next frame but the last as they would arrive; return the rest.

        Where the graphs take a group whole, that is all of them.
        """
        session = self._session
        if session.memory.num_frames == 0 or session.encoder.is_single:
            return self._inputs.image
        group = self._inputs.group
        if not session.calls.early:
            return group
        for image in range(group.shape[2] - 1):
            session.see(group[:, :, image : image + 1])
        return group[:, :, -1:]

    def _remember(self, pixels: NDArray[Any]) -> None:
        """Remember the next frame, with the joint state known before it."""
        session = self._session
        is_first = session.memory.num_frames == 0
        session.set_state(self._inputs.state)
        session.remember(pixels, None if is_first else self._inputs.executed)


def _jumped(session: Session, frames: int) -> SessionSnapshot:
    """Return the session's state as if it had remembered that many frames."""
    taken = session.snapshot()
    bucket = bucket_of(session.manifest, frames)
    rows, capacity = session.memory.rows, session.manifest.memory.gist_buckets[bucket]
    held = rows.num_gists * min(session.memory.num_frames, session.buffers.capacity)
    arrays = dict(taken.arrays)
    for name, old in taken.arrays.items():
        if name.startswith("memory."):
            new = np.zeros((*old.shape[:2], rows.total(capacity), old.shape[3]), old.dtype)
            new[:, :, : rows.gist_table] = old[:, :, : rows.gist_table]
            if held:
                places = np.arange(rows.num_gists * min(frames, capacity)) % held
                new[:, :, rows.gist_table :][:, :, : len(places)] = old[
                    :, :, rows.gist_table + places
                ]
            arrays[name] = new
    return SessionSnapshot(
        contract_hash=taken.contract_hash,
        memory=_counted(session.memory, frames),
        bucket=bucket,
        turn=taken.turn,
        has_state=taken.has_state,
        arrays=arrays,
    )


def _counted(memory: Memory, frames: int) -> MemoryState:
    """Return the counters as they are after that many frames."""
    before = memory.snapshot()
    while memory.num_frames < frames:
        memory.remembered()
    after = memory.snapshot()
    memory.restore(before)
    return after


def _random_inputs(session: Session) -> _Inputs:
    """Return inputs that fit."""
    contract, spec = session.contract, session.encoder.image_spec
    rng = np.random.default_rng(0)
    shape = (contract.actions.horizon, contract.actions.action_dim)

    def pixels(count: int) -> NDArray[Any]:
        batch, colours, _, height, width = spec.fixed_shape
        found = rng.uniform(-1, 1, (batch, colours, count, height, width))
        return found.astype(storage_dtype(spec.dtype))

    actions = rng.standard_normal((2, *shape), np.float32)
    return _Inputs(
        image=pixels(1),
        group=pixels(contract.images_per_frame),
        state=rng.standard_normal(contract.actions.state_dim, np.float32),
        noise=actions[0],
        executed=actions[1] if contract.conventions.action_history else None,
    )
