"""Environment steps of an episode that keeps time: which have begun, and what each executed."""

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.live.live_counts import LiveCounts
from memorywam_robot.live.live_parts import Parts

__all__ = ["LiveSteps"]


class LiveSteps:
    """Takes an action of the queue for every step that begins.

    Time goes on whether or not anybody ticks, and memory goes by it: who is late must not play what
    is past.
    """

    def __init__(self, parts: Parts, counts: LiveCounts, num_steps: int) -> None:
        """Stand before the first step of an episode."""
        self._parts, self._counts, self._num_steps = parts, counts, num_steps
        self.step_ns = round(1e9 / parts.contract.observations.control_hz)
        self.executed: list[NDArray[np.float64]] = []
        """What was sent as each step [action_dim], within all limits."""
        self._sent = np.zeros(parts.contract.actions.action_dim)
        self._state = np.zeros(parts.contract.actions.state_dim)
        """As the step under way began, if it is known."""
        self._is_measured = False
        self._gate_ns = self._num_before = self._num_bridged_in_row = 0
        self._is_chosen = False

    def begin(self) -> None:
        """Empty the queue, the arms where they are sent; count from 0."""
        self._parts.body.sent(self._sent)
        self._parts.queue.reset(self._sent)
        self._num_before, self._num_bridged_in_row = len(self.executed), 0
        self._counts.misses.begin(self._num_before)

    def open(self, gate_ns: int) -> None:
        """Let the first step begin now."""
        self._gate_ns = gate_ns

    def share(self, now_ns: int, tick_ns: int) -> float:
        """Return how much of the step under way is over at the end of this tick; 1 at most."""
        return min(1.0, ((now_ns - self._gate_ns) % self.step_ns + tick_ns) / self.step_ns)

    def forgive(self) -> None:
        """Count steps without a new action afresh: a hold is over."""
        self._num_bridged_in_row = 0

    def take(self, now_ns: int, *, is_standing: bool) -> str | None:
        """Take the action of the step that has begun; those that are over are skipped.

        Args:
            now_ns: Monotonic.
            is_standing: The arms are held: the last action stays in force.

        Returns:
            None to go on, "" after the last step, else why the episode must end.
        """
        queue, misses = self._parts.queue, self._counts.misses
        misses.since_ns = now_ns - self._gate_ns
        due = (now_ns - self._gate_ns) // self.step_ns + 1
        if (num_skipped := due - queue.num_taken - 1) > 0:
            self._counts.skipped += num_skipped
            misses.note("skipped", queue.num_taken, num_skipped)
        while queue.num_taken < due:
            if queue.num_taken:
                self._note()
            if queue.num_taken >= self._num_steps:
                return ""
            num_bridged = queue.num_bridged
            if is_standing:
                queue.stand()
            else:
                queue.take()
            self._is_chosen = queue.num_bridged == num_bridged
            self._counts.bridged = queue.num_bridged
            self._num_bridged_in_row += 1
            if queue.num_bridged == num_bridged:
                self._num_bridged_in_row = 0
            elif not is_standing:
                misses.bridge(queue.num_taken - 1)
            if not is_standing and (reason := self._starved()):
                return reason
            # Of a step that is over already, nobody knows where the joints were.
            self._is_measured = queue.num_taken == due
            if self._is_measured:
                self._parts.body.state(self._state)
        return None

    def since_frame(self, frame: int) -> NDArray[np.float64]:
        """Return the actions [horizon, action_dim] executed since the frame before this one."""
        horizon = self._parts.contract.actions.horizon
        first = self._num_before + (frame - 1) * horizon
        rows = self.executed[first : first + horizon]
        rows += [rows[-1] if rows else self._sent.copy()] * (horizon - len(rows))
        return np.array(rows)

    def _starved(self) -> str:
        """Return why it must end if the last action has been in force for too long."""
        rules, step_ms = self._parts.rules, self.step_ns / 1e6
        starved_ms = self._num_bridged_in_row * step_ms
        allowed_ms = (self._parts.load.num_bridged + 1) * step_ms + rules.starved_ms
        if not self._parts.queue.has_begun:
            allowed_ms = max(allowed_ms, rules.first_chunk_s * 1e3)
        return f"starved: no chunk for {starved_ms:.0f} ms" if starved_ms > allowed_ms else ""

    def _note(self) -> None:
        """Keep what was executed as the step that is over: what was sent, not what was asked."""
        self._parts.body.sent(self._sent)
        action = self._sent.copy()
        self.executed.append(action)
        if (shadow := self._counts.shadow) is not None:
            step, chosen = len(self.executed), self._parts.queue.last
            shadow.note(step, chosen, action, is_chosen=self._is_chosen)
        number = self._num_before + self._parts.queue.num_taken
        for listener in self._parts.listeners:
            listener.on_step(number, action, self._state if self._is_measured else None)
