"""The recurrent error: the same frames through the truth and every rung, as memory fills."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from memorywam_export.ladder.memory_form import MemoryForm, form_of
from memorywam_export.ladder.memory_side import Kept, Side
from memorywam_export.parity.trace_report import Array, Difference, Tensors, difference
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import InputError
from memorywam_runtime.session import Session
from memorywam_runtime.tensors import decoded, storage_dtype

__all__ = [
    "NUM_CHUNKS",
    "DriftCurve",
    "DriftPoint",
    "Frame",
    "checkpoints",
    "measured_drift",
    "random_frames",
    "remember",
]

NUM_CHUNKS = 4
"""Chunks of actions compared at a checkpoint, each from its own noise: one alone jumps about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What every session is fed at one frame."""

    pixels: NDArray[np.float32]
    """[1, 3, T, H, W] in [-1, 1]: one image at first, then a group."""
    state: NDArray[np.float32]
    """Normalized joint state [state_dim]."""
    executed: NDArray[np.float32]
    """Normalized actions [horizon, action_dim] after it; used where actions are kept."""
    noise: NDArray[np.float32]
    """[NUM_CHUNKS, horizon, action_dim], standard normal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftPoint:
    """How far a rung is from the truth once so many frames are remembered."""

    frames: int
    latent: Difference
    """Of the newest frame."""
    frame: Difference
    """Keys and values of the newest frame: the layer that is worst, by relative RMS."""
    actions: Difference
    """NUM_CHUNKS chunks, normalized."""
    parts: dict[str, Difference]
    """Keys and values of `anchors`, `window` and `gists`, as far as there are any: each the layer
    that is worst. Apart, as the gists, which err least, are soon most of what is kept. Empty when
    teacher forced, where they only tell how the truth rounds to the rung's type."""
    layers: dict[str, Difference]
    """All that is kept, by tensor: `memory.00.k` and so on; empty when teacher forced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftCurve:
    """One rung's error at every checkpoint."""

    name: str
    precision: str
    free: tuple[DriftPoint, ...]
    """Each side carries its own memory: what a robot has."""
    forced: tuple[DriftPoint, ...]
    """The truth's memory in the rung, frame after frame: what the rung adds in one."""
    swapped: tuple[DriftPoint, ...] = ()
    """The rung's memory in the truth: what the memory alone does to the actions. Only the actions
    of its points are of this; empty unless it was asked for."""


def checkpoints(num_frames: int) -> tuple[int, ...]:
    """Return 1, 2, 3, 5, 7, 10, 20, 30, ... frames up to `num_frames`, and that."""
    marks = {factor * 10**power for power in range(7) for factor in (1, 2, 3, 5, 7)}
    return tuple(sorted({mark for mark in marks if mark < num_frames} | {num_frames}))


def random_frames(contract: InferenceContract, num_frames: int, seed: int) -> Iterator[Frame]:
    """Yield random frames one at a time; each is the same for the same seed and place.

    Args:
        contract: Sizes and conventions.
        num_frames: How many.
        seed: Of everything random, 0 or more.
    """
    views, actions = contract.observations, contract.actions
    is_single = contract.conventions.vae_history == "single_frame"
    shape = (actions.horizon, actions.action_dim)
    for index in range(num_frames):
        rng = np.random.default_rng((seed, index))
        count = 1 if is_single or index == 0 else contract.images_per_frame
        yield Frame(
            pixels=rng.uniform(-1, 1, (1, 3, count, views.height, views.width)).astype(np.float32),
            state=rng.standard_normal(actions.state_dim).astype(np.float32),
            executed=rng.standard_normal(shape).astype(np.float32),
            noise=rng.standard_normal((NUM_CHUNKS, *shape)).astype(np.float32),
        )


def measured_drift(
    truth: Session,
    rungs: Mapping[str, tuple[str, Session]],
    frames: Iterable[Frame],
    at: Sequence[int],
    tell: Callable[[str], None] = lambda doing: None,
    *,
    swap: bool = False,
    forms: Mapping[str, MemoryForm] | None = None,
) -> list[DriftCurve]:
    """Return the curves of rungs that see the same frames as the truth, side by side.

    Chunks are made at checkpoints only. Teacher forced, a rung takes over what the truth remembered
    before the frame, rounded to its type, sees the frame and makes the chunks; then it goes on as
    if nothing had been.

    Args:
        truth: In float64, its instruction set; all of one contract, plan and order of keys.
        rungs: By name, the precision and a session, its instruction set.
        frames: What they see.
        at: Checkpoints: frames remembered, ascending.
        tell: Called with what is being done.
        swap: Also let the truth act on each rung's memory.
        forms: How rungs keep memory, where that is not as exported.

    Raises:
        InputError: a rung of another contract or plan, or fewer frames than the last checkpoint.
    """
    first = Side(truth, form_of(truth.manifest))
    sides = {name: _side(truth, name, one, forms or {}) for name, (_, one) in rungs.items()}
    found: dict[str, dict[str, list[DriftPoint]]] = {
        kind: {name: [] for name in rungs} for kind in ("free", "forced", "swapped")
    }
    marks, before, count = set(at), None, 0
    for count, frame in enumerate(frames, start=1):
        tell(f"frame {count} of {at[-1]}")
        start = first.kept() if count in marks else None
        remember(truth, frame, before)
        wanted = None if start is None else _reading(first, frame)
        for name, side in sides.items():
            if start is None or wanted is None:
                remember(side.session, frame, before)
                continue
            readings = _readings(start, first, side, frame, before, swap=swap)
            for kind, reading in readings.items():
                point = _point(count, truth, reading, wanted, is_free=kind == "free")
                found[kind][name].append(point)
        before = frame
        if count == at[-1]:
            break
    if count < at[-1]:
        raise InputError(f"found {count} frames; expected as many as the last checkpoint, {at[-1]}")
    return [
        DriftCurve(
            name=name,
            precision=precision,
            **{kind: tuple(points[name]) for kind, points in found.items()},
        )
        for name, (precision, _) in rungs.items()
    ]


def _side(truth: Session, name: str, session: Session, forms: Mapping[str, MemoryForm]) -> Side:
    """Return a rung with the form of its memory; refuse one that is not comparable."""
    _check_alike(truth, name, session)
    return Side(session, forms.get(name) or form_of(session.manifest))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """What a session holds after a frame."""

    latent: Array
    memory: Tensors
    """`memory.00.k` ... to [heads, rows, D], all rows."""
    actions: Array


def remember(session: Session, frame: Frame, before: Frame | None) -> None:
    """Let a session see a frame, as the contract's conventions say."""
    conventions = session.contract.conventions
    pixel_type = storage_dtype(session.manifest.graphs["vae_first"].inputs[0].dtype)
    executed = before.executed if before is not None and conventions.action_history else None
    state = frame.state if conventions.proprio_in_video_context else None
    session.remember(frame.pixels.astype(pixel_type, copy=False), executed, state)
    session.set_state(frame.state)


def _reading(side: Side, frame: Frame) -> _Reading:
    """Read what a session holds, and make its chunks."""
    session = side.session
    specs = {spec.name: spec for spec in session.manifest.graphs["cache_update"].inputs}
    latent = session.backend.read(session.calls.tensor("cache_update", "latent"))
    return _Reading(
        latent=decoded(latent, specs["latent"].dtype),
        memory=side.kept().memory,
        actions=np.stack([session.denoise(noise) for noise in frame.noise]),
    )


def _readings(
    start: Kept, first: Side, side: Side, frame: Frame, before: Frame | None, *, swap: bool
) -> dict[str, _Reading]:
    """Have a session remember a frame; return what it then holds, on whose memory ever."""
    readings = {"forced": _forced(start, side, frame, before)}
    remember(side.session, frame, before)
    readings["free"] = _reading(side, frame)
    if swap:
        readings["swapped"] = _lent(first, side, frame)
    return readings


def _forced(start: Kept, side: Side, frame: Frame, before: Frame | None) -> _Reading:
    """Return what a session makes of a frame on the truth's memory; its own is as it was."""
    own = side.session.snapshot()
    side.take_over(start)
    remember(side.session, frame, before)
    found = _reading(side, frame)
    side.session.restore(own)
    return found


def _lent(first: Side, side: Side, frame: Frame) -> _Reading:
    """Return what the truth makes of another's memory; its own is as it was."""
    own = first.session.snapshot()
    first.take_over(side.kept())
    first.session.set_state(frame.state)
    found = _reading(first, frame)
    first.session.restore(own)
    return found


def _point(
    count: int, truth: Session, found: _Reading, wanted: _Reading, *, is_free: bool
) -> DriftPoint:
    """Compare two readings; the rows are those of the truth's memory, which both have."""
    parts = _rows_by_part(truth)
    newest = parts.pop("newest")
    kept = {part: rows for part, rows in parts.items() if rows and is_free}
    every = sorted(row for rows in kept.values() for row in rows)
    return DriftPoint(
        frames=count,
        latent=difference(found.latent, wanted.latent),
        frame=_worst(_by_tensor(found, wanted, newest)),
        actions=difference(found.actions, wanted.actions),
        parts={part: _worst(_by_tensor(found, wanted, rows)) for part, rows in kept.items()},
        layers=_by_tensor(found, wanted, every) if every else {},
    )


def _by_tensor(found: _Reading, wanted: _Reading, rows: Sequence[int]) -> dict[str, Difference]:
    """Compare some rows of every memory tensor."""
    return {
        name: difference(found.memory[name][:, rows], tensor[:, rows])
        for name, tensor in wanted.memory.items()
    }


def _worst(tensors: Mapping[str, Difference]) -> Difference:
    """Return the largest relative RMS of tensors, with the tensor's name."""
    name, worst = max(tensors.items(), key=lambda item: item[1].rel_rms)
    return replace(worst, worst=f"{name} {worst.worst}")


def _rows_by_part(session: Session) -> dict[str, list[int]]:
    """Return the rows of a memory tensor that are read, by what they are."""
    memory, rows = session.memory, session.memory.rows
    state = memory.snapshot()
    parts: dict[str, list[int]] = {"anchors": [], "window": [], "gists": [], "newest": []}
    for slot, frame in enumerate(state.slot_frames):
        if frame < 0:
            continue
        start = rows.slot(slot)
        part = "anchors" if frame < session.contract.memory.num_anchors else "window"
        parts[part] += range(start, start + rows.num_visual)
        if state.slot_has_actions[slot]:
            parts[part] += range(rows.history(slot), rows.history(slot) + rows.num_history)
        if frame == state.num_frames - 1:
            parts["newest"] += range(start, start + rows.num_visual)
    places = memory.num_table_places(state.num_frames)
    parts["gists"] += range(rows.gist(0), rows.gist(places))
    if places:
        place = rows.gist(memory.gist_place(state.num_frames - 1))
        parts["newest"] += range(place, place + rows.num_gists)
    return parts


def _check_alike(truth: Session, name: str, session: Session) -> None:
    """Refuse sessions whose memories cannot be compared row by row."""
    for what in ("contract_hash", "memory", "rewrites", "cache_write"):
        found, wanted = getattr(session.manifest, what), getattr(truth.manifest, what)
        if what == "memory":
            found, wanted = found.gist_buckets, wanted.gist_buckets
        if found != wanted:
            raise InputError(
                f"{name}: found {what} {found}; expected the truth's, {wanted}: open both with "
                "the bundle's rewrites and one memory plan"
            )
