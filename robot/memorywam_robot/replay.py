"""A recording through a policy again: the same bits, or how far from what was recorded."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from memorywam_robot.live.noise import noise_of_frame
from memorywam_robot.runs import visible_from_names
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.digest import memory_digest
from memorywam_runtime.errors import InputError
from memorywam_runtime.observation import Observation
from memorywam_runtime.opening import Opening, opened
from memorywam_runtime.policy import Policy
from memorywam_runtime.recording import Acted, Observed, Recording, Remembered, Sent
from memorywam_runtime.recordings.recording_fit import camera_names, check_joints

__all__ = [
    "ChunkError",
    "OpenLoop",
    "Replayed",
    "policy_for_replay",
    "replay_against_actions",
    "replay_exactly",
]

_Told = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkError:
    """How far one chunk is from the one recorded."""

    frame: int
    errors: NDArray[np.float64]
    """Largest difference a joint [action_dim], in the robot's units."""
    is_equal: bool
    """Bit for bit."""


@dataclass(slots=True, kw_only=True)
class Replayed:
    """What came of feeding a policy what it was fed when it was recorded."""

    chunks: list[ChunkError] = field(default_factory=list)
    num_digests: int = 0
    """Times that memory was compared."""
    unequal_memory: list[int] = field(default_factory=list)
    """Frames after which memory differed; those remembered in the end count as one more."""
    is_whole: bool = False
    """The recording has an end, at which memory was compared."""

    @property
    def is_alike(self) -> bool:
        """Actions and memory were the same, bit for bit, as far as they were recorded."""
        return not self.unequal_memory and all(one.is_equal for one in self.chunks)

    @property
    def is_equal(self) -> bool:
        """They were the same, bit for bit, from the start to the end."""
        return self.is_whole and self.is_alike


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLoop:
    """Chunks beside the actions that somebody recorded after the same observations."""

    num_chunks: int
    mean_errors: NDArray[np.float64]
    """Mean absolute difference a joint [action_dim], in the robot's units."""
    worst_errors: NDArray[np.float64]
    """Largest one a joint [action_dim]."""
    by_step: NDArray[np.float64]
    """Mean absolute difference over all joints, by place in the chunk, as far as any reached."""


def policy_for_replay(recording: Recording, bundle: Path, opening: Opening) -> Policy:
    """Open a bundle as the recording's policy was opened: steps, threads, hidden memory.

    Args:
        recording: To be fed.
        bundle: Of the same contract.
        opening: On which backend; its threads are the recorded ones if it names none.

    Raises:
        InputError: the recording was made with another contract.
        BundleError: a bundle that does not pass its checks.
        MissingPartError: the backend is unknown, or what it needs is not installed.
    """
    made = recording.provenance
    if made is None:
        return Policy(opened(bundle, opening))
    manifest = read_manifest(bundle)
    if made.contract_hash != manifest.contract_hash:
        raise InputError(
            f"{recording.path} was recorded with contract {made.contract_hash[:12]}..., "
            f"{bundle} is for {manifest.contract_hash[:12]}... ('{manifest.contract.name}'); "
            "expected the same: replay on a bundle of the checkpoint that was recorded"
        )
    if not opening.num_threads and opening.backend == made.backend:
        opening = msgspec.structs.replace(opening, num_threads=made.num_threads)
    visible = visible_from_names(",".join(made.hidden))
    return Policy(opened(bundle, opening, visible), num_steps=made.num_denoising_steps)


def replay_exactly(
    policy: Policy,
    recording: Recording,
    *,
    seed: int | None = None,
    instruction: str | None = None,
    told: _Told = lambda _: None,
) -> Replayed:
    """Feed a policy what it was fed when it was recorded, and compare all that it gives.

    Args:
        policy: Reset here.
        recording: Of a policy; up to its damage if it has any.
        seed: Another one than was recorded.
        instruction: Another one than was recorded.
        told: Called with the number of events done, now and then.

    Raises:
        InputError: nothing of a policy is recorded, or it refuses what it is fed.
        CapacityError: memory cannot hold the episode.
    """
    if recording.provenance is None:
        raise InputError(
            f"{recording.path} holds no chunks and no memory of a policy: nothing to be equal to; "
            "compare with its actions instead, without --assert-equal"
        )
    header = recording.header
    policy.reset(
        header.instruction if instruction is None else instruction,
        seed=header.seed if seed is None else seed,
        max_steps=header.max_steps,
    )
    found = Replayed()
    is_async = recording.provenance.loop == "async"
    made = _chunks_by_frame(recording) if is_async else {}
    feeder = _Feeder(policy, is_async=is_async)
    for number, event in enumerate(recording.events()):
        told(number)
        if isinstance(event, Observed):
            feeder.observe(event.observation)
        elif isinstance(event, Sent):
            feeder.executed.append(event.action)
        elif isinstance(event, Remembered):
            frame = feeder.remember()
            if event.memory_digest:
                found.num_digests += 1
                if memory_digest(policy.session) != event.memory_digest or frame != event.frame:
                    found.unequal_memory.append(frame)
            for chunk in made.get(frame, ()):
                own = header.seed if seed is None else seed
                noise = noise_of_frame(policy.contract, own, frame, chunk.attempt)
                found.chunks.append(_chunk_error(policy, chunk, noise))
        elif not is_async:
            found.chunks.append(_chunk_error(policy, event))
    ending = recording.ending
    if ending is not None:
        found.is_whole = True
        found.num_digests += 1
        if memory_digest(policy.session) != ending.memory_digest:
            found.unequal_memory.append(policy.num_frames)
    return found


def replay_against_actions(
    policy: Policy,
    recording: Recording,
    *,
    seed: int = 0,
    instruction: str | None = None,
    cameras: dict[str, str] | None = None,
    told: _Told = lambda _: None,
) -> OpenLoop:
    """Feed a policy an episode that others drove; compare each chunk with what they did next.

    Args:
        policy: Reset here.
        recording: Of any kind, with an observation at each step that the contract takes one.
        seed: Of the noise.
        instruction: Another one than was recorded.
        cameras: The contract's camera to the recording's name for it, where they differ.
        told: Called with the number of events done, now and then.

    Raises:
        InputError: cameras, joints or steps that the contract needs and the recording lacks.
        CapacityError: memory cannot hold the episode.
    """
    header = recording.header
    check_joints(recording, policy.contract)
    names = camera_names(recording, policy.contract, cameras)
    text = header.instruction if instruction is None else instruction
    policy.reset(text, seed=seed, max_steps=header.max_steps)
    feeder = _Feeder(policy)
    chunks: list[tuple[int, NDArray[np.float64]]] = []
    actions: list[NDArray[np.float64]] = []
    for number, event in enumerate(recording.events()):
        told(number)
        if isinstance(event, Sent):
            actions.append(event.action)
            feeder.executed.append(event.action)
        elif isinstance(event, Observed) and feeder.is_due(event.observation.step):
            seen = event.observation
            images = {camera: seen.images[name] for camera, name in names.items()}
            feeder.observe(Observation(images=images, state=seen.state, step=seen.step))
            if feeder.is_complete:
                feeder.remember()
                chunks.append((seen.step, policy.act(seen.state)))
    return _open_loop(recording, chunks, np.array(actions))


def _chunks_by_frame(recording: Recording) -> dict[int, list[Acted]]:
    """Return all chunks by the frame that they act on.

    In an asynchronous episode one may stand after later frames than its own: it is made again where
    it was begun.
    """
    made: dict[int, list[Acted]] = {}
    for event in recording.events():
        if isinstance(event, Acted):
            made.setdefault(event.frame, []).append(event)
    return made


class _Feeder:
    """Gives a policy observations as the loop does: all but a frame's last as they are made."""

    def __init__(self, policy: Policy, *, is_async: bool = False) -> None:
        self._policy, self._is_async = policy, is_async
        self._held: list[Observation] = []
        self._due = policy.expected_steps()
        self.executed: list[NDArray[np.float64]] = []
        """Actions since the last frame."""

    @property
    def is_complete(self) -> bool:
        """The next frame has all of its observations."""
        return not self._due

    def is_due(self, step: int) -> bool:
        """Does the next frame take an observation of this step?

        Raises:
            InputError: it takes an earlier one, which was not there.
        """
        if self._due and step > self._due[0]:
            raise InputError(
                f"found an observation of step {step} and none of step {self._due[0]}; expected "
                "one at each step that the contract takes one: this episode was recorded with "
                "gaps, or at another rate"
            )
        return bool(self._due) and step == self._due[0]

    def observe(self, observation: Observation) -> None:
        """Take the next observation; the one before it was not its frame's last."""
        for earlier in self._held:
            self._policy.see(earlier)
        self._held, self._due = [observation], self._due[1:]

    def remember(self) -> int:
        """Complete the frame; return its number."""
        keeps = self._policy.contract.conventions.action_history
        executed = self._taken() if keeps and self._policy.num_frames else None
        frame = self._policy.remember(self._held, executed)
        self._held = []
        if not (self._is_async and keeps):
            self.executed = []
        self._due = self._policy.expected_steps()
        return frame

    def _taken(self) -> NDArray[np.float64]:
        """Return the actions since the last frame; some later ones may be here already."""
        if not self._is_async:
            return np.array(self.executed)
        horizon = self._policy.contract.actions.horizon
        rows, self.executed = self.executed[:horizon], self.executed[horizon:]
        return np.array(rows)


def _chunk_error(
    policy: Policy, event: Acted, noise: NDArray[np.float64] | None = None
) -> ChunkError:
    """Return how far a chunk is from the one recorded."""
    acting = policy.begin_act(event.state, noise, prefix=event.prefix)
    while not acting.advance():
        pass
    chunk = acting.chunk()
    if chunk.shape != event.chunk.shape:
        raise InputError(
            f"found a recorded chunk {list(event.chunk.shape)} after frame {event.frame}; "
            f"expected {list(chunk.shape)}: the recording does not fit its contract"
        )
    return ChunkError(
        frame=event.frame,
        errors=np.abs(chunk - event.chunk).max(axis=0),
        is_equal=chunk.tobytes() == event.chunk.tobytes(),
    )


def _open_loop(
    recording: Recording,
    chunks: list[tuple[int, NDArray[np.float64]]],
    actions: NDArray[np.float64],
) -> OpenLoop:
    """Compare chunks, each with the step it was made at, with the actions [steps, action_dim]."""
    errors = []
    for step, chunk in chunks:
        done = actions[step : step + len(chunk)]
        if len(done):
            padded = np.full(chunk.shape, np.nan)
            padded[: len(done)] = np.abs(chunk[: len(done)] - done)
            errors.append(padded)
    if not errors:
        raise InputError(
            f"{recording.path} has no action after its first observation; expected an episode of "
            "at least one step"
        )
    found = np.stack(errors)  # [chunks, horizon, action_dim], NaN beyond the last action
    reached = ~np.isnan(found).all(axis=(0, 2))
    return OpenLoop(
        num_chunks=len(found),
        mean_errors=np.nanmean(found, axis=(0, 1)),
        worst_errors=np.nanmax(found, axis=(0, 1)),
        by_step=np.nanmean(found[:, reached], axis=(0, 2)),
    )
