"""A subscriber that writes each episode to an MCAP file, in a thread of its own."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.loop import EpisodeResult, EpisodeStart
from memorywam_robot.recording_thread import PART_ENDING, RecordingThread, Written
from memorywam_robot.runs import PARTS
from memorywam_runtime.bundle import MANIFEST_FILE
from memorywam_runtime.digest import memory_digest
from memorywam_runtime.errors import InputError
from memorywam_runtime.files import sha256_of
from memorywam_runtime.observation import Observation
from memorywam_runtime.policy import Policy
from memorywam_runtime.recording import (
    Acted,
    Ending,
    Event,
    Header,
    Instructed,
    Observed,
    Provenance,
    Remembered,
    Sent,
)
from memorywam_runtime.versions import versions

__all__ = ["QUEUE_EVENTS", "Recorder", "recording_name"]

QUEUE_EVENTS = 256
"""Events that may wait for the disk. About every fifth is an observation: at three cameras of 640
by 480 pixels the queue holds 150 MB and 20 s at most."""
_MAX_SEED = (1 << 63) - 1
_VERDICTS: dict[bool | None, Literal["yes", "no", "unknown"]] = {
    None: "unknown",
    True: "yes",
    False: "no",
}


class Recorder:
    """Records every episode that it hears of; the loop waits for no disk.

    Each episode goes to `NAME-seed-N.mcap.part`, which loses its last ending when it is whole.
    What is recorded leaves the loop through a queue: if that is full, the event is left out and
    the recording marked incomplete, and the arms go on. Use as a context manager: that closes the
    recording of an episode that did not come to its end.
    """

    def __init__(
        self,
        directory: Path,
        policy: Policy,
        *,
        robot: str,
        num_threads: int = 0,
        records_memory: bool = False,
        queue_events: int = QUEUE_EVENTS,
        loop: Literal["sync", "async"] = "sync",
    ) -> None:
        """Make ready to record.

        Args:
            directory: Made if it is not there.
            policy: Whose episodes these are.
            robot: Its name, as given to `--robot`.
            num_threads: That the policy's backend was asked to use.
            records_memory: Write memory's digest after every frame, not only at the end; it reads
                all memory each time.
            queue_events: That may wait for the disk.
            loop: Whether memory goes on while chunks are made.

        Raises:
            InputError: the directory is a file.
        """
        if directory.exists() and not directory.is_dir():
            raise InputError(f"found a file at {directory}; expected a directory for recordings")
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._policy = policy
        self._robot = robot
        self._records_memory = records_memory
        self._queue_events = queue_events
        self._provenance = _provenance(policy, num_threads, loop)
        self._slot_frames: tuple[int, ...] = ()
        self._writing: RecordingThread | None = None
        self.written: list[Written] = []
        """One for each episode that has ended."""

    def __enter__(self) -> "Recorder":
        """Return the recorder."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close what is open."""
        self.close()

    def check_seeds(self, seeds: Iterable[int]) -> None:
        """Refuse episodes whose recordings are there already, before any of them is run.

        Raises:
            InputError: naming the first.
        """
        for seed in seeds:
            self._path(seed)

    def on_episode_start(self, start: EpisodeStart) -> None:
        """Open the episode's file."""
        self.close()
        path = self._path(start.seed)
        contract = self._policy.contract
        header = Header(
            instruction=start.instruction,
            seed=start.seed,
            max_steps=start.num_steps,
            control_hz=contract.observations.control_hz,
            cameras=contract.observations.cameras,
            state_dim=contract.actions.state_dim,
            action_dim=contract.actions.action_dim,
            action_names=contract.actions.names,
            robot=self._robot,
        )
        self._slot_frames = self._policy.session.memory.snapshot().slot_frames
        self._writing = RecordingThread(path, header, self._provenance, self._queue_events)

    def on_observation(self, observation: Observation, captured_ns: int) -> None:
        """Pass it on; the image arrays are its own, the state may be the arm's."""
        now_ns = time.monotonic_ns()
        state = np.array(observation.state, np.float64)
        kept = Observation(images=observation.images, state=state, step=observation.step)
        self._put(Observed(observation=kept, captured_ns=captured_ns, received_ns=now_ns))

    def on_frame(self, frame: int, steps: Sequence[int]) -> None:
        """Pass on where memory put it, and what had to go for it."""
        now_ns = time.monotonic_ns()
        session = self._policy.session
        slot = session.memory.slot_of(frame)
        frames = session.memory.snapshot().slot_frames
        event = Remembered(
            frame=frame,
            steps=tuple(steps),
            slot=slot,
            evicted=self._slot_frames[slot],
            num_gists=session.memory.num_table_places(session.memory.num_frames),
            memory_digest=memory_digest(session) if self._records_memory else "",
            received_ns=now_ns,
        )
        self._slot_frames = frames
        self._put(event)

    def on_chunk(self, state: NDArray[np.floating], chunk: NDArray[np.float64]) -> None:
        """Pass it on."""
        self.on_made(self._policy.num_frames - 1, state, chunk, None)

    def on_made(
        self,
        frame: int,
        state: NDArray[np.floating],
        chunk: NDArray[np.float64],
        prefix: NDArray[np.floating] | None,
        attempt: int = 0,
    ) -> None:
        """Pass on a chunk that acts on this frame, and begins with this prefix [d, action_dim]."""
        event = Acted(
            frame=frame,
            state=np.array(state, np.float64),
            chunk=chunk.copy(),
            received_ns=time.monotonic_ns(),
            prefix=None if prefix is None or not len(prefix) else np.array(prefix, np.float64),
            attempt=attempt,
        )
        self._put(event)

    def on_given_up(
        self,
        frame: int,
        state: NDArray[np.floating],
        prefix: NDArray[np.floating] | None,
        attempt: int = 0,
    ) -> None:
        """Pass on a chunk that was begun and never ready: memory keeps its joint state."""
        none = np.zeros((0, self._policy.contract.actions.action_dim))
        self.on_made(frame, state, none, prefix, attempt)

    def on_instruction(self, step: int, instruction: str, *, keep_memory: bool) -> None:
        """Pass on another instruction, in force after so many steps."""
        self._slot_frames = self._policy.session.memory.snapshot().slot_frames
        event = Instructed(
            step=step,
            instruction=instruction,
            keep_memory=keep_memory,
            received_ns=time.monotonic_ns(),
        )
        self._put(event)

    def on_step(
        self,
        step: int,
        action: NDArray[np.floating],
        state: NDArray[np.floating] | None = None,
    ) -> None:
        """Pass it on, with the joints [state_dim] as the step began if they were measured then."""
        event = Sent(
            step=step,
            action=np.array(action, np.float64),
            received_ns=time.monotonic_ns(),
            state=None if state is None else np.array(state, np.float64),
        )
        self._put(event)

    def on_episode_end(self, result: EpisodeResult) -> None:
        """Write the ending, wait for the disk, and give the file its name: the arms are held."""
        writing = self._opened()
        ending = Ending(
            success=_VERDICTS[result.success],
            remark=result.remark,
            num_steps=result.num_steps,
            num_frames=result.num_frames,
            num_dropped=writing.num_dropped,
            memory_digest=memory_digest(self._policy.session),
        )
        self._writing = None
        self.written.append(writing.finish(ending))

    def close(self) -> None:
        """Close the recording of an episode that has not ended; it stays unfinished."""
        writing, self._writing = self._writing, None
        if writing is not None:
            self.written.append(writing.finish(None))

    def _put(self, event: Event) -> None:
        self._opened().put(event)

    def _opened(self) -> RecordingThread:
        if self._writing is None:
            raise InputError("nothing is being recorded: no episode has started")
        return self._writing

    def _path(self, seed: int) -> Path:
        """Return where an episode goes; refuse to write over another's."""
        if not 0 <= seed <= _MAX_SEED:
            raise InputError(f"found seed {seed}; expected 0 to {_MAX_SEED}")
        path = self._directory / recording_name(self._robot, seed)
        for there in (path, path.with_name(path.name + PART_ENDING)):
            if there.exists():
                raise InputError(
                    f"found {there}, an earlier recording; expected none of this robot and seed: "
                    "move it, or record to another directory"
                )
        return path


def recording_name(robot: str, seed: int) -> str:
    """Return the name of an episode's file: `sim:recall` and 5 make sim-recall-seed-5.mcap."""
    plain = "".join(sign if sign.isalnum() or sign in "._" else "-" for sign in robot)
    return f"{plain.lstrip('.') or 'robot'}-seed-{seed}.mcap"


def _provenance(policy: Policy, num_threads: int, loop: Literal["sync", "async"]) -> Provenance:
    """Return what episodes of a policy are made with."""
    session = policy.session
    manifest, seen = session.manifest, session.memory.visible
    if session.root is None:
        raise InputError("this session has no bundle: its episodes could not be replayed")
    return Provenance(
        contract_hash=manifest.contract_hash,
        checkpoint_sha256=manifest.source.sha256,
        manifest_sha256=sha256_of(session.root / MANIFEST_FILE),
        backend=session.backend.name,
        num_threads=num_threads,
        num_denoising_steps=policy.num_denoising_steps,
        hidden=tuple(name for name in PARTS if not getattr(seen, name)),
        versions=tuple(f"{name}=={version}" for name, version in versions().items()),
        loop=loop,
    )
