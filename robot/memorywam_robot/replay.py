"""A recording through a policy again: the same bits, or how far from what was recorded."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from memorywam_robot.live.noise import noise_of_frame
from memorywam_robot.replay_feeder import Feeder
from memorywam_robot.runs import visible_from_names
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.digest import memory_digest
from memorywam_runtime.errors import InputError
from memorywam_runtime.observation import Observation
from memorywam_runtime.opening import Opening, opened
from memorywam_runtime.policy import Policy
from memorywam_runtime.recording import (
    Acted,
    Event,
    Instructed,
    Observed,
    Recording,
    Remembered,
    Sent,
)
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
        instruction: Another one than was recorded, from the start to the end.
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
    own = header.seed if seed is None else seed
    text = header.instruction if instruction is None else instruction
    policy.reset(text, seed=own, max_steps=header.max_steps)
    exact = _Exact(policy, recording, seed=own, instruction=instruction)
    for number, event in enumerate(recording.events()):
        told(number)
        exact.feed(event)
    if recording.ending is not None:
        exact.end(recording.ending.memory_digest)
    return exact.found


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
        instruction: Another one than was recorded, from the start to the end.
        cameras: The contract's camera to the recording's name for it, where they differ.
        told: Called with the number of events done, now and then.

    Raises:
        InputError: cameras, joints or steps that the contract needs and the recording lacks, an
            instruction that the bundle lacks, or memory that was emptied on the way.
        CapacityError: memory cannot hold the episode.
    """
    header = recording.header
    check_joints(recording, policy.contract)
    names = camera_names(recording, policy.contract, cameras)
    text = header.instruction if instruction is None else instruction
    policy.reset(text, seed=seed, max_steps=header.max_steps)
    feeder = Feeder(policy)
    chunks: list[tuple[int, NDArray[np.float64]]] = []
    actions: list[NDArray[np.float64]] = []
    for number, event in enumerate(recording.events()):
        told(number)
        if isinstance(event, Sent):
            actions.append(event.action)
            feeder.executed.append(event.action)
        elif isinstance(event, Instructed):
            if not event.keep_memory:
                raise InputError(
                    f"{recording.path}: memory was emptied after step {event.step}, for another "
                    "instruction; expected one episode: compare it with the policy that made it"
                )
            if instruction is None:
                policy.set_instruction(event.instruction, keep_memory=True)
        elif isinstance(event, Observed) and feeder.is_due(event.observation.step):
            seen = event.observation
            images = {camera: seen.images[name] for camera, name in names.items()}
            feeder.observe(Observation(images=images, state=seen.state, step=seen.step))
            if feeder.is_complete:
                feeder.remember()
                chunks.append((seen.step, policy.act(seen.state)))
    return _open_loop(recording, chunks, np.array(actions))


def _chunks_by_frame(recording: Recording) -> dict[tuple[int, int], list[Acted]]:
    """Return all chunks by the number of instructions before them and the frame that they act on.

    In an asynchronous episode one may stand after later frames than its own: it is made again where
    it was begun, which is never before the instruction that it stands after: one that is under way
    is given up for another instruction.
    """
    made: dict[tuple[int, int], list[Acted]] = {}
    num_instructions = 0
    for event in recording.events():
        if isinstance(event, Instructed):
            num_instructions += 1
        elif isinstance(event, Acted):
            made.setdefault((num_instructions, event.frame), []).append(event)
    return made


class _Exact:
    """One recording on its way through a policy that was reset for it."""

    def __init__(
        self, policy: Policy, recording: Recording, *, seed: int, instruction: str | None
    ) -> None:
        made = recording.provenance
        self._is_async = made is not None and made.loop == "async"
        self._policy, self._seed, self._instruction = policy, seed, instruction
        self._max_steps = recording.header.max_steps
        self._made = _chunks_by_frame(recording) if self._is_async else {}
        self._feeder = Feeder(policy, is_async=self._is_async)
        self._num_instructions = 0
        self.found = Replayed()

    def feed(self, event: Event) -> None:
        """Feed one event, or compare it."""
        if isinstance(event, Observed):
            self._feeder.observe(event.observation)
        elif isinstance(event, Sent):
            self._feeder.executed.append(event.action)
        elif isinstance(event, Instructed):
            self._instruct(event)
        elif isinstance(event, Remembered):
            self._remember(event)
        elif not self._is_async:
            self.found.chunks.append(_chunk_error(self._policy, event))

    def end(self, memory: str) -> None:
        """Compare memory with what it was at the end."""
        self.found.is_whole = True
        self._compare(memory, self._policy.num_frames)

    def _remember(self, event: Remembered) -> None:
        frame = self._feeder.remember()
        if event.memory_digest:
            self._compare(event.memory_digest if frame == event.frame else "", frame)
        self._make_again(frame)

    def _instruct(self, event: Instructed) -> None:
        text = event.instruction if self._instruction is None else self._instruction
        self._num_instructions += 1
        if event.keep_memory:
            self._policy.set_instruction(text, keep_memory=True)
            self._make_again(self._policy.num_frames - 1)
        else:
            self._policy.reset(text, seed=self._seed, max_steps=self._max_steps)
            self._feeder = Feeder(self._policy, is_async=self._is_async)

    def _make_again(self, frame: int) -> None:
        """Make and compare the chunks that were begun with this newest frame."""
        for chunk in self._made.get((self._num_instructions, frame), ()):
            noise = noise_of_frame(self._policy.contract, self._seed, frame, chunk.attempt)
            if not len(chunk.chunk):
                self._policy.begin_act(chunk.state, noise, prefix=chunk.prefix).give_up()
                continue
            self.found.chunks.append(_chunk_error(self._policy, chunk, noise))

    def _compare(self, memory: str, frame: int) -> None:
        self.found.num_digests += 1
        if memory_digest(self._policy.session) != memory:
            self.found.unequal_memory.append(frame)


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
