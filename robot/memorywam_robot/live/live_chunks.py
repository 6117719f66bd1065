"""The chunks of an episode that keeps time: asked for, judged, put in force or asked for again."""

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.live.chunk_gate import ChunkVerdict
from memorywam_robot.live.live_counts import LiveCounts
from memorywam_robot.live.live_parts import Parts
from memorywam_robot.live.noise import noise_of_frame
from memorywam_robot.live.tasks import ChunkLost, ChunkMade, Infer

__all__ = ["LiveChunks"]


class LiveChunks:
    """One of them is under way at a time; the arms go on with what there is meanwhile."""

    def __init__(self, parts: Parts, counts: LiveCounts, seed: int, epoch: int) -> None:
        """Begin an episode.

        Args:
            parts: Of the episode.
            counts: Of the episode.
            seed: Of the noise.
            epoch: That tasks belong to.
        """
        self._parts, self._counts = parts, counts
        self._seed, self._epoch = seed, epoch
        self._num_limited = parts.body.num_limited
        self._pending: Infer | None = None
        self.newest_frame = -1
        """That memory was given: no chunk is made of an older one."""

    def ask(
        self, frame: int, requested_at: int, state: NDArray[np.float64], attempt: int = 0
    ) -> None:
        """Ask for the chunk after the newest frame.

        Args:
            frame: Its number.
            requested_at: Of the queue: the step that the chunk's first action belongs to.
            state: Joint positions [state_dim] at that step.
            attempt: 1 if the first one was not to be used: the noise is another.
        """
        parts, prefix = self._parts, None
        if parts.queue.seam == "inpaint":
            prefix = parts.queue.prefix(parts.load.num_delayed, requested_at)
            prefix = prefix if len(prefix) else None
        task = Infer(
            epoch=self._epoch,
            frame=frame,
            requested_at=requested_at,
            state=state,
            prefix=prefix,
            noise=noise_of_frame(parts.contract, self._seed, frame, attempt),
            attempt=attempt,
        )
        self._pending = task
        parts.worker.put(task)

    def ask_anew(self) -> None:
        """Ask again for the chunk that is under way, if there is one."""
        if self._pending is not None:
            task = self._pending
            self.ask(task.frame, task.requested_at, task.state, task.attempt)

    def join(self, made: ChunkMade, *, is_held: bool) -> ChunkVerdict | None:
        """Put a chunk in force if it is plausible and still of use; return why it is not."""
        parts, counts = self._parts, self._counts
        chunk, requested_at = made.chunk, made.task.requested_at
        counts.act_ms.append(made.took_ms)
        self._settle(made.task)
        if is_held or parts.queue.num_taken - requested_at >= len(chunk):
            counts.chunks_dropped += 1
            return None
        # Judged where it leaves what is executed anyway, however late it came.
        num_prefix = 0 if made.task.prefix is None else len(made.task.prefix)
        first, expected = parts.queue.expected(requested_at, num_prefix)
        verdict = parts.gate.checked(chunk[first:], expected)
        if verdict.verdict in ("drop", "stop"):
            counts.chunks_dropped += 1
            return verdict
        counts.chunks_warned += verdict.verdict == "warn"
        seam = parts.queue.put(chunk, requested_at, num_prefix)
        if seam is not None:
            counts.chunks += 1
            counts.seams.append(seam)
        was_limited = parts.body.num_limited != self._num_limited
        self._num_limited = parts.body.num_limited
        if parts.gate.executed(was_limited=was_limited):
            return ChunkVerdict(verdict="stop", reason=parts.gate.stop_reason)
        return None

    def lost(self, event: ChunkLost) -> ChunkVerdict:
        """Hear of a chunk that came out unusable; return what to do."""
        self._counts.chunks_lost += 1
        self._settle(event.task)
        return self._parts.gate.lost(event.reason)

    def ask_again(self, task: Infer, state: NDArray[np.float64]) -> None:
        """Ask once more for a chunk that was not to be used, if memory is where it was."""
        if not task.attempt and task.frame == self.newest_frame:
            self.ask(task.frame, task.requested_at, state, attempt=1)
