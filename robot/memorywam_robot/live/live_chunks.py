"""The chunks of an episode that keeps time: asked for, judged, put in force or asked for again."""

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.live.chunk_gate import ChunkVerdict
from memorywam_robot.live.live_counts import LiveCounts
from memorywam_robot.live.live_parts import Parts
from memorywam_robot.live.noise import noise_of_frame
from memorywam_robot.live.tasks import Act, ChunkLost, ChunkMade

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
        self._pending: Act | None = None
        self._frame, self._requested_at = -1, 0
        self._state = np.zeros(0)

    def complete(self, frame: int, requested_at: int, state: NDArray[np.float64]) -> None:
        """Hear of a frame that memory was given: no chunk is made of an older one.

        Args:
            frame: Its number.
            requested_at: Of the queue: the step that the first action of its chunk belongs to.
            state: Joint positions [state_dim] at that step.
        """
        self._frame, self._requested_at, self._state = frame, requested_at, state

    def ask(self, attempt: int = 0) -> None:
        """Ask for the chunk after the newest frame.

        Args:
            attempt: 1 if the first one was not to be used: the noise is another.
        """
        parts, counts, prefix = self._parts, self._counts, None
        counts.delayed_last = parts.delay.num_steps
        counts.delayed_most = max(counts.delayed_most, counts.delayed_last)
        frame, requested_at = self._frame, self._requested_at
        if parts.queue.seam == "inpaint":
            prefix = parts.queue.prefix(counts.delayed_last, requested_at)
            prefix = prefix if len(prefix) else None
        task = Act(
            epoch=self._epoch,
            frame=frame,
            requested_at=requested_at,
            state=self._state,
            prefix=prefix,
            noise=noise_of_frame(parts.contract, self._seed, frame, attempt),
            attempt=attempt,
        )
        self._pending = task
        parts.worker.put(task)

    def ask_anew(self) -> None:
        """Ask again for the chunk that is under way, if there is one."""
        if self._pending is not None:
            self.ask(self._pending.attempt if self._pending.frame == self._frame else 0)

    def join(self, made: ChunkMade, *, is_held: bool) -> ChunkVerdict | None:
        """Put a chunk in force if it is plausible and still of use; return why it is not."""
        parts, counts = self._parts, self._counts
        chunk, requested_at = made.chunk, made.task.requested_at
        counts.act_ms.append(made.took_ms)
        self._settle(made.task)
        remember_ms = counts.remember_ms[-1] if counts.remember_ms else parts.load.remember_ms
        num_consumed = parts.queue.num_taken - requested_at
        if num_consumed > counts.delayed_last and not is_held:
            counts.misses.note(
                "late chunk", parts.queue.num_taken, num_consumed - counts.delayed_last
            )
        parts.delay.note(remember_ms, made.took_ms)
        if is_held or num_consumed >= len(chunk):
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

    def ask_again(self, task: Act) -> None:
        """Ask once more for a chunk that was not to be used, if memory is where it was."""
        if not task.attempt and task.frame == self._frame and self._pending is None:
            self.ask(attempt=1)

    def _settle(self, task: Act) -> None:
        """Hear what became of a chunk; a newer one may be under way already."""
        if self._pending is task:
            self._pending = None
